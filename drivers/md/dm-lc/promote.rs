// SPDX-License-Identifier: GPL-2.0

//! Copies of what is read, for the next time.
//!
//! A read of whole blocks that the backing device had to serve is [noted] on its way, and
//! [wanted](read) when it has ended. A work item reads the blocks once more, into memory of its own,
//! and puts them into the log as clean copies. It does not take them from the read: the memory of
//! that is its user's, who may write there before it has ended, and would have others read that.
//!
//! A copy must not be older than what it covers. The index [expects](crate::index::Shard::expect) it
//! before it is read. A write or a discard that is published since takes that back; a write around
//! the log does so before it is sent to the backing device and when it has ended, so that what was
//! read in between is not kept either.

use crate::{
    admission::{
        Admission,
        Wanted,
        MAX_CELLS, //
    },
    cache::Cache,
    checksum::Sum,
    index::{
        parts,
        shard_of,
        Part,
        BLOCK_SECTORS, //
    },
    platform::crc32c,
    table_line::{
        Knob,
        Mode, //
    },
    write, //
};
use dm::prelude::*;
use kernel::{
    prelude::*,
    sync::atomic::Relaxed, //
};

/// How many sectors are copied at a time.
const PIECE_SECTORS: u32 = 128;

/// Memory for what is copied.
pub(crate) struct Promoter {
    bytes: KVec<u8>,
}

impl Promoter {
    pub(crate) fn new() -> Result<Self> {
        Ok(Promoter {
            bytes: KVec::from_elem(0, Self::bytes(), GFP_KERNEL)?,
        })
    }

    /// How many bytes of memory promoting takes.
    pub(crate) fn memory_bytes() -> usize {
        Self::bytes() + Admission::bytes()
    }

    fn bytes() -> usize {
        (PIECE_SECTORS as usize) << SECTOR_SHIFT
    }
}

/// A read of so many sectors is on its way; `from_backing`: to the backing device. What is to be
/// copied when it has ended. Any context.
#[inline(never)]
pub(crate) fn noted(
    cache: &Cache,
    sector: u64,
    sectors: u32,
    from_backing: bool,
) -> Option<Wanted> {
    let blocks = cache.read_settings().cache_threshold();
    let is_long = cache.admission.lock().is_long(sector, sectors, blocks);
    if !from_backing {
        return None;
    }
    if is_long {
        cache.totals.seq_bypassed.fetch_add(sectors.into(), Relaxed);
        return None;
    }
    let is_whole = sector % BLOCK_SECTORS == 0 && u64::from(sectors) % BLOCK_SECTORS == 0;
    (is_whole && sectors != 0).then_some(Wanted { sector, sectors })
}

/// The read has ended well. Any context.
#[inline(never)]
pub(crate) fn read(cache: &Owner<Cache>, wanted: Wanted) {
    let cells = cache.settings().get(Knob::NrReadCacheCells).min(MAX_CELLS);
    if cache.admission.lock().want(wanted, cells) {
        Cache::kick_promote(&cache.share());
    }
}

/// Copies what waits for it. Sleeps.
pub(crate) fn run(this: &Shared<Cache>) {
    let mut promoter = this.promoter.lock();
    loop {
        let Some(wanted) = this.admission.lock().take() else {
            break;
        };
        let mut at = 0;
        while at < wanted.sectors && may_promote(this) {
            let sectors = (wanted.sectors - at).min(PIECE_SECTORS);
            promoter.promote(this, wanted.sector + u64::from(at), sectors);
            at += sectors;
        }
    }
}

/// Whether copies are wanted now.
fn may_promote(cache: &Cache) -> bool {
    cache.read_settings().cache_threshold() != 0
        && !cache.is_suspended()
        && !cache.has_failed()
        && !cache.is_in(Mode::Passthrough)
        && !cache.is_in(Mode::Cleaner)
}

impl Promoter {
    /// Copies sectors of the backing device, as far as nothing is known of them.
    fn promote(&mut self, this: &Shared<Cache>, sector: u64, sectors: u32) {
        let expect = |part: &Part| this.shards[shard_of(part.block)].lock().expect(part);
        // What a batch may be writing over what was discarded is not settled yet.
        let unknown = parts(sector, sectors).take_while(expect).count() as u32;
        let sectors = sectors.min(unknown * BLOCK_SECTORS as u32);
        let is_copied =
            sectors != 0 && !this.may_write_discarded() && self.copy(this, sector, sectors);
        if !is_copied {
            for part in parts(sector, sectors) {
                this.shards[shard_of(part.block)].lock().cancel(&part);
            }
        }
    }

    /// Whether they are in the log.
    fn copy(&mut self, this: &Shared<Cache>, sector: u64, sectors: u32) -> bool {
        let len = (sectors as usize) << SECTOR_SHIFT;
        let Some(bytes) = self.bytes.get_mut(..len) else {
            return false;
        };
        if this.disk.io.read(&this.backing, sector, bytes).is_err() {
            return false;
        }
        let Some(place) = write::place_for_copy(this, sector, sectors) else {
            return false;
        };
        let memory = &this.memory[place.buffer];
        // A buffer has room for each place in it: this does not fail.
        let _ = memory.store((place.offset as usize) << SECTOR_SHIFT, bytes);
        let mut sum = Sum::default();
        for part in parts(sector, sectors) {
            let crc = crc32c(part.of(bytes));
            sum.add(crc);
            let mut shard = this.shards[shard_of(part.block)].lock();
            shard.arrive(&part, place.position, crc);
        }
        write::finish(this, || this.clone(), &place, sum.value());
        true
    }
}
