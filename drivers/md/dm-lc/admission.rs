// SPDX-License-Identifier: GPL-2.0

//! Which reads are worth a copy in the cache. Pure.
//!
//! What is read here and there is read again, perhaps, and is what a slow device is slowest at. What
//! is read from one end to the other comes from it quickly, and would only push out the rest. So
//! reads that continue one before them are added up, and are admitted only as long as the sum is
//! small. What was admitted waits for its turn in a ring; when that is full, it is not copied.

use super::{
    index::BLOCK_SECTORS,
    platform::{
        push,
        with_room,
        Array,
        NoMemory, //
    },
    runs::Runs, //
};
use core::mem::size_of;

/// How many reads may wait, at most.
pub const MAX_CELLS: u32 = 2048;

/// Sectors to be copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Wanted {
    /// The first one.
    pub sector: u64,
    /// How many.
    pub sectors: u32,
}

/// What was read lately, and what is to be copied.
pub struct Admission {
    runs: Runs,
    ring: Array<Wanted>,
    first: usize,
    waiting: usize,
}

impl Admission {
    /// Nothing was read yet. May sleep.
    pub fn new() -> Result<Self, NoMemory> {
        let mut ring = with_room(MAX_CELLS as usize)?;
        for _ in 0..MAX_CELLS {
            let _ = push(&mut ring, Wanted::default());
        }
        Ok(Admission {
            runs: Runs::default(),
            ring,
            first: 0,
            waiting: 0,
        })
    }

    /// How many bytes of memory it has.
    pub fn bytes() -> usize {
        MAX_CELLS as usize * size_of::<Wanted>()
    }

    /// Notes a read. Whether it belongs to a run of more than `blocks` blocks.
    pub fn is_long(&mut self, sector: u64, sectors: u32, blocks: u32) -> bool {
        self.runs.note(sector, sectors) > u64::from(blocks) * BLOCK_SECTORS
    }

    /// Has sectors copied, unless `cells` reads wait for that already. Whether it is the first that
    /// waits.
    pub fn want(&mut self, wanted: Wanted, cells: u32) -> bool {
        if self.waiting >= self.ring.len().min(cells as usize) {
            return false;
        }
        let at = (self.first + self.waiting) % self.ring.len().max(1);
        if let Some(place) = self.ring.get_mut(at) {
            *place = wanted;
            self.waiting += 1;
        }
        self.waiting == 1
    }

    /// The next sectors to be copied.
    pub fn take(&mut self) -> Option<Wanted> {
        if self.waiting == 0 {
            return None;
        }
        let wanted = self.ring.get(self.first).copied();
        self.first = (self.first + 1) % self.ring.len().max(1);
        self.waiting -= 1;
        wanted
    }
}
