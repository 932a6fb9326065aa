// SPDX-License-Identifier: GPL-2.0

//! A spinlock for data that interrupt handlers use too.
//!
//! `end_io` and the completions of asynchronous I/O run in interrupt context. What they share with
//! the rest of a target is kept in an [`IrqLock`], which disables interrupts while it is held.
//! Nothing may sleep under it, and it nests in any order the file that uses it documents.
//!
//! ```ignore
//! #[pin_data]
//! struct Pending { #[pin] bios: IrqLock<BioList<OwnedBio<MyTarget>>> }
//! self.pending.bios.lock().push(bio);
//! ```

use crate::bindings::{
    self,
    helpers, //
};
use kernel::{
    ffi::{
        c_char,
        c_ulong, //
    },
    sync::lock::{
        Backend,
        Guard,
        Lock, //
    }, //
};

/// A spinlock that disables interrupts while it is held. Legal in any context.
pub type IrqLock<T> = Lock<T, IrqSave>;

/// The guard of an [`IrqLock`].
pub type IrqLockGuard<'a, T> = Guard<'a, T, IrqSave>;

/// The backend of [`IrqLock`]: `spin_lock_irqsave()` and `spin_unlock_irqrestore()`.
pub struct IrqSave;

// SAFETY: `spinlock_t` provides mutual exclusion; `relock` is the default, which locks the same
// way.
unsafe impl Backend for IrqSave {
    type State = bindings::spinlock_t;
    /// The interrupt state to restore.
    type GuardState = c_ulong;

    unsafe fn init(ptr: *mut Self::State, name: *const c_char, key: *mut bindings::lock_class_key) {
        // SAFETY: The caller promises that all three pointers are valid.
        unsafe { bindings::__spin_lock_init(ptr, name, key) }
    }

    #[inline]
    unsafe fn lock(ptr: *mut Self::State) -> Self::GuardState {
        // SAFETY: The caller promises that the lock is initialised.
        unsafe { helpers::spin_lock_irqsave(ptr) }
    }

    #[inline]
    unsafe fn try_lock(ptr: *mut Self::State) -> Option<Self::GuardState> {
        let mut flags = 0;
        // SAFETY: The caller promises that the lock is initialised; `flags` is a live local.
        let locked = unsafe { helpers::spin_trylock_irqsave(ptr, &mut flags) };
        locked.then_some(flags)
    }

    #[inline]
    unsafe fn unlock(ptr: *mut Self::State, flags: &Self::GuardState) {
        // SAFETY: The caller promises that it holds the lock; `flags` are from locking it.
        unsafe { helpers::spin_unlock_irqrestore(ptr, *flags) }
    }

    #[inline]
    unsafe fn assert_is_held(ptr: *mut Self::State) {
        // Each guard that is made asks, and without lockdep nobody answers.
        if cfg!(CONFIG_LOCKDEP) {
            // SAFETY: The caller promises that the lock is initialised.
            unsafe { helpers::spin_assert_is_held(ptr) }
        }
    }
}

/// Creates an [`IrqLock`] initialiser with a lock class of its own, named after where it stands.
#[macro_export]
macro_rules! new_irq_lock {
    ($inner:expr $(, $name:literal)? $(,)?) => {
        $crate::irq_lock::IrqLock::new(
            $inner, ::kernel::optional_name!($($name)?), ::kernel::static_lock_class!())
    };
}
pub use new_irq_lock;
