// SPDX-License-Identifier: GPL-2.0

//! A copy of neighbouring regions from the source to the destination.
//!
//! It is done piece by piece, since a region may be larger than a lane of the copier. The regions
//! become hydrated together, after the last piece.

use crate::{
    engine::Engine,
    hydrate,
    sweep, //
};
use core::ops::Range;
use dm::{
    copier::{
        CopyError,
        CopyJob,
        Lane,
        Urgency, //
    },
    extent::Extent,
    prelude::*, //
};
use kernel::{
    prelude::*,
    sync::atomic::Relaxed, //
};

/// The longest piece of a copy, in sectors: 1 MiB. Whatever the size of regions, no more has to be
/// asked of a device at once to have it work at its best.
pub(crate) const PIECE_SECTORS: u32 = 1 << 11;

/// Regions, of which the table of those in flight has the entry, on their way.
pub(crate) struct CopyRegions {
    engine: Shared<Engine>,
    regions: Range<u64>,
    /// What is not copied yet, and begins with the piece that is under way.
    left: Range<Sector>,
    /// The longest piece.
    piece: u32,
    /// When the piece under way was started.
    began: u64,
    background: bool,
}

impl CopyRegions {
    /// A copy that a write waits for, in pieces of up to `piece` sectors.
    pub(crate) fn for_write(engine: Shared<Engine>, region: u64, piece: u32) -> Self {
        Self::new(engine, region..region + 1, piece, false)
    }

    /// A copy of the sweep, in pieces of up to `piece` sectors.
    pub(crate) fn in_background(engine: Shared<Engine>, regions: Range<u64>, piece: u32) -> Self {
        Self::new(engine, regions, piece, true)
    }

    fn new(engine: Shared<Engine>, regions: Range<u64>, piece: u32, background: bool) -> Self {
        let left = engine.metadata().geometry().sectors(regions.clone());
        CopyRegions {
            engine,
            regions,
            left,
            piece,
            began: 0,
            background,
        }
    }

    /// Starts the next piece.
    pub(crate) fn start(mut self, lane: Lane<Self>) {
        if self.background {
            self.engine.users.piece_starts();
            self.began = self.engine.clock();
        }
        lane.start(self);
    }

    /// The piece under way.
    fn sectors(&self) -> Sector {
        (self.left.end - self.left.start).min(self.piece.into())
    }
}

impl CopyJob for CopyRegions {
    fn source(&self) -> Extent<'_> {
        Extent {
            dev: &self.engine.source,
            sector: self.left.start,
            sectors: self.sectors(),
        }
    }

    fn destination(&self) -> (&Bdev, Sector) {
        (&self.engine.dest, self.left.start)
    }

    fn urgency(&self) -> Urgency {
        if self.background {
            Urgency::Background
        } else {
            Urgency::Wanted
        }
    }

    fn done(mut self, lane: Lane<Self>, result: Result<(), CopyError>) {
        let sectors = self.sectors();
        if self.background {
            let took = self.engine.clock().saturating_sub(self.began);
            self.engine.users.piece_ends();
            sweep::piece_ended(&self.engine, sectors, took, result.is_ok());
        } else {
            let stats = &self.engine.stats;
            match result {
                Ok(()) => stats
                    .copied_for_writes
                    .fetch_add(sectors << SECTOR_SHIFT, Relaxed),
                Err(_) => stats.write_copy_errors.fetch_add(1, Relaxed),
            };
        }
        self.left.start += sectors;
        if result.is_ok() && !self.left.is_empty() {
            return self.start(lane);
        }
        // What ends lets others begin: they find the lane free.
        drop(lane);
        if self.background {
            sweep::copied(&self.engine, self.regions, result);
        } else {
            hydrate::copied_for_write(&self.engine, self.regions.start, result);
        }
    }
}
