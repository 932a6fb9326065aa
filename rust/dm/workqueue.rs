// SPDX-License-Identifier: GPL-2.0

//! A workqueue of a target's own.
//!
//! Work of a target never goes to the system's queues: it does I/O that memory reclaim may wait
//! for, so it needs a rescuer thread, and teardown has to wait for it. The items themselves are
//! the kernel crate's [`Work`] and
//! [`DelayedWork`](kernel::workqueue::DelayedWork), held by [`Shared`] or [`Arc`] handles.
//!
//! The end of a queue waits for what is queued, but not for a timer that will queue something. So
//! an item that is to run later does so on the queue of the value that it is part of, which its
//! handle keeps: see [`HasQueue`].
//!
//! ```ignore
//! let queue = OwnedQueue::new(c"dm-clone")?;
//! let _ = queue.enqueue::<_, COMMIT>(engine.share());  // Err: it is queued already
//! let _ = OwnedQueue::enqueue_delayed::<_, COMMIT_TIMER>(engine.share(), delay);
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
        Queue,
        RawDelayedWorkItem,
        RawWorkItem,
        Work,
        WorkItem, //
    }, //
};

/// What has a queue, on which its delayed items run.
pub trait HasQueue {
    /// The queue. Any context.
    fn queue(&self) -> &OwnedQueue;
}

/// A counted pointer to a value with a delayed item, which keeps a count while it waits.
///
/// # Safety
///
/// `delayed_work` returns a field of the value. `keep` and `put` change the count by one, which
/// an item that [`RawWorkItem`] has queued holds until it runs.
pub unsafe trait Handle<const ID: u64>:
    RawDelayedWorkItem<ID> + Deref<Target: HasQueue> + Send + 'static
{
    /// The item.
    #[doc(hidden)]
    fn delayed_work(&self) -> *mut bindings::delayed_work;

    /// Adds a count.
    #[doc(hidden)]
    fn keep(&self);

    /// Drops a count.
    ///
    /// # Safety
    ///
    /// It must be the caller's: one that `keep` has added, or that an item held which was queued and
    /// will not run.
    #[doc(hidden)]
    unsafe fn put(&self);
}

/// # Safety
///
/// `value` must be live.
unsafe fn delayed_work<T, const ID: u64>(value: *mut T) -> *mut bindings::delayed_work
where
    T: HasDelayedWork<T, ID>,
{
    // SAFETY: The caller's promise.
    let work = unsafe { T::raw_get_work(value) };
    // SAFETY: `raw_get_work` returns a pointer to a field of a live value.
    let work = unsafe { Work::raw_get(work) };
    // SAFETY: `HasDelayedWork` promises that the item is the field of a `delayed_work`.
    unsafe { kernel::container_of!(work, bindings::delayed_work, work) }
}

// SAFETY: The item is one of the value, and holds a count of `Shared::into_raw`.
unsafe impl<T, const ID: u64> Handle<ID> for Shared<T>
where
    T: WorkItem<ID, Pointer = Shared<T>> + HasDelayedWork<T, ID> + HasQueue + 'static,
    Shared<T>: Send,
{
    fn delayed_work(&self) -> *mut bindings::delayed_work {
        // SAFETY: The handle keeps the value alive.
        unsafe { delayed_work::<T, ID>(self.as_ptr()) }
    }

    fn keep(&self) {
        let _ = self.clone().into_raw();
    }

    unsafe fn put(&self) {
        // SAFETY: The caller's promise.
        unsafe { self.put_cancelled() }
    }
}

// SAFETY: The item is one of the value, and holds a count of `Arc::into_raw`.
unsafe impl<T, const ID: u64> Handle<ID> for Arc<T>
where
    T: WorkItem<ID, Pointer = Arc<T>> + HasDelayedWork<T, ID> + HasQueue + 'static,
    Arc<T>: Send,
{
    fn delayed_work(&self) -> *mut bindings::delayed_work {
        // SAFETY: The reference keeps the value alive.
        unsafe { delayed_work::<T, ID>(Arc::as_ptr(self).cast_mut()) }
    }

    fn keep(&self) {
        let _ = Arc::into_raw(self.clone());
    }

    unsafe fn put(&self) {
        // SAFETY: The caller's promise.
        drop(unsafe { Arc::from_raw(Arc::as_ptr(self)) });
    }
}

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

    fn as_queue(&self) -> &Queue {
        // SAFETY: By the type invariants, the queue lives as long as `self`.
        unsafe { Queue::from_raw(self.0.as_ptr()) }
    }

    /// Waits until everything that was queued before the call has run. Sleeps; not from an item of
    /// this queue.
    pub fn flush(&self) {
        // SAFETY: By the type invariants, the queue is live.
        unsafe { bindings::__flush_workqueue(self.0.as_ptr()) }
    }

    /// Has an item run; gives the handle back if it is queued already. Any context.
    pub fn enqueue<W, const ID: u64>(&self, item: W) -> W::EnqueueOutput
    where
        W: RawWorkItem<ID> + Send + 'static,
    {
        self.as_queue().enqueue::<W, ID>(item)
    }

    /// Has an item run after `delay` on the queue of its value; gives the handle back if it waits
    /// for its time already, or is queued. Any context.
    pub fn enqueue_delayed<W, const ID: u64>(item: W, delay: Jiffies) -> W::EnqueueOutput
    where
        W: Handle<ID>,
    {
        let queue: *const Queue = item.queue().as_queue();
        // SAFETY: The queue lives as long as the value, hence as long as this call and as the item
        // waits, which keeps a count.
        unsafe { &*queue }.enqueue_delayed::<W, ID>(item, delay)
    }

    /// Has a delayed item run after `delay` from now, whether or not it waits for another time
    /// already; not while it is being [cancelled](Self::cancel_delayed). Any context.
    pub fn reschedule<W, const ID: u64>(item: &W, delay: Jiffies)
    where
        W: Handle<ID>,
    {
        let delayed = item.delayed_work();
        let queue = item.queue().0.as_ptr();
        let cpu = bindings::wq_misc_consts_WORK_CPU_UNBOUND as kernel::ffi::c_int;
        item.keep();
        // Not in one call, which does not tell whether the item was queued, or is being cancelled.
        // SAFETY: The delayed work is live and initialised.
        if unsafe { bindings::cancel_delayed_work(delayed) } {
            // SAFETY: The item was pending and will not run, so its count is ours.
            unsafe { item.put() };
        }
        // SAFETY: Queue and item are live and initialised; the item runs with the count of above,
        // which keeps the value, and with it the queue.
        if !unsafe { bindings::queue_delayed_work_on(cpu, queue, delayed, delay) } {
            // SAFETY: The item was not queued, so the count is ours still.
            unsafe { item.put() };
        }
    }

    /// Takes a delayed item back that waits for its time, and waits for it to end if it runs.
    /// Sleeps; not from that item itself.
    pub fn cancel_delayed<W, const ID: u64>(item: &W)
    where
        W: Handle<ID>,
    {
        // SAFETY: The delayed work is live and initialised.
        if unsafe { bindings::cancel_delayed_work_sync(item.delayed_work()) } {
            // SAFETY: The item was pending and will not run, so its count is ours.
            unsafe { item.put() };
        }
    }
}

impl Drop for OwnedQueue {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, the queue is ours; this drains it and frees it.
        unsafe { bindings::destroy_workqueue(self.0.as_ptr()) }
    }
}
