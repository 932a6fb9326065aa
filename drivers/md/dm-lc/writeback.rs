// SPDX-License-Identifier: GPL-2.0

//! When the log is written back, and how the devices are used for it. What is written back, and in
//! which order things are made durable, is in [`crate::batch`].
//!
//! Writing back begins above the high watermark and goes on to the low one. It happens at any rate
//! when writes wait for room, in the mode `cleaner`, and for the message `flush`. Below the watermarks
//! a batch is written back now and then by the [clock](crate::clock).

use crate::{
    backing::Asker,
    batch::{
        write_back,
        Batch,
        Error as BatchError,
        Store,
        ASIDE_SECTORS, //
    },
    cache::{
        Cache,
        WINDOW_SECTORS, //
    },
    format::{
        Due,
        Lost,
        Superblock,
        SUPERBLOCK_BYTES, //
    },
    index::{
        shard_of,
        Live,
        Part,
        Stored,
        BLOCK_SECTORS,
        BLOCK_SHIFT, //
    },
    platform::zeroed,
    space::RECORD_SECTORS,
    table_line::{
        Knob,
        Mode,
        Settings, //
    },
    NAME, //
};
use dm::prelude::*;
use kernel::{
    alloc::KVVec,
    prelude::*,
    sync::atomic::{
        Relaxed,
        Release, //
    },
    time::{
        Instant,
        Monotonic, //
    }, //
};

/// How long the first pause after a failure of the backing device is, and the longest one.
const FIRST_PAUSE_MS: u32 = 1000;
const LONGEST_PAUSE_MS: u32 = 64_000;

/// The bytes of what a batch reads, and of what it joins.
const MEMORY: usize = ((WINDOW_SECTORS + ASIDE_SECTORS) as usize) << SECTOR_SHIFT;

/// What writes back.
pub(crate) struct Writer {
    /// As it is on the cache device, once it is loaded.
    pub(crate) superblock: Superblock,
    /// Memory for writing it.
    pub(crate) block: KVec<u8>,
    batch: Batch,
    /// The window, and behind it what goes along.
    memory: KVVec<u8>,
    staging: KVVec<u8>,
    /// Above the high watermark, and not yet below the low one.
    busy: bool,
    /// The pause after the next failure; 0: the last attempt did not fail.
    pause_ms: u32,
    /// A batch has so many records at most, if the settings let it. A failure makes all of it wait, also one of
    /// others meanwhile: after one it begins with few, and gets on between two.
    most_records: u32,
}

impl Writer {
    /// How many bytes of memory it has.
    pub(crate) fn bytes() -> usize {
        2 * MEMORY + Batch::bytes()
    }

    pub(crate) fn new(superblock: Superblock) -> Result<Self> {
        Ok(Writer {
            superblock,
            block: KVec::from_elem(0, SUPERBLOCK_BYTES, GFP_KERNEL)?,
            batch: Batch::new()?,
            memory: zeroed(MEMORY)?,
            staging: zeroed(MEMORY)?,
            busy: false,
            pause_ms: 0,
            most_records: u32::MAX,
        })
    }
}

/// Whether so much of the log is in use that it has to be written back.
pub(crate) fn is_above_watermark(cache: &Cache) -> bool {
    let settings = cache.settings();
    is_forced(&settings)
        || settings.is_set(Knob::AllowMigrate)
            && percent_used(cache) > u64::from(settings.get(Knob::HighWatermark))
}

fn is_forced(settings: &Settings) -> bool {
    settings.mode.cleans() || settings.is_set(Knob::ForceMigrate)
}

fn percent_used(cache: &Cache) -> u64 {
    let used = cache.head.lock().log.used();
    cache.space.percent(used)
}

/// Whether there is a reason to write back, now.
fn is_wanted(cache: &Cache, busy: &mut bool) -> bool {
    if cache.is_suspended() || cache.has_failed() || cache.paused.load(Relaxed) != 0 {
        return false;
    }
    let (used, tail, is_short) = {
        let head = cache.head.lock();
        // What is kept for reads goes first.
        let is_all_dirty = head.log.start_position() == head.log.tail();
        let is_closing = head.log.is_full() || head.throttle.slows(head.log.room());
        let is_short = !head.waiting.is_empty() && is_closing
            || is_all_dirty && cache.index_full.load(Relaxed) != 0;
        (head.log.used(), head.log.tail(), is_short)
    };
    if used == 0 {
        *busy = false;
        return false;
    }
    let settings = cache.settings();
    let forced = is_short || is_forced(&settings) || tail < cache.drain_to.load(Relaxed);
    let percent = cache.space.percent(used);
    if percent > u64::from(settings.get(Knob::HighWatermark)) {
        *busy = true;
    } else if percent <= u64::from(settings.get(Knob::LowWatermark)) {
        *busy = false;
    }
    forced || *busy && settings.is_set(Knob::AllowMigrate)
}

/// Writes back as long as there is a reason to. Sleeps.
pub(crate) fn run(this: &Shared<Cache>) {
    this.tell_of_damage();
    let mut writer = this.writer.lock();
    crate::write::end_overlaps(this);
    while this.loaded.is_set() && is_wanted(this, &mut writer.busy) {
        if !one_batch(this, &mut writer) {
            return;
        }
        crate::write::end_overlaps(this);
    }
}

/// Writes one batch back, if there is something to write back and nothing forbids it. Sleeps.
pub(crate) fn run_once(this: &Shared<Cache>) {
    let mut writer = this.writer.lock();
    let is_idle = this.is_suspended() || this.has_failed() || this.paused.load(Relaxed) != 0;
    if this.loaded.is_set() && !is_idle && this.head.lock().log.used() != 0 {
        let _ = one_batch(this, &mut writer);
        // The next who has the lock may keep it for long.
        crate::write::end_overlaps(this);
    }
}

/// Writes one batch back, or else what is in memory to the log. Whether it makes sense to go on.
fn one_batch(this: &Shared<Cache>, writer: &mut Writer) -> bool {
    let (began, tail) = (Instant::<Monotonic>::now(), writer.superblock.tail.position);
    this.begin_batch();
    let result = step(this, writer);
    this.end_batch();
    match result {
        // What there is is in memory still.
        Ok(None) => match crate::commit::commit(this) {
            Ok(()) => return true,
            Err(errno) => pause(this, writer, errno),
        },
        Ok(Some(sectors)) => {
            writer.pause_ms = 0;
            writer.most_records = writer.most_records.saturating_mul(2);
            this.totals.written_back.fetch_add(sectors, Relaxed);
            let freed = writer.superblock.tail.position - tail;
            let is_clean = {
                let mut head = this.head.lock();
                let took = began.elapsed().as_nanos().unsigned_abs();
                head.throttle.note_batch(freed, took);
                head.log.used() == 0
            };
            this.tell_of_damage();
            if is_clean {
                if this.is_in(Mode::Passthrough) {
                    // What came into the log while the mode changed.
                    crate::room::forget_clean(this);
                }
                this.event();
            }
            return true;
        }
        Err(BatchError::Backing(errno)) => pause(this, writer, errno),
        Err(BatchError::Cache(_)) => Cache::fail(this, "its log cannot be written back"),
        Err(BatchError::Damaged(id)) => {
            this.count_damage(1);
            dm::error!(
                NAME,
                "cache device {}: record {} is damaged",
                this.disk.device.number(),
                id
            );
            Cache::fail(this, "its log is damaged");
        }
    }
    false
}

/// The backing device has failed, unless the cache device has, which was said then. Nothing is lost, and it is
/// tried again later.
fn pause(this: &Shared<Cache>, writer: &mut Writer, errno: Error) {
    if this.has_failed() {
        return;
    }
    let is_first = writer.pause_ms == 0;
    writer.pause_ms = writer
        .pause_ms
        .saturating_mul(2)
        .clamp(FIRST_PAUSE_MS, LONGEST_PAUSE_MS);
    writer.most_records = 1;
    {
        // Who waits for the tail has looked at this before, or sees it.
        let _head = this.head.lock();
        this.totals.backing_errors.fetch_add(1, Relaxed);
        this.paused.store(1, Relaxed);
    }
    this.tail_moved.notify_all();
    if is_first {
        dm::error!(
            NAME,
            "backing device {}: error {} when writing back: trying again",
            this.backing.number(),
            errno.to_errno()
        );
        this.event();
    }
    if !this.is_suspended() {
        Cache::set_retry_timer(this, writer.pause_ms);
    }
}

fn step(this: &Shared<Cache>, writer: &mut Writer) -> Result<Option<u64>, BatchError<Error>> {
    let Writer {
        superblock,
        block,
        batch,
        memory,
        staging,
        most_records,
        ..
    } = writer;
    let mut devices = Devices {
        cache: this,
        superblock,
        block,
        staging,
        failures: this.backing_failures(),
    };
    let records = this.settings().get(Knob::NrMaxBatchedMigration);
    let records = records.min(*most_records) as usize;
    let bytes = (RECORD_SECTORS as usize * records) << SECTOR_SHIFT;
    let all = bytes + ((ASIDE_SECTORS as usize) << SECTOR_SHIFT);
    let memory = memory.get_mut(..all).ok_or(BatchError::Cache(EINVAL))?;
    write_back(&mut devices, batch, memory, bytes)
}

struct Devices<'a> {
    cache: &'a Shared<Cache>,
    superblock: &'a mut Superblock,
    block: &'a mut [u8],
    /// Where runs that follow each other on the backing device are joined.
    staging: &'a mut [u8],
    /// How often the backing device had failed before anything was written.
    failures: u32,
}

impl Store for Devices<'_> {
    type Error = Error;

    fn superblock(&self) -> &Superblock {
        self.superblock
    }

    fn written(&self) -> u64 {
        self.cache.written()
    }

    fn read(&mut self, position: u64, memory: &mut [u8]) -> Result {
        let disk = &self.cache.disk;
        let sector = self.cache.space.sector(position);
        disk.io.read(&disk.device, sector, memory)
    }

    fn live(&self, part: &Part, position: u64) -> Live {
        let shard = self.cache.shards[shard_of(part.block)].lock();
        shard.live(part, position)
    }

    fn whole(&mut self, block: u64) -> Option<Stored> {
        let stored = self.cache.shards[shard_of(block)].lock().whole(block)?;
        let end = stored.position + BLOCK_SECTORS;
        (end <= self.cache.written()).then_some(stored)
    }

    fn read_blocks(&mut self, positions: impl Iterator<Item = u64>, memory: &mut [u8]) -> Result {
        let disk = &self.cache.disk;
        let sectors = positions.map(|position| self.cache.space.sector(position));
        let blocks = memory.chunks_exact_mut((BLOCK_SECTORS as usize) << SECTOR_SHIFT);
        disk.io.read_all(&disk.device, &mut sectors.zip(blocks))
    }

    fn lost(&self, part: &Part) -> u8 {
        let shard = self.cache.shards[shard_of(part.block)].lock();
        shard.lost(part)
    }

    fn end(&self) -> u64 {
        self.cache.head.lock().log.end()
    }

    fn write(&mut self, batch: &Batch, memory: &[u8]) -> Result<u64> {
        let bytes = |sectors: u32| (sectors as usize) << SECTOR_SHIFT;
        // First what has to be joined, since what is written is borrowed.
        let mut used = 0;
        for group in batch.groups().filter(|group| group.len() > 1) {
            for run in &batch.runs()[group] {
                let len = bytes(run.sectors);
                let from = &memory[bytes(run.at)..][..len];
                self.staging[used..][..len].copy_from_slice(from);
                used += len;
            }
        }
        let cache = self.cache;
        let mut rest = &*self.staging;
        let (mut writes, mut sectors) = (0, 0);
        // Each is looked at when the one before was handed to the device, which has room for a few.
        let mut pieces = batch.groups().filter_map(|group| {
            let runs = &batch.runs()[group.clone()];
            let len = runs.iter().map(|run| bytes(run.sectors)).sum();
            let data = match runs {
                [run] => &memory[bytes(run.at)..][..len],
                _ => {
                    let (joined, after) = rest.split_at(len);
                    rest = after;
                    joined
                }
            };
            let newest = |block| cache.shards[shard_of(block)].lock().whole(block);
            if !batch.is_needed(group, newest) {
                return None;
            }
            writes += 1;
            sectors += (len >> SECTOR_SHIFT) as u64;
            Some((runs.first()?.sector, data))
        });
        let result = cache.disk.io.write_all(&cache.backing, &mut pieces);
        cache.totals.backing_writes.fetch_add(writes, Relaxed);
        result.map(|()| sectors)
    }

    fn flush_backing(&mut self) -> Result {
        let cache = self.cache;
        cache.flush_backing(Asker::Batch)?;
        // Others may have been told that it has lost what was written here.
        if cache.backing_failures() != self.failures {
            return Err(EIO);
        }
        Ok(())
    }

    fn commit_log(&mut self, end: u64) -> Result {
        if self.cache.durable.load(Relaxed) >= end {
            return Ok(());
        }
        crate::commit::commit(self.cache)
    }

    fn write_tail(&mut self, tail: Due, lost: Lost) -> Result {
        self.superblock.tail = tail;
        self.superblock.lost = lost;
        self.cache.lost_sectors.store(lost.sectors(), Relaxed);
        self.superblock.durable_id = self.cache.durable_id.load(Relaxed).max(tail.id);
        self.cache.tail_id.store(tail.id, Relaxed);
        let disk = &self.cache.disk;
        disk.write_superblock(self.superblock, self.block)
    }

    fn lose(&mut self, part: &Part, position: u64) {
        let cache = self.cache;
        let (live, lost_before) = {
            let mut shard = cache.shards[shard_of(part.block)].lock();
            let before = (shard.live(part, position).mask, shard.lost(part));
            shard.lose(part, position);
            before
        };
        let what = match (live, lost_before) {
            (0, 0) => ": a copy that was overwritten since",
            // It was told of when the cache was started.
            (0, _) => return,
            _ => ", and lost",
        };
        let sector = (part.block << BLOCK_SHIFT) + u64::from(part.first());
        cache.found_damage(sector, part.sectors(), what);
    }

    fn settle(&mut self, part: &Part, position: u64) {
        let mut shard = self.cache.shards[shard_of(part.block)].lock();
        shard.settle(part, position);
    }

    fn release(&mut self, tail: u64) {
        let cache = self.cache;
        cache.head.lock().log.set_tail(tail);
        cache.tail.store(tail, Release);
        cache.tail_moved.notify_all();
        // It gives up what writes need, of what may be given up now.
        Cache::kick_log(cache.clone());
    }
}

/// Writes back all that was appended until now, and waits for it. Sleeps; a signal ends it. `EAGAIN`: the
/// log was not read.
pub(crate) fn flush(this: &Shared<Cache>) -> Result {
    if !this.loaded.is_set() {
        return Err(EAGAIN);
    }
    let errors = this.totals.backing_errors.load(Relaxed);
    if !this.is_suspended() {
        // What is in memory is in the log then when the first batch is collected, and what went around
        // the log is durable.
        crate::commit::commit(this)?;
    }
    let mut head = this.head.lock();
    let target = head.log.end();
    this.drain_to.store(target, Relaxed);
    // Whoever asks for it wants to know now.
    this.paused.store(0, Relaxed);
    Cache::kick_writeback(this);
    while head.log.tail() < target {
        if this.has_failed() || this.totals.backing_errors.load(Relaxed) != errors {
            return Err(EIO);
        }
        if this.is_suspended() {
            return Err(EAGAIN);
        }
        if this.tail_moved.wait_interruptible(&mut head) {
            return Err(EINTR);
        }
    }
    if this.lost_sectors.load(Relaxed) != 0 {
        // The backing device does not have everything.
        return Err(dm::compat::eilseq());
    }
    Ok(())
}
