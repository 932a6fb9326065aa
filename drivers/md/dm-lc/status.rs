// SPDX-License-Identifier: GPL-2.0

//! What `dmsetup status` and the message `stats` say.

use crate::{
    cache::Cache,
    format::Uuid,
    space::RECORD_SECTORS,
    table_line::Settings, //
};
use core::fmt::{
    self,
    Write, //
};
use dm::prelude::*;
use kernel::{
    sync::atomic::{
        Atomic,
        Relaxed, //
    }, //
};

/// Writes the status line; the fields are in Documentation/admin-guide/device-mapper/dm-lc-rs.rst.
pub(crate) fn write_info(cache: &Cache, out: &mut StatusWriter<'_>) -> fmt::Result {
    let settings = cache.settings();
    let (counters, [used, clean, capacity]) = cache.count();
    let (log_used, head) = {
        let head = cache.head.lock();
        (head.log.used(), head.log.end())
    };
    let space = &cache.space;
    let records = |sectors: u64| sectors / RECORD_SECTORS;
    let id_before = |id: &Atomic<u64>| id.load(Relaxed).saturating_sub(1);
    write!(
        out,
        "{} {} {} {} {} {} {} {} {} {} {} {} {} {} {}",
        settings.mode.name(),
        match (cache.has_failed(), cache.is_bypassed()) {
            (false, _) => "rw",
            (true, false) => "ro",
            (true, true) => "bypass",
        },
        if cache.needs_check() {
            "needs_check"
        } else {
            "-"
        },
        space.header_sectors(),
        RECORD_SECTORS,
        records(space.sectors()),
        records(space.sectors().saturating_sub(log_used)),
        cache.due_id.load(Relaxed),
        space.sector(head),
        id_before(&cache.durable_id),
        id_before(&cache.tail_id),
        capacity,
        used,
        used - clean,
        cache.memory_bytes(),
    )?;
    write!(out, " {}", counters.len())?;
    for count in counters {
        write!(out, " {count}")?;
    }
    let totals = &cache.totals;
    let numbers = [
        ("flushes", totals.flushes.load(Relaxed)),
        ("log_flushes", totals.log_flushes.load(Relaxed)),
        ("cache_sectors", totals.cache_sectors.load(Relaxed)),
        ("user_sectors", totals.user_sectors.load(Relaxed)),
        ("promoted", totals.promoted.load(Relaxed)),
        ("seq_bypassed", totals.seq_bypassed.load(Relaxed)),
        ("around_sectors", totals.around_sectors.load(Relaxed)),
        ("written_back", totals.written_back.load(Relaxed)),
        ("backing_writes", totals.backing_writes.load(Relaxed)),
        ("discards", totals.discards.load(Relaxed)),
        ("read_errors", totals.read_errors.load(Relaxed)),
        ("cache_errors", totals.cache_errors.load(Relaxed)),
        ("backing_errors", totals.backing_errors.load(Relaxed)),
        ("crc_errors", totals.crc_errors.load(Relaxed)),
        ("lost_sectors", cache.lost_sectors.load(Relaxed)),
        ("stalls", totals.stalls.load(Relaxed)),
        ("throttled", totals.throttled.load(Relaxed)),
        ("epoch", cache.epoch.load(Relaxed)),
        ("log_used", log_used),
        ("log_sectors", space.sectors()),
        ("backing_load", cache.backing_load.load(Relaxed).into()),
    ];
    let words = 2 * numbers.len() + Settings::STATUS_WORDS + 2;
    write!(out, " {words} cache_uuid ")?;
    write_uuid(&cache.uuid, out)?;
    for (key, number) in numbers {
        write!(out, " {key} {number}")?;
    }
    settings.write_status(out)
}

/// Writes a uuid as usual.
pub(crate) fn write_uuid(uuid: &Uuid, out: &mut StatusWriter<'_>) -> fmt::Result {
    for (number, byte) in uuid.iter().enumerate() {
        if matches!(number, 4 | 6 | 8 | 10) {
            out.write_str("-")?;
        }
        write!(out, "{byte:02x}")?;
    }
    Ok(())
}

/// Writes the 16 counters as a table.
pub(crate) fn write_stats(cache: &Cache, out: &mut StatusWriter<'_>) -> fmt::Result {
    let (counters, ..) = cache.count();
    out.write_str("write? hit? on_buffer? fullsize?\n")?;
    for (number, count) in counters.iter().enumerate() {
        let bit = |bit: usize| number >> bit & 1;
        writeln!(out, "{} {} {} {} {count}", bit(0), bit(1), bit(2), bit(3))?;
    }
    Ok(())
}
