// SPDX-License-Identifier: GPL-2.0

//! What is done by the clock: writing back while the backing device is idle, and what is too old; and
//! the superblock.
//!
//! Below the watermarks nothing has to be written back. What is, later need not be, when the users
//! need the backing device. So with a `migrate_threshold` above 0 one batch is written back every
//! `update_interval`, if in that interval the device was not busier than the threshold. What the
//! batches of the writeback take themselves is not counted: only the time between them is.

use crate::{
    age::Age,
    cache::Cache,
    table_line::{
        Knob,
        Settings, //
    },
    writeback, //
};
use dm::prelude::*;
use kernel::{
    sync::atomic::Relaxed,
    time::{
        Instant,
        Monotonic, //
    }, //
};

/// How often the clock ticks, in milliseconds.
pub(crate) const TICK_MS: u32 = 1000;

/// What is known since when.
#[derive(Default)]
pub(crate) struct Clock {
    /// Seconds since the superblock was written.
    superblock_age: u32,
    /// The beginning of the interval that is looked at.
    since: Option<Sample>,
}

struct Sample {
    /// How many batches there had been.
    batches: u64,
    /// How long the backing device had been busy, in milliseconds.
    busy_ms: u32,
    at: Instant<Monotonic>,
}

impl Clock {
    /// Whether there is something to do by the clock.
    pub(crate) fn is_wanted(settings: &Settings) -> bool {
        settings.get(Knob::MigrateThreshold) != 0
            || settings.get(Knob::CommitSuperBlockInterval) != 0
    }

    /// How many percent of the interval the backing device was busy. None if the interval is not
    /// over, or was disturbed: then another one begins.
    fn load(&mut self, cache: &Cache, interval: u32) -> Option<u32> {
        let now = Sample {
            batches: cache.batches(),
            busy_ms: cache.backing.busy_ms(),
            at: Instant::now(),
        };
        let Some(since) = &self.since else {
            self.since = Some(now);
            return None;
        };
        if since.batches != now.batches {
            self.since = Some(now);
            return None;
        }
        let elapsed = since.at.elapsed().as_millis().unsigned_abs();
        // Ticks come late rather than early, but not by the millisecond.
        if elapsed + u64::from(TICK_MS / 10) < u64::from(interval) * 1000 {
            return None;
        }
        let busy = u64::from(now.busy_ms.wrapping_sub(since.busy_ms));
        self.since = Some(now);
        let percent = busy.saturating_mul(100).checked_div(elapsed);
        Some(percent.unwrap_or(0).min(100) as u32)
    }
}

/// A second has passed. Sleeps.
pub(crate) fn tick(this: &Shared<Cache>) {
    let settings = this.settings();
    let mut clock = this.clock.lock();
    clock.superblock_age += 1;
    let interval = settings.get(Knob::CommitSuperBlockInterval);
    if interval != 0 && clock.superblock_age >= interval {
        clock.superblock_age = 0;
        // A failure has been reported.
        let _ = Cache::commit_superblock(this);
    }
    let threshold = settings.get(Knob::MigrateThreshold);
    let Some(load) = clock.load(this, settings.get(Knob::UpdateInterval)) else {
        return;
    };
    this.backing_load.store(load, Relaxed);
    if threshold != 0 && load <= threshold && settings.is_set(Knob::AllowMigrate) {
        writeback::run_once(this);
    }
}

/// How old what is dirty is.
pub(crate) struct Ageing {
    age: Age,
    /// Times are counted from then on.
    since: Instant<Monotonic>,
}

impl Ageing {
    pub(crate) fn new() -> Self {
        Ageing {
            age: Age::default(),
            since: Instant::now(),
        }
    }
}

/// How old something dirty may be, in milliseconds; None if that does not matter now. Any context.
pub(crate) fn max_age(cache: &Cache) -> Option<u32> {
    let settings = cache.settings();
    let max_age = settings.get(Knob::MaxAgeMs);
    let matters = max_age != 0
        && settings.is_set(Knob::AllowMigrate)
        && !cache.is_suspended()
        && !cache.has_failed();
    matters.then_some(max_age)
}

/// Has written back what is too old. Looks again later if anything is dirty: whoever is the first to
/// write to a cache that is clean starts it again. Sleeps.
pub(crate) fn age(this: &Shared<Cache>) {
    let Some(max_age) = max_age(this) else {
        return;
    };
    let mut ageing = this.ageing.lock();
    let now = ageing.since.elapsed().as_millis().unsigned_abs();
    let head = this.head.lock();
    let (tail, end) = (head.log.tail(), head.log.end());
    let old = ageing.age.look(now, tail, end, max_age);
    let is_news = old.is_some_and(|old| old > this.drain_to.load(Relaxed));
    if let Some(old) = old.filter(|_| is_news) {
        this.drain_to.store(old, Relaxed);
    }
    drop(head);
    if is_news {
        Cache::kick_writeback(this);
    }
    if tail < end {
        Cache::start_ageing(this);
    }
}
