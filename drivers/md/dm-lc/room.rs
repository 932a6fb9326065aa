// SPDX-License-Identifier: GPL-2.0

//! Room for what is to be written: what is written back, and is kept for reads, is given up before
//! the head of the log runs into it.
//!
//! First nobody finds it in the index any more; then those who found it before have read it; then it
//! may be overwritten. The entries of the index that it had are swept up bit by bit: by the time
//! that a twelfth of the log was given up, all entries were looked at. So what was given up holds no
//! more entries than a sixth of the log has.

use crate::{
    cache::Cache,
    space::RECORD_SECTORS, //
};
use dm::prelude::*;
use kernel::sync::atomic::Relaxed;

/// How often all entries are looked at while all of the log is given up.
const ROUNDS: u64 = 12;
/// How many entries are looked at while a shard is locked.
const AT_A_TIME: usize = 256;

/// Gives up what it takes, if there is something. One at a time; sleeps.
pub(crate) fn make(this: &Shared<Cache>) {
    if this.has_failed() {
        return;
    }
    let is_full = this.index_full.load(Relaxed) != 0;
    let (from, next) = {
        let head = this.head.lock();
        (head.log.start_position(), head.log.next_start(is_full))
    };
    let start = next.unwrap_or(from);
    if start != from {
        // In this order: whoever has found something there is counted among those who are waited for.
        give_up(this, start);
        this.readers.wait(|| this.pass_all_shards());
        this.head.lock().log.set_start(start);
    }
    let freed = if is_full {
        sweep(this, this.space.sectors())
    } else if start != from {
        sweep(this, start - from)
    } else {
        return;
    };
    if freed != 0 {
        this.index_full.store(0, Relaxed);
    }
    if start != from || freed != 0 {
        let waits = {
            let head = this.head.lock();
            !head.waiting.is_empty() || head.admitting
        };
        if waits {
            Cache::kick_admit(this);
        }
    }
}

/// Lets nobody find any more what is written back: from now on the backing device is read. May
/// sleep.
pub(crate) fn forget_clean(cache: &Cache) {
    let tail = cache.head.lock().log.tail();
    give_up(cache, tail);
    sweep(cache, cache.space.sectors());
}

fn give_up(cache: &Cache, start: u64) {
    for shard in &cache.shards {
        shard.lock().give_up(start);
    }
}

/// Sweeps as much of the index as belongs to `sectors` of the log that were given up. Returns how
/// many entries are free now.
fn sweep(cache: &Cache, sectors: u64) -> u64 {
    let mut freed = 0;
    for shard in &cache.shards {
        let before = shard.lock().usage();
        // As much of the log as there is for an entry.
        let each = (cache.space.sectors() / u64::from(before.capacity)).clamp(1, RECORD_SECTORS);
        let count = (sectors.saturating_mul(ROUNDS) / each + 1).min(before.capacity.into());
        let mut left = count as usize;
        while left != 0 {
            let some = left.min(AT_A_TIME);
            freed += u64::from(shard.lock().sweep(some));
            left -= some;
        }
    }
    freed
}
