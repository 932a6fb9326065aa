// SPDX-License-Identifier: GPL-2.0

//! Block devices: what can be asked of one, and a handle that keeps one open.
//!
//! [`Bdev`] is the view that every owner of a block device gives: a target's
//! [`Device`](crate::device::Device), which belongs to one table, and a [`BlockDevice`], which
//! belongs to no table and so can outlive the one that it was opened for.
//!
//! ```ignore
//! let own: BlockDevice = table_device.reopen()?;  // outlives the table
//! own.flush()?;
//! ```

use crate::bindings::{
    self,
    helpers, //
};
use core::{
    fmt,
    ops::Deref,
    ptr::NonNull, //
};
use kernel::{
    error::{
        from_err_ptr,
        to_result, //
    },
    ffi::c_int,
    prelude::*,
    types::Opaque, //
};

/// An offset or a length in units of 512 bytes, whatever the device's block size.
pub type Sector = u64;

/// log2 of the bytes in a sector.
pub const SECTOR_SHIFT: u32 = 9;

/// The number of a block device, which the kernel and `dmsetup` write as `major:minor`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DevNumber(bindings::dev_t);

impl DevNumber {
    const MINOR_BITS: u32 = 20;

    pub(crate) fn new(major: c_int, minor: c_int) -> Self {
        DevNumber((major as bindings::dev_t) << Self::MINOR_BITS | minor as bindings::dev_t)
    }
}

impl fmt::Display for DevNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minor = self.0 & ((1 << Self::MINOR_BITS) - 1);
        write!(f, "{}:{}", self.0 >> Self::MINOR_BITS, minor)
    }
}

impl kernel::fmt::Display for DevNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An open block device, seen by reference. Its methods do not sleep unless they say so.
///
/// # Invariants
///
/// A reference to a `Bdev` is a reference to a `block_device` that stays open while it lives.
#[repr(transparent)]
pub struct Bdev(Opaque<bindings::block_device>);

// SAFETY: Everything that is done through `&Bdev` may be done on any thread at any time.
unsafe impl Sync for Bdev {}

impl Bdev {
    /// Makes the view of a device that is open for `'a`.
    ///
    /// # Safety
    ///
    /// `bdev` must be valid and stay open for `'a`.
    pub(crate) unsafe fn from_raw<'a>(bdev: *mut bindings::block_device) -> &'a Self {
        // SAFETY: `Bdev` is transparent; validity is the caller's promise.
        unsafe { &*bdev.cast() }
    }

    /// The raw device, for the calls of this crate.
    #[inline]
    pub(crate) fn as_ptr(&self) -> *mut bindings::block_device {
        self.0.get()
    }

    /// The device's number.
    pub fn number(&self) -> DevNumber {
        // SAFETY: By the type invariants, the device is valid; its number never changes.
        DevNumber(unsafe { (*self.as_ptr()).bd_dev })
    }

    /// The capacity in sectors.
    pub fn sectors(&self) -> Sector {
        // SAFETY: By the type invariants, the device is valid.
        unsafe { helpers::bdev_nr_sectors(self.as_ptr()) }
    }

    /// The smallest unit that the device addresses, in bytes.
    pub fn logical_block_size(&self) -> u32 {
        // SAFETY: By the type invariants, the device is valid.
        unsafe { helpers::bdev_logical_block_size(self.as_ptr()) }
    }

    /// The longest discard that the device takes, in sectors; 0 if it takes none.
    pub fn max_discard_sectors(&self) -> u32 {
        // SAFETY: By the type invariants, the device is valid.
        unsafe { helpers::bdev_max_discard_sectors(self.as_ptr()) }
    }

    /// The raw limits of the device's queue.
    pub(crate) fn limits(&self) -> *const bindings::queue_limits {
        // SAFETY: By the type invariants, the device is valid, and with it its queue.
        unsafe { helpers::bdev_limits(self.as_ptr()) }
    }

    /// Makes everything durable that the device has acknowledged. Sleeps.
    pub fn flush(&self) -> Result {
        // SAFETY: By the type invariants, the device is valid.
        to_result(unsafe { bindings::blkdev_issue_flush(self.as_ptr()) })
    }

    /// Opens the device once more, for as long as the returned handle lives. Sleeps.
    ///
    /// The new handle claims nothing: it serves users of a device that a table has claimed, and
    /// that may change tables.
    pub fn reopen(&self) -> Result<BlockDevice> {
        // SAFETY: A call that takes a device number and no pointers that it would keep.
        let file = from_err_ptr(unsafe {
            bindings::bdev_file_open_by_dev(
                self.number().0,
                bindings::BLK_OPEN_READ | bindings::BLK_OPEN_WRITE,
                core::ptr::null_mut(),
                core::ptr::null(),
            )
        })?;
        // INVARIANT: The file is open, and ours.
        Ok(BlockDevice(NonNull::new(file).ok_or(ENODEV)?))
    }
}

/// An own, shared open of a block device, for reading and writing, bound to no table.
///
/// # Invariants
///
/// The pointer is to an open file of a block device that this value owns.
pub struct BlockDevice(NonNull<bindings::file>);

// SAFETY: The file is only used to find its device and to be closed, on any thread.
unsafe impl Send for BlockDevice {}
// SAFETY: As above.
unsafe impl Sync for BlockDevice {}

impl Deref for BlockDevice {
    type Target = Bdev;

    #[inline]
    fn deref(&self) -> &Bdev {
        // SAFETY: By the type invariants, the file is an open block device's.
        let bdev = unsafe { bindings::file_bdev(self.0.as_ptr()) };
        // SAFETY: The device stays open as long as its file, hence as long as `self`.
        unsafe { Bdev::from_raw(bdev) }
    }
}

impl Drop for BlockDevice {
    /// Closes the device. May sleep.
    fn drop(&mut self) {
        // SAFETY: By the type invariants, the file is ours to close.
        unsafe { bindings::bdev_fput(self.0.as_ptr()) }
    }
}
