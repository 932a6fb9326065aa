// SPDX-License-Identifier: GPL-2.0

//! A sleeping lock that many may hold to read, or one to write.
//!
//! ```ignore
//! #[pin_data]
//! struct State { #[pin] metadata: RwSem<Metadata> }
//! let state = Owner::pin_init(try_pin_init!(State {
//!     metadata <- new_rwsem!(metadata, "State::metadata"),
//! }? Error))?;
//!
//! let dirty = state.metadata.read().nr_dirty();
//! let mut metadata = state.metadata.write();
//! metadata.commit()?;
//! let metadata = metadata.downgrade();   // readers may come in, writers not yet
//! ```

use crate::bindings;
use core::{
    cell::UnsafeCell,
    marker::PhantomPinned,
    mem::ManuallyDrop,
    ops::{
        Deref,
        DerefMut, //
    }, //
};
use kernel::{
    prelude::*,
    sync::LockClassKey,
    types::{
        NotThreadSafe,
        Opaque, //
    }, //
};

/// The kernel's `rw_semaphore` with the data that it guards, made by
/// [`new_rwsem!`](crate::new_rwsem).
///
/// Not for data that the I/O path needs in a context that must not sleep. A thread must not lock
/// it twice, to read neither: a writer that came between would wait for the first and the second
/// for the writer.
#[pin_data]
pub struct RwSem<T: ?Sized> {
    #[pin]
    raw: Opaque<bindings::rw_semaphore>,
    #[pin]
    _pin: PhantomPinned,
    data: UnsafeCell<T>,
}

// SAFETY: Whoever has the lock may move the data to its thread.
unsafe impl<T: ?Sized + Send> Send for RwSem<T> {}
// SAFETY: Readers share the data among threads, writers have it each on their own.
unsafe impl<T: ?Sized + Send + Sync> Sync for RwSem<T> {}

impl<T> RwSem<T> {
    /// An initialiser for a lock of class `key`; see [`new_rwsem!`](crate::new_rwsem).
    pub fn new(
        data: T,
        name: &'static CStr,
        key: Pin<&'static LockClassKey>,
    ) -> impl PinInit<Self> {
        pin_init!(Self {
            // SAFETY: `slot` is valid during the call, and the name and the key forever.
            raw <- Opaque::ffi_init(|slot| unsafe {
                bindings::__init_rwsem(slot, name.as_char_ptr(), key.as_ptr())
            }),
            _pin: PhantomPinned,
            data: UnsafeCell::new(data),
        })
    }
}

impl<T: ?Sized> RwSem<T> {
    /// Waits until nobody writes. Sleeps.
    pub fn read(&self) -> ReadGuard<'_, T> {
        // SAFETY: The lock is initialised.
        unsafe { bindings::down_read(self.raw.get()) };
        // INVARIANT: It was just locked to read.
        ReadGuard {
            lock: self,
            _not_send: NotThreadSafe,
        }
    }

    /// Locks to read if nobody writes or waits to. Does not sleep; not in interrupts, though.
    pub fn try_read(&self) -> Option<ReadGuard<'_, T>> {
        // SAFETY: The lock is initialised.
        if unsafe { bindings::down_read_trylock(self.raw.get()) } == 0 {
            return None;
        }
        // INVARIANT: It was just locked to read.
        Some(ReadGuard {
            lock: self,
            _not_send: NotThreadSafe,
        })
    }

    /// Waits until nobody reads or writes. Sleeps.
    pub fn write(&self) -> WriteGuard<'_, T> {
        // SAFETY: The lock is initialised.
        unsafe { bindings::down_write(self.raw.get()) };
        // INVARIANT: It was just locked to write.
        WriteGuard {
            lock: self,
            _not_send: NotThreadSafe,
        }
    }
}

/// Holds an [`RwSem`] to read, until it is dropped.
///
/// # Invariants
///
/// This thread has locked `lock` to read.
#[must_use = "the lock is released when the guard is dropped"]
pub struct ReadGuard<'a, T: ?Sized> {
    lock: &'a RwSem<T>,
    _not_send: NotThreadSafe,
}

// SAFETY: A shared guard gives `&T` only.
unsafe impl<T: ?Sized + Sync> Sync for ReadGuard<'_, T> {}

impl<T: ?Sized> Deref for ReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: By the type invariants, nobody writes.
        unsafe { &*self.lock.data.get() }
    }
}

impl<T: ?Sized> Drop for ReadGuard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, the lock is ours to release.
        unsafe { bindings::up_read(self.lock.raw.get()) }
    }
}

/// Holds an [`RwSem`] to write, until it is dropped.
///
/// # Invariants
///
/// This thread has locked `lock` to write.
#[must_use = "the lock is released when the guard is dropped"]
pub struct WriteGuard<'a, T: ?Sized> {
    lock: &'a RwSem<T>,
    _not_send: NotThreadSafe,
}

// SAFETY: A shared guard gives `&T` only.
unsafe impl<T: ?Sized + Sync> Sync for WriteGuard<'_, T> {}

impl<'a, T: ?Sized> WriteGuard<'a, T> {
    /// Goes on reading, without a moment in which another could write.
    pub fn downgrade(self) -> ReadGuard<'a, T> {
        let this = ManuallyDrop::new(self);
        // SAFETY: By the type invariants, we have it locked to write.
        unsafe { bindings::downgrade_write(this.lock.raw.get()) };
        // INVARIANT: It was just made a lock to read.
        ReadGuard {
            lock: this.lock,
            _not_send: NotThreadSafe,
        }
    }
}

impl<T: ?Sized> Deref for WriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: By the type invariants, nobody else has the data.
        unsafe { &*self.lock.data.get() }
    }
}

impl<T: ?Sized> DerefMut for WriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: By the type invariants, nobody else has the data.
        unsafe { &mut *self.lock.data.get() }
    }
}

impl<T: ?Sized> Drop for WriteGuard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, the lock is ours to release.
        unsafe { bindings::up_write(self.lock.raw.get()) }
    }
}

/// Creates an [`RwSem`](crate::rwsem::RwSem) initialiser with a lock class of its own, named as
/// given or after where it stands.
#[macro_export]
macro_rules! new_rwsem {
    ($data:expr $(, $name:literal)? $(,)?) => {
        $crate::rwsem::RwSem::new(
            $data, ::kernel::optional_name!($($name)?), ::kernel::static_lock_class!())
    };
}
pub use new_rwsem;
