// SPDX-License-Identifier: GPL-2.0

//! Device-mapper target `lc`: a write cache that is a log.
//!
//! Writes to a slow backing device are gathered in memory, written one behind the other, with
//! checksums, to a fast cache device, and later written back in the order of the backing device. A
//! flush costs one write and one flush of the cache device, for all that wait for it. What was
//! acknowledged to a flush survives a crash at any moment.
//!
//! # Where things are
//!
//! - What device-mapper calls: [`target`]; the words it is given: [`table_line`], [`message`]; what
//!   it is told: [`status`].
//! - The way of a bio: [`read`], which is [compared](verify) with its checksum if that is wanted,
//!   [`write`](mod@write). What all share: [`cache`], one for all tables
//!   of a device: [`registry`]. What it begins with: [`adopt`]; what it does when a table is resumed and
//!   suspended: [`session`].
//! - What runs in the background: [`work`]. [`commit`] makes the log durable, [`writeback`] writes it back,
//!   also [by the clock](clock) while the backing device is idle; [`promote`] copies what is read; when nobody [reads](readers) it any
//!   more it is overwritten. The cache device: [`disk`]; whether it is as it was written: [`check`].
//! - Pure, tested on the host: where the log is, [`space`]; what is on the disk, [`format`](mod@format);
//!   the buffers, [`log`]; which sectors are where, [`index`]; reading the log, [`recovery`]; what is
//!   written back and when it is given free, [`batch`]; which reads are copied, [`admission`]; which I/O
//!   continues which, [`runs`]; how old what is dirty is, [`age`].
//!
//! The format, and why what is recovered is right, is in
//! Documentation/admin-guide/device-mapper/dm-lc-rs-format.rst.

#![forbid(unsafe_code)]

use dm::prelude::*;
use kernel::prelude::*;

pub mod admission;
mod adopt;
pub mod age;
mod backing;
pub mod batch;
mod cache;
mod check;
pub mod checksum;
mod clock;
mod commit;
mod disk;
pub mod format;
pub mod index;
pub mod log;
pub mod message;
pub mod platform;
mod promote;
mod read;
mod readers;
pub mod recovery;
mod registry;
mod room;
pub mod runs;
mod session;
pub mod space;
mod status;
pub mod table_line;
mod target;
pub mod throttle;
mod verify;
mod work;
mod write;
mod writeback;

/// The name in kernel messages.
pub(crate) const NAME: &str = "lc";

module! {
    type: LcModule,
    name: "dm_lc_rs",
    authors: ["dm-rs developers"],
    description: "device-mapper log-structured write cache",
    license: "GPL",
    alias: ["dm-lc"],
}

/// What exists while the module is loaded.
#[pin_data]
struct LcModule {
    #[pin]
    _registration: Registration<target::LcTarget>,
}

impl kernel::InPlaceModule for LcModule {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            let registry = registry::Caches::new()?;
            Ok(try_pin_init!(LcModule {
                _registration <- Registration::new(module, registry),
            }? Error))
        })
    }
}
