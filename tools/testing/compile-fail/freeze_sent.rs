// SPDX-License-Identifier: GPL-2.0

//! A frozen device is thawed by the call that froze it.
//!
//! error[E0277]: cannot be sent between threads safely

include!("common/frame.rs");

fn send(queue: &kernel::workqueue::Queue, frozen: dm::freeze::Frozen<'static>) {
    let _ = queue.try_spawn(GFP_KERNEL, move || drop(frozen));
}
