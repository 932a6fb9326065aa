// SPDX-License-Identifier: GPL-2.0

//! Memory that many threads copy to and from at the same time, without a lock.
//!
//! A buffer in which writes are gathered is filled by many threads at once, each at a place of its
//! own, is read while that goes on, and is written to a device when all are done. Who may use which
//! part when is the user's to arrange. When he gets it wrong the data is wrong, as with the pages
//! of a bio that its submitter changes; but nothing else is: Rust never has a reference into the
//! memory, and every access is a copy made by C.
//!
//! ```ignore
//! let memory = SharedMemory::zeroed(1 << 20)?;
//! memory.copy_from_bio(at, &bio, 0, bio.sectors())?;
//! let crc = memory.crc32c(at, len)?;
//! memory.copy_to_bio(at, &other, 0, other.sectors())?;
//! ```

use crate::{
    bindings::helpers,
    bio::{
        Bio,
        Op, //
    },
    block_device::SECTOR_SHIFT,
    zeroed::zeroed, //
};
use core::{
    cell::UnsafeCell,
    ffi::c_void, //
};
use kernel::{
    alloc::KVVec,
    prelude::*, //
};

/// Some bytes. Their memory is virtually contiguous, and aligned to 512 if there are so many.
///
/// # Invariants
///
/// No reference into the bytes exists; they are accessed through pointers, by C.
pub struct SharedMemory(KVVec<UnsafeCell<u8>>);

// SAFETY: By the type invariants, the bytes are only copied, which may be done on any thread.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// `len` bytes, all 0. May sleep.
    pub fn zeroed(len: usize) -> Result<Self> {
        // INVARIANT: Nobody has seen the bytes yet.
        Ok(SharedMemory(zeroed(len)?))
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The address of `len` bytes from `at` on; fails with `EINVAL` if there are not so many.
    #[inline]
    pub(crate) fn part(&self, at: usize, len: usize) -> Result<*mut c_void> {
        match at.checked_add(len) {
            // `cast_mut`: the bytes are in cells.
            Some(end) if end <= self.0.len() => {
                Ok(self.0.as_ptr().wrapping_add(at).cast_mut().cast())
            }
            _ => Err(EINVAL),
        }
    }

    /// Copies bytes to `at`. Fails with `EINVAL` beyond the end. Any context.
    pub fn store(&self, at: usize, bytes: &[u8]) -> Result {
        let to = self.part(at, bytes.len())?;
        // SAFETY: Both are valid for so many bytes, and no reference to the target exists.
        unsafe { helpers::memcpy(to, bytes.as_ptr().cast(), bytes.len()) };
        Ok(())
    }

    /// The [checksum](crate::crc::crc32c) of `len` bytes from `at` on. Fails with `EINVAL` beyond
    /// the end. Any context.
    #[inline]
    pub fn crc32c(&self, at: usize, len: usize) -> Result<u32> {
        let bytes = self.part(at, len)?;
        // SAFETY: The bytes are valid, and only read, by C.
        Ok(!unsafe { helpers::crc32c(u32::MAX, bytes, len) })
    }

    /// Copies to `at` what a write has for `sectors` sectors, from `skip` sectors after its start
    /// on. Any context.
    ///
    /// Fails with `EINVAL` for other operations, and beyond the end of either.
    #[inline]
    pub fn copy_from_bio(&self, at: usize, bio: &Bio, skip: u32, sectors: u32) -> Result {
        let to = self.part(at, (sectors as usize) << SECTOR_SHIFT)?;
        check(bio, Op::Write, skip, sectors)?;
        let (skip, bytes) = (skip << SECTOR_SHIFT, sectors << SECTOR_SHIFT);
        // SAFETY: The bio is its holder's and has so much data; the memory is valid.
        unsafe { helpers::bio_copy_out(bio.as_ptr(), skip, to, bytes) };
        Ok(())
    }

    /// Copies from `at` to a read what it asks for of `sectors` sectors, from `skip` sectors after
    /// its start on. Any context.
    ///
    /// Fails with `EINVAL` for other operations, and beyond the end of either.
    #[inline]
    pub fn copy_to_bio(&self, at: usize, bio: &Bio, skip: u32, sectors: u32) -> Result {
        let from = self.part(at, (sectors as usize) << SECTOR_SHIFT)?;
        check(bio, Op::Read, skip, sectors)?;
        let (skip, bytes) = (skip << SECTOR_SHIFT, sectors << SECTOR_SHIFT);
        // SAFETY: The bio is its holder's and has room for so much; the memory is valid.
        unsafe { helpers::bio_copy_in(bio.as_ptr(), skip, from, bytes) };
        Ok(())
    }
}

/// Whether a bio is such an operation, and has so many sectors. Reads and writes have memory.
#[inline]
fn check(bio: &Bio, op: Op, skip: u32, sectors: u32) -> Result {
    let end = skip.checked_add(sectors).ok_or(EINVAL)?;
    if bio.op() == op && end <= bio.sectors() {
        Ok(())
    } else {
        Err(EINVAL)
    }
}
