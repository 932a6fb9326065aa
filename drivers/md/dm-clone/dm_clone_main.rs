// SPDX-License-Identifier: GPL-2.0

//! Device-mapper target `clone`: a device that is usable at once while it is being copied.
//!
//! A clone makes a one-to-one copy of a read-only source device onto a writable destination
//! device, and presents a device that reads and writes as if the copy were complete. Regions that
//! have been copied, written whole or discarded are *hydrated*, and served by the destination;
//! others are read from the source. Metadata on a third device remembers which are which.
//!
//! # Where things are
//!
//! - What device-mapper calls: [`target`], and the words it is given: [`table_line`].
//! - The way of a bio: [`target`] decides, [`read`] sends parts to where they are, [`hydrate`] lets
//!   writes wait ([`in_flight`]) for copies ([`copy_regions`]), [`discard`] marks, [`commit`] makes
//!   durable.
//! - What runs in the background: [`sweep`] copies. What all share: [`engine`].
//! - What is known about regions: [`metadata`], one for all tables of a device: [`registry`]; on the
//!   metadata device: [`disk`].
//! - Pure, tested on the host: [`geometry`]; in memory: [`region_map`], [`uncommitted`] with
//!   [`block_set`]; on disk: [`store`], made of [`tree`] and [`space_map`], and [`format`] and
//!   [`block`].
//! - Pure as well: what cannot be copied, [`failures`]; how hard to copy, [`pace`]; how fast it goes,
//!   [`rate`]; the words of [`table_line`] and [`message`].

#![forbid(unsafe_code)]

use dm::prelude::*;
use kernel::prelude::*;

pub mod block;
pub mod block_set;
mod commit;
mod copy_regions;
mod discard;
mod disk;
mod engine;
pub mod failures;
pub mod format;
pub mod geometry;
mod hydrate;
mod in_flight;
mod log;
pub mod message;
mod metadata;
pub mod pace;
pub mod platform;
pub mod rate;
mod read;
pub mod region_map;
mod registry;
pub mod space_map;
mod stats;
pub mod store;
mod sweep;
pub mod table_line;
mod target;
pub mod tree;
pub mod uncommitted;
mod users;

module! {
    type: CloneModule,
    name: "dm_clone_rs",
    authors: ["dm-rs developers"],
    description: "device-mapper clone target",
    license: "GPL",
    alias: ["dm-clone"],
}

/// What exists while the module is loaded.
#[pin_data]
struct CloneModule {
    #[pin]
    _registration: Registration<target::CloneTarget>,
}

impl kernel::InPlaceModule for CloneModule {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            let registry = registry::OpenMetadata::new()?;
            Ok(try_pin_init!(CloneModule {
                _registration <- Registration::new(module, registry),
            }? Error))
        })
    }
}
