// SPDX-License-Identifier: GPL-2.0

//! What a target's constructor works with.
//!
//! ```ignore
//! fn ctr(
//!     ti: &mut Ctr<'_, Self>,
//!     args: &mut Args<'_>,
//! ) -> Result<impl PinInit<Self, Error>, CtrError> {
//!     let path = args
//!         .next("device")
//!         .map_err(|error| CtrError::argument("example", error, c"Missing device"))?;
//!     let dev = ti
//!         .open(path, Mode::ReadWrite)
//!         .map_err(|errno| CtrError::new(errno, c"Device lookup failed"))?;
//!     ti.set_flushes(1);
//!     Ok(try_init!(Example { dev, table: ti.table() }? Error))
//! }
//! ```

use crate::{
    args::{
        Arg,
        ArgError, //
    },
    bindings,
    block_device::Sector,
    device::{
        Anchor,
        Device,
        Mode, //
    },
    shared::Shared,
    table::Table,
    target::Target, //
};
use core::ptr::NonNull;
use kernel::{
    alloc::AllocError,
    error::to_result,
    prelude::*, //
};

/// Why a table line was refused: an errno for `dmsetup`, and a sentence for the kernel log.
pub struct CtrError {
    pub(crate) errno: Error,
    pub(crate) message: &'static CStr,
}

impl CtrError {
    /// `message` is logged by device-mapper in front of the errno.
    pub fn new(errno: Error, message: &'static CStr) -> Self {
        CtrError { errno, message }
    }

    /// For a wrong word: logs what was wrong with it, under the target's name, in front of the
    /// `message` that device-mapper logs.
    pub fn argument(target: &str, error: ArgError<'_>, message: &'static CStr) -> Self {
        crate::error!(target, "{}", error);
        CtrError {
            errno: EINVAL,
            message,
        }
    }
}

impl From<AllocError> for CtrError {
    fn from(_: AllocError) -> Self {
        CtrError::new(ENOMEM, c"Failed to allocate memory")
    }
}

/// The target under construction. May sleep throughout.
pub struct Ctr<'a, T: Target> {
    ti: NonNull<bindings::dm_target>,
    anchor: Shared<Anchor>,
    global: &'a T::Global,
}

impl<'a, T: Target> Ctr<'a, T> {
    /// # Safety
    ///
    /// `ti` must be the target that is being constructed, and `anchor` its anchor.
    pub(crate) unsafe fn from_raw(
        ti: NonNull<bindings::dm_target>,
        anchor: Shared<Anchor>,
        global: &'a T::Global,
    ) -> Self {
        Ctr { ti, anchor, global }
    }

    /// What all tables of this target share.
    pub fn global(&self) -> &'a T::Global {
        self.global
    }

    fn ti(&mut self) -> &mut bindings::dm_target {
        // SAFETY: By `from_raw`'s contract the target is valid, and during its construction nobody
        // else uses it; `self` is borrowed mutably.
        unsafe { self.ti.as_mut() }
    }

    /// Where the target begins on the mapped device, in sectors.
    pub fn begin(&mut self) -> Sector {
        self.ti().begin
    }

    /// How long the target is, in sectors.
    pub fn sectors(&mut self) -> Sector {
        self.ti().len
    }

    /// Opens the device that `path` names, by path or `major:minor`, for this table.
    pub fn open(&mut self, path: Arg<'_>, mode: Mode) -> Result<Device> {
        Device::open(self.anchor.clone(), path.as_c_str(), mode)
    }

    /// Opens the device that `path` names, by path or `major:minor`, for reading and without a
    /// claim: it may be in use, mounted for instance, and come into use later. `dmsetup deps` does
    /// not show it.
    pub fn open_unclaimed(&mut self, path: Arg<'_>) -> Result<Device> {
        Device::open_unclaimed(self.anchor.clone(), path.as_c_str())
    }

    /// A handle to the table and its mapped device.
    pub fn table(&self) -> Table {
        Table::new(self.anchor.clone())
    }

    /// Lets device-mapper split bios so that none crosses a multiple of `sectors`.
    pub fn set_max_io_len(&mut self, sectors: Sector) -> Result {
        // SAFETY: The target is valid and under construction.
        to_result(unsafe { bindings::dm_set_target_max_io_len(self.ti.as_ptr(), sectors) })
    }

    /// How many copies of each flush the target gets, whether or not its devices have a volatile
    /// cache.
    pub fn set_flushes(&mut self, copies: u32) {
        self.ti().num_flush_bios = copies;
        self.ti().set_flush_supported(copies != 0);
    }

    /// Lets the target get each discard, whether or not its devices take discards.
    pub fn set_discards(&mut self) {
        self.ti().num_discard_bios = 1;
        self.ti().set_discards_supported(true);
    }

    /// Has the target get what its device does of secure erasing and of writing zeroes without data.
    pub fn set_erasing(&mut self) {
        self.ti().num_secure_erase_bios = 1;
        self.ti().num_write_zeroes_bios = 1;
    }

    /// Has discards split at the limit that `io_hints` sets.
    pub fn set_split_discards(&mut self) {
        self.ti().set_max_discard_granularity(true);
    }

    /// Lets device-mapper bound how many bios of swapping may be in flight in this target.
    pub fn set_limit_swap_bios(&mut self) {
        self.ti().set_limit_swap_bios(true);
    }
}
