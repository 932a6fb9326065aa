// SPDX-License-Identifier: GPL-2.0

//! The sweep: background copies of what nobody writes to.
//!
//! It goes from the first region to the last and round again. Neighbouring regions are copied
//! together, up to a [piece](PIECE_SECTORS) at a time, and some copies are under way at once, so
//! that one device reads while the other writes. `hydration_threshold` and `hydration_batch_size`
//! bind it if they are given.
//!
//! What cannot be copied keeps nothing else: it goes on a list ([`failures`](crate::failures)), and
//! is tried again later.

use crate::{
    copy_regions::{
        CopyRegions,
        PIECE_SECTORS, //
    },
    engine::{
        Engine,
        Flights, //
    },
    failures::Verdict,
    hydrate,
    in_flight::Entry,
    log,
    metadata::Mode,
    pace::{
        Advice,
        Pace, //
    },
    rate::Rate,
    region_map::RegionMap, //
};
use core::ops::Range;
use dm::{
    copier::{
        CopyError,
        Lane, //
    },
    mempool::PoolBox,
    prelude::*, //
};
use kernel::prelude::*;

/// How many copies are under way at once, unless a threshold asks for more.
const COPIES: usize = 4;
/// Nanoseconds of a millisecond.
const NSEC_PER_MSEC: u64 = 1_000_000;
/// How many copies a threshold may ask for: each has a buffer of its own, and more do not make it
/// faster.
pub(crate) const MOST_COPIES: usize = 16;
/// How many of their buffers are kept from copy to copy.
pub(crate) const KEPT_COPIES: usize = COPIES;

/// Where the background copies are.
pub(crate) struct Sweep {
    /// The region to look at next.
    next: u64,
    /// How many copies are under way.
    copies: usize,
    /// No new copies: the device is suspended.
    suspended: bool,
    /// Until then nothing is copied: too much has failed. In the time of [`Engine::now`].
    rest: u64,
    /// What is in flight left nothing to start; what lands makes room.
    waiting: bool,
    /// How hard to copy beside users.
    pub(crate) pace: Pace,
    /// How many bytes were copied, and how fast.
    pub(crate) rate: Rate,
    /// Whether user space has been told that there are regions that failed.
    failing: bool,
}

impl Sweep {
    /// A sweep before the first region, for a device that is not resumed yet.
    pub(crate) fn new() -> Self {
        Sweep {
            next: 0,
            copies: 0,
            suspended: true,
            rest: 0,
            waiting: false,
            pace: Pace::new(COPIES),
            rate: Rate::default(),
            failing: false,
        }
    }

    /// What had failed works again: there is no reason to rest any more.
    pub(crate) fn stop_resting(&mut self) {
        self.rest = 0;
    }

    /// Something has landed: whether the sweep waits for that.
    pub(crate) fn landed(&mut self) -> bool {
        core::mem::take(&mut self.waiting)
    }
}

/// Starts as many background copies as there may be. Sleeps as far as the source makes it.
pub(crate) fn sweep(this: &Shared<Engine>) {
    while may_start(this) {
        let Some((entry, lane)) = take_means(this) else {
            return;
        };
        let Some((regions, piece)) = put_next_in_flight(this, entry) else {
            return;
        };
        CopyRegions::in_background(this.clone(), regions, piece).start(lane);
    }
}

/// What a copy takes. None: memory is short, and what is in flight will start the sweep again.
fn take_means(this: &Shared<Engine>) -> Option<(PoolBox<Entry>, Lane<CopyRegions>)> {
    loop {
        // Neither may wait for what comes back when a copy ends: this may be the end of one.
        let entry = this.entries.try_alloc(Entry::new(0..0));
        if let (Ok(entry), Some(lane)) = (entry, this.sweep_copier.try_lane()) {
            return Some((entry, lane));
        }
        let mut flights = this.flights.lock();
        if flights.table.entries() != 0 {
            flights.sweep.waiting = true;
            return None;
        }
        // Nothing is in flight: the reserves are back, or will be at once.
    }
}

/// How much the settings allow.
struct Limits {
    /// Copies under way.
    copies: usize,
    /// Regions in flight.
    regions: u64,
    /// Regions of one copy.
    together: u64,
}

impl Limits {
    fn of(this: &Engine) -> Self {
        let settings = this.settings.get();
        let shift = this.metadata().geometry().region_sectors().trailing_zeros();
        let threshold = settings.hydration_threshold;
        let batch_size = settings.hydration_batch_size;
        Limits {
            copies: threshold.map_or(COPIES, |_| MOST_COPIES),
            regions: threshold.map_or(u64::MAX, u64::from),
            together: batch_size
                .map_or(u64::from(PIECE_SECTORS) >> shift, u64::from)
                .max(1),
        }
    }
}

/// Whether there may be one more copy now. If not, what would change that starts the sweep again.
fn may_start(this: &Shared<Engine>) -> bool {
    tell_of_failures(this);
    let metadata = this.metadata();
    if metadata.mode() != Mode::ReadWrite
        || metadata.is_complete()
        || !this.settings.get().hydration
    {
        return false;
    }
    let limits = Limits::of(this);
    let mut flights = this.flights.lock();
    if flights.sweep.suspended || rests(this, &mut flights) {
        return false;
    }
    let under_way = flights.sweep.copies;
    let advice = flights
        .sweep
        .pace
        .advise(this.clock(), this.users.seen(), under_way);
    this.users.set_patience(flights.sweep.pace.patience());
    let copies = match advice {
        Advice::Copy { copies } if flights.sweep.pace.is_busy() => copies.min(limits.copies),
        Advice::Copy { .. } => limits.copies,
        Advice::Rest(nanoseconds) => {
            // Under the lock: a suspension that comes later cancels it.
            Engine::set_retry_timer(this, nanoseconds / NSEC_PER_MSEC + 1);
            return false;
        }
    };
    let full = under_way >= copies || flights.table.regions() >= limits.regions;
    flights.sweep.waiting |= full;
    !full
}

/// Whether nothing is to be copied at the moment, since too much has failed.
fn rests(this: &Shared<Engine>, flights: &mut Flights) -> bool {
    let left = flights.sweep.rest.saturating_sub(this.now());
    if left > 0 {
        Engine::set_retry_timer(this, left);
    }
    left > 0
}

/// Tells user space when the first region has failed, and when none has failed any more.
fn tell_of_failures(this: &Engine) {
    let mut flights = this.flights.lock();
    // What is being tried once more has not recovered yet.
    let failing = flights.failures.failed_regions() != 0
        || flights.sweep.failing && !flights.failures.is_empty();
    let news = core::mem::replace(&mut flights.sweep.failing, failing) != failing;
    drop(flights);
    if news {
        this.table.event();
    }
}

/// How many regions are gone through at a time in search of one to be copied: interrupts are off
/// meanwhile.
const LOOK_AT: u64 = 1 << 20;

/// Puts the next regions to be copied in flight, if there are any and if more may be.
/// Returns them, and how many sectors to copy at a time.
fn put_next_in_flight(
    this: &Shared<Engine>,
    mut entry: PoolBox<Entry>,
) -> Option<(Range<u64>, u32)> {
    let map = this.metadata().regions();
    let limits = Limits::of(this);
    let mut looked_at = 0;

    loop {
        let mut flights = this.flights.lock();
        let flights = &mut *flights;
        if flights.sweep.suspended || rests(this, flights) {
            return None;
        }
        let room = limits.regions.saturating_sub(flights.table.regions());
        let piece = flights.sweep.pace.piece();
        let in_piece =
            u64::from(piece) >> this.metadata().geometry().region_sectors().trailing_zeros();
        let most = limits.together.min(room).min(in_piece.max(1));
        flights.sweep.waiting = true;
        if room == 0 || flights.sweep.copies >= limits.copies {
            return None;
        }
        let found = pick_failed(flights, map, this.now(), most).or_else(|| {
            let from = Some(flights.sweep.next).filter(|&next| next < map.regions());
            let from = from.unwrap_or(0);
            let to = from.saturating_add(LOOK_AT).min(map.regions());
            let found = find_idle(flights, map, from..to, most);
            flights.sweep.next = found.as_ref().map_or(to, |found| found.end);
            looked_at += to - from;
            found
        });
        if let Some(regions) = found {
            flights.sweep.waiting = false;
            flights.sweep.copies += 1;
            *entry = Entry::new(regions.clone());
            flights.table.insert(entry);
            return Some((regions, piece));
        }
        if looked_at >= map.regions() {
            if let Some(due) = flights.failures.next_due() {
                // Under the lock: a suspension that comes later cancels it.
                Engine::set_retry_timer(this, due.saturating_sub(this.now()).max(1));
            }
            return None;
        }
    }
}

/// A piece of a copy of the sweep has ended.
pub(crate) fn piece_ended(this: &Engine, sectors: Sector, took: u64, ok: bool) {
    let now = this.now();
    let mut flights = this.flights.lock();
    flights.sweep.pace.copied(sectors, took);
    if ok {
        flights.sweep.rate.note(now, sectors << SECTOR_SHIFT);
    }
}

/// What is to be tried again, or narrowed.
fn pick_failed(flights: &mut Flights, map: &RegionMap, now: u64, most: u64) -> Option<Range<u64>> {
    loop {
        let picked = flights
            .failures
            .pick(now, most, |regions| map.next_unhydrated(regions))?;
        let start = picked.start;
        let (_, run) = map.run(start..picked.end.min(flights.table.block_end(start)));
        match flights.table.first_of(start..start + run) {
            // Somebody writes to it; when that ends it may be picked again.
            Some(busy) if busy.start <= start => {}
            Some(busy) => return Some(start..busy.start),
            None => return Some(start..start + run),
        }
    }
}

/// The first of `within` that are neither hydrated, nor in flight, nor in trouble, `most` at most
/// and all in one block.
fn find_idle(
    flights: &Flights,
    map: &RegionMap,
    within: Range<u64>,
    most: u64,
) -> Option<Range<u64>> {
    let mut from = within.start;
    loop {
        let start = map.next_unhydrated(from..within.end)?;
        let longest = start
            .saturating_add(most)
            .min(within.end)
            .min(flights.table.block_end(start));
        let (_, run) = map.run(start..longest);
        let regions = start..start + run;
        let busy = [
            flights.table.first_of(regions.clone()),
            flights.failures.first_of(regions.clone()),
        ];
        match busy.into_iter().flatten().min_by_key(|busy| busy.start) {
            Some(busy) if busy.start <= start => from = busy.end,
            Some(busy) => return Some(start..busy.start),
            None => return Some(regions),
        }
    }
}

/// A copy of the sweep has ended.
pub(crate) fn copied(this: &Shared<Engine>, regions: Range<u64>, result: Result<(), CopyError>) {
    let mut flights = this.flights.lock();
    flights.sweep.copies -= 1;
    // It is started below.
    flights.sweep.waiting = false;
    let failed = match result {
        Ok(()) => {
            flights.failures.succeeded();
            None
        }
        Err(side) => {
            let now = this.now();
            let verdict = flights.failures.failed(regions.clone(), now);
            if let Some(rest) = flights.failures.rest() {
                flights.sweep.rest = now.saturating_add(rest);
            }
            Some((side, verdict))
        }
    };
    drop(flights);
    if let Some((side, Verdict::Failed { again })) = failed {
        report(this, regions.start, side, again);
    }
    hydrate::copied_in_background(this, regions, result);
    sweep(this);
}

/// Says which region has failed, on which side, and what becomes of it.
fn report(this: &Engine, region: u64, side: CopyError, again: u64) {
    if this.failures.allows() {
        dm::error!(
            log::NAME,
            "{}: hydration failed: region {} cannot be {}; trying again in {} s",
            this.table.device_name(),
            region,
            match side {
                CopyError::Read => "read from the source",
                CopyError::Write => "written to the destination",
            },
            again / 1000
        );
    }
}

/// Starts no more copies, and waits for those under way. Sleeps.
pub(crate) fn suspend(this: &Shared<Engine>) {
    let mut flights = this.flights.lock();
    flights.sweep.suspended = true;
    while flights.table.regions() != 0 {
        this.landed.wait(&mut flights);
    }
}

/// Whether the clone is at rest: suspended, or of a table that is not in use.
pub(crate) fn is_suspended(this: &Engine) -> bool {
    this.flights.lock().sweep.suspended
}

/// Lets copies be started again.
pub(crate) fn resume(this: &Shared<Engine>) {
    let mut flights = this.flights.lock();
    flights.sweep.suspended = false;
    flights.sweep.rest = 0;
    drop(flights);
    Engine::kick_sweep(this);
}
