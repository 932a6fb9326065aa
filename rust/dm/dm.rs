// SPDX-License-Identifier: GPL-2.0

//! The safe device-mapper layer.
//!
//! A target is a type that implements [`Target`](target::Target), announced to device-mapper by a
//! [`Registration`](registration::Registration). All calls into the kernel's device-mapper and
//! block layers are wrapped here; target crates contain no `unsafe` code.
//!
//! # A target in full
//!
//! ```ignore
//! use dm::prelude::*;
//!
//! struct Linear {
//!     dev: Device,
//!     start: Sector,
//! }
//!
//! #[vtable]
//! impl Target for Linear {
//!     const NAME: &'static CStr = c"linear2";
//!     const VERSION: [u32; 3] = [1, 0, 0];
//!     type Global = ();
//!     type PerBio = ();
//!
//!     fn ctr(
//!         ti: &mut Ctr<'_, Self>,
//!         args: &mut Args<'_>,
//!     ) -> Result<impl PinInit<Self, Error>, CtrError> {
//!         let bad = |e| CtrError::argument("linear2", e, c"Invalid argument");
//!         let path = args.next("device").map_err(bad)?;
//!         let start = args.next("start").and_then(|arg| arg.number(0..=u64::MAX)).map_err(bad)?;
//!         let dev = ti
//!             .open(path, Mode::ReadWrite)
//!             .map_err(|e| CtrError::new(e, c"Device lookup failed"))?;
//!         Ok(try_init!(Linear { dev, start }? Error))
//!     }
//!
//!     fn map<'a>(&'a self, bio: MapBio<'a, Self>) -> Mapped<'a> {
//!         let sector = bio.sector().saturating_add(self.start);
//!         bio.remap(&self.dev, sector)
//!     }
//! }
//! ```
//!
//! # Where things are
//!
//! - What device-mapper calls: [`target`], [`registration`], [`ctr`], [`args`], [`status`],
//!   [`limits`], [`table`]. What the tables of a device share: [`registry`].
//! - Bios, by who holds them: [`bio`], [`map`], [`owned_bio`], [`bio_list`], [`end_io`].
//! - Devices: [`block_device`], [`device`].
//! - Work in the background: [`workqueue`], [`shared`].
//! - Locks: [`irq_lock`], [`rwsem`].
//! - Memory that does not run out: [`mempool`], [`noio`]; that many copy to at a time:
//!   [`shared_memory`].
//! - I/O of the target's own: [`extent`], [`copier`], [`dm_io`].
//! - Metadata in transactions: [`persistent_data`].
//! - For on-disk formats: [`crc`], [`random`].
//! - Below the users of a device that is in use: [`interpose`], [`freeze`], [`drain`].
//! - Kernel messages: [`log`], [`ratelimit`]. What differs between kernels: [`compat`].

// `pr_*!` asks for it; a crate with `module!` gets one from there.
const __LOG_PREFIX: &[u8] = b"device-mapper\0";

pub mod args;
pub mod atomic_words;
mod bindings;
pub mod bio;
pub mod bio_list;
pub mod block_device;
pub mod compat;
pub mod copier;
pub mod crc;
pub mod ctr;
pub mod device;
pub mod dm_io;
pub mod drain;
pub mod end_io;
pub mod extent;
pub mod freeze;
pub mod interpose;
pub mod irq_lock;
pub mod limits;
pub mod log;
pub mod map;
pub mod mempool;
pub mod module_ref;
pub mod noio;
pub mod once_flag;
pub mod owned_bio;
mod per_bio;
pub mod persistent_data;
pub mod random;
pub mod ratelimit;
pub mod registration;
pub mod registry;
pub mod rwsem;
pub mod shared;
pub mod shared_memory;
pub mod status;
pub mod table;
pub mod target;
mod wait;
pub mod workqueue;
pub mod zeroed;

/// What nearly every target uses.
pub mod prelude {
    pub use crate::{
        args::{
            Arg,
            ArgError,
            Args, //
        },
        bio::{
            Bio,
            Op,
            Status, //
        },
        bio_list::BioList,
        block_device::{
            Bdev,
            BlockDevice,
            Sector,
            SECTOR_SHIFT, //
        },
        ctr::{
            Ctr,
            CtrError, //
        },
        device::{
            Device,
            Mode, //
        },
        end_io::{
            EndBio,
            Ended, //
        },
        irq_lock::{
            new_irq_lock,
            IrqLock, //
        },
        limits::Limits,
        map::{
            MapBio,
            Mapped, //
        },
        owned_bio::{
            DoneBio,
            OwnedBio, //
        },
        registration::Registration,
        shared::{
            Owner,
            Shared, //
        },
        status::{
            StatusKind,
            StatusWriter, //
        },
        table::Table,
        target::{
            Features,
            Reply,
            Target,
            Visit, //
        },
        workqueue::{
            HasQueue,
            OwnedQueue, //
        }, //
    };
}
