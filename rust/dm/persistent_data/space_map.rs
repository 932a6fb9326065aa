// SPDX-License-Identifier: GPL-2.0

//! Which blocks of a metadata device are used.
//!
//! The space map of a [`TransactionManager`](super::TransactionManager) lives in the blocks that
//! it accounts for. A block that a transaction frees becomes free when the transaction is
//! committed, not before: the last commit still uses it.

use crate::bindings::{
    self,
    helpers, //
};
use core::ptr::NonNull;
use kernel::{
    error::to_result,
    prelude::*, //
};

/// The space map of a metadata device, got by
/// [`TransactionManager::space_map`](super::TransactionManager::space_map).
///
/// # Invariants
///
/// The pointer is to a live space map that this value owns.
pub struct SpaceMap(NonNull<bindings::dm_space_map>);

// SAFETY: A space map may be used and destroyed on any thread.
unsafe impl Send for SpaceMap {}
// SAFETY: What takes `&SpaceMap` reads only; changes need a mutable borrow of its owner.
unsafe impl Sync for SpaceMap {}

impl SpaceMap {
    /// # Safety
    ///
    /// `raw` must be a live space map that the caller gives up.
    pub(super) unsafe fn from_raw(raw: NonNull<bindings::dm_space_map>) -> Self {
        // INVARIANT: The caller's promise.
        SpaceMap(raw)
    }

    /// How many blocks there are.
    pub fn nr_blocks(&self) -> Result<u64> {
        let mut count = 0;
        // SAFETY: The space map is live, and `count` is a live local.
        to_result(unsafe { helpers::sm_get_nr_blocks(self.0.as_ptr(), &mut count) })?;
        Ok(count)
    }

    /// How many blocks can be allocated in this transaction.
    pub fn nr_free(&self) -> Result<u64> {
        let mut count = 0;
        // SAFETY: The space map is live, and `count` is a live local.
        to_result(unsafe { helpers::sm_get_nr_free(self.0.as_ptr(), &mut count) })?;
        Ok(count)
    }

    /// The bytes in the root of the space map.
    pub fn root_size(&self) -> Result<usize> {
        let mut size = 0;
        // SAFETY: The space map is live, and `size` is a live local.
        to_result(unsafe { helpers::sm_root_size(self.0.as_ptr(), &mut size) })?;
        Ok(size)
    }

    /// Writes the root to the first [`root_size`](Self::root_size) bytes of `to`; `ENOSPC` if they
    /// are too few.
    pub(super) fn copy_root(&self, to: &mut [u8]) -> Result {
        // SAFETY: The space map is live, and the pointer and the length are those of a slice.
        to_result(unsafe {
            helpers::sm_copy_root(self.0.as_ptr(), to.as_mut_ptr().cast(), to.len())
        })
    }
}

impl Drop for SpaceMap {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, the space map is ours.
        unsafe { helpers::sm_destroy(self.0.as_ptr()) }
    }
}
