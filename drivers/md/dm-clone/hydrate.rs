// SPDX-License-Identifier: GPL-2.0

//! Hydration: regions get their data on the destination.
//!
//! A write into a region that is not hydrated either covers it whole, and then hydrates it by
//! itself, or waits until the region has been copied from the source. What nobody writes to is
//! copied by the [`sweep`](crate::sweep).

use crate::{
    commit,
    copy_regions::CopyRegions,
    engine::Engine,
    in_flight::Entry,
    metadata::Mode,
    target::CloneTarget,
    uncommitted::By, //
};
use core::ops::Range;
use dm::{
    copier::{
        CopyError,
        Lane, //
    },
    mempool::{
        Pool,
        PoolBox, //
    },
    prelude::*, //
};

/// Whether a function may wait for memory. None waits for the copies of others, which take as long as the
/// source does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Yes.
    May,
    /// No: what frees the memory may be queued behind the bio of this call.
    MustNot,
}

/// Puts regions in flight for a write that hydrates them by covering them whole: from the first
/// that it touches and that is not hydrated on, up to one that is in flight already. Those between
/// that are hydrated go with them: all of them are on the destination.
///
/// None if the write does not hydrate what it touches first, and if there is no memory. Does not
/// sleep.
pub(crate) fn begin_overwrite(this: &Engine, sectors: Range<Sector>) -> Option<Range<u64>> {
    let metadata = this.metadata();
    let (geometry, map) = (metadata.geometry(), metadata.regions());
    let covered = geometry.covered(sectors.clone());
    let first = map.next_unhydrated(geometry.touched(sectors))?;
    if !covered.contains(&first) {
        return None;
    }
    let mut entry = this.entries.try_alloc(Entry::new(0..0)).ok()?;

    let mut flights = this.flights.lock();
    if metadata.mode() != Mode::ReadWrite {
        return None;
    }
    let end = covered.end.min(flights.table.block_end(first));
    let busy = flights.table.first_of(first..end);
    let end = busy.map_or(end, |busy| end.min(busy.start));
    // Looked at again: what was in flight before the lock was taken may have landed.
    if end <= first || map.is_hydrated(first) {
        return None;
    }
    *entry = Entry::mixed(first..end, map.unhydrated(first..end));
    flights.table.insert(entry);
    Some(first..end)
}

/// Sends a write on its way, hydrating its region first if that is not. The write lies within
/// regions that are hydrated, or within one that is not.
pub(crate) fn write(this: &Shared<Engine>, bio: OwnedBio<CloneTarget>, wait: Wait) {
    write_in(this, bio, wait, None);
}

/// As [`write()`], with a lane for the copy if there has to be one.
fn write_in(
    this: &Shared<Engine>,
    mut bio: OwnedBio<CloneTarget>,
    wait: Wait,
    mut lane: Option<Lane<CopyRegions>>,
) {
    let metadata = this.metadata();
    let geometry = metadata.geometry();
    let region = geometry.region_of(bio.sector());
    let covers = geometry.covered(bio.range()) == (region..region + 1);
    let mut spare: Option<PoolBox<Entry>> = None;

    loop {
        let mut flights = this.flights.lock();
        if metadata.regions().is_hydrated(region) {
            drop(flights);
            give_back(this, lane);
            return commit::send_write(this, bio);
        }
        if let Some(entry) = flights.table.find(region) {
            entry.wait(bio);
            drop(flights);
            return give_back(this, lane);
        }
        if metadata.mode() != Mode::ReadWrite {
            drop(flights);
            give_back(this, lane);
            return bio.end(Status::IOERR);
        }
        // What it takes is found without the lock; then all is looked at again.
        let Some(mut entry) = spare.take() else {
            drop(flights);
            spare = allocate(&this.entries, Entry::new(region..region + 1), wait);
            if spare.is_none() {
                return defer(this, bio);
            }
            continue;
        };
        if covers {
            flights.table.insert(entry);
            drop(flights);
            let fua = bio.is_fua();
            bio.per_bio().overwrite(region, fua);
            let sector = bio.sector();
            return bio.submit(&this.dest, sector);
        }
        let Some(lane) = lane.take() else {
            drop(flights);
            spare = Some(entry);
            lane = take_lane(this, wait);
            if lane.is_none() {
                return match wait {
                    Wait::May => this.deferred.lock().for_lanes.push(bio),
                    Wait::MustNot => defer(this, bio),
                };
            }
            continue;
        };
        entry.wait(bio);
        flights.table.insert(entry);
        drop(flights);
        let piece = (this.write_copier.capacity() >> SECTOR_SHIFT) as u32;
        return CopyRegions::for_write(this.clone(), region, piece).start(lane);
    }
}

/// An object from a pool.
fn allocate<T>(pool: &Pool<T>, value: T, wait: Wait) -> Option<PoolBox<T>> {
    match wait {
        Wait::May => Some(pool.alloc(value)),
        Wait::MustNot => pool.try_alloc(value).ok(),
    }
}

/// A lane for a write's copy, unless all are in use, or others wait for one.
fn take_lane(this: &Engine, wait: Wait) -> Option<Lane<CopyRegions>> {
    if !this.deferred.lock().for_lanes.is_empty() {
        return None;
    }
    match wait {
        Wait::May => this.write_copier.lane(),
        Wait::MustNot => this.write_copier.try_lane(),
    }
}

/// Goes on with writes that wait for a lane, as far as there are some. Where one comes back, the I/O work item
/// is started, which does this. Sleeps.
pub(crate) fn go_on_with_lanes(this: &Shared<Engine>) {
    while !this.deferred.lock().for_lanes.is_empty() {
        let Some(lane) = this.write_copier.lane() else {
            return;
        };
        let bio = this.deferred.lock().for_lanes.pop();
        if let Some(bio) = bio {
            write_in(this, bio, Wait::May, Some(lane));
        }
    }
}

/// Leaves a write to the I/O work item, which may wait.
fn defer(this: &Shared<Engine>, bio: OwnedBio<CloneTarget>) {
    this.deferred.lock().writes.push(bio);
    Engine::kick_io(this);
}

/// A copy that a write waits for has ended. If it has failed, so have the writes that need it: those
/// that do not cover the region.
pub(crate) fn copied_for_write(this: &Shared<Engine>, region: u64, result: Result<(), CopyError>) {
    let geometry = this.metadata().geometry();
    let needs = |bio: &OwnedBio<CloneTarget>| geometry.covered(bio.range()).is_empty();
    land(this, region, status_of(result), By::Copy, needs);
    lane_is_free(this);
}

/// Gives back a lane that turned out not to be needed, if there is one.
fn give_back(this: &Shared<Engine>, lane: Option<Lane<CopyRegions>>) {
    if lane.is_some() {
        drop(lane);
        lane_is_free(this);
    }
}

/// Others may wait for it.
fn lane_is_free(this: &Shared<Engine>) {
    if !this.deferred.lock().for_lanes.is_empty() {
        Engine::kick_io(this);
    }
}

/// A copy of the sweep has ended, of these regions and maybe more.
pub(crate) fn copied_in_background(
    this: &Shared<Engine>,
    regions: Range<u64>,
    result: Result<(), CopyError>,
) {
    land(this, regions.start, status_of(result), By::Copy, |_| false);
}

fn status_of(result: Result<(), CopyError>) -> Status {
    result.map_or(Status::IOERR, |()| Status::OK)
}

/// A user's write that covers the regions from `first` on has ended. Any context.
pub(crate) fn overwritten(this: &Shared<Engine>, first: u64, status: Status) {
    land(this, first, status, By::User, |_| false);
}

/// What was on its way into the regions from `start` on has arrived there, or has failed. `by` says
/// whose data it was, `needs` which of the writes that wait fail as well then: what has failed may be
/// in another region, or nothing that a write is in need of, so the others are tried by themselves.
/// Any context.
fn land(
    this: &Shared<Engine>,
    start: u64,
    status: Status,
    by: By,
    needs: impl Fn(&OwnedBio<CloneTarget>) -> bool,
) {
    let arrived = status == Status::OK;
    let mut flights = this.flights.lock();
    let Some(entry) = flights.table.remove(start) else {
        return;
    };
    if arrived && this.metadata().mark(entry.regions(), by) {
        // Under the lock: once nothing is in flight, a suspension may cancel the timer for good.
        if this.metadata().is_all_hydrated() {
            // Who waits for the end need not wait for the timer.
            Engine::kick_commit(this);
        } else {
            Engine::start_commit_timer(this);
        }
    }
    if flights.table.regions() == 0 {
        this.landed.notify_all();
    }
    let mut wake = flights.sweep.landed();
    if !flights.failures.is_empty() {
        if arrived {
            let recovered = flights.failures.arrived(entry.regions(), this.now());
            if recovered {
                flights.sweep.stop_resting();
            }
            wake |= recovered;
        } else {
            flights.failures.released(entry.regions(), false);
        }
    }
    if wake {
        Engine::kick_sweep(this);
    }
    drop(flights);

    let mut waiting = entry.into_waiting();
    if !arrived {
        let mut others = BioList::new();
        while let Some(bio) = waiting.pop() {
            if needs(&bio) {
                bio.end(status);
            } else {
                others.push(bio);
            }
        }
        waiting = others;
    }
    if !waiting.is_empty() {
        this.deferred.lock().writes.append(waiting);
        Engine::kick_io(this);
    }
}
