// SPDX-License-Identifier: GPL-2.0

//! Who has disabled interrupts enables them again: a locked lock stays on its thread.
//!
//! error[E0277]: cannot be sent between threads safely

include!("common/frame.rs");

use dm::irq_lock::IrqLockGuard;

fn send(queue: &kernel::workqueue::Queue, guard: IrqLockGuard<'static, u64>) {
    let _ = queue.try_spawn(GFP_KERNEL, move || drop(guard));
}
