// SPDX-License-Identifier: GPL-2.0

//! A bio in `map` stays on its thread; only one that was taken may go to another.
//!
//! error[E0277]: cannot be sent between threads safely

include!("common/frame.rs");

fn send(queue: &kernel::workqueue::Queue, bio: MapBio<'static, Plain>) {
    let _ = queue.try_spawn(GFP_KERNEL, move || drop(bio));
}
