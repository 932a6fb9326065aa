// SPDX-License-Identifier: GPL-2.0

//! The devices that a target maps to.
//!
//! A table opens its devices through device-mapper, which claims them for the mapped device, lists
//! them in `dmsetup deps`, and shares one open among the tables of a mapped device. Closing goes
//! through the table again, so a [`Device`] must not outlive the target it was opened for: the
//! layer counts them and makes the target's destructor wait for the last one.
//!
//! ```ignore
//! let dev: Device = ti.open(path, Mode::Read)?;
//! if dev.sectors() < ti.sectors() {
//!     return Err(CtrError::new(EINVAL, c"Device is too small"));
//! }
//! ```

use crate::{
    bindings,
    block_device::{
        Bdev,
        BlockDevice,
        DevNumber, //
    },
    compat,
    shared::Shared, //
};
use core::{
    fmt::Write,
    ops::Deref,
    ptr::NonNull, //
};
use kernel::{
    error::to_result,
    prelude::*,
    str::Formatter, //
};

/// What a device is opened for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Reading only.
    Read,
    /// Reading and writing.
    ReadWrite,
}

impl Mode {
    pub(crate) fn to_raw(self) -> bindings::blk_mode_t {
        match self {
            Mode::Read => bindings::BLK_OPEN_READ,
            Mode::ReadWrite => bindings::BLK_OPEN_READ | bindings::BLK_OPEN_WRITE,
        }
    }
}

/// The C side of a target instance, kept until nothing refers to it any more.
///
/// # Invariants
///
/// `ti` is valid until the owner of the anchor is dropped: the layer's `dtr` does so, and thus
/// waits for every handle, before device-mapper frees the `dm_target`.
pub(crate) struct Anchor {
    ti: NonNull<bindings::dm_target>,
}

// SAFETY: The functions that are called on the target through an anchor are legal on any thread.
unsafe impl Send for Anchor {}
// SAFETY: As above, and concurrently.
unsafe impl Sync for Anchor {}

impl Anchor {
    /// # Safety
    ///
    /// `ti` must stay valid until the anchor's owner is dropped.
    pub(crate) unsafe fn new(ti: NonNull<bindings::dm_target>) -> Self {
        // INVARIANT: The caller's promise.
        Anchor { ti }
    }

    pub(crate) fn ti(&self) -> *mut bindings::dm_target {
        self.ti.as_ptr()
    }
}

/// A device opened for a table; dropping it closes it, which may sleep.
///
/// # Invariants
///
/// `dev` is valid as long as this value is. Without `unclaimed` it was got by `dm_get_device` for
/// the target of `anchor` and is put once, by this value; with it, it is the one in there.
pub struct Device {
    dev: NonNull<bindings::dm_dev>,
    unclaimed: Option<Unclaimed>,
    anchor: Shared<Anchor>,
}

/// A device of which device-mapper does not know, in the form in which it takes devices.
struct Unclaimed {
    _dev: KBox<bindings::dm_dev>,
    _open: BlockDevice,
}

// SAFETY: A `dm_dev` does not change while it is open, and is put under the table's own lock.
unsafe impl Send for Device {}
// SAFETY: As above.
unsafe impl Sync for Device {}

impl Device {
    /// Opens the device that a table line names, by path or `major:minor`. Sleeps.
    pub(crate) fn open(anchor: Shared<Anchor>, path: &CStr, mode: Mode) -> Result<Self> {
        let mut dev = core::ptr::null_mut();
        // SAFETY: The anchor's target is valid, `path` is a string that the call does not keep,
        // and `dev` is a live local.
        to_result(unsafe {
            bindings::dm_get_device(anchor.ti(), path.as_char_ptr(), mode.to_raw(), &mut dev)
        })?;
        // INVARIANT: The device was just got for this target.
        Ok(Device {
            dev: NonNull::new(dev).ok_or(ENODEV)?,
            unclaimed: None,
            anchor,
        })
    }

    /// Opens a device for reading, past device-mapper, which would claim it. Sleeps.
    pub(crate) fn open_unclaimed(anchor: Shared<Anchor>, path: &CStr) -> Result<Self> {
        let open = BlockDevice::open(DevNumber::find(path)?, Mode::Read)?;
        let mut dev = bindings::dm_dev::default();
        // Zeroed: what is written ends with a NUL if it leaves one byte.
        let room = dev.name.len() - 1;
        let mut text = Formatter::new(&mut dev.name[..room]);
        write!(text, "{}", open.number()).map_err(|_| compat::enametoolong())?;
        dev.bdev = open.as_ptr();
        dev.bdev_file = open.as_file();
        dev.mode = Mode::Read.to_raw();
        let mut dev = KBox::new(dev, GFP_KERNEL)?;
        // INVARIANT: The `dm_dev` is kept beside the pointer, and its device open.
        Ok(Device {
            dev: NonNull::from(&mut *dev),
            unclaimed: Some(Unclaimed {
                _dev: dev,
                _open: open,
            }),
            anchor,
        })
    }

    /// The raw `dm_dev`.
    pub(crate) fn as_dm_dev(&self) -> *mut bindings::dm_dev {
        self.dev.as_ptr()
    }
}

impl Deref for Device {
    type Target = Bdev;

    #[inline]
    fn deref(&self) -> &Bdev {
        // SAFETY: By the type invariants, the `dm_dev` is valid; its device never changes.
        let bdev = unsafe { (*self.dev.as_ptr()).bdev };
        // SAFETY: The device is open as long as the `dm_dev`, hence as long as `self`.
        unsafe { Bdev::from_raw(bdev) }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if self.unclaimed.is_none() {
            // SAFETY: By the type invariants, the device was got for this target, which the anchor
            // keeps, and this is the one time it is put.
            unsafe { bindings::dm_put_device(self.anchor.ti(), self.dev.as_ptr()) }
        }
    }
}
