// SPDX-License-Identifier: GPL-2.0

//! Handles are on many threads, hence what they keep alive is shareable.
//!
//! error[E0277]: cannot be shared between threads safely

include!("common/frame.rs");

fn send(queue: &kernel::workqueue::Queue, shared: Shared<core::cell::Cell<u64>>) {
    let _ = queue.try_spawn(GFP_KERNEL, move || drop(shared));
}
