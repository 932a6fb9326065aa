// SPDX-License-Identifier: GPL-2.0

//! A scope without I/O is its thread's.
//!
//! error[E0277]: cannot be sent between threads safely

include!("common/frame.rs");

fn send(queue: &kernel::workqueue::Queue, scope: dm::noio::NoIo) {
    let _ = queue.try_spawn(GFP_KERNEL, move || drop(scope));
}
