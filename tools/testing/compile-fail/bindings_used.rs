// SPDX-License-Identifier: GPL-2.0

//! The C interface of device-mapper is the layer's alone.
//!
//! error[E0603]: module `bindings` is private

include!("common/frame.rs");

use dm::bindings;
