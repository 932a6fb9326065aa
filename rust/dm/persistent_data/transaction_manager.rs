// SPDX-License-Identifier: GPL-2.0

//! Transactions on a metadata device.
//!
//! Blocks of the last commit are never written: a change goes to copies, up to the root, and the
//! new root becomes valid when the superblock that names it is written. A commit therefore has
//! two steps, which are types here: [`TransactionManager::pre_commit`] makes everything durable
//! but the superblock, and [`PreCommitted::commit`] writes that.
//!
//! # Failed transactions
//!
//! An error in the middle of a change leaves structures that refer to blocks already given up. It
//! must not be committed, nor built upon: after the first error in a change or in a commit, and
//! after a pre-commit that was not followed by its commit, the manager answers everything with
//! `EIO`. The way on is to drop it, which forgets the transaction, and to open the device again,
//! which finds the last commit.

use super::{
    block_manager::{
        BlockManager,
        ReadBlock,
        Validator, //
    },
    space_map::SpaceMap, //
};
use crate::bindings;
use core::{
    mem::ManuallyDrop,
    ptr::NonNull, //
};
use kernel::{
    error::to_result,
    ffi::c_int,
    prelude::*, //
};

/// The one writer of a metadata device, and its open transaction.
///
/// Dropping it forgets what was not committed. Sleeps.
///
/// # Invariants
///
/// `raw` is a live transaction manager over `space_map` and `blocks` that this value owns.
pub struct TransactionManager {
    raw: NonNull<bindings::dm_transaction_manager>,
    // Dropped after `raw`, and in this order.
    space_map: SpaceMap,
    blocks: BlockManager,
    superblock: u64,
    failed: bool,
}

// SAFETY: A transaction manager is used from any thread.
unsafe impl Send for TransactionManager {}
// SAFETY: What takes `&TransactionManager` reads only, for which the block cache has its lock.
unsafe impl Sync for TransactionManager {}

impl TransactionManager {
    /// Begins the first transaction on a device, whatever was on it. Sleeps.
    ///
    /// The block `superblock` is never allocated; it is the one that commits write.
    ///
    /// Until the first commit the kernel's space map asks a map of the transaction before, in memory that it
    /// allocates and never sets, what is in use: nothing, where the kernel zeroes what it allocates
    /// (`init_on_alloc`, which Debian's has on).
    pub fn create(blocks: BlockManager, superblock: u64) -> Result<Self> {
        let mut tm = core::ptr::null_mut();
        let mut sm = core::ptr::null_mut();
        // SAFETY: The block manager is live and destroyed last; the others are live locals.
        to_result(unsafe {
            bindings::dm_tm_create_with_sm(blocks.as_ptr(), superblock, &mut tm, &mut sm)
        })?;
        // SAFETY: Both were just made over this block manager.
        unsafe { Self::from_raw(tm, sm, blocks, superblock) }
    }

    /// Begins a transaction upon the last commit. Sleeps.
    ///
    /// `root` is the root of the space map as the superblock has it, see
    /// [`PreCommitted::copy_space_map_root`].
    pub fn open(blocks: BlockManager, superblock: u64, root: &[u8]) -> Result<Self> {
        let mut tm = core::ptr::null_mut();
        let mut sm = core::ptr::null_mut();
        // SAFETY: The block manager is live and destroyed last; the root is read during the call,
        // within its length; the others are live locals.
        to_result(unsafe {
            bindings::dm_tm_open_with_sm(
                blocks.as_ptr(),
                superblock,
                root.as_ptr().cast_mut().cast(),
                root.len(),
                &mut tm,
                &mut sm,
            )
        })?;
        // SAFETY: Both were just made over this block manager.
        unsafe { Self::from_raw(tm, sm, blocks, superblock) }
    }

    /// # Safety
    ///
    /// `tm` and `sm` must be live, made for each other over `blocks`, and the caller's to give.
    unsafe fn from_raw(
        tm: *mut bindings::dm_transaction_manager,
        sm: *mut bindings::dm_space_map,
        blocks: BlockManager,
        superblock: u64,
    ) -> Result<Self> {
        let sm = NonNull::new(sm).ok_or(EINVAL)?;
        // INVARIANT: The caller's promise.
        Ok(TransactionManager {
            raw: NonNull::new(tm).ok_or(EINVAL)?,
            // SAFETY: The caller gives the space map up.
            space_map: unsafe { SpaceMap::from_raw(sm) },
            blocks,
            superblock,
            failed: false,
        })
    }

    /// The space map of the device.
    pub fn space_map(&self) -> &SpaceMap {
        &self.space_map
    }

    /// The size of a block in bytes.
    pub fn block_size(&self) -> usize {
        self.blocks.block_size()
    }

    /// Reads the superblock. Sleeps. Fails as [`BlockManager::read_lock`].
    pub fn superblock<V: Validator>(&mut self) -> Result<ReadBlock<'_>> {
        self.blocks.read_lock::<V>(self.superblock)
    }

    /// Whether the device can no longer be changed.
    pub fn is_read_only(&self) -> bool {
        self.blocks.is_read_only()
    }

    /// From now on every change fails with `EPERM`.
    pub fn set_read_only(&mut self) {
        self.blocks.set_read_only();
    }

    /// Makes everything durable but the superblock, and begins the commit. Sleeps.
    pub fn pre_commit(&mut self) -> Result<PreCommitted<'_>> {
        // SAFETY: The closure gets the live transaction manager.
        self.change(|tm| unsafe { bindings::dm_tm_pre_commit(tm) })?;
        Ok(PreCommitted { tm: self })
    }

    /// Runs a C function that reads, unless the transaction has failed.
    pub(super) fn read(
        &self,
        f: impl FnOnce(*mut bindings::dm_transaction_manager) -> c_int,
    ) -> Result {
        if self.failed {
            return Err(EIO);
        }
        to_result(f(self.raw.as_ptr()))
    }

    /// Runs a C function that changes something; if it fails, so has the transaction.
    pub(super) fn change(
        &mut self,
        f: impl FnOnce(*mut bindings::dm_transaction_manager) -> c_int,
    ) -> Result {
        let result = self.read(f);
        self.failed |= result.is_err();
        result
    }
}

impl Drop for TransactionManager {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, the transaction manager is ours. The space map and the
        // block manager that it refers to are dropped after it.
        unsafe { bindings::dm_tm_destroy(self.raw.as_ptr()) }
    }
}

/// A transaction of which everything but the superblock is durable.
///
/// Dropping it without a commit fails the transaction: the space map has taken up what was freed
/// already, so that further changes could overwrite blocks of the last commit.
#[must_use = "a transaction that is not committed has failed"]
pub struct PreCommitted<'a> {
    tm: &'a mut TransactionManager,
}

impl PreCommitted<'_> {
    /// Copies the root of the space map, for the superblock, into the first
    /// [`root_size`](SpaceMap::root_size) bytes of `to`; `ENOSPC` if they are too few.
    pub fn copy_space_map_root(&self, to: &mut [u8]) -> Result {
        self.tm.space_map.copy_root(to)
    }

    /// Changes the superblock, and makes it durable: the transaction is committed. Sleeps.
    ///
    /// `change` gets the superblock as it was, checked by its validator `V`.
    pub fn commit<V: Validator>(self, change: impl FnOnce(&mut [u8])) -> Result {
        self.write::<V>(false, change)
    }

    /// Writes a first superblock, and makes it durable: the transaction is committed. Sleeps.
    ///
    /// `fill` gets a block of zeroes.
    pub fn format<V: Validator>(self, fill: impl FnOnce(&mut [u8])) -> Result {
        self.write::<V>(true, fill)
    }

    fn write<V: Validator>(self, anew: bool, change: impl FnOnce(&mut [u8])) -> Result {
        let tm = self.tm.raw.as_ptr();
        let location = self.tm.superblock;
        let mut superblock = if anew {
            self.tm.blocks.write_lock_zero::<V>(location)?
        } else {
            self.tm.blocks.write_lock::<V>(location)?
        };
        change(&mut superblock);
        // SAFETY: The transaction manager is live; the call takes the lock of the superblock, and
        // drops it whether it succeeds or not.
        to_result(unsafe { bindings::dm_tm_commit(tm, superblock.into_raw()) })?;
        // The transaction is not a failed one.
        let _ = ManuallyDrop::new(self);
        Ok(())
    }
}

impl Drop for PreCommitted<'_> {
    fn drop(&mut self) {
        self.tm.failed = true;
    }
}
