// SPDX-License-Identifier: GPL-2.0

//! What the message `stats` tells: one `key value` a line.

use crate::engine::Engine;
use core::fmt::{
    self,
    Write, //
};
use dm::prelude::*;
use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};

/// What is counted nowhere else. None of it is touched once the clone is complete.
pub(crate) struct Stats {
    /// Bytes that were copied because of a write.
    pub(crate) copied_for_writes: Atomic<u64>,
    /// Such copies that failed.
    pub(crate) write_copy_errors: Atomic<u64>,
    /// Commits that changed something.
    pub(crate) commits: Atomic<u64>,
}

impl Stats {
    pub(crate) fn new() -> Self {
        Stats {
            copied_for_writes: Atomic::new(0),
            write_copy_errors: Atomic::new(0),
            commits: Atomic::new(0),
        }
    }
}

/// Writes all of it. May sleep.
pub(crate) fn write(this: &Engine, out: &mut StatusWriter<'_>) -> fmt::Result {
    let metadata = this.metadata();
    let geometry = metadata.geometry();
    let stats = &this.stats;
    let groups = *this.groups.lock();
    let (committed, hydrated) = (metadata.committed(), metadata.hydrated());
    let now = this.now();

    let flights = this.flights.lock();
    let rate = &flights.sweep.rate;
    let left = (geometry.regions() - hydrated)
        .saturating_mul(u64::from(geometry.region_sectors()) << SECTOR_SHIFT);
    let (copied, present, mean) = (rate.total(), rate.present(now), rate.mean());
    let eta = rate.seconds_for(left, now);
    let in_flight = flights.table.regions();
    let errors = flights.failures.errors();
    let retries = flights.failures.retries();
    let failed = flights.failures.failed_regions();
    let share = flights.sweep.pace.share();
    drop(flights);

    let for_writes = stats.copied_for_writes.load(Relaxed);
    let errors = errors + stats.write_copy_errors.load(Relaxed);
    let lines = [
        ("committed_regions", committed),
        ("hydrated_regions", hydrated),
        ("total_regions", geometry.regions()),
        ("in_flight_regions", in_flight),
        ("copied_bytes", copied),
        ("copied_for_writes_bytes", for_writes),
        ("rate_bytes_per_second", present),
        ("mean_rate_bytes_per_second", mean),
    ];
    for (key, value) in lines {
        writeln!(out, "{key} {value}")?;
    }
    match eta {
        Some(seconds) => writeln!(out, "eta_seconds {seconds}")?,
        None => writeln!(out, "eta_seconds unknown")?,
    }
    let lines = [
        ("errors", errors),
        ("retries", retries),
        ("failed_regions", failed),
        ("commits", stats.commits.load(Relaxed)),
        ("commit_groups", groups.groups),
        ("commit_group_bios", groups.bios),
        ("largest_commit_group", groups.largest),
        ("min_share_percent", share.into()),
    ];
    for (key, value) in lines {
        writeln!(out, "{key} {value}")?;
    }
    Ok(())
}
