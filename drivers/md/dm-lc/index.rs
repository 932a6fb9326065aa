// SPDX-License-Identifier: GPL-2.0

//! Which sectors of the backing device are in the log, and where. Pure.
//!
//! A hash table of *blocks* of 4 KiB of the backing device. An [entry](Entry) says which sectors of
//! a block are in one run of the log; a block that was written in parts has several, whose sectors
//! never overlap, so that their order does not matter. The table is divided into *shards* by the
//! hash of the [group](groups) of 8 blocks that a block is in; each shard has memory of its own, and
//! outside of this file a lock of its own, which is taken once for what a run has of a group.
//!
//! The memory is allocated at once. Who is going to add a block has to [reserve](Shard::reserve)
//! an entry first: then adding it never fails.
//!
//! A copy is *dirty* until the backing device has it, and *clean* from then on: good for reads until
//! its place in the log is [given up](Shard::give_up). As long as the tail of the log has not passed
//! it, it is what a recovery finds, clean or not. What was given up is not found any more. Its
//! entries are free as soon as somebody comes by: whoever looks for a block to change it, or
//! [sweeps](Shard::sweep).
//!
//! Who copies a block from the backing device says so [before he reads it](Shard::expect). Whatever
//! changes the block meanwhile takes that back, so that the copy does not [arrive](Shard::arrive).

use super::platform::{
    with_room,
    zeroed,
    Array,
    NoMemory, //
};
use core::mem::size_of;

/// log2 of the sectors of a block.
pub const BLOCK_SHIFT: u32 = 3;
/// The sectors of a block.
pub const BLOCK_SECTORS: u64 = 1 << BLOCK_SHIFT;
/// log2 of the blocks of a group.
const GROUP_SHIFT: u32 = 3;
/// The blocks of a group, at most.
pub const GROUP_BLOCKS: usize = 1 << GROUP_SHIFT;
/// log2 of the number of shards.
const SHARD_BITS: u32 = 4;
/// How many shards a cache has.
pub const SHARDS: usize = 1 << SHARD_BITS;
/// No entry.
const NONE: u32 = u32::MAX;

/// Sectors of one block, as the part of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    /// The block.
    pub block: u64,
    /// Bit `i` is sector `i` of the block. The bits are adjacent.
    pub mask: u8,
    /// How many sectors of the run come before.
    pub offset: u64,
}

impl Part {
    /// The first sector of the part within its block.
    #[inline]
    pub fn first(&self) -> u32 {
        self.mask.trailing_zeros()
    }

    /// How many sectors it has.
    #[inline]
    pub fn sectors(&self) -> u32 {
        count(self.mask)
    }

    /// What a run with this data has for the part; nothing if it has less.
    pub fn of<'a>(&self, data: &'a [u8]) -> &'a [u8] {
        let from = (self.offset as usize) << 9;
        let to = from + ((self.sectors() as usize) << 9);
        data.get(from..to).unwrap_or(&[])
    }

    /// Where sector 0 of the block would be if the run began at `position`. Positions begin far
    /// above 0.
    #[inline]
    fn base(&self, position: u64) -> u64 {
        (position + self.offset).wrapping_sub(self.first().into())
    }
}

/// The blocks that a run of sectors touches.
#[inline]
pub fn parts(sector: u64, sectors: u32) -> impl Iterator<Item = Part> {
    let end = sector + u64::from(sectors);
    let mut at = sector;
    core::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let block = at >> BLOCK_SHIFT;
        let first = (at % BLOCK_SECTORS) as u32;
        let count = (BLOCK_SECTORS - u64::from(first)).min(end - at) as u32;
        let part = Part {
            block,
            mask: mask(first, count),
            offset: at - sector,
        };
        at += u64::from(count);
        Some(part)
    })
}

/// Sectors of the blocks of one group, as the part of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Group {
    sector: u64,
    sectors: u32,
    /// How many sectors of the run come before.
    pub offset: u32,
}

impl Group {
    /// The shard that its blocks belong to.
    #[inline]
    pub fn shard(&self) -> usize {
        shard_of(self.sector >> BLOCK_SHIFT)
    }

    /// Its blocks, as parts of the run.
    #[inline]
    pub fn parts(&self) -> impl Iterator<Item = Part> {
        let before = u64::from(self.offset);
        parts(self.sector, self.sectors).map(move |part| Part {
            offset: before + part.offset,
            ..part
        })
    }

    /// How many they are.
    #[inline]
    pub fn blocks(&self) -> u32 {
        let end = self.sector + u64::from(self.sectors);
        (end.div_ceil(BLOCK_SECTORS) - (self.sector >> BLOCK_SHIFT)) as u32
    }
}

/// The groups of blocks that a run of sectors touches.
#[inline]
pub fn groups(sector: u64, sectors: u32) -> impl Iterator<Item = Group> {
    const SECTORS: u32 = (GROUP_BLOCKS as u32) << BLOCK_SHIFT;
    let mut offset = 0;
    core::iter::from_fn(move || {
        if offset >= sectors {
            return None;
        }
        let at = sector + u64::from(offset);
        let left = SECTORS - at as u32 % SECTORS;
        let group = Group {
            sector: at,
            sectors: left.min(sectors - offset),
            offset,
        };
        offset += group.sectors;
        Some(group)
    })
}

/// `count` bits from bit `first` on; both together at most 8.
#[inline]
fn mask(first: u32, count: u32) -> u8 {
    (((1u32 << count) - 1) << first) as u8
}

/// How many bits are set. The kernel's instruction set has none for it, and mostly it is all.
#[inline]
fn count(bits: u8) -> u32 {
    if bits == u8::MAX {
        8
    } else {
        bits.count_ones()
    }
}

/// The adjacent bits from the lowest set bit on.
#[inline]
fn run_of(bits: u8) -> u8 {
    if bits == u8::MAX {
        return bits;
    }
    let first = bits.trailing_zeros();
    let count = (bits >> (first & 7)).trailing_ones();
    mask(first, count)
}

#[inline]
fn hash(block: u64) -> u64 {
    block.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The shard that a block belongs to.
#[inline]
pub fn shard_of(block: u64) -> usize {
    (hash(block >> GROUP_SHIFT) >> (u64::BITS - SHARD_BITS)) as usize
}

/// What is said of the first sectors of a part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Look {
    /// Where they are in the log; None if they are not.
    pub position: Option<u64>,
    /// How many sectors of the part it holds for, from its first on.
    pub sectors: u32,
    /// The backing device has them too.
    pub clean: bool,
    /// Where the part that they belong to was written.
    base: u64,
    written: u8,
    crc: u32,
}

/// A part of a block as it was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stored {
    /// Its first sector in the log.
    pub position: u64,
    /// How many sectors it has.
    pub sectors: u32,
    /// The checksum of its data.
    pub crc: u32,
}

impl Look {
    /// The sectors were lost: their only copy was damaged.
    #[inline]
    pub fn is_lost(&self) -> bool {
        self.position
            .is_some_and(|position| position < BLOCK_SECTORS)
    }

    /// The part that they belong to.
    #[inline]
    pub fn stored(&self) -> Stored {
        Stored {
            position: self.base.wrapping_add(self.written.trailing_zeros().into()),
            sectors: self.written.count_ones(),
            crc: self.crc,
        }
    }

    /// The checksum of the sectors, if they are all that was written with it.
    #[inline]
    pub fn crc(&self) -> Option<u32> {
        (self.sectors == count(self.written)).then_some(self.crc)
    }
}

/// Sectors of a part that are the newest copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Live {
    /// Which of them.
    pub mask: u8,
    /// The checksum of all of the part.
    pub crc: u32,
}

/// One entry: `mask` of `block` is in the log; sector 0 of the block would be at `base`. No part is
/// written there in front of position 8: with a base of 0 the sectors are lost.
#[derive(Clone, Copy)]
struct Entry {
    /// The highest bits are [`CLEAN`] and [`PROMOTED`]. The block; below it 8 bits for the sectors that were written
    /// together, and 8 for the mask: those of them that are the newest copy.
    key: u64,
    base: u64,
    /// The checksum of what was written together.
    crc: u32,
    /// The next entry in its chain, or in the list of the free ones.
    next: u32,
}

/// The base of what was lost.
const LOST: u64 = 0;
/// The base of what is being copied from the backing device, and not there yet. No position is so high.
const EXPECTED: u64 = 1 << 63;
/// In the key: the backing device has the sectors too.
const CLEAN: u64 = 1 << 63;
/// In the key: they were copied from there, and a recovery passes them over. No device has so many
/// blocks.
const PROMOTED: u64 = 1 << 62;
/// What is copied from the backing device leaves so much of the entries to writes.
const SPARE_SHARE: u32 = 32;

impl Entry {
    #[inline]
    fn mask(&self) -> u8 {
        self.key as u8
    }

    #[inline]
    fn written(&self) -> u8 {
        (self.key >> 8) as u8
    }

    #[inline]
    fn block(&self) -> u64 {
        (self.key & !(CLEAN | PROMOTED)) >> 16
    }

    #[inline]
    fn is_of(&self, block: u64) -> bool {
        self.block() == block
    }

    #[inline]
    fn is_clean(&self) -> bool {
        self.key & CLEAN != 0
    }

    #[inline]
    fn is_promoted(&self) -> bool {
        self.key & PROMOTED != 0
    }

    #[inline]
    fn is_expected(&self) -> bool {
        self.base == EXPECTED
    }

    /// Whether its place in the log is given up, what is before `start` being so.
    #[inline]
    fn is_given_up(&self, start: u64) -> bool {
        let first = self.mask().trailing_zeros();
        self.base != LOST && self.base.wrapping_add(first.into()) < start
    }

    /// Whether it is of a part as it was written with its run at `position`. The base alone does not
    /// tell: it is the same for two parts that were written one behind the other.
    fn is_copy(&self, part: &Part, position: u64) -> bool {
        self.base == part.base(position) && self.written() == part.mask
    }

    /// Takes sectors from the mask.
    #[inline]
    fn clear(&mut self, sectors: u8) {
        self.key &= !u64::from(sectors);
    }
}

/// What users did to blocks of a shard: the counters of the status.
///
/// The number of each is 1 for a write, plus 2 if the block was in the cache, plus 4 if that was
/// in memory, plus 8 if the whole block was meant.
pub type Counters = [u64; 16];

/// A part of the index.
pub struct Shard {
    entries: Array<Entry>,
    /// The first entry of each chain, with all bits inverted: zeroes are [`NONE`].
    heads: Array<u32>,
    /// The first of the free entries that were in use before.
    free: u32,
    /// How many entries may be in use.
    capacity: u32,
    used: u32,
    /// How many of those in use are clean.
    clean: u32,
    reserved: u32,
    /// What is at lower positions is given up.
    start: u64,
    /// The entry that was swept last.
    hand: usize,
    counters: Counters,
}

/// How many entries of a shard are used for what.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// In use; among them some that were given up.
    pub used: u32,
    /// In use for clean copies.
    pub clean: u32,
    /// All there are.
    pub capacity: u32,
}

impl Shard {
    /// A shard with room for `capacity` entries, but at least 64 and at most 2^30.
    pub fn new(capacity: u64) -> Result<Self, NoMemory> {
        let capacity = capacity.clamp(64, 1 << 30) as usize;
        Ok(Shard {
            entries: with_room(capacity)?,
            heads: zeroed((capacity / 2 + 1).next_power_of_two())?,
            free: NONE,
            capacity: capacity as u32,
            used: 0,
            clean: 0,
            reserved: 0,
            start: 0,
            hand: 0,
            counters: [0; 16],
        })
    }

    /// How many bytes of memory it has.
    pub fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>() + self.heads.capacity() * size_of::<u32>()
    }

    /// How many entries are used for what.
    pub fn usage(&self) -> Usage {
        Usage {
            used: self.used,
            clean: self.clean,
            capacity: self.capacity,
        }
    }

    /// What was counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Counts from zero.
    pub fn clear_counters(&mut self) {
        self.counters = [0; 16];
    }

    /// Sets an entry aside for one [`insert`](Self::insert). False if there is none.
    #[inline]
    pub fn reserve(&mut self) -> bool {
        self.reserve_all(1)
    }

    /// Sets `count` entries aside for as many times [`insert`](Self::insert). False if there are not
    /// so many.
    #[inline]
    pub fn reserve_all(&mut self, count: u32) -> bool {
        let room = self.used + self.reserved + count <= self.capacity;
        if room {
            self.reserved += count;
        }
        room
    }

    /// Gives back what was reserved and is not needed.
    pub fn unreserve(&mut self, count: u32) {
        self.reserved = self.reserved.saturating_sub(count);
    }

    #[inline]
    fn bucket(&self, block: u64) -> usize {
        let bits = hash(block) >> (u64::BITS - SHARD_BITS - 30);
        bits as usize & (self.heads.len() - 1)
    }

    /// Calls `visit` with each entry of `block`; removes those whose mask becomes empty, and what
    /// was given up.
    #[inline]
    fn visit(&mut self, block: u64, mut visit: impl FnMut(&mut Entry)) {
        let bucket = self.bucket(block);
        let mut before = NONE;
        let mut at = !self.heads[bucket];
        while at != NONE {
            let entry = &mut self.entries[at as usize];
            let next = entry.next;
            let was_clean = entry.is_clean();
            if entry.is_given_up(self.start) {
                entry.clear(u8::MAX);
            } else if entry.is_of(block) {
                visit(entry);
            }
            let is_empty = entry.mask() == 0;
            let is_clean = !is_empty && entry.is_clean();
            self.clean = self.clean - u32::from(was_clean) + u32::from(is_clean);
            if is_empty {
                entry.next = self.free;
                match before {
                    NONE => self.heads[bucket] = !next,
                    before => self.entries[before as usize].next = next,
                }
                self.free = at;
                self.used -= 1;
            } else {
                before = at;
            }
            at = next;
        }
    }

    /// Gives up what is in the log before `start`: nobody finds it any more.
    pub fn give_up(&mut self, start: u64) {
        self.start = self.start.max(start);
    }

    /// Frees what was given up, among the next `count` entries. Returns how many it freed.
    pub fn sweep(&mut self, count: usize) -> u32 {
        let before = self.used;
        for _ in 0..count.min(self.entries.len()) {
            self.hand = (self.hand + 1) % self.entries.len();
            let entry = self.entries[self.hand];
            // Those that are free have an empty mask.
            if entry.mask() != 0 && entry.is_given_up(self.start) {
                self.visit(entry.block(), |_| {});
            }
        }
        before - self.used
    }

    /// Notes that a part of a run is in the log, with the run at `position`, for which an entry was
    /// reserved. What is there at a higher position already stays. `crc` is the checksum of the part.
    ///
    /// `in_memory`: the position from which on the log is in memory, for the counters.
    #[inline]
    pub fn insert(&mut self, part: &Part, position: u64, crc: u32, in_memory: u64) {
        let base = part.base(position);
        let (mut mine, mut hit, mut buffered) = (part.mask, false, false);
        self.visit(part.block, |entry| {
            let overlap = entry.mask() & mine;
            if overlap == 0 {
                return;
            }
            if !entry.is_expected() {
                hit = true;
                buffered |= entry.base.wrapping_add(BLOCK_SECTORS) > in_memory;
            }
            // A copy of what the backing device has is older than any write that is published now:
            // what was promoted is wherever it is, and nothing that has a write before it which is not
            // published is written back.
            if entry.base < base || entry.is_clean() {
                entry.clear(overlap);
            } else {
                mine &= !overlap;
            }
        });
        self.count(true, hit, buffered, part.mask);
        self.reserved = self.reserved.saturating_sub(1);
        if mine != 0 {
            self.add(part, mine.into(), base, crc);
        }
    }

    /// Adds an entry; `state` is the mask, and what the highest bits of the key are.
    #[inline]
    fn add(&mut self, part: &Part, state: u64, base: u64, crc: u32) {
        let bucket = self.bucket(part.block);
        let entry = Entry {
            key: part.block << 16 | u64::from(part.mask) << 8 | state,
            base,
            crc,
            next: !self.heads[bucket],
        };
        let at = match self.free {
            NONE => {
                let at = self.entries.len() as u32;
                // There is room: no more than the capacity are reserved and in use.
                if super::platform::push(&mut self.entries, entry).is_err() {
                    return;
                }
                at
            }
            at => {
                self.free = self.entries[at as usize].next;
                self.entries[at as usize] = entry;
                at
            }
        };
        self.heads[bucket] = !at;
        self.used += 1;
    }

    /// Where the first sectors of a part are.
    #[inline(always)]
    pub fn look(&self, part: &Part) -> Look {
        let first = part.first();
        let bit = 1u8 << first;
        let mut others = 0;
        let mut at = !self.heads[self.bucket(part.block)];
        while at != NONE {
            let entry = &self.entries[at as usize];
            let is_there = !entry.is_given_up(self.start) && !entry.is_expected();
            if entry.is_of(part.block) && is_there {
                if entry.mask() & bit != 0 {
                    return Look {
                        position: Some(entry.base.wrapping_add(first.into())),
                        sectors: count(run_of(entry.mask() & part.mask)),
                        clean: entry.is_clean(),
                        base: entry.base,
                        written: entry.written(),
                        crc: entry.crc,
                    };
                }
                others |= entry.mask();
            }
            at = entry.next;
        }
        Look {
            position: None,
            sectors: run_of(part.mask & !others).count_ones(),
            clean: false,
            base: LOST,
            written: 0,
            crc: 0,
        }
    }

    /// Counts a block that a user has read.
    #[inline]
    pub fn count_read(&mut self, look: &Look, in_memory: u64, mask: u8) {
        let buffered = look.position.is_some_and(|position| position >= in_memory);
        self.count(false, look.position.is_some(), buffered, mask);
    }

    #[inline]
    fn count(&mut self, write: bool, hit: bool, buffered: bool, mask: u8) {
        let number = usize::from(write)
            | usize::from(hit) << 1
            | usize::from(hit && buffered) << 2
            | usize::from(mask == u8::MAX) << 3;
        self.counters[number & 15] += 1;
    }

    /// Which dirty sectors of a part are in the log where they are if its run, as it was written, is
    /// at `position`.
    pub fn live(&self, part: &Part, position: u64) -> Live {
        let mut live = Live::default();
        self.look_at(part.block, |entry| {
            if entry.is_copy(part, position) && !entry.is_clean() {
                live = Live {
                    mask: entry.mask(),
                    crc: entry.crc,
                };
            }
        });
        live
    }

    /// The copy of all of a block, if it is dirty and was written together.
    pub fn whole(&self, block: u64) -> Option<Stored> {
        let mut whole = None;
        self.look_at(block, |entry| {
            if entry.mask() == u8::MAX && !entry.is_clean() && entry.base != LOST {
                whole = Some(Stored {
                    position: entry.base,
                    sectors: BLOCK_SECTORS as u32,
                    crc: entry.crc,
                });
            }
        });
        whole
    }

    /// Calls `look` with each entry of `block`.
    fn look_at(&self, block: u64, mut look: impl FnMut(&Entry)) {
        let mut at = !self.heads[self.bucket(block)];
        while at != NONE {
            let entry = &self.entries[at as usize];
            if entry.is_of(block) && !entry.is_given_up(self.start) {
                look(entry);
            }
            at = entry.next;
        }
    }

    /// Notes that the sectors of a part that are in the log where they are if its run, as it was
    /// written, is at `position` are lost: until they are written or discarded.
    pub fn lose(&mut self, part: &Part, position: u64) {
        self.visit(part.block, |entry| {
            if entry.is_copy(part, position) {
                entry.base = LOST;
            }
        });
    }

    /// Notes that the sectors of a part are lost, as far as nothing is known of them. An entry was
    /// reserved.
    pub fn insert_lost(&mut self, part: &Part) {
        let mut mine = part.mask;
        self.look_at(part.block, |entry| mine &= !entry.mask());
        self.reserved = self.reserved.saturating_sub(1);
        if mine != 0 {
            self.add(part, mine.into(), LOST, 0);
        }
    }

    /// Which sectors of a part are lost.
    pub fn lost(&self, part: &Part) -> u8 {
        let mut lost = 0;
        self.look_at(part.block, |entry| {
            if entry.base == LOST {
                lost |= entry.mask() & part.mask;
            }
        });
        lost
    }

    /// Notes that the backing device has the sectors of a part that are in the log where they are if
    /// its run is at `position`.
    pub fn settle(&mut self, part: &Part, position: u64) {
        self.visit(part.block, |entry| {
            if entry.is_copy(part, position) {
                entry.key |= CLEAN;
            }
        });
    }

    /// Forgets what a recovery would not find of any sectors of a part: clean copies in front of the
    /// `tail` of the log, and promoted ones. Whether that was all the log has of them, and none of them
    /// is lost.
    pub fn forget_clean(&mut self, part: &Part, tail: u64) -> bool {
        let mut rest = 0;
        self.visit(part.block, |entry| {
            // A part is within one record, which the tail has passed or not.
            if entry.is_promoted() || entry.is_clean() && entry.is_given_up(tail) {
                entry.clear(part.mask);
            } else {
                rest |= entry.mask() & part.mask;
            }
        });
        rest == 0
    }

    /// Something that went around the log, when there was nothing of these sectors in it, has changed them on
    /// the backing device; what is in the log of them came meanwhile. Forgets as
    /// [`forget_clean`](Self::forget_clean) does; of other clean copies nobody knows whether the backing
    /// device has them still: they are dirty again, and what they are of is written back in its turn.
    pub fn disturb(&mut self, part: &Part, tail: u64) {
        self.forget_clean(part, tail);
        self.visit(part.block, |entry| {
            if entry.mask() & part.mask != 0 {
                entry.key &= !CLEAN;
            }
        });
    }

    /// Forgets the sectors of a part that are in the log before `position`, and their clean copies.
    pub fn forget(&mut self, part: &Part, position: u64) {
        self.visit(part.block, |entry| {
            // A discard is between two runs, so that one sector tells for all of an entry.
            let first = entry.mask().trailing_zeros();
            if entry.is_clean() || entry.base.wrapping_add(first.into()) < position {
                entry.clear(part.mask);
            }
        });
    }

    /// A part is going to be copied from the backing device. False if anything is known of any of its
    /// sectors, or if entries are short.
    pub fn expect(&mut self, part: &Part) -> bool {
        let mut known = 0;
        self.visit(part.block, |entry| known |= entry.mask() & part.mask);
        let spare = self.capacity / SPARE_SHARE;
        if known != 0 || self.used + self.reserved + spare >= self.capacity {
            return false;
        }
        self.add(part, u64::from(part.mask) | CLEAN | PROMOTED, EXPECTED, 0);
        self.clean += 1;
        true
    }

    /// The copy of a part that was [expected](Self::expect) is in the log, with its run at `position`.
    /// What was written or discarded since, or went past the log, is not taken from it.
    pub fn arrive(&mut self, part: &Part, position: u64, crc: u32) {
        self.visit(part.block, |entry| {
            if entry.is_expected() && entry.written() == part.mask {
                (entry.base, entry.crc) = (part.base(position), crc);
            }
        });
    }

    /// The copy of a part does not come.
    pub fn cancel(&mut self, part: &Part) {
        self.visit(part.block, |entry| {
            if entry.is_expected() {
                entry.clear(part.mask);
            }
        });
    }
}
