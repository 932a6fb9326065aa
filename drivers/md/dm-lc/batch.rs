// SPDX-License-Identifier: GPL-2.0

//! Writing the oldest part of the log back. Pure: what is done, in which order.
//!
//! A batch is what fits into a window of memory from the tail on. What of it is still the newest
//! copy of its sectors is sorted, joined and written to the backing device. What is next to it there
//! goes along, wherever in the log it is: for most disks that costs nothing. It is clean from then on,
//! and is passed over when its turn comes.
//!
//! Then the tail may pass it, but only when what was superseded in it is durable elsewhere: a newer
//! copy that is in memory only does not replace one that was acknowledged to a flush.
//!
//! In an *ordered* log a batch is what was written between two flushes, or less, and nothing else is
//! written to the backing device meanwhile. Copies that were superseded behind the batch are written
//! back, too. So the backing device alone is at any time what a disk would be after a power cut: all
//! that was there at some flush, and perhaps some of what was written until the next one.
//!
//! What is damaged on the cache device is not written back. Its sectors are lost: the superblock that
//! moves the tail past them says so, since nothing else will.

use super::{
    format::{
        Due,
        Lost,
        Superblock, //
    },
    index::{
        parts,
        Live,
        Part,
        Stored,
        BLOCK_SECTORS,
        BLOCK_SHIFT, //
    },
    platform::{
        crc32c,
        push,
        with_room,
        Array,
        NoMemory, //
    },
    recovery::{
        is_whole,
        Record, //
    },
    space::RECORD_SECTORS, //
};
use core::{
    mem::size_of,
    ops::Range, //
};

/// How many runs a batch has at most.
const RUNS: usize = 1 << 14;
/// How many blocks on each side of what is in the window go along at most: so of what was written one
/// behind the other not much is read block by block.
const ASIDE: usize = 16;

/// Adjacent sectors that are written back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// The first one on the backing device.
    pub sector: u64,
    /// Where they are in the memory of the batch, in sectors.
    pub at: u32,
    /// How many.
    pub sectors: u32,
}

/// Why a batch was not written back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error<E> {
    /// The cache device failed.
    Cache(E),
    /// The backing device failed.
    Backing(E),
    /// The record with this id is damaged on the cache device.
    Damaged(u64),
}

/// What a batch needs of its surroundings, in the order in which it is called.
pub trait Store {
    /// Why something failed.
    type Error;

    /// The superblock: the tail in it is that of the log.
    fn superblock(&self) -> &Superblock;

    /// The position up to which the log is written to the cache device, though perhaps not durable.
    fn written(&self) -> u64;

    /// Reads the log from a position on, until `memory` is full.
    fn read(&mut self, position: u64, memory: &mut [u8]) -> Result<(), Self::Error>;

    /// Which sectors of a part of a run at `position` are the newest copy.
    fn live(&self, part: &Part, position: u64) -> Live;

    /// The newest copy of a block, if all of it was written together, it is dirty, and is written to
    /// the cache device. Users write meanwhile.
    fn whole(&mut self, block: u64) -> Option<Stored>;

    /// Reads blocks from their positions in the log, one behind the other into `memory`.
    fn read_blocks(
        &mut self,
        positions: impl Iterator<Item = u64>,
        memory: &mut [u8],
    ) -> Result<(), Self::Error>;

    /// Which sectors of a part are lost.
    fn lost(&self, part: &Part) -> u8;

    /// The position behind all that was appended to the log so far: each copy that is not live
    /// was superseded before it.
    fn end(&self) -> u64;

    /// Writes the groups of a batch, whose runs are in `memory`, to the backing device: those that
    /// are [needed](Batch::is_needed) when their turn comes. Returns how many sectors those have.
    fn write(&mut self, batch: &Batch, memory: &[u8]) -> Result<u64, Self::Error>;

    /// Makes durable what was written to the backing device.
    fn flush_backing(&mut self) -> Result<(), Self::Error>;

    /// Makes the log durable up to a position.
    fn commit_log(&mut self, end: u64) -> Result<(), Self::Error>;

    /// Makes durable that the log begins at `tail`, and what is lost.
    fn write_tail(&mut self, tail: Due, lost: Lost) -> Result<(), Self::Error>;

    /// Notes that the copy of a part of a run at `position` is lost.
    fn lose(&mut self, part: &Part, position: u64);

    /// Notes that the backing device has the copy of a part of a run at `position`.
    fn settle(&mut self, part: &Part, position: u64);

    /// What is before `tail` is needed for reads only.
    fn release(&mut self, tail: u64);
}

/// Runs in the order of the backing device.
pub struct Batch {
    runs: Array<Run>,
    /// Memory for [`keep_newest`](Self::keep_newest).
    newest: Array<Run>,
    /// Blocks that go along, and where they are.
    aside: Array<(u64, Stored)>,
    /// Parts that are damaged, with the position of their run.
    damaged: Array<(Part, u64)>,
    /// The position from which on a copy supersedes those of the batch.
    superseding: u64,
}

/// How many damaged parts a batch has at most.
const DAMAGED: usize = 1 << 10;
/// How many blocks go along at most.
const BLOCKS_ASIDE: usize = 1 << 10;
/// The memory for them, in sectors: behind the window.
pub const ASIDE_SECTORS: u64 = BLOCKS_ASIDE as u64 * BLOCK_SECTORS;
const BLOCK_BYTES: usize = (BLOCK_SECTORS as usize) << 9;

impl Batch {
    /// An empty batch. May sleep.
    pub fn new() -> Result<Self, NoMemory> {
        Ok(Batch {
            runs: with_room(RUNS)?,
            newest: with_room(RUNS)?,
            aside: with_room(BLOCKS_ASIDE)?,
            damaged: with_room(DAMAGED)?,
            superseding: u64::MAX,
        })
    }

    /// How many bytes of memory it has.
    pub fn bytes() -> usize {
        2 * RUNS * size_of::<Run>()
            + BLOCKS_ASIDE * size_of::<(u64, Stored)>()
            + DAMAGED * size_of::<(Part, u64)>()
    }

    /// The runs.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// The numbers of runs that follow each other without a gap on the backing device.
    pub fn groups(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        groups(&self.runs)
    }

    /// Whether a group has to be written: not, if each of its blocks was written again since the batch
    /// was collected. Then the log has it until the next copy is durable, and that is written back in
    /// its turn. `newest` finds the newest copy of a block, as [`Store::whole`] does, but wherever
    /// it is.
    ///
    /// A slow device takes seconds for a batch, in which users go on.
    pub fn is_needed(&self, group: Range<usize>, newest: impl Fn(u64) -> Option<Stored>) -> bool {
        let superseded =
            |block| newest(block).is_some_and(|copy| copy.position >= self.superseding);
        let runs = self.runs.get(group).unwrap_or_default();
        !runs.iter().all(|run| {
            let end = run.sector + u64::from(run.sectors);
            (run.sector >> BLOCK_SHIFT..end.div_ceil(BLOCK_SECTORS)).all(superseded)
        })
    }

    /// Notes which blocks next to the sorted runs may go along; no more than `room`.
    fn look_aside(&mut self, room: usize, mut find: impl FnMut(u64) -> Option<Stored>) {
        let Batch { runs, aside, .. } = self;
        aside.clear();
        let mut add = |block| {
            let found = find(block).filter(|_| aside.len() < room);
            found.is_some_and(|stored| push(aside, (block, stored)).is_ok())
        };
        let mut after = 0;
        for group in groups(runs) {
            let next = runs.get(group.end).map_or(u64::MAX, |run| run.sector);
            let (Some(first), Some(last)) = (runs.get(group.start), runs.get(group.end - 1)) else {
                break;
            };
            let (from, to) = (first.sector, last.sector + u64::from(last.sectors));
            if from % BLOCK_SECTORS == 0 {
                let before = after..from >> BLOCK_SHIFT;
                let _ = before.rev().take(ASIDE).all(&mut add);
            }
            after = to.div_ceil(BLOCK_SECTORS);
            if to % BLOCK_SECTORS == 0 {
                let behind = after..next >> BLOCK_SHIFT;
                after += behind.take(ASIDE).take_while(|&block| add(block)).count() as u64;
            }
        }
    }

    /// Adds the blocks that go along, whose data is in `memory`, to the runs; `at` is where that begins
    /// in the memory of the batch. What is damaged stays where it is.
    fn take_aside(&mut self, memory: &[u8], at: u32) {
        let mut taken = 0;
        for (number, data) in memory.chunks_exact(BLOCK_BYTES).enumerate() {
            let Some(&(block, stored)) = self.aside.get(number) else {
                break;
            };
            let run = Run {
                sector: block << BLOCK_SHIFT,
                at: at + (number as u32) * BLOCK_SECTORS as u32,
                sectors: BLOCK_SECTORS as u32,
            };
            if crc32c(data) == stored.crc && push(&mut self.runs, run).is_ok() {
                self.aside[taken] = (block, stored);
                taken += 1;
            }
        }
        self.aside.truncate(taken);
        sort(&mut self.runs);
    }

    /// Adds the sectors in `mask` of a part of a run that is `at` sectors from the start of the window;
    /// `join`: to the run before, if they follow it. False if there is no room.
    fn add_part(&mut self, part: &Part, at: u64, mask: u8, join: bool) -> bool {
        let mut rest = mask;
        while rest != 0 {
            let first = rest.trailing_zeros();
            let sectors = (rest >> first).trailing_ones();
            let run = Run {
                sector: (part.block << BLOCK_SHIFT) + u64::from(first),
                at: (at + part.offset) as u32 + (first - part.first()),
                sectors,
            };
            let is_added = if join {
                add(&mut self.runs, run)
            } else {
                push(&mut self.runs, run).is_ok()
            };
            if !is_added {
                return false;
            }
            rest &= !((((1u32 << sectors) - 1) << first) as u8);
        }
        true
    }

    /// Keeps of sorted runs what is the newest copy among them. Each is within one block.
    fn keep_newest(&mut self) {
        self.newest.clear();
        let mut rest = &*self.runs;
        while let Some(block) = rest.first().map(|run| run.sector >> BLOCK_SHIFT) {
            let mut newest = [None; BLOCK_SECTORS as usize];
            while let Some((run, others)) = rest.split_first() {
                if run.sector >> BLOCK_SHIFT != block {
                    break;
                }
                let first = (run.sector % BLOCK_SECTORS) as usize;
                let places = newest.iter_mut().skip(first);
                for (place, at) in places.zip(run.at..run.at + run.sectors) {
                    // What is later in the window was written later.
                    *place = (*place).max(Some(at));
                }
                rest = others;
            }
            for (sector, at) in (block << BLOCK_SHIFT..).zip(newest) {
                let sectors = 1;
                if let Some(at) = at {
                    let run = Run {
                        sector,
                        at,
                        sectors,
                    };
                    // There are no more sectors in the window than there is room for.
                    let _ = add(&mut self.newest, run);
                }
            }
        }
        core::mem::swap(&mut self.runs, &mut self.newest);
    }
}

/// The numbers of sorted runs that follow each other without a gap.
fn groups(runs: &[Run]) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut from = 0;
    core::iter::from_fn(move || {
        let mut last = runs.get(from)?;
        let mut to = from + 1;
        while let Some(run) = runs.get(to) {
            if run.sector != last.sector + u64::from(last.sectors) {
                break;
            }
            last = run;
            to += 1;
        }
        let group = from..to;
        from = to;
        Some(group)
    })
}

/// Adds a run, or makes the last one longer. False if there is no room.
fn add(runs: &mut Array<Run>, run: Run) -> bool {
    if let Some(last) = runs.last_mut() {
        let follows =
            last.sector + u64::from(last.sectors) == run.sector && last.at + last.sectors == run.at;
        if follows {
            last.sectors += run.sectors;
            return true;
        }
    }
    push(runs, run).is_ok()
}

/// Goes through the records of a window that begins with `due`, as long as they are whole in it and
/// end at or before `end`. Stops when `each` returns false; returns what follows the last one.
fn records<'a>(
    window: &'a [u8],
    mut due: Due,
    end: u64,
    superblock: &Superblock,
    mut each: impl FnMut(&Record<'a>, &Due) -> bool,
) -> Result<Due, u64> {
    let from = due.position;
    while due.position < end {
        let offset = (due.position - from) as usize;
        let Some(bytes) = window.get(offset << 9..).filter(|bytes| !bytes.is_empty()) else {
            break;
        };
        let Some(record) = Record::parse(bytes, &due, superblock) else {
            let there = (bytes.len() >> 9) as u64;
            if there < RECORD_SECTORS.min(end - due.position) {
                // The rest of it is not in the window.
                break;
            }
            return Err(due.id);
        };
        if record.end() > end || !each(&record, &due) {
            break;
        }
        due = record.next();
    }
    Ok(due)
}

/// Writes a batch back, after which it is needed for reads only; returns how many sectors were written, or None if there
/// is nothing in the log that could be. Of `memory` so many bytes are the window, enough for
/// [`RECORD_SECTORS`] at least; the rest is for what goes along.
pub fn write_back<S: Store>(
    store: &mut S,
    batch: &mut Batch,
    memory: &mut [u8],
    window_bytes: usize,
) -> Result<Option<u64>, Error<S::Error>> {
    let superblock = *store.superblock();
    let tail = superblock.tail;
    let written = store.written();
    let sectors = written
        .saturating_sub(tail.position)
        .min((window_bytes >> 9) as u64)
        .min(superblock.space.left(tail.position));
    if sectors == 0 {
        return Ok(None);
    }
    let (window, aside) = memory.split_at_mut(window_bytes);
    let window = &mut window[..(sectors as usize) << 9];
    store.read(tail.position, window).map_err(Error::Cache)?;

    let (next, lost) = collect(store, batch, window, written).map_err(Error::Damaged)?;
    sort(&mut batch.runs);
    if superblock.ordered {
        batch.keep_newest();
        batch.aside.clear();
        // All is written, superseded or not.
        batch.superseding = u64::MAX;
    } else {
        batch.look_aside(aside.len() / BLOCK_BYTES, |block| store.whole(block));
        // Now that all is collected: what goes along may have been appended a moment ago, and does not
        // supersede itself.
        batch.superseding = store.end();
    }
    if !batch.aside.is_empty() {
        let aside = &mut aside[..batch.aside.len() * BLOCK_BYTES];
        let positions = batch.aside.iter().map(|(_, stored)| stored.position);
        store.read_blocks(positions, aside).map_err(Error::Cache)?;
        batch.take_aside(aside, (window_bytes >> 9) as u32);
    }
    let mut sectors_written = 0;
    if !batch.runs.is_empty() {
        sectors_written = store.write(batch, memory).map_err(Error::Backing)?;
        store.flush_backing().map_err(Error::Backing)?;
    }
    if !superblock.ordered || lost != superblock.lost {
        // Whatever was not live, or not needed, or is lost no more, was superseded by now. This flushes both
        // devices; should the cache device fail with it, that has been said.
        store.commit_log(store.end()).map_err(Error::Backing)?;
    }
    store.write_tail(next, lost).map_err(Error::Cache)?;
    for (part, position) in &batch.damaged {
        store.lose(part, *position);
    }
    for &(block, stored) in &batch.aside {
        for part in parts(block << BLOCK_SHIFT, BLOCK_SECTORS as u32) {
            store.settle(&part, stored.position);
        }
    }
    // They were gone through before, and are as they were.
    let window = &memory[..(sectors as usize) << 9];
    let _ = records(window, tail, next.position, &superblock, |record, _| {
        for (extent, position, _) in record.extents() {
            if extent.is_written() {
                for part in parts(extent.sector, extent.sectors) {
                    store.settle(&part, position);
                }
            }
        }
        true
    });
    store.release(next.position);
    Ok(Some(sectors_written))
}

/// Fills a batch with what is live in a window that begins at the tail; in an ordered log with all
/// until the next flush. Returns what follows the last record of the batch, and all that is lost
/// then; or the id of a record that is damaged too much to say what is lost.
fn collect<S: Store>(
    store: &S,
    batch: &mut Batch,
    window: &[u8],
    written: u64,
) -> Result<(Due, Lost), u64> {
    let superblock = store.superblock();
    let (tail, ordered) = (superblock.tail, superblock.ordered);
    batch.runs.clear();
    batch.damaged.clear();
    let lost = superblock.lost.filtered(|part| store.lost(part));
    let mut lost = lost.ok_or(tail.id)?;
    let mut too_many = None;
    let next = records(window, tail, written, superblock, |record, due| {
        if ordered && due.id != tail.id && record.follows_flush() {
            return false;
        }
        let before = (batch.runs.len(), batch.runs.last().copied());
        let (damaged_before, lost_before) = (batch.damaged.len(), lost);
        for (extent, position, data) in record.extents() {
            if !extent.is_written() {
                continue;
            }
            // Of a part that was superseded nothing else knows the checksum.
            let all = ordered && is_whole(&extent, data);
            for part in parts(extent.sector, extent.sectors) {
                let live = store.live(&part, position);
                if live.mask == 0 && !ordered {
                    continue;
                }
                let is_intact = all || live.mask != 0 && crc32c(part.of(data)) == live.crc;
                let wanted = if ordered { part.mask } else { live.mask };
                let at = position - tail.position;
                if !is_intact {
                    let noted = lost.add_part(&part, live.mask)
                        && push(&mut batch.damaged, (part, position)).is_ok();
                    if !noted {
                        too_many = Some(due.id);
                        return false;
                    }
                } else if !batch.add_part(&part, at, wanted, !ordered) {
                    // The batch is full: this record belongs to the next one.
                    batch.runs.truncate(before.0);
                    if let (Some(last), Some(run)) = (batch.runs.last_mut(), before.1) {
                        *last = run;
                    }
                    batch.damaged.truncate(damaged_before);
                    lost = lost_before;
                    return false;
                }
            }
        }
        true
    })?;
    match too_many {
        Some(id) => Err(id),
        None if next == tail => Err(tail.id),
        None => Ok((next, lost)),
    }
}

/// Sorts runs by their sector, with a heap: in place, and without calls that may panic, of which
/// the kernel's tools want to know each that `core`'s own sort has.
fn sort(runs: &mut [Run]) {
    for root in (0..runs.len() / 2).rev() {
        sift_down(runs, root);
    }
    let mut rest = runs;
    while rest.len() > 1 {
        let last = rest.len() - 1;
        rest.swap(0, last);
        rest = &mut rest[..last];
        sift_down(rest, 0);
    }
}

fn sift_down(heap: &mut [Run], mut root: usize) {
    loop {
        let mut largest = root;
        for child in [2 * root + 1, 2 * root + 2] {
            if child < heap.len() && heap[child].sector > heap[largest].sector {
                largest = child;
            }
        }
        if largest == root {
            return;
        }
        heap.swap(root, largest);
        root = largest;
    }
}
