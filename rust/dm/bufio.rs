// SPDX-License-Identifier: GPL-2.0

//! A write-back cache of the blocks of a device.
//!
//! A block is used through a guard: a [`Buffer`] to read, a [`BufferMut`] to change. C has no
//! exclusion among the users of a buffer; here it is the borrow checker's: many may read, through
//! `&`, and one may write, through `&mut`. Put the client into an
//! [`RwSem`](crate::rwsem::RwSem) for more than one thread.
//!
//! Nothing here may be called inside `map`: it would wait for I/O that `map` holds up.
//!
//! ```ignore
//! let mut cache = BufioClient::new(device, 4096, 1)?;
//! cache.prefetch(8, 16);
//! let first = u64::from(cache.read(8)?[0]);
//! cache.write(9)?.fill(0xff);    // dirty from here on
//! cache.write_dirty()?;          // durable from here on
//! ```

use crate::{
    bindings,
    block_device::BlockDevice, //
};
use core::{
    ffi::c_void,
    marker::PhantomData,
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
    prelude::*, //
};

/// A device seen as an array of cached blocks.
///
/// Dropping it writes the dirty ones, but neither reports errors nor makes them durable. Sleeps.
///
/// # Invariants
///
/// `raw` is a live client on `device` with blocks of `block_size` bytes, owned by this value.
pub struct BufioClient {
    raw: NonNull<bindings::dm_bufio_client>,
    block_size: usize,
    #[expect(dead_code, reason = "keeps the device open for the C client")]
    device: BlockDevice,
}

// SAFETY: A client is used from any thread.
unsafe impl Send for BufioClient {}
// SAFETY: The cache has its own locks, and what takes `&BufioClient` does not write buffers.
unsafe impl Sync for BufioClient {}

impl BufioClient {
    /// Makes a cache for `device`. Sleeps.
    ///
    /// `block_size` is in bytes, a multiple of 512. `reserved` buffers are set aside: one thread
    /// may hold that many at a time, any other thread one, without a deadlock when memory is
    /// short.
    pub fn new(device: BlockDevice, block_size: u32, reserved: u32) -> Result<Self> {
        // SAFETY: The device is open, and is closed after the client is destroyed. There are no
        // callbacks.
        let raw = from_err_ptr(unsafe {
            bindings::dm_bufio_client_create(
                device.as_ptr(),
                block_size,
                reserved,
                0,
                None,
                None,
                0,
            )
        })?;
        // INVARIANT: A new client is ours alone.
        Ok(BufioClient {
            raw: NonNull::new(raw).ok_or(ENOMEM)?,
            block_size: block_size as usize,
            device,
        })
    }

    /// The size of a block in bytes.
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// The number of blocks of the device.
    pub fn blocks(&self) -> u64 {
        // SAFETY: By the type invariants, the client is live.
        unsafe { bindings::dm_bufio_get_device_size(self.raw.as_ptr()) }
    }

    /// A block, read from the device if it is not cached. Sleeps.
    pub fn read(&self, block: u64) -> Result<Buffer<'_>> {
        // SAFETY: The client is borrowed for the guard's lifetime, so nobody writes buffers.
        Ok(Buffer(unsafe { self.get(block, bindings::dm_bufio_read) }?))
    }

    /// A block to change, read from the device if it is not cached. Sleeps.
    pub fn write(&mut self, block: u64) -> Result<BufferMut<'_>> {
        // SAFETY: The client is borrowed mutably for the guard's lifetime.
        Ok(BufferMut(unsafe {
            self.get(block, bindings::dm_bufio_read)
        }?))
    }

    /// A block to write anew, from zeroes on; the device is not read. Sleeps.
    pub fn write_new(&mut self, block: u64) -> Result<BufferMut<'_>> {
        // SAFETY: The client is borrowed mutably for the guard's lifetime.
        let held = unsafe { self.get(block, bindings::dm_bufio_new) }?;
        // SAFETY: By the type invariants of `Held`, these are the block's bytes, which nobody else
        // accesses. They may not be initialised yet.
        unsafe { held.data.write_bytes(0, held.len) };
        Ok(BufferMut(held))
    }

    /// # Safety
    ///
    /// `get` must be one of the functions of dm-bufio that return a buffer's data. While the
    /// result lives nobody may write the buffer, nor read it if the caller does.
    unsafe fn get(
        &self,
        block: u64,
        get: unsafe extern "C" fn(
            *mut bindings::dm_bufio_client,
            bindings::sector_t,
            *mut *mut bindings::dm_buffer,
        ) -> *mut c_void,
    ) -> Result<Held<'_>> {
        let mut buffer = core::ptr::null_mut();
        // SAFETY: By the type invariants, the client is live; `buffer` is a live local.
        let data = from_err_ptr(unsafe { get(self.raw.as_ptr(), block, &mut buffer) })?;
        // INVARIANT: The buffer was just got, and exclusion is the caller's promise.
        Ok(Held {
            raw: NonNull::new(buffer).ok_or(EIO)?,
            data: NonNull::new(data.cast()).ok_or(EIO)?,
            len: self.block_size,
            _client: PhantomData,
        })
    }

    /// Begins to read `count` blocks from `block` on, those that are not cached. Sleeps at most
    /// for memory.
    pub fn prefetch(&self, block: u64, count: u32) {
        // SAFETY: By the type invariants, the client is live.
        unsafe { bindings::dm_bufio_prefetch(self.raw.as_ptr(), block, count) }
    }

    /// Writes all dirty blocks, and makes them durable. Sleeps.
    ///
    /// Fails with the error of any write since the last call.
    pub fn write_dirty(&self) -> Result {
        // SAFETY: By the type invariants, the client is live.
        to_result(unsafe { bindings::dm_bufio_write_dirty_buffers(self.raw.as_ptr()) })
    }

    /// Begins to write all dirty blocks.
    pub fn write_dirty_async(&self) {
        // SAFETY: By the type invariants, the client is live.
        unsafe { bindings::dm_bufio_write_dirty_buffers_async(self.raw.as_ptr()) }
    }

    /// Makes everything durable that the device has acknowledged. Sleeps.
    pub fn issue_flush(&self) -> Result {
        // SAFETY: By the type invariants, the client is live.
        to_result(unsafe { bindings::dm_bufio_issue_flush(self.raw.as_ptr()) })
    }

    /// Gives up `count` blocks from `block` on, those that are neither dirty nor in use. Sleeps.
    pub fn forget(&self, block: u64, count: u64) {
        // SAFETY: By the type invariants, the client is live.
        unsafe { bindings::dm_bufio_forget_buffers(self.raw.as_ptr(), block, count) }
    }
}

impl Drop for BufioClient {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, the client is ours; no guard outlives it.
        unsafe { bindings::dm_bufio_client_destroy(self.raw.as_ptr()) }
    }
}

/// A buffer in use.
///
/// # Invariants
///
/// `raw` is a buffer that this value holds, of `len` bytes at `data`, in a client borrowed for
/// `'a`. In a [`Buffer`] nobody writes it; in a [`BufferMut`] nobody else accesses it.
struct Held<'a> {
    raw: NonNull<bindings::dm_buffer>,
    data: NonNull<u8>,
    len: usize,
    _client: PhantomData<&'a BufioClient>,
}

impl Held<'_> {
    fn bytes(&self) -> &[u8] {
        // SAFETY: By the type invariants, these are the buffer's bytes, and nobody writes them.
        unsafe { slice::from_raw_parts(self.data.as_ptr(), self.len) }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, the buffer is ours to release.
        unsafe { bindings::dm_bufio_release(self.raw.as_ptr()) }
    }
}

/// A block in use, until it is dropped.
pub struct Buffer<'a>(Held<'a>);

impl Deref for Buffer<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.bytes()
    }
}

/// A block being changed. When it is dropped, it is dirty: its content is due to be written, at
/// any time from then on.
pub struct BufferMut<'a>(Held<'a>);

impl Deref for BufferMut<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.bytes()
    }
}

impl DerefMut for BufferMut<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: By the type invariants of `Held`, these are the buffer's bytes, and nobody else
        // accesses them.
        unsafe { slice::from_raw_parts_mut(self.0.data.as_ptr(), self.0.len) }
    }
}

impl Drop for BufferMut<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants of `Held`, we hold the buffer; it was read or initialised.
        unsafe { bindings::dm_bufio_mark_buffer_dirty(self.0.raw.as_ptr()) }
    }
}
