// SPDX-License-Identifier: GPL-2.0

//! Discards: regions that need not be copied any more.
//!
//! A discard hydrates the regions that it covers whole, without a copy, and is then passed on to
//! the destination, if that takes discards. Afterwards the regions read as whatever the
//! destination has there. Of a region that is covered only in part, the destination may discard
//! that part if the region is hydrated; if not, the part is left out.
//!
//! A region that is in flight is left alone: it becomes hydrated when what is on its way arrives.
//! Marking it earlier would let a write pass, which the late copy would overwrite.

use crate::{
    engine::Engine,
    metadata::Mode,
    target::CloneTarget,
    uncommitted::By, //
};
use core::ops::Range;
use dm::prelude::*;
use kernel::prelude::*;

/// Decides on a discard in `map`.
pub(crate) fn map(this: &Shared<Engine>, bio: OwnedBio<CloneTarget>) {
    let metadata = this.metadata();
    let covered = metadata.geometry().covered(bio.range());
    if metadata.is_complete() || metadata.regions().next_unhydrated(covered).is_none() {
        pass_down(this, bio);
    } else if metadata.mode() == Mode::ReadWrite {
        this.deferred.lock().discards.push(bio);
        Engine::kick_io(this);
    } else {
        // Nothing could be marked; a discard is a hint, and may be ignored.
        bio.end(Status::OK);
    }
}

/// Marks what a discard covers, and passes it down. May sleep.
pub(crate) fn mark_and_pass_down(this: &Shared<Engine>, bio: OwnedBio<CloneTarget>) {
    mark(this, this.metadata().geometry().covered(bio.range()));
    pass_down(this, bio);
}

/// Marks regions as hydrated, but for those in flight.
fn mark(this: &Shared<Engine>, regions: Range<u64>) {
    let metadata = this.metadata();
    let mut dirty = false;
    let mut from = regions.start;
    while from < regions.end {
        // One block at a time, so that interrupts are not kept off for long.
        let mut flights = this.flights.lock();
        let end = flights.table.block_end(from).min(regions.end);
        while from < end {
            let busy = flights.table.first_of(from..end).unwrap_or(end..end);
            if from < busy.start {
                dirty |= metadata.mark(from..busy.start, By::User);
                flights.failures.released(from..busy.start, true);
            }
            from = busy.end;
        }
    }
    if dirty {
        Engine::start_commit_timer(this);
        // It may have had them on its list.
        Engine::kick_sweep(this);
    }
}

/// Passes a discard on to the destination, without the parts of regions that are not hydrated.
fn pass_down(this: &Shared<Engine>, mut bio: OwnedBio<CloneTarget>) {
    let metadata = this.metadata();
    let sectors = metadata.geometry().trimmed(bio.range(), |region| {
        metadata.is_complete() || metadata.regions().is_hydrated(region)
    });
    if sectors.is_empty() || !this.settings.get().discard_passdown {
        return bio.end(Status::OK);
    }
    let narrowed = u32::try_from(sectors.start - bio.sector())
        .and_then(|offset| Ok((offset, u32::try_from(sectors.end - sectors.start)?)))
        .map_err(Error::from)
        .and_then(|(offset, len)| bio.trim(offset, len));
    match narrowed {
        Ok(()) => bio.submit(&this.dest, sectors.start),
        Err(errno) => bio.end(errno),
    }
}
