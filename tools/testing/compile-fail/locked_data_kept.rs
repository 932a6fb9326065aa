// SPDX-License-Identifier: GPL-2.0

//! What a lock protects is only to be had while it is locked.
//!
//! error[E0515]: cannot return value referencing temporary value

include!("common/frame.rs");

fn escape(lock: &IrqLock<u64>) -> &u64 {
    &*lock.lock()
}
