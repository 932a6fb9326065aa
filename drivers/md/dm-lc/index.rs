// SPDX-License-Identifier: GPL-2.0

//! Which sectors of the backing device are in the log, and where. Pure.
//!
//! A hash table of *blocks* of 4 KiB of the backing device. An [entry](Entry) says which sectors of
//! a block are in one run of the log; a block that was written in parts has several, whose sectors
//! never overlap, so that their order does not matter. The table is divided into *shards* by the
//! hash of the block; each shard has memory of its own, and outside of this file a lock of its own.
//!
//! The memory is allocated at once. Who is going to add a block has to [reserve](Shard::reserve)
//! an entry first: then adding it never fails.

use super::platform::{
    array,
    with_room,
    Array,
    NoMemory, //
};
use core::mem::size_of;

/// log2 of the sectors of a block.
pub const BLOCK_SHIFT: u32 = 3;
/// The sectors of a block.
pub const BLOCK_SECTORS: u64 = 1 << BLOCK_SHIFT;
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

/// `count` bits from bit `first` on; both together at most 8.
#[inline]
fn mask(first: u32, count: u32) -> u8 {
    (((1u32 << count) - 1) << first) as u8
}

/// The adjacent bits from the lowest set bit on.
#[inline]
fn run_of(bits: u8) -> u8 {
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
    (hash(block) >> (u64::BITS - SHARD_BITS)) as usize
}

/// What is said of the first sectors of a part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Look {
    /// Where they are in the log; None if they are not.
    pub position: Option<u64>,
    /// How many sectors of the part it holds for, from its first on.
    pub sectors: u32,
}

/// One entry: `mask` of `block` is in the log; sector 0 of the block would be at `base`.
#[derive(Clone, Copy)]
struct Entry {
    /// The block, and in the low 8 bits the mask.
    key: u64,
    base: u64,
}

impl Entry {
    #[inline]
    fn mask(&self) -> u8 {
        self.key as u8
    }

    #[inline]
    fn is_of(&self, block: u64) -> bool {
        self.key >> 8 == block
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
    /// For each entry the next one in its chain, or in the list of the free ones.
    next: Array<u32>,
    /// The first entry of each chain.
    heads: Array<u32>,
    /// The first of the free entries that were in use before.
    free: u32,
    /// How many entries may be in use.
    capacity: u32,
    used: u32,
    reserved: u32,
    counters: Counters,
}

impl Shard {
    /// A shard with room for `capacity` entries, but at least 64 and at most 2^30.
    pub fn new(capacity: u64) -> Result<Self, NoMemory> {
        let capacity = capacity.clamp(64, 1 << 30) as usize;
        Ok(Shard {
            entries: with_room(capacity)?,
            next: with_room(capacity)?,
            heads: array(capacity.next_power_of_two(), NONE)?,
            free: NONE,
            capacity: capacity as u32,
            used: 0,
            reserved: 0,
            counters: [0; 16],
        })
    }

    /// How many bytes of memory it has.
    pub fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
            + self.next.capacity() * size_of::<u32>()
            + self.heads.capacity() * size_of::<u32>()
    }

    /// How many entries are in use, and how many there are.
    pub fn usage(&self) -> (u32, u32) {
        (self.used, self.capacity)
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
        let room = self.used + self.reserved < self.capacity;
        self.reserved += u32::from(room);
        room
    }

    /// Gives back what was reserved and is not needed.
    pub fn unreserve(&mut self) {
        self.reserved = self.reserved.saturating_sub(1);
    }

    #[inline]
    fn bucket(&self, block: u64) -> usize {
        let bits = hash(block) >> (u64::BITS - SHARD_BITS - 30);
        bits as usize & (self.heads.len() - 1)
    }

    /// Calls `visit` with each entry of `block`; removes those whose mask becomes empty.
    #[inline]
    fn visit(&mut self, block: u64, mut visit: impl FnMut(&mut u8, u64)) {
        let bucket = self.bucket(block);
        let mut before = NONE;
        let mut at = self.heads[bucket];
        while at != NONE {
            let next = self.next[at as usize];
            let entry = &mut self.entries[at as usize];
            if entry.is_of(block) {
                let mut mask = entry.mask();
                visit(&mut mask, entry.base);
                entry.key = block << 8 | u64::from(mask);
                if mask == 0 {
                    match before {
                        NONE => self.heads[bucket] = next,
                        before => self.next[before as usize] = next,
                    }
                    self.next[at as usize] = self.free;
                    self.free = at;
                    self.used -= 1;
                    at = next;
                    continue;
                }
            }
            before = at;
            at = next;
        }
    }

    /// Notes that a part of a run is in the log, with the run at `position`, for which an entry was
    /// reserved. What is there at a higher position already stays.
    ///
    /// `in_memory`: the position from which on the log is in memory, for the counters.
    #[inline]
    pub fn insert(&mut self, part: &Part, position: u64, in_memory: u64) {
        let base = part.base(position);
        let (mut mine, mut hit, mut buffered) = (part.mask, false, false);
        self.visit(part.block, |mask, other| {
            let overlap = *mask & mine;
            if overlap == 0 {
                return;
            }
            hit = true;
            buffered |= other.wrapping_add(BLOCK_SECTORS) > in_memory;
            if other < base {
                *mask &= !overlap;
            } else {
                mine &= !overlap;
            }
        });
        self.count(true, hit, buffered, part.mask);
        self.reserved = self.reserved.saturating_sub(1);
        if mine != 0 {
            self.add(part.block, mine, base);
        }
    }

    #[inline]
    fn add(&mut self, block: u64, mask: u8, base: u64) {
        let entry = Entry {
            key: block << 8 | u64::from(mask),
            base,
        };
        let bucket = self.bucket(block);
        let head = self.heads[bucket];
        let at = match self.free {
            NONE => {
                let at = self.entries.len() as u32;
                // Both have room: no more than the capacity are reserved and in use.
                if super::platform::push(&mut self.entries, entry).is_err()
                    || super::platform::push(&mut self.next, head).is_err()
                {
                    return;
                }
                at
            }
            at => {
                self.free = self.next[at as usize];
                self.entries[at as usize] = entry;
                self.next[at as usize] = head;
                at
            }
        };
        self.heads[bucket] = at;
        self.used += 1;
    }

    /// Where the first sectors of a part are.
    #[inline]
    pub fn look(&self, part: &Part) -> Look {
        let first = part.first();
        let bit = 1u8 << first;
        let mut others = 0;
        let mut at = self.heads[self.bucket(part.block)];
        while at != NONE {
            let entry = &self.entries[at as usize];
            if entry.is_of(part.block) {
                if entry.mask() & bit != 0 {
                    return Look {
                        position: Some(entry.base.wrapping_add(first.into())),
                        sectors: run_of(entry.mask() & part.mask).count_ones(),
                    };
                }
                others |= entry.mask();
            }
            at = self.next[at as usize];
        }
        Look {
            position: None,
            sectors: run_of(part.mask & !others).count_ones(),
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

    /// Which sectors of a part are in the log where they are if its run is at `position`.
    pub fn live(&self, part: &Part, position: u64) -> u8 {
        let base = part.base(position);
        let mut live = 0;
        let mut at = self.heads[self.bucket(part.block)];
        while at != NONE {
            let entry = &self.entries[at as usize];
            if entry.is_of(part.block) && entry.base == base {
                live |= entry.mask() & part.mask;
            }
            at = self.next[at as usize];
        }
        live
    }

    /// Forgets the sectors of a part that are in the log where they are if its run is at
    /// `position`.
    pub fn remove(&mut self, part: &Part, position: u64) {
        let base = part.base(position);
        self.visit(part.block, |mask, other| {
            if other == base {
                *mask &= !part.mask;
            }
        });
    }

    /// Forgets the sectors of a part that are in the log before `position`.
    pub fn forget(&mut self, part: &Part, position: u64) {
        self.visit(part.block, |mask, base| {
            // A discard is between two runs, so that one sector tells for all of an entry.
            if base.wrapping_add(mask.trailing_zeros().into()) < position {
                *mask &= !part.mask;
            }
        });
    }
}
