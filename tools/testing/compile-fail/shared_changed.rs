// SPDX-License-Identifier: GPL-2.0

//! Handles share what they keep alive: none may change it alone.
//!
//! error[E0594]: cannot assign to data in dereference of `dm::shared::Shared<u64>`

include!("common/frame.rs");

fn change(mut shared: Shared<u64>) {
    *shared = 1;
}
