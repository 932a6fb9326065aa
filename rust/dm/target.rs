// SPDX-License-Identifier: GPL-2.0

//! The trait that a device-mapper target implements.
//!
//! The [crate] begins with a target in full.

use crate::{
    args::Args,
    bindings,
    block_device::Sector,
    ctr::{
        Ctr,
        CtrError, //
    },
    device::Device,
    end_io::{
        EndBio,
        Ended, //
    },
    limits::Limits,
    map::{
        MapBio,
        Mapped, //
    },
    status::{
        StatusKind,
        StatusWriter, //
    }, //
};
use core::{
    fmt,
    ops::{
        ControlFlow,
        Range, //
    }, //
};
use kernel::{
    error::VTABLE_DEFAULT_ERROR,
    ffi::c_int,
    prelude::*, //
};

/// What a message is answered with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// Done, without words.
    None,
    /// Done; the writer holds the text for the user.
    Written,
}

/// What device-mapper may count on in all targets of a type.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Features(u64);

impl Features {
    /// Nothing.
    pub const NONE: Features = Features(0);
    /// The target is the only one of its table, hence covers the whole device.
    pub const SINGLETON: Features = Features(bindings::DM_TARGET_SINGLETON as u64);
    /// Protection information, inline encryption, writes that are not torn and bios that must not
    /// wait go through the target as its devices take them.
    pub const TRANSPARENT: Features = Features(
        (bindings::DM_TARGET_PASSES_INTEGRITY
            | bindings::DM_TARGET_NOWAIT
            | bindings::DM_TARGET_PASSES_CRYPTO
            | bindings::DM_TARGET_ATOMIC_WRITES) as u64,
    );

    /// Both.
    pub const fn and(self, other: Features) -> Features {
        Features(self.0 | other.0)
    }

    pub(crate) fn to_raw(self) -> u64 {
        self.0
    }
}

/// Whether to go on with the next device.
pub type Visit = ControlFlow<c_int>;

/// A device-mapper target. One value of the type exists for each line of a table.
///
/// The names are those of device-mapper's own `struct target_type`. Device-mapper calls everything
/// but `ctr` concurrently, hence with `&self`; the value is dropped in place of `dtr`, when no bio
/// is in flight any more. What is not implemented is not announced to device-mapper.
#[vtable]
pub trait Target: Sized + Send + Sync + 'static {
    /// The name in a table line.
    const NAME: &'static CStr;
    /// Major, minor and patch level, as `dmsetup targets` shows them.
    const VERSION: [u32; 3];
    /// What device-mapper may count on.
    const FEATURES: Features = Features::NONE;

    /// What all tables of this target share, made when the target is registered. Put what the
    /// targets keep of it into an `Arc`.
    type Global: Send + Sync;

    /// The target's data in front of each bio. Made by [`Default`] before `map`, dropped when the
    /// bio has ended, possibly in interrupt context. Aligned to 8 bytes at most.
    type PerBio: Send + Default;

    /// Checks the words of a table line and makes a target from them. May sleep.
    ///
    /// Nothing here may depend on the device being suspended or not: the table may be loaded long
    /// before it is resumed, or never be. What fails here fails `dmsetup load`.
    fn ctr(
        ti: &mut Ctr<'_, Self>,
        args: &mut Args<'_>,
    ) -> Result<impl PinInit<Self, Error>, CtrError>;

    /// Decides on a bio. May sleep, but must not wait for other bios that this thread may have
    /// submitted to the device: they are not sent before `map` returns. Allocations must not start
    /// I/O, see [`NoIo`](crate::noio::NoIo).
    ///
    /// The device that a bio is sent to is borrowed from the target, which outlives all of its bios.
    fn map<'a>(&'a self, bio: MapBio<'a, Self>) -> Mapped<'a>;

    /// Sees a bio that was remapped or submitted and that its device has done. Interrupt context.
    fn end_io<'a>(&self, _bio: EndBio<'a, Self>) -> Ended<'a> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The device is about to be suspended; bios still come. May sleep.
    fn presuspend(&self) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The suspension was given up after `presuspend`. May sleep.
    fn presuspend_undo(&self) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// No bio is in flight any more and none comes before `preresume`. May sleep.
    fn postsuspend(&self) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The device is about to be resumed with this table. May do I/O and may fail, which fails
    /// `dmsetup resume` and leaves the device suspended.
    fn preresume(&self) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Bios come from now on. Starts what runs in the background; allocates nothing.
    fn resume(&self) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Writes a status line. May sleep. The line carries neither the target's range nor its name,
    /// which are device-mapper's to write.
    fn status(&self, _kind: StatusKind, _out: &mut StatusWriter<'_>) -> fmt::Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Handles `dmsetup message`. May sleep.
    fn message(&self, _args: &mut Args<'_>, _out: &mut StatusWriter<'_>) -> Result<Reply> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Shows each range of each device that the target uses to `visit`, until that breaks off.
    fn iterate_devices(&self, _visit: &mut dyn FnMut(&Device, Range<Sector>) -> Visit) -> Visit {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Adjusts the limits that were stacked from the devices.
    fn io_hints(&self, _limits: &mut Limits) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}
