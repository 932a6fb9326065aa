// SPDX-License-Identifier: GPL-2.0

//! Something that comes true once and stays so, and that every bio's way asks for.
//!
//! ```ignore
//! if self.complete.is_set() {
//!     return bio.remap(&self.dest, sector);
//! }
//! ```

use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};

/// A flag that is never taken back. Nothing else is ordered by it.
pub struct OnceFlag(Atomic<u32>);

impl OnceFlag {
    /// A flag that is not set.
    pub const fn new() -> Self {
        OnceFlag(Atomic::new(0))
    }

    /// Sets it. Any context.
    pub fn set(&self) {
        self.0.store(1, Relaxed);
    }

    /// Whether it is set. Any context.
    #[inline]
    pub fn is_set(&self) -> bool {
        // SAFETY: The pointer is to a live, aligned word. A volatile load of one is atomic; the
        // kernel crate's own is a call.
        unsafe { self.0.as_ptr().read_volatile() != 0 }
    }
}

impl Default for OnceFlag {
    fn default() -> Self {
        Self::new()
    }
}
