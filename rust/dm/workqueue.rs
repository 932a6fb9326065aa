// SPDX-License-Identifier: GPL-2.0

//! A workqueue of a target's own.
//!
//! Work of a target never goes to the system's queues: it does I/O that memory reclaim may wait
//! for, so it needs a rescuer thread, and teardown has to wait for it. The items themselves are
//! the kernel crate's [`Work`] and
//! [`DelayedWork`](kernel::workqueue::DelayedWork), held by [`Shared`] handles.
//!
//! ```ignore
//! let queue = OwnedQueue::new(c"dm-clone")?;
//! let _ = queue.enqueue::<_, COMMIT>(engine.share());  // Err: it is queued already
//! ```

use crate::{
    bindings::{
        self,
        helpers, //
    },
    shared::Shared, //
};
use core::{
    ops::Deref,
    ptr::NonNull, //
};
use kernel::{
    prelude::*,
    sync::Arc,
    time::Jiffies,
    workqueue::{
        HasDelayedWork,
        HasWork,
        Queue,
        Work,
        WorkItem, //
    }, //
};

/// A workqueue with a rescuer (`WQ_MEM_RECLAIM`), unbound to CPUs or not as the system decides.
///
/// Dropping it waits for all that is queued, hence sleeps, and must not happen in one of its own
/// items; keep it in what an [`Owner`](crate::shared::Owner) owns and that cannot be.
///
/// # Invariants
///
/// The pointer is to a live workqueue that this value owns.
pub struct OwnedQueue(NonNull<bindings::workqueue_struct>);

// SAFETY: Workqueues are used from any thread.
unsafe impl Send for OwnedQueue {}
// SAFETY: As above.
unsafe impl Sync for OwnedQueue {}

impl OwnedQueue {
    /// Makes a queue whose rescuer thread is called `name`. May sleep.
    pub fn new(name: &CStr) -> Result<Self> {
        let flags = bindings::wq_flags_WQ_MEM_RECLAIM | bindings::wq_flags_WQ_UNBOUND;
        // SAFETY: The name is copied by the call.
        let queue = unsafe { helpers::alloc_workqueue(name.as_char_ptr(), flags, 0) };
        // INVARIANT: A new queue is ours alone.
        NonNull::new(queue).map(OwnedQueue).ok_or(ENOMEM)
    }

    /// Waits until everything that was queued before the call has run. Sleeps; not from an item of
    /// this queue.
    pub fn flush(&self) {
        // SAFETY: By the type invariants, the queue is live.
        unsafe { bindings::__flush_workqueue(self.0.as_ptr()) }
    }

    /// Has a delayed item run after `delay` from now, whether or not it waits for another time
    /// already; not while it is being [cancelled](Self::cancel_delayed). Any context.
    pub fn reschedule<T, const ID: u64>(&self, item: &Shared<T>, delay: Jiffies)
    where
        T: WorkItem<ID, Pointer = Shared<T>> + HasDelayedWork<T, ID> + 'static,
        Shared<T>: Send,
    {
        let value = item.clone().into_raw();
        // SAFETY: The count that `into_raw` keeps makes the pointer valid.
        let work = unsafe { <T as HasWork<T, ID>>::raw_get_work(value) };
        // SAFETY: `raw_get_work` returns a pointer to a field of a live value.
        let work = unsafe { Work::raw_get(work) };
        // SAFETY: `HasDelayedWork` promises that the item is the field of a `delayed_work`.
        let delayed = unsafe { kernel::container_of!(work, bindings::delayed_work, work) };
        let cpu = bindings::wq_misc_consts_WORK_CPU_UNBOUND as kernel::ffi::c_int;
        // Not in one call, which does not tell whether the item was queued, or is being cancelled.
        // SAFETY: The delayed work is live and initialised.
        if unsafe { bindings::cancel_delayed_work(delayed) } {
            // SAFETY: The item was pending and will not run, so its count is ours.
            unsafe { item.put_cancelled() };
        }
        // SAFETY: Queue and item are live and initialised; the item runs with the count of above.
        if !unsafe { bindings::queue_delayed_work_on(cpu, self.0.as_ptr(), delayed, delay) } {
            // SAFETY: The item was not queued, so the count is ours still.
            unsafe { item.put_cancelled() };
        }
    }

    /// Takes a delayed item back that waits for its time, and waits for it to end if it runs.
    /// Sleeps; not from that item itself.
    pub fn cancel_delayed<T, const ID: u64>(&self, item: &Shared<T>)
    where
        T: WorkItem<ID, Pointer = Shared<T>> + HasDelayedWork<T, ID>,
    {
        // SAFETY: The handle keeps the value alive.
        let work = unsafe { <T as HasWork<T, ID>>::raw_get_work(item.as_ptr()) };
        // SAFETY: `raw_get_work` returns a pointer to a field of a live value.
        let work = unsafe { Work::raw_get(work) };
        // SAFETY: `HasDelayedWork` promises that the item is the field of a `delayed_work`.
        let delayed = unsafe { kernel::container_of!(work, bindings::delayed_work, work) };
        // SAFETY: The delayed work is live and initialised.
        if unsafe { bindings::cancel_delayed_work_sync(delayed) } {
            // SAFETY: The item was pending and will not run, so its count is ours.
            unsafe { item.put_cancelled() };
        }
    }

    /// As [`cancel_delayed`](Self::cancel_delayed), of an item that an [`Arc`] holds.
    pub fn cancel_delayed_arc<T, const ID: u64>(&self, item: &Arc<T>)
    where
        T: WorkItem<ID, Pointer = Arc<T>> + HasDelayedWork<T, ID>,
    {
        let value = Arc::as_ptr(item);
        // SAFETY: The reference keeps the value alive.
        let work = unsafe { <T as HasWork<T, ID>>::raw_get_work(value.cast_mut()) };
        // SAFETY: `raw_get_work` returns a pointer to a field of a live value.
        let work = unsafe { Work::raw_get(work) };
        // SAFETY: `HasDelayedWork` promises that the item is the field of a `delayed_work`.
        let delayed = unsafe { kernel::container_of!(work, bindings::delayed_work, work) };
        // SAFETY: The delayed work is live and initialised.
        if unsafe { bindings::cancel_delayed_work_sync(delayed) } {
            // SAFETY: The item was pending and will not run, so the reference that it was queued
            // with is ours.
            drop(unsafe { Arc::from_raw(value) });
        }
    }
}

impl Deref for OwnedQueue {
    type Target = Queue;

    fn deref(&self) -> &Queue {
        // SAFETY: By the type invariants, the queue lives as long as `self`.
        unsafe { Queue::from_raw(self.0.as_ptr()) }
    }
}

impl Drop for OwnedQueue {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, the queue is ours; this drains it and frees it.
        unsafe { bindings::destroy_workqueue(self.0.as_ptr()) }
    }
}
