// SPDX-License-Identifier: GPL-2.0

//! The checksum of on-disk formats: CRC-32C, with the CPU's help where it has some.
//!
//! ```ignore
//! if crc32c(&block[4..]) != stored {
//!     return Err(eilseq());
//! }
//! ```

use crate::bindings;

/// The CRC-32C of some bytes: initialised to all ones, inverted at the end. Any context.
pub fn crc32c(bytes: &[u8]) -> u32 {
    // SAFETY: The bytes are valid, and only read.
    !unsafe { bindings::helpers::crc32c(u32::MAX, bytes.as_ptr().cast(), bytes.len()) }
}
