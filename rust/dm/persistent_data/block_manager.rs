// SPDX-License-Identifier: GPL-2.0

//! Cached, validated blocks of a metadata device.
//!
//! A block is used through a guard: a [`ReadBlock`] or a [`WriteBlock`]. A [`Validator`] checks a
//! block when it comes from the disk, and completes it, with a checksum for instance, before it
//! goes there.
//!
//! The locks that C has per block are compiled in for debugging only. Here exclusion is the
//! borrow checker's: a guard borrows the manager mutably, so there is one at a time, and nothing
//! else happens to the cache meanwhile that would touch its block. Two users of one block cannot
//! disagree on what it is either: the cache remembers the validator of a block, and refuses any
//! other with `EINVAL`; the validators of C's own structures are not to be had here.

use crate::{
    bindings,
    block_device::BlockDevice, //
};
use core::{
    marker::PhantomData,
    mem::ManuallyDrop,
    ops::{
        Deref,
        DerefMut, //
    },
    ptr::NonNull,
    slice, //
};
use kernel::{
    error::{
        from_err_ptr,
        to_result, //
    },
    ffi::c_int,
    prelude::*, //
};

/// The checksum of persistent data: CRC-32C of `data`, xor `init_xor`, a number by which kinds of
/// blocks differ.
pub fn checksum(data: &[u8], init_xor: u32) -> u32 {
    // SAFETY: The pointer and the length are those of a slice.
    unsafe { bindings::dm_bm_checksum(data.as_ptr().cast(), data.len(), init_xor) }
}

/// What makes a block a valid one of its kind.
///
/// Both functions are called from inside the block cache, and on threads that reclaim memory: they
/// must neither allocate nor wait.
pub trait Validator: 'static {
    /// The kind's name, as the kernel log has it when a check fails.
    const NAME: &'static CStr;

    /// Completes a block that is about to be written to `location`.
    fn prepare(block: &mut [u8], location: u64);

    /// Says whether a block that was read from `location` is one of this kind.
    fn check(block: &[u8], location: u64) -> Result;
}

/// The C table of a validator, of which there is one per type.
struct Table<V>(PhantomData<V>);

impl<V: Validator> Table<V> {
    const TABLE: &'static bindings::dm_block_validator = &bindings::dm_block_validator {
        name: V::NAME.to_bytes_with_nul().as_ptr(),
        prepare_for_write: Some(prepare_for_write::<V>),
        check: Some(check::<V>),
    };

    /// The address of the table, which C compares.
    // Constants may be duplicated where they are used; a function that is not inlined uses this
    // one in one place.
    #[inline(never)]
    fn get() -> *const bindings::dm_block_validator {
        Self::TABLE
    }
}

/// # Safety
///
/// `block` must be a block of `size` bytes that nothing else reads or writes during the call.
unsafe extern "C" fn prepare_for_write<V: Validator>(
    _: *const bindings::dm_block_validator,
    block: *mut bindings::dm_block,
    size: usize,
) {
    // SAFETY: The block is valid, by the function's contract.
    let data = unsafe { bindings::dm_block_data(block) };
    // SAFETY: The block has `size` bytes and is ours for the call.
    let data = unsafe { slice::from_raw_parts_mut(data.cast(), size) };
    // SAFETY: The block is valid, by the function's contract.
    let location = unsafe { bindings::dm_block_location(block) };
    V::prepare(data, location);
}

/// # Safety
///
/// `block` must be a block of `size` bytes that nothing writes during the call.
unsafe extern "C" fn check<V: Validator>(
    _: *const bindings::dm_block_validator,
    block: *mut bindings::dm_block,
    size: usize,
) -> c_int {
    // SAFETY: The block is valid, by the function's contract.
    let data = unsafe { bindings::dm_block_data(block) };
    // SAFETY: The block has `size` bytes, which nobody changes during the call.
    let data = unsafe { slice::from_raw_parts(data.cast::<u8>(), size) };
    // SAFETY: The block is valid, by the function's contract.
    let location = unsafe { bindings::dm_block_location(block) };
    match V::check(data, location) {
        Ok(()) => 0,
        Err(error) => error.to_errno(),
    }
}

/// A block device seen as an array of cached blocks.
///
/// Dropping it writes the dirty blocks, but does not wait for the device to make them durable; a
/// transaction that is not committed stays without effect nevertheless, since nothing on the disk
/// refers to its blocks. Sleeps.
///
/// # Invariants
///
/// `raw` is a live block manager on `device` with blocks of `block_size` bytes, owned by this
/// value.
pub struct BlockManager {
    raw: NonNull<bindings::dm_block_manager>,
    block_size: usize,
    #[expect(dead_code, reason = "keeps the device open for the C block manager")]
    device: BlockDevice,
}

// SAFETY: A block manager is used from any thread, and guards do not leave the one they were made
// on.
unsafe impl Send for BlockManager {}
// SAFETY: What takes `&BlockManager` does not change it.
unsafe impl Sync for BlockManager {}

impl BlockManager {
    /// Makes a block manager on `device`.
    ///
    /// `block_size` is in bytes, a multiple of 512. `max_held_per_thread` blocks are set aside, so
    /// that a thread that holds no more of them at a time makes progress without free memory.
    pub fn new(device: BlockDevice, block_size: u32, max_held_per_thread: u32) -> Result<Self> {
        // SAFETY: The device is open, and is closed after the block manager is destroyed.
        let raw = from_err_ptr(unsafe {
            bindings::dm_block_manager_create(device.as_ptr(), block_size, max_held_per_thread)
        })?;
        // INVARIANT: A new block manager is ours alone.
        Ok(BlockManager {
            raw: NonNull::new(raw).ok_or(ENOMEM)?,
            block_size: block_size as usize,
            device,
        })
    }

    /// The raw block manager, for the calls of this crate.
    pub(super) fn as_ptr(&self) -> *mut bindings::dm_block_manager {
        self.raw.as_ptr()
    }

    /// The size of a block in bytes.
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// Reads a block, and checks it if it was not in the cache. Sleeps.
    ///
    /// Fails with the error of the read or of the validator, or with `EINVAL` if the block was
    /// used with another validator.
    pub fn read_lock<V: Validator>(&mut self, location: u64) -> Result<ReadBlock<'_>> {
        let mut block = core::ptr::null_mut();
        // SAFETY: The block manager is live, the validator lives forever, `block` is a live local.
        to_result(unsafe {
            bindings::dm_bm_read_lock(self.raw.as_ptr(), location, Table::<V>::get(), &mut block)
        })?;
        // SAFETY: The block was just locked.
        Ok(ReadBlock(unsafe { Held::new(block, self.block_size) }))
    }

    /// Reads a block that may be of no kind, a superblock before there is one for instance.
    /// Sleeps.
    ///
    /// Fails with the error of the read, or with `EINVAL` if the block was used with a validator
    /// before.
    pub fn read_lock_unvalidated(&mut self, location: u64) -> Result<ReadBlock<'_>> {
        let mut block = core::ptr::null_mut();
        // SAFETY: The block manager is live, no validator is allowed, `block` is a live local.
        to_result(unsafe {
            bindings::dm_bm_read_lock(self.raw.as_ptr(), location, core::ptr::null(), &mut block)
        })?;
        // SAFETY: The block was just locked.
        Ok(ReadBlock(unsafe { Held::new(block, self.block_size) }))
    }

    /// Reads a block to change it. Sleeps.
    ///
    /// Fails as [`read_lock`](Self::read_lock), and with `EPERM` if the manager is read-only.
    pub fn write_lock<V: Validator>(&mut self, location: u64) -> Result<WriteBlock<'_>> {
        let mut block = core::ptr::null_mut();
        // SAFETY: The block manager is live, the validator lives forever, `block` is a live local.
        to_result(unsafe {
            bindings::dm_bm_write_lock(self.raw.as_ptr(), location, Table::<V>::get(), &mut block)
        })?;
        // SAFETY: The block was just locked for writing.
        Ok(WriteBlock(unsafe { Held::new(block, self.block_size) }))
    }

    /// Takes a block to write it anew, from zeroes on; the disk is not read. Sleeps.
    ///
    /// Whatever the block was before, it is one of `V`'s kind now. Fails with `EPERM` if the
    /// manager is read-only.
    pub fn write_lock_zero<V: Validator>(&mut self, location: u64) -> Result<WriteBlock<'_>> {
        let mut block = core::ptr::null_mut();
        // SAFETY: The block manager is live, the validator lives forever, `block` is a live local.
        to_result(unsafe {
            bindings::dm_bm_write_lock_zero(
                self.raw.as_ptr(),
                location,
                Table::<V>::get(),
                &mut block,
            )
        })?;
        // SAFETY: The block was just locked for writing.
        Ok(WriteBlock(unsafe { Held::new(block, self.block_size) }))
    }

    /// Writes all dirty blocks, and makes them durable. Sleeps.
    ///
    /// Fails with the error of any write since the last flush, and with `EPERM` if the manager is
    /// read-only.
    pub fn flush(&mut self) -> Result {
        // SAFETY: The block manager is live.
        to_result(unsafe { bindings::dm_bm_flush(self.raw.as_ptr()) })
    }

    /// Whether the manager refuses to change blocks.
    pub fn is_read_only(&self) -> bool {
        // SAFETY: The block manager is live.
        unsafe { bindings::dm_bm_is_read_only(self.raw.as_ptr()) }
    }

    /// From now on no block can be locked for writing, and nothing is flushed.
    pub fn set_read_only(&mut self) {
        // SAFETY: The block manager is live.
        unsafe { bindings::dm_bm_set_read_only(self.raw.as_ptr()) }
    }
}

impl Drop for BlockManager {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, the block manager is ours; no guard outlives it.
        unsafe { bindings::dm_block_manager_destroy(self.raw.as_ptr()) }
    }
}

/// A locked block. Not [`Send`]: with C's debugging locks, the thread that locked it unlocks it.
///
/// # Invariants
///
/// `raw` is a block that this value has locked, of `len` bytes at `data`. The block manager is
/// borrowed mutably for `'a`, so that nobody else accesses them.
struct Held<'a> {
    raw: NonNull<bindings::dm_block>,
    data: NonNull<u8>,
    len: usize,
    _manager: PhantomData<&'a mut BlockManager>,
}

impl Held<'_> {
    /// # Safety
    ///
    /// `raw` must be a block of `len` bytes that the caller has locked, in a manager that is
    /// borrowed mutably for the lifetime of the result.
    unsafe fn new(raw: *mut bindings::dm_block, len: usize) -> Self {
        // SAFETY: The block is locked, by the function's contract.
        let data = unsafe { bindings::dm_block_data(raw) };
        // INVARIANT: The caller's promise.
        Held {
            // SAFETY: A locked block is not null.
            raw: unsafe { NonNull::new_unchecked(raw) },
            // SAFETY: Nor is its data.
            data: unsafe { NonNull::new_unchecked(data.cast()) },
            len,
            _manager: PhantomData,
        }
    }

    fn location(&self) -> u64 {
        // SAFETY: By the type invariants, the block is locked.
        unsafe { bindings::dm_block_location(self.raw.as_ptr()) }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: By the type invariants, these are the block's bytes, and nobody writes them.
        unsafe { slice::from_raw_parts(self.data.as_ptr(), self.len) }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, the block is locked, and is not used again.
        unsafe { bindings::dm_bm_unlock(self.raw.as_ptr()) }
    }
}

/// A block locked for reading, until it is dropped.
pub struct ReadBlock<'a>(Held<'a>);

impl ReadBlock<'_> {
    /// The block's number.
    pub fn location(&self) -> u64 {
        self.0.location()
    }
}

impl Deref for ReadBlock<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.bytes()
    }
}

/// A block locked for writing. When it is dropped, its content is due to be written, at any time
/// from then on.
pub struct WriteBlock<'a>(Held<'a>);

impl WriteBlock<'_> {
    /// The block's number.
    pub fn location(&self) -> u64 {
        self.0.location()
    }

    /// Gives the lock to the caller.
    pub(super) fn into_raw(self) -> *mut bindings::dm_block {
        ManuallyDrop::new(self).0.raw.as_ptr()
    }
}

impl Deref for WriteBlock<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.bytes()
    }
}

impl DerefMut for WriteBlock<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: By the type invariants, these are the block's bytes; it is locked for writing,
        // and nobody else accesses them.
        unsafe { slice::from_raw_parts_mut(self.0.data.as_ptr(), self.0.len) }
    }
}
