// SPDX-License-Identifier: GPL-2.0

//! State that background work shares with its target: one owner, many handles.
//!
//! Work items, copies and timers outlive the call that started them, so they need a counted
//! reference to what they use. With an ordinary [`Arc`](kernel::sync::Arc) whoever drops the last
//! reference runs the destructor, and that may be the very worker whose queue the destructor waits
//! for. Here the roles are types: an [`Owner`] holds the value, a [`Shared`] keeps it alive, and
//! dropping the owner *waits* for the last handle. The value's destructor therefore always runs
//! where the owner is dropped, in a target in `dtr`, never in a worker nor in interrupt context.
//!
//! A handle that is leaked with [`core::mem::forget`] makes the owner wait for ever, which is the
//! lesser harm.
//!
//! ```ignore
//! let engine = Owner::pin_init(Engine::new())?;
//! queue.enqueue::<_, SWEEP>(engine.share());  // the work item holds a handle
//! drop(engine);                               // waits until the item has run
//! ```

use core::{
    mem::ManuallyDrop,
    ops::Deref,
    ptr::NonNull, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full,
            Relaxed, //
        },
        Completion, //
    },
    workqueue::{
        HasDelayedWork,
        HasWork,
        RawDelayedWorkItem,
        RawWorkItem,
        Work,
        WorkItem,
        WorkItemPointer, //
    }, //
};

#[pin_data]
struct Inner<T> {
    /// The owner, while it exists, and every handle.
    refs: Atomic<i64>,
    /// Completed by the last handle once the owner waits.
    #[pin]
    done: Completion,
    #[pin]
    value: T,
}

/// The one owner of a value that handles keep alive; dropping it waits for them.
///
/// # Invariants
///
/// `inner` points at a live, pinned allocation made by [`KBox`], of which `refs` counts this owner
/// and every [`Shared`].
pub struct Owner<T> {
    inner: NonNull<Inner<T>>,
}

// SAFETY: An owner gives out `&T` and handles, and drops `T`, on whichever thread has it.
unsafe impl<T: Send + Sync> Send for Owner<T> {}
// SAFETY: As above; a shared owner gives out `&T` and handles only.
unsafe impl<T: Send + Sync> Sync for Owner<T> {}

impl<T> Owner<T> {
    /// Allocates and initialises the value in place. May sleep.
    pub fn pin_init<E>(init: impl PinInit<T, E>) -> Result<Self>
    where
        Error: From<E>,
    {
        let init = try_pin_init!(Inner {
            refs: Atomic::new(1),
            done <- Completion::new(),
            value <- init,
        }? Error);
        let inner = KBox::try_pin_init(init, GFP_KERNEL)?;
        // SAFETY: The value stays where it is until `drop` makes it a pinned box again.
        let inner = KBox::into_raw(unsafe { Pin::into_inner_unchecked(inner) });
        // INVARIANT: The pointer comes from a `KBox`, and `refs` is 1 for this owner.
        Ok(Owner {
            // SAFETY: A box is never null.
            inner: unsafe { NonNull::new_unchecked(inner) },
        })
    }

    /// A new handle to the value.
    pub fn share(&self) -> Shared<T> {
        // SAFETY: By the type invariants, the allocation is live.
        let inner = unsafe { self.inner.as_ref() };
        inner.refs.fetch_add(1, Relaxed);
        // INVARIANT: The count above is this handle's.
        Shared { inner: self.inner }
    }
}

impl<T> Deref for Owner<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: By the type invariants, the allocation is live.
        &unsafe { self.inner.as_ref() }.value
    }
}

impl<T> Drop for Owner<T> {
    /// Waits until every handle is gone, then drops the value. Sleeps.
    fn drop(&mut self) {
        {
            // SAFETY: By the type invariants, the allocation is live.
            let inner = unsafe { self.inner.as_ref() };
            if inner.refs.fetch_sub(1, Full) != 1 {
                inner.done.wait_for_completion();
            }
        }
        // SAFETY: The pointer came from `KBox::into_raw` of a pinned box. No handle is left, and
        // none can be made, since that takes a handle or this owner.
        drop(unsafe { Pin::new_unchecked(KBox::from_raw(self.inner.as_ptr())) });
    }
}

/// A handle that keeps the value of an [`Owner`] alive. Dropping it never runs the destructor of
/// the value, and is legal in any context.
///
/// # Invariants
///
/// `inner` points at a live allocation whose `refs` counts this handle.
pub struct Shared<T> {
    inner: NonNull<Inner<T>>,
}

// SAFETY: A handle gives out `&T` only; it never drops `T`.
unsafe impl<T: Sync> Send for Shared<T> {}
// SAFETY: As above.
unsafe impl<T: Sync> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// Gives the handle's count to a raw pointer to the value.
    pub(crate) fn into_raw(self) -> *mut T {
        let this = ManuallyDrop::new(self);
        // SAFETY: By the type invariants, the allocation is live.
        unsafe { &raw mut (*this.inner.as_ptr()).value }
    }

    /// Takes back what [`into_raw`](Self::into_raw) gave.
    ///
    /// # Safety
    ///
    /// `value` must come from `into_raw`, whose count passes to the returned handle.
    unsafe fn from_raw(value: *mut T) -> Self {
        // SAFETY: The pointer is to the field of an `Inner<T>`, by the function's contract.
        let inner = unsafe { kernel::container_of!(value, Inner<T>, value) };
        // INVARIANT: The count that `into_raw` kept is this handle's.
        Shared {
            // SAFETY: A field's container is not null.
            inner: unsafe { NonNull::new_unchecked(inner) },
        }
    }

    /// The value's address, for the calls that find a work item in it.
    pub(crate) fn as_ptr(&self) -> *mut T {
        // SAFETY: By the type invariants, the allocation is live.
        unsafe { &raw mut (*self.inner.as_ptr()).value }
    }

    /// Drops one count that a cancelled work item held.
    ///
    /// # Safety
    ///
    /// The caller must have taken over a count that [`into_raw`](Self::into_raw) kept.
    pub(crate) unsafe fn put_cancelled(&self) {
        // SAFETY: The count is the caller's to drop, by the function's contract.
        drop(unsafe { Self::from_raw(self.as_ptr()) });
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        // SAFETY: By the type invariants, the allocation is live.
        let inner = unsafe { self.inner.as_ref() };
        inner.refs.fetch_add(1, Relaxed);
        // INVARIANT: The count above is the clone's.
        Shared { inner: self.inner }
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: By the type invariants, the allocation is live.
        &unsafe { self.inner.as_ref() }.value
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, the allocation is live until the count is given back.
        let inner = unsafe { self.inner.as_ref() };
        if inner.refs.fetch_sub(1, Full) == 1 {
            // The owner has given its count back and waits, so the allocation lives until it
            // wakes; waking takes the completion's lock, hence happens after this call's last
            // access.
            inner.done.complete_all();
        }
    }
}

// SAFETY: `__enqueue` passes the work item inside the value that the handle keeps alive; the count
// is kept when the queue takes the item, and given back by `run` or by `put_cancelled`.
unsafe impl<T, const ID: u64> RawWorkItem<ID> for Shared<T>
where
    T: WorkItem<ID, Pointer = Self> + HasWork<T, ID>,
{
    type EnqueueOutput = Result<(), Self>;

    unsafe fn __enqueue<F>(self, queue_work_on: F) -> Self::EnqueueOutput
    where
        F: FnOnce(*mut kernel::bindings::work_struct) -> bool,
    {
        let value = Shared::into_raw(self);
        // SAFETY: The count that `into_raw` kept makes the pointer valid.
        let work = unsafe { T::raw_get_work(value) };
        // SAFETY: `raw_get_work` returns a pointer to a field of a live value.
        let work = unsafe { Work::raw_get(work) };

        if queue_work_on(work) {
            Ok(())
        } else {
            // SAFETY: The queue did not take the item, so the count is ours again.
            Err(unsafe { Shared::from_raw(value) })
        }
    }
}

// SAFETY: `HasDelayedWork` promises that the work item is the one of a `delayed_work`.
unsafe impl<T, const ID: u64> RawDelayedWorkItem<ID> for Shared<T> where
    T: WorkItem<ID, Pointer = Self> + HasDelayedWork<T, ID>
{
}

// SAFETY: `__enqueue` uses the `Work<T, ID>` of the value, which was initialised with this `run`.
unsafe impl<T, const ID: u64> WorkItemPointer<ID> for Shared<T>
where
    T: WorkItem<ID, Pointer = Self> + HasWork<T, ID>,
{
    unsafe extern "C" fn run(ptr: *mut kernel::bindings::work_struct) {
        let work = ptr.cast::<Work<T, ID>>();
        // SAFETY: `__enqueue` passed the work item of a value, by the function's contract.
        let value = unsafe { T::work_container_of(work) };
        // SAFETY: `__enqueue` kept the count for us.
        T::run(unsafe { Shared::from_raw(value) });
    }
}
