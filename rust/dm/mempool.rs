// SPDX-License-Identifier: GPL-2.0

//! Objects that can be allocated when no memory is left.
//!
//! What a target needs to make progress with an I/O must not depend on memory that only this
//! progress would free. A [`Pool`] holds a reserve of objects of one type; [`Pool::alloc`] falls
//! back to it, and if it is used up waits until an object comes back, so it never fails.
//!
//! ```ignore
//! let pool = Pool::<Hydration>::new(256)?;
//! let job = pool.alloc(Hydration::new(region)); // sleeps, never fails
//! drop(job);                                    // gives the memory back, in any context
//! ```

use crate::bindings::{
    self,
    helpers, //
};
use core::{
    ffi::c_void,
    marker::PhantomData,
    mem::{
        align_of,
        size_of,
        ManuallyDrop, //
    },
    ops::{
        Deref,
        DerefMut, //
    },
    ptr::NonNull, //
};
use kernel::{
    ffi::c_int,
    prelude::*,
    sync::Arc, //
};

/// The memory behind a pool.
///
/// # Invariants
///
/// The pointer is to a live mempool of `kmalloc` memory that this value owns.
struct Reserve(NonNull<bindings::mempool_t>);

// SAFETY: A mempool has its own lock, and may be destroyed on any thread.
unsafe impl Send for Reserve {}
// SAFETY: As above.
unsafe impl Sync for Reserve {}

impl Drop for Reserve {
    /// Legal in any context, since freeing `kmalloc` memory is.
    fn drop(&mut self) {
        // SAFETY: By the type invariants, the pool is ours. Every object that is out holds a
        // reference to this value, so none is.
        unsafe { bindings::mempool_destroy(self.0.as_ptr()) }
    }
}

/// What is allocated for each object: the object and its way back.
struct Slot<T> {
    reserve: Arc<Reserve>,
    value: T,
}

/// A pool of objects of one type with a reserve; a cheap handle, see the [module](self).
///
/// The memory lives until the last handle and the last [`PoolBox`] are gone, so their order does
/// not matter.
///
/// # Invariants
///
/// The elements of `reserve` have the size of a `Slot<T>` and are aligned for it.
pub struct Pool<T> {
    reserve: Arc<Reserve>,
    _objects: PhantomData<fn(T)>,
}

impl<T> Clone for Pool<T> {
    fn clone(&self) -> Self {
        // INVARIANT: The same reserve, for the same type.
        Pool {
            reserve: self.reserve.clone(),
            _objects: PhantomData,
        }
    }
}

impl<T> Pool<T> {
    /// Makes a pool with a reserve of `min` objects, but one at least.
    ///
    /// Sleeps. Fails with `ENOMEM`, and with `EINVAL` for a reserve beyond what C can count.
    pub fn new(min: usize) -> Result<Self> {
        // What `kmalloc` grants on every architecture.
        const { assert!(align_of::<Slot<T>>() <= 8) };

        let min = c_int::try_from(min.max(1)).map_err(|_| EINVAL)?;
        // SAFETY: A call without pointers.
        let raw = unsafe { helpers::mempool_create_kmalloc(min, size_of::<Slot<T>>()) };
        // INVARIANT: A new pool is ours alone.
        let reserve = Reserve(NonNull::new(raw).ok_or(ENOMEM)?);
        // INVARIANT: The size was just given, and the alignment is asserted above.
        Ok(Pool {
            reserve: Arc::new(reserve, GFP_KERNEL)?,
            _objects: PhantomData,
        })
    }

    /// Moves `value` into the pool's memory, waiting for some if there is none.
    ///
    /// Sleeps, without starting I/O (`GFP_NOIO`). What it waits for is the drop of another
    /// [`PoolBox`], so it must not be called
    /// - inside `map`: the I/O that would free an object may be queued behind the bio that `map`
    ///   is called for, and is not submitted before `map` returns;
    /// - by a thread that holds as many objects as the reserve has, or on which their way back
    ///   depends.
    pub fn alloc(&self, value: T) -> PoolBox<T> {
        // SAFETY: By the type invariants of `Reserve`, the pool is live.
        let slot = unsafe { helpers::mempool_alloc(self.reserve.0.as_ptr(), bindings::GFP_NOIO) };
        // SAFETY: An allocation that may wait does not return without memory.
        let slot = unsafe { NonNull::new_unchecked(slot) };
        // SAFETY: The memory comes from this pool, and is new.
        unsafe { self.fill(slot, value) }
    }

    /// Moves `value` into the pool's memory, or gives it back if there is none at the moment.
    ///
    /// Does not sleep; legal in any context.
    pub fn try_alloc(&self, value: T) -> Result<PoolBox<T>, T> {
        // SAFETY: By the type invariants of `Reserve`, the pool is live.
        let slot = unsafe { helpers::mempool_alloc(self.reserve.0.as_ptr(), bindings::GFP_NOWAIT) };
        match NonNull::new(slot) {
            // SAFETY: The memory comes from this pool, and is new.
            Some(slot) => Ok(unsafe { self.fill(slot, value) }),
            None => Err(value),
        }
    }

    /// Makes a box of new memory.
    ///
    /// # Safety
    ///
    /// `memory` must be an element of this pool's reserve that nothing else refers to.
    unsafe fn fill(&self, memory: NonNull<c_void>, value: T) -> PoolBox<T> {
        let slot = memory.cast::<Slot<T>>();
        let content = Slot {
            reserve: self.reserve.clone(),
            value,
        };
        // SAFETY: By the type invariants, the memory has the size and alignment of a slot; by the
        // function's contract, it is ours.
        unsafe { slot.write(content) };
        // INVARIANT: The slot was just initialised, with the reserve that it comes from.
        PoolBox {
            slot,
            _owns: PhantomData,
        }
    }
}

/// An object in the memory of a [`Pool`], owned like one in a box.
///
/// Dropping it is legal wherever dropping a `T` is, interrupts included.
///
/// # Invariants
///
/// `slot` points at an initialised slot, an element of the reserve that it names, which this value
/// owns.
pub struct PoolBox<T> {
    slot: NonNull<Slot<T>>,
    _owns: PhantomData<T>,
}

// SAFETY: The box owns a `T`; its memory can be given back on any thread.
unsafe impl<T: Send> Send for PoolBox<T> {}
// SAFETY: A shared box gives `&T` only.
unsafe impl<T: Sync> Sync for PoolBox<T> {}

impl<T> PoolBox<T> {
    /// Takes the object out and gives the memory back. Legal in any context.
    pub fn into_inner(this: Self) -> T {
        let this = ManuallyDrop::new(this);
        // SAFETY: By the type invariants, the slot is initialised and ours; it is not used as
        // such again.
        let Slot { reserve, value } = unsafe { this.slot.read() };
        // SAFETY: The memory is an element of this reserve, and its content was moved out.
        unsafe { bindings::mempool_free(this.slot.as_ptr().cast(), reserve.0.as_ptr()) };
        value
    }

    /// Gives the box to a C pointer, to be made a box again by [`from_raw`](Self::from_raw).
    pub(crate) fn into_raw(this: Self) -> *mut c_void {
        ManuallyDrop::new(this).slot.as_ptr().cast()
    }

    /// Takes the box back from a C pointer.
    ///
    /// # Safety
    ///
    /// `raw` must come from [`into_raw`](Self::into_raw) of a box of the same type, and be used
    /// for this once.
    pub(crate) unsafe fn from_raw(raw: *mut c_void) -> Self {
        // INVARIANT: The caller promises that the pointer was a box, whose slot passes to this
        // one.
        PoolBox {
            // SAFETY: The pointer of a box is not null.
            slot: unsafe { NonNull::new_unchecked(raw.cast()) },
            _owns: PhantomData,
        }
    }
}

impl<T> Deref for PoolBox<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: By the type invariants, the slot is initialised and ours.
        &unsafe { self.slot.as_ref() }.value
    }
}

impl<T> DerefMut for PoolBox<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: By the type invariants, the slot is initialised and ours.
        &mut unsafe { self.slot.as_mut() }.value
    }
}

impl<T> Drop for PoolBox<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, the slot is initialised and ours; the value is not used
        // again.
        unsafe { core::ptr::drop_in_place(&raw mut (*self.slot.as_ptr()).value) };
        // SAFETY: As above; the reference is moved out once, here.
        let reserve = unsafe { (&raw const (*self.slot.as_ptr()).reserve).read() };
        // SAFETY: The memory is an element of this reserve, and its content is gone.
        unsafe { bindings::mempool_free(self.slot.as_ptr().cast(), reserve.0.as_ptr()) };
    }
}
