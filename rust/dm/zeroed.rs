// SPDX-License-Identifier: GPL-2.0

//! Large arrays of zeroes, which the allocator makes faster than whoever would store each.
//!
//! ```ignore
//! let counts: KVVec<u32> = zeroed(1 << 20)?;
//! ```

use kernel::{
    alloc::{
        flags::__GFP_ZERO,
        AllocError,
        KVVec, //
    },
    prelude::*, //
};
use pin_init::Zeroable;

/// `len` elements of zeroes, virtually contiguous. May sleep.
pub fn zeroed<T: Zeroable>(len: usize) -> Result<KVVec<T>, AllocError> {
    let mut elements = KVVec::with_capacity(len, GFP_KERNEL | __GFP_ZERO)?;
    // SAFETY: There is room for `len` elements, the vector is empty, and zeroes are elements.
    unsafe { elements.inc_len(len) };
    Ok(elements)
}
