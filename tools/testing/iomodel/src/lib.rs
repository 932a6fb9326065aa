// SPDX-License-Identifier: GPL-2.0

//! What this and other test programs share: stamps, the model of a device, and direct I/O.

pub mod device;
pub mod exercise;
pub mod ledger;
pub mod model;
pub mod range_lock;
pub mod stamp;
