// SPDX-License-Identifier: GPL-2.0

//! A scope in which no allocation of this thread starts I/O.
//!
//! An allocation in the I/O path that waits for memory to be written out may wait for the very
//! target it is made in. The kernel has no Rust `GFP_NOIO`; a scope is what its memory people
//! recommend anyway, since it also covers the allocations of what is called.
//!
//! ```ignore
//! let _noio = NoIo::enter();
//! let buffer = KVec::from_elem(0u8, 4096, GFP_KERNEL)?;  // as with GFP_NOIO
//! ```

use crate::bindings::helpers;
use core::marker::PhantomData;
use kernel::ffi::c_uint;

/// While this guard lives, allocations of this thread behave as with `GFP_NOIO`.
///
/// Guards nest; dropping them out of order does no harm but to end the scope early or late. Not
/// [`Send`]: the scope belongs to the thread.
#[must_use = "the scope ends when the guard is dropped"]
pub struct NoIo {
    outer: c_uint,
    _not_send: PhantomData<*mut ()>,
}

impl NoIo {
    /// Begins the scope. Any context but interrupts.
    pub fn enter() -> Self {
        NoIo {
            // SAFETY: Sets a flag of the current task.
            outer: unsafe { helpers::memalloc_noio_save() },
            _not_send: PhantomData,
        }
    }
}

impl Drop for NoIo {
    fn drop(&mut self) {
        // SAFETY: Restores what `enter` found, on the same task, since `NoIo` is not `Send`.
        unsafe { helpers::memalloc_noio_restore(self.outer) }
    }
}
