// SPDX-License-Identifier: GPL-2.0

//! The way of a write into the log: reserved in the index, given a place, copied there, published
//! in the index, and acknowledged; all by the thread that submits it.
//!
//! Nobody is locked out while data is copied. The order of two writes to the same sectors is that
//! of their places in the log, whichever is published first. A write that learns of a discard with a
//! later place when it is published takes another place, behind that. A buffer is written only when all
//! that it holds is published, so what is on the cache device is in the index.
//!
//! When there is no room a write waits in [`Head::waiting`](crate::cache::Head::waiting), with a
//! note of how much of it is in the log already. What comes later waits behind it. So that not all
//! have to stop at once, they wait a little for each before: see [`crate::throttle`].

use crate::{
    cache::Cache,
    checksum::Sum,
    commit::Failed,
    index::{
        groups,
        parts,
        shard_of,
        Group,
        GROUP_BLOCKS, //
    },
    log::{
        Log,
        Place, //
    },
    space::DATA_SECTORS,
    table_line::{
        Mode,
        WriteSettings, //
    },
    target::{
        Around,
        LcTarget, //
    }, //
};
use dm::prelude::*;
use kernel::{
    prelude::*,
    sync::atomic::{
        Acquire,
        Relaxed, //
    },
    time::Instant, //
};

/// What became of a bio.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is in the log.
    Done,
    /// There is no room at the moment.
    Wait,
    /// The cache has failed.
    Failed,
}

/// Whether others may be overtaken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It has to wait behind those that wait.
    Last,
    /// It is the first of those that wait.
    First,
}

/// Appends a write from `done` sectors after its start on; `done` says how far it came. Any context
/// that may take the locks of a bio's way; `handle` makes a handle.
#[inline]
pub(crate) fn append(
    cache: &Cache,
    handle: impl Fn() -> Shared<Cache>,
    bio: &Bio,
    done: &mut u32,
    turn: Turn,
) -> Outcome {
    let (start, total) = (bio.sector(), bio.sectors());
    while *done < total {
        let sector = start + u64::from(*done);
        let sectors = (total - *done).min(DATA_SECTORS);
        if !reserve(cache, sector, sectors) {
            cache.index_full.store(1, Relaxed);
            return Outcome::Wait;
        }
        let place = match place_for(cache, turn, sectors, |log| log.append(sector, sectors)) {
            Ok(place) => place,
            Err(outcome) => {
                unreserve(cache, sector, sectors);
                return outcome;
            }
        };
        let memory = &cache.memory[place.buffer];
        let at = (place.offset as usize) << SECTOR_SHIFT;
        // A write has so much data, and a buffer so much memory: neither fails.
        let _ = memory.copy_from_bio(at, bio, *done, sectors);
        let in_memory = cache.written();
        let mut sum = Sum::default();
        for group in groups(sector, sectors) {
            let mut crcs = [0; GROUP_BLOCKS];
            for (part, crc) in group.parts().zip(&mut crcs) {
                let from = at + ((part.offset as usize) << SECTOR_SHIFT);
                let bytes = (part.sectors() as usize) << SECTOR_SHIFT;
                *crc = memory.crc32c(from, bytes).unwrap_or(0);
                sum.add(*crc);
            }
            let mut shard = cache.shards[group.shard()].lock();
            for (part, crc) in group.parts().zip(crcs) {
                shard.insert(&part, place.position, crc, in_memory);
            }
        }
        if finish(cache, &handle, &place, sum.value()) {
            // A discard of the same sectors may have forgotten them before they were published; but a
            // recovery would put it over them, although they are read now. Once more, behind it; and before
            // others that come meanwhile, which might do the same again.
            match turn {
                Turn::First => continue,
                Turn::Last => return Outcome::Wait,
            }
        }
        *done += sectors;
    }
    Outcome::Done
}

/// Notes in the log that sectors are discarded, and forgets them.
pub(crate) fn append_discard(
    cache: &Cache,
    handle: impl Fn() -> Shared<Cache>,
    bio: &Bio,
    turn: Turn,
) -> Outcome {
    let (sector, sectors) = (bio.sector(), bio.sectors());
    let place = match place_for(cache, turn, 0, |log| log.append_discard(sector, sectors)) {
        Ok(place) => place,
        Err(outcome) => return outcome,
    };
    for part in parts(sector, sectors) {
        let mut shard = cache.shards[shard_of(part.block)].lock();
        shard.forget(&part, place.position);
    }
    cache.note_discard();
    cache.totals.discards.fetch_add(1, Relaxed);
    finish(cache, &handle, &place, 0);
    Outcome::Done
}

/// Sets entries of the index aside for all blocks of a write.
#[inline]
fn reserve(cache: &Cache, sector: u64, sectors: u32) -> bool {
    let get = |group: &Group| {
        let mut shard = cache.shards[group.shard()].lock();
        shard.reserve_all(group.blocks())
    };
    let Some(failed) = groups(sector, sectors).find(|group| !get(group)) else {
        return true;
    };
    unreserve(cache, sector, failed.offset);
    false
}

fn unreserve(cache: &Cache, sector: u64, sectors: u32) {
    for group in groups(sector, sectors) {
        let mut shard = cache.shards[group.shard()].lock();
        shard.unreserve(group.blocks());
    }
}

#[inline]
fn place_for(
    cache: &Cache,
    turn: Turn,
    sectors: u32,
    append: impl FnOnce(&mut Log) -> Option<Place>,
) -> Result<Place, Outcome> {
    let mut guard = cache.head.lock();
    let head = &mut *guard;
    if cache.has_failed() {
        return Err(Outcome::Failed);
    }
    if turn == Turn::Last && (head.admitting || !head.waiting.is_empty()) {
        return Err(Outcome::Wait);
    }
    let room = head.log.room();
    if head.throttle.is_closed(room) {
        if turn == Turn::Last {
            cache.totals.throttled.fetch_add(1, Relaxed);
        }
        return Err(Outcome::Wait);
    }
    let place = append(&mut head.log).ok_or(Outcome::Wait)?;
    head.throttle.pay(room, sectors);
    Ok(place)
}

/// A place for a copy of what the backing device has, if that is in nobody's way.
pub(crate) fn place_for_copy(cache: &Cache, sector: u64, sectors: u32) -> Option<Place> {
    let mut head = cache.head.lock();
    let is_free = !cache.has_failed() && !head.admitting && head.waiting.is_empty();
    is_free
        .then(|| head.log.append_promoted(sector, sectors))
        .flatten()
}

/// The data is in place, and the index knows. Whether a discard was given a place since this was.
#[inline]
pub(crate) fn finish(
    cache: &Cache,
    handle: impl Fn() -> Shared<Cache>,
    place: &Place,
    crc: u32,
) -> bool {
    let (was_last, discarded) = {
        let mut head = cache.head.lock();
        let was_last = head.log.complete(place, crc);
        (was_last, head.log.has_discarded_since(place))
    };
    if was_last {
        cache.copied.notify_all();
    }
    // A buffer was opened because the one before it was full.
    let is_first = Log::is_first(place);
    if was_last || is_first {
        let handle = handle();
        if is_first {
            Cache::start_log_timer(&handle);
            Cache::start_ageing(&handle);
        }
        Cache::kick_log(handle);
    }
    discarded
}

/// Lets a bio wait for room.
pub(crate) fn wait(this: &Shared<Cache>, bio: OwnedBio<LcTarget>) {
    this.totals.stalls.fetch_add(1, Relaxed);
    let refused = {
        let mut head = this.head.lock();
        // Under the lock: whoever fails the cache looks at the list after he has said so.
        if this.has_failed() {
            Some(bio)
        } else {
            head.waiting.push(bio);
            None
        }
    };
    if let Some(bio) = refused {
        refuse(this, bio);
        return;
    }
    // There may be room since, or it can be made; or they are slowed down.
    Cache::kick_admit(this);
    Cache::kick_log(this.clone());
    Cache::kick_writeback(this);
    Cache::start_pace(this);
}

/// Time has passed for those that wait.
pub(crate) fn pace(this: &Shared<Cache>) {
    {
        let mut guard = this.head.lock();
        let head = &mut *guard;
        if head.waiting.is_empty() && !head.admitting {
            head.paced = None;
            return;
        }
        let now = Instant::now();
        let passed = head
            .paced
            .replace(now)
            .map_or(0, |before| (now - before).as_nanos());
        head.throttle.tick(head.log.room(), passed.unsigned_abs());
    }
    Cache::kick_admit(this);
    Cache::start_pace(this);
}

/// Has a bio wait until it is durable: a flush, or a FUA write that is in the log.
pub(crate) fn wait_for_flush(this: Shared<Cache>, bio: OwnedBio<LcTarget>) {
    this.totals.flushes.fetch_add(1, Relaxed);
    {
        let mut head = this.head.lock();
        head.has_flush |= bio.is_flush();
        head.flushes.push(bio);
    }
    Cache::start_barrier(this);
}

/// Ends what the log does not take, since the cache has failed; or sends it past it.
pub(crate) fn refuse(cache: &Cache, mut bio: OwnedBio<LcTarget>) {
    if bio.per_bio().done != 0 || !cache.is_bypassed() || !is_unknown(cache, &bio) {
        bio.end(EIO);
    } else if bio.op() == Op::Discard {
        pass_down(cache, bio);
    } else {
        note_around(cache, bio.sectors());
        submit_around(cache, bio, None);
    }
}

/// Goes on with those that waited for a flush of the log.
pub(crate) fn flushed(
    this: &Shared<Cache>,
    bios: BioList<OwnedBio<LcTarget>>,
    result: Result<(), Failed>,
) {
    // Whether those who ask for more than the log have to be told of what was lost before.
    let mut is_lost = None;
    for bio in bios {
        let is_flush = bio.is_flush();
        let result = match result {
            // What is in the log is durable there when it is bypassed.
            Err(_) if this.is_bypassed() && !is_flush => Ok(()),
            Err(Failed::Cache(_))
                if this.is_bypassed()
                    && !*is_lost.get_or_insert_with(|| this.take_backing_lost()) =>
            {
                bio.submit(&this.backing, 0);
                continue;
            }
            result => result,
        };
        if result.is_ok() && !is_flush && this.is_in(Mode::Writethrough) {
            write_through(this, bio);
            continue;
        }
        if result.is_err() && is_flush {
            this.note_failed_flush();
        }
        bio.end(result.map_err(Error::from));
    }
}

/// Sends a bio to the backing device that changes what is there: one that goes past the log, or is in it
/// and goes there as well; `logged` is then how many batches had begun or ended, none of which is under way.
fn submit_around(cache: &Cache, mut bio: OwnedBio<LcTarget>, logged: Option<u64>) {
    let around = Around::of(&bio, logged);
    bio.per_bio().around = Some(around);
    bio.submit(&cache.backing, around.sector);
}

/// Sends a write that is in the log to the backing device too. Not before the batch under way has ended: it
/// may have an older copy of the same sectors, which would overwrite it there. One that begins later finds
/// this one, but may write a newer one before this reaches the device: see [`overlaps`].
pub(crate) fn write_through(this: &Shared<Cache>, bio: OwnedBio<LcTarget>) {
    let batches = this.batches();
    if batches & 1 == 0 {
        return submit_around(this, bio, Some(batches));
    }
    this.head.lock().through.push(bio);
    Cache::kick_writeback(this);
}

/// A bio went to the backing device past the log, and while it was on its way a write of some of its sectors
/// came into the log. Nobody may tell which of the two is the later one; but it has to be the same one from
/// now on, and a batch may have written it back just before the bio reached the device, or just after. So the
/// bio does not end before that batch does.
pub(crate) fn overlaps(this: &Shared<Cache>, bio: DoneBio<LcTarget>) {
    this.head.lock().overlaps.push(bio);
    Cache::kick_writeback(this);
}

/// Goes on with the bios that wait for the end of a batch. Of those that went around the log, what the log
/// has of their sectors holds from now on: it is dirty, also if it was written back before its turn. With the
/// lock of the writer.
pub(crate) fn end_overlaps(this: &Shared<Cache>) {
    let (bios, through) = {
        let mut head = this.head.lock();
        (head.overlaps.take_all(), head.through.take_all())
    };
    for bio in through {
        submit_around(this, bio, Some(this.batches()));
    }
    for mut bio in bios {
        if let Some(around) = bio.per_bio().around {
            let tail = this.tail.load(Acquire);
            for part in parts(around.sector, around.sectors) {
                let mut shard = this.shards[shard_of(part.block)].lock();
                shard.disturb(&part, tail);
            }
        }
        // It ends as the device did it.
        drop(bio);
    }
}

/// Gives those that wait their room, in their order, as far as there is some.
pub(crate) fn admit(this: &Shared<Cache>) {
    let mut bios = {
        let mut head = this.head.lock();
        if head.waiting.is_empty() {
            return;
        }
        head.admitting = true;
        head.waiting.take_all()
    };
    let mut stopped = None;
    while let Some(mut bio) = bios.pop() {
        let handle = || this.clone();
        let outcome = if bio.op() == Op::Discard {
            append_discard(this, handle, &bio, Turn::First)
        } else {
            let mut done = bio.per_bio().done;
            let outcome = append(this, handle, &bio, &mut done, Turn::First);
            bio.per_bio().done = done;
            outcome
        };
        match outcome {
            Outcome::Done => accept(this, bio),
            Outcome::Failed => refuse(this, bio),
            Outcome::Wait => {
                stopped = Some(bio);
                break;
            }
        }
    }
    let mut head = this.head.lock();
    if let Some(bio) = stopped {
        let mut waiting = BioList::new();
        waiting.push(bio);
        waiting.append(bios);
        waiting.append(head.waiting.take_all());
        head.waiting = waiting;
    }
    head.admitting = false;
    let left = head.waiting.take_all();
    if this.has_failed() {
        drop(head);
        for bio in left {
            refuse(this, bio);
        }
        return;
    }
    let more = !left.is_empty();
    head.waiting = left;
    drop(head);
    if more {
        // It is the writeback that makes room, and the log item that gives it up.
        Cache::kick_writeback(this);
        Cache::kick_log(this.clone());
    }
}

/// Goes on with a bio that is in the log.
fn accept(this: &Shared<Cache>, bio: OwnedBio<LcTarget>) {
    if bio.op() == Op::Discard {
        pass_down(this, bio);
    } else if bio.is_fua() {
        wait_for_flush(this.clone(), bio);
    } else if this.is_in(Mode::Writethrough) {
        write_through(this, bio);
    } else {
        bio.end(Status::OK);
    }
}

/// Tells the backing device of a discard, if it wants to know. In an ordered log it may still need what
/// was discarded.
pub(crate) fn pass_down(cache: &Cache, bio: OwnedBio<LcTarget>) {
    if cache.is_ordered() || cache.backing.max_discard_sectors() == 0 {
        bio.end(Status::OK);
    } else {
        submit_around(cache, bio, None);
    }
}

/// Whether a bio may go to the backing device past the log.
#[inline]
pub(crate) fn may_go_around(cache: &Cache, bio: &Bio) -> bool {
    let settings = cache.write_settings();
    // Almost always both are false, and that is all there is to look at.
    (!settings.are_plain() && goes_around(cache, settings, bio) || cache.seems_bypassed())
        && is_unknown(cache, bio)
}

/// Whether the settings let a bio go past the log.
#[inline(never)]
fn goes_around(cache: &Cache, settings: WriteSettings, bio: &Bio) -> bool {
    if cache.has_failed() && !cache.writes_backing_alone() {
        // Nothing may say durably any more what the log has of these sectors: it is found when its device returns.
        return false;
    }
    if !settings.has(Mode::Writeback) {
        // What was discarded is found after a crash as long as the log does not say so durably, and would
        // be put over it: a flush makes both durable, but FUA only the write. Unless nothing is found at all.
        return !bio.is_fua() || cache.is_all_durable() || cache.writes_backing_alone();
    }
    if bio.op() != Op::Write {
        return false;
    }
    let run = cache.written_runs.lock().note(bio.sector(), bio.sectors());
    // Who wants it durable at once is served by the log, which is written once for all who wait: that
    // takes less than a write and a flush of the backing device. It counts for the run all the same.
    settings.is_long(run) && !bio.is_fua()
}

/// Whether neither the log nor what is done with it has anything of the sectors of a bio. Forgets
/// their clean copies.
#[inline]
fn is_unknown(cache: &Cache, bio: &Bio) -> bool {
    forget_clean(cache, bio.sector(), bio.sectors()) && !cache.may_write_discarded()
}

/// A write goes past the log.
#[inline]
pub(crate) fn note_around(cache: &Cache, sectors: u32) {
    cache
        .totals
        .around_sectors
        .fetch_add(sectors.into(), Relaxed);
}

/// Forgets the clean copies of sectors. Whether the cache has no others of any of them. Any context.
pub(crate) fn forget_clean(cache: &Cache, sector: u64, sectors: u32) -> bool {
    let tail = cache.tail.load(Acquire);
    parts(sector, sectors).all(|part| {
        let mut shard = cache.shards[shard_of(part.block)].lock();
        shard.forget_clean(&part, tail)
    })
}
