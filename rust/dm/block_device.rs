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

use crate::{
    bindings::{
        self,
        helpers, //
    },
    device::Mode, //
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
    ffi::{
        c_int,
        c_void, //
    },
    prelude::*,
    types::Opaque, //
};

/// An offset or a length in units of 512 bytes, whatever the device's block size.
pub type Sector = u64;

/// log2 of the bytes in a sector.
pub const SECTOR_SHIFT: u32 = 9;

/// The number of a block device, which the kernel and `dmsetup` write as `major:minor`.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct DevNumber(bindings::dev_t);

impl DevNumber {
    const MINOR_BITS: u32 = 20;

    pub(crate) fn new(major: c_int, minor: c_int) -> Self {
        DevNumber((major as bindings::dev_t) << Self::MINOR_BITS | minor as bindings::dev_t)
    }

    /// The number of the device that `name` names, by path or `major:minor`. Sleeps.
    pub fn find(name: &CStr) -> Result<Self> {
        let mut number = 0;
        // SAFETY: `name` is a string that the call does not keep, and `number` a live local.
        to_result(unsafe { bindings::dm_devt_from_path(name.as_char_ptr(), &mut number) })?;
        Ok(DevNumber(number))
    }

    /// Whether it is that of a mapped device. Sleeps.
    pub fn is_mapped(&self) -> bool {
        MappedDevice::get(*self).is_some()
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
    #[inline]
    pub fn sectors(&self) -> Sector {
        // SAFETY: By the type invariants, the device is valid. It may get another size meanwhile: a
        // volatile load of a word is atomic.
        unsafe { (&raw const (*self.as_ptr()).bd_nr_sectors).read_volatile() }
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

    /// Whether the device has a volatile cache, that is, needs flushes.
    pub fn has_write_cache(&self) -> bool {
        // SAFETY: By the type invariants, the device is valid.
        unsafe { helpers::bdev_write_cache(self.as_ptr()) }
    }

    /// Whether writes to the device are refused.
    pub fn is_read_only(&self) -> bool {
        // SAFETY: By the type invariants, the device is valid.
        unsafe { helpers::bdev_read_only(self.as_ptr()) }
    }

    /// Whether pages must not change while they are written to the device.
    pub fn needs_stable_writes(&self) -> bool {
        // SAFETY: By the type invariants, the device is valid.
        unsafe { helpers::bdev_stable_writes(self.as_ptr()) }
    }

    /// Whether the device's driver is handed bios, and may have to be polled for them.
    pub fn has_polled_bios(&self) -> bool {
        // SAFETY: By the type invariants, the device is valid, and with it its queue.
        unsafe { helpers::bdev_polls_bios(self.as_ptr()) }
    }

    /// Whether the device has zones that are written in order.
    pub fn is_zoned(&self) -> bool {
        // SAFETY: By the type invariants, the device is valid.
        unsafe { helpers::bdev_is_zoned(self.as_ptr()) }
    }

    /// Whether `lower` is among the devices that this one is made of, or among those that these are
    /// made of, and so on: its bios may go there. Only what has claimed its parts is known to be made
    /// of them. Sleeps.
    pub fn is_over(&self, lower: &Bdev) -> Result<bool> {
        let mut beneath = self.slaves()?;
        let mut next = 0;
        while let Some(&number) = beneath.get(next) {
            if number == lower.number() {
                return Ok(true);
            }
            // What is beneath a table that has just gone may be gone as well.
            if let Ok(device) = BlockDevice::open(number, Mode::Read) {
                for slave in device.slaves()? {
                    if !beneath.contains(&slave) {
                        beneath.push(slave, GFP_KERNEL)?;
                    }
                }
            }
            next += 1;
        }
        Ok(false)
    }

    /// The devices that this one has claimed as its parts, if it takes bios. Sleeps.
    fn slaves(&self) -> Result<KVec<DevNumber>> {
        // Disks, which have none; or multipath, whose requests are no bios of its paths.
        if self.is_request_based() {
            return Ok(KVec::new());
        }
        let mut room = 8;
        loop {
            let mut found: KVec<DevNumber> = KVec::with_capacity(room, GFP_KERNEL)?;
            let spare = found.spare_capacity_mut();
            // SAFETY: The device is open; there is room for so many numbers, which is what a
            // `DevNumber` is.
            let count = unsafe {
                helpers::bdev_slaves(self.as_ptr(), spare.as_mut_ptr().cast(), spare.len())
            };
            let fits = count.min(spare.len());
            // SAFETY: So many were written.
            unsafe { found.inc_len(fits) };
            if fits == count {
                return Ok(found);
            }
            room = count;
        }
    }

    /// Whether it is, or is on, a disk that the NVMe driver reaches by several paths, or by one of which there
    /// may be more. If a path fails, that driver submits bios to it again by itself.
    pub fn is_nvme_multipath(&self) -> bool {
        // SAFETY: By the type invariants, the device is open.
        unsafe { helpers::bdev_is_nvme_multipath(self.as_ptr()) }
    }

    /// Whether the device's driver is handed requests, not bios.
    pub fn is_request_based(&self) -> bool {
        // SAFETY: By the type invariants, the device is valid, and with it its queue.
        unsafe { helpers::bdev_is_request_based(self.as_ptr()) }
    }

    /// Whether the device encrypts by itself what is submitted with a key.
    pub fn has_inline_crypto(&self) -> bool {
        // SAFETY: By the type invariants, the device is valid, and with it its queue.
        unsafe { helpers::bdev_has_inline_crypto(self.as_ptr()) }
    }

    /// For how long the device has had something to do, in milliseconds; begins again after 49 days.
    /// A device whose driver does not account for its I/O is never busy. May sleep.
    pub fn busy_ms(&self) -> u32 {
        // SAFETY: By the type invariants, the device is valid.
        unsafe { helpers::bdev_busy_ms(self.as_ptr()) }
    }

    /// What the device is known by wherever it is found: the uuid of a mapped device or of a
    /// partition, or the worldwide name of a disk. None if it has nothing of that sort. Sleeps; not
    /// while the device is being made or removed.
    pub fn identity(&self) -> Option<Identity> {
        let mut identity = Identity {
            kind: 0,
            bytes: [0; IDENTITY_BYTES],
            len: 0,
        };
        let mut len = 0;
        // SAFETY: By the type invariants, the device is valid; there is so much room.
        let kind = unsafe {
            helpers::bdev_identity(
                self.as_ptr(),
                identity.bytes.as_mut_ptr().cast(),
                IDENTITY_BYTES as u32,
                &mut len,
            )
        };
        identity.kind = kind as u8;
        identity.len = len as usize;
        (kind != 0).then_some(identity)
    }

    /// The longest write that is never torn, in bytes; 0 if there is none.
    pub fn max_atomic_write(&self) -> u32 {
        // SAFETY: The limits live as long as the device; reading a plain number that may change
        // meanwhile is what every stacking driver does.
        unsafe { (*self.limits()).atomic_write_max_sectors }.saturating_mul(1 << SECTOR_SHIFT)
    }

    /// How many bytes of protection information the device keeps for each of its blocks, 0 for none.
    pub fn protection_bytes(&self) -> u8 {
        // SAFETY: As above.
        unsafe { (*self.limits()).integrity.metadata_size }
    }

    /// Where on its disk the device starts, in sectors, if it is a partition.
    pub fn partition_start(&self) -> Option<Sector> {
        // SAFETY: By the type invariants, the device is valid.
        unsafe { helpers::bdev_is_partition(self.as_ptr()).then(|| (*self.as_ptr()).bd_start_sect) }
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
        let file = NonNull::new(file).ok_or(ENODEV)?;
        // SAFETY: The file is an open block device's, which never is another's.
        let device = unsafe { NonNull::new_unchecked(bindings::file_bdev(file.as_ptr())) };
        // INVARIANT: The file is open, and ours.
        Ok(BlockDevice { file, device })
    }
}

/// An own, shared open of a block device, bound to no table.
///
/// # Invariants
///
/// `file` is an open file of the block device `device` that this value owns.
pub struct BlockDevice {
    file: NonNull<bindings::file>,
    device: NonNull<bindings::block_device>,
}

// SAFETY: The file is only used to be closed, on any thread.
unsafe impl Send for BlockDevice {}
// SAFETY: As above.
unsafe impl Sync for BlockDevice {}

impl BlockDevice {
    /// Opens a device without a claim: users of it may come and go, and have it exclusively. Sleeps.
    pub fn open(number: DevNumber, mode: Mode) -> Result<Self> {
        // SAFETY: There is no holder.
        unsafe { Self::open_for(number, mode, core::ptr::null_mut()) }
    }

    /// # Safety
    ///
    /// `holder` must be null, or unique to what opens the device, and not be reused before it is
    /// closed.
    unsafe fn open_for(number: DevNumber, mode: Mode, holder: *mut c_void) -> Result<Self> {
        // SAFETY: The call does not use what the holder points at, which is the caller's promise to
        // be the only one of its kind.
        let file = from_err_ptr(unsafe {
            bindings::bdev_file_open_by_dev(number.0, mode.to_raw(), holder, core::ptr::null())
        })?;
        let file = NonNull::new(file).ok_or(ENODEV)?;
        // SAFETY: The file is an open block device's, which never is another's.
        let device = unsafe { NonNull::new_unchecked(bindings::file_bdev(file.as_ptr())) };
        // INVARIANT: The file is open, and ours.
        Ok(BlockDevice { file, device })
    }

    /// The raw file.
    pub(crate) fn as_file(&self) -> *mut bindings::file {
        self.file.as_ptr()
    }
}

impl Deref for BlockDevice {
    type Target = Bdev;

    #[inline]
    fn deref(&self) -> &Bdev {
        // SAFETY: The device stays open as long as its file, hence as long as `self`.
        unsafe { Bdev::from_raw(self.device.as_ptr()) }
    }
}

impl Drop for BlockDevice {
    /// Closes the device. May sleep.
    fn drop(&mut self) {
        // SAFETY: By the type invariants, the file is ours to close.
        unsafe { bindings::bdev_fput(self.file.as_ptr()) }
    }
}

/// A block device that nobody else can open exclusively while this value lives: no file system is
/// mounted from it, no other table or array made of it.
pub struct Claimed {
    // Closed before its holder's address may be reused.
    device: BlockDevice,
    _holder: KBox<u8>,
}

impl Claimed {
    /// Opens and claims a device. Fails with `EBUSY` if somebody has claimed it already. Sleeps.
    pub fn open(number: DevNumber, mode: Mode) -> Result<Self> {
        let mut holder = KBox::new(0u8, GFP_KERNEL)?;
        let address: *mut u8 = &mut *holder;
        Ok(Claimed {
            // SAFETY: The address is that of an allocation of our own, which outlives the open.
            device: unsafe { BlockDevice::open_for(number, mode, address.cast()) }?,
            _holder: holder,
        })
    }
}

impl Deref for Claimed {
    type Target = Bdev;

    #[inline]
    fn deref(&self) -> &Bdev {
        &self.device
    }
}

/// That of a mapped device is the longest.
const IDENTITY_BYTES: usize = 129;

/// What a device is known by.
pub struct Identity {
    kind: u8,
    bytes: [u8; IDENTITY_BYTES],
    len: usize,
}

impl Identity {
    /// Of which kind it is: those of two kinds cannot be compared. At least 1.
    pub fn kind(&self) -> u8 {
        self.kind
    }

    /// What tells it from others of its kind.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&self.bytes)
    }
}

/// A mapped device of device-mapper's, which is not freed while this value lives.
///
/// # Invariants
///
/// The pointer is to a mapped device of which this value has a reference.
pub(crate) struct MappedDevice(NonNull<bindings::mapped_device>);

// SAFETY: Mapped devices are counted and locked by device-mapper, and used from any thread.
unsafe impl Send for MappedDevice {}
// SAFETY: As above.
unsafe impl Sync for MappedDevice {}

impl MappedDevice {
    /// The mapped device of this number, if there is one that is not about to be removed. Sleeps.
    pub(crate) fn get(number: DevNumber) -> Option<Self> {
        // SAFETY: A look-up of a number.
        let md = unsafe { bindings::dm_get_md(number.0) };
        // INVARIANT: The look-up gives a reference.
        NonNull::new(md).map(MappedDevice)
    }

    /// The raw mapped device.
    pub(crate) fn as_ptr(&self) -> *mut bindings::mapped_device {
        self.0.as_ptr()
    }
}

impl Drop for MappedDevice {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, the reference is ours.
        unsafe { bindings::dm_put(self.0.as_ptr()) }
    }
}
