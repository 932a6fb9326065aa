// SPDX-License-Identifier: GPL-2.0

//! Random bytes, for identities.
//!
//! ```ignore
//! let mut uuid = [0; 16];
//! random::fill(&mut uuid);
//! ```

use crate::bindings;

/// Fills memory with random bytes. Any context.
pub fn fill(bytes: &mut [u8]) {
    // SAFETY: The bytes are ours to write.
    unsafe { bindings::helpers::get_random_bytes(bytes.as_mut_ptr().cast(), bytes.len()) }
}
