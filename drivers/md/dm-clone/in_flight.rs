// SPDX-License-Identifier: GPL-2.0

//! The regions that are being written to the destination to become hydrated, and the bios that
//! wait for them.
//!
//! While something is on its way into a region, from a copy of the source or from a write that
//! covers the region whole, the region is *in flight*: it has an [`Entry`] here. The rule that
//! keeps data is:
//!
//! > A region becomes hydrated when its entry is removed, or when it has none; both under the lock
//! > of the table.
//!
//! Otherwise a write that came after the mark could go straight to the destination, and then be
//! overwritten by the copy that was still under way.

use crate::target::CloneTarget;
use core::ops::Range;
use dm::{
    mempool::PoolBox,
    prelude::*, //
};
use kernel::prelude::*;

/// How many chains the table has. A power of two.
const CHAINS: usize = 256;

/// Neighbouring regions in flight together. Those among them that are hydrated already are written
/// to like any other such region; they only lie between.
pub(crate) struct Entry {
    regions: Range<u64>,
    /// How many of them are not hydrated.
    unhydrated: u64,
    /// Writes into these regions, to be sent once the regions are hydrated.
    waiting: BioList<OwnedBio<CloneTarget>>,
    next: Option<PoolBox<Entry>>,
}

impl Entry {
    /// None of the regions is hydrated.
    pub(crate) fn new(regions: Range<u64>) -> Self {
        let unhydrated = regions.end.saturating_sub(regions.start);
        Entry::mixed(regions, unhydrated)
    }

    /// So many of the regions are not hydrated.
    pub(crate) fn mixed(regions: Range<u64>, unhydrated: u64) -> Self {
        Entry {
            regions,
            unhydrated,
            waiting: BioList::new(),
            next: None,
        }
    }

    /// The regions.
    pub(crate) fn regions(&self) -> Range<u64> {
        self.regions.clone()
    }

    /// Keeps a bio until the regions are hydrated.
    pub(crate) fn wait(&mut self, bio: OwnedBio<CloneTarget>) {
        self.waiting.push(bio);
    }

    /// The bios that wait.
    pub(crate) fn into_waiting(mut self: PoolBox<Self>) -> BioList<OwnedBio<CloneTarget>> {
        self.waiting.take_all()
    }
}

/// All entries: a hash table over *blocks* of neighbouring regions. No entry reaches into two
/// blocks. Kept under a lock that interrupt handlers take too.
pub(crate) struct InFlight {
    chains: KVec<Option<PoolBox<Entry>>>,
    /// log2 of the regions in a block.
    block_shift: u32,
    entries: usize,
    /// How many regions are to become hydrated.
    regions: u64,
}

impl InFlight {
    /// An empty table with blocks of `1 << block_shift` regions. May sleep.
    pub(crate) fn new(block_shift: u32) -> Result<Self> {
        let mut chains = KVec::with_capacity(CHAINS, GFP_KERNEL)?;
        for _ in 0..CHAINS {
            chains.push(None, GFP_KERNEL)?;
        }
        Ok(InFlight {
            chains,
            block_shift,
            entries: 0,
            regions: 0,
        })
    }

    /// How many regions are in flight to become hydrated.
    pub(crate) fn regions(&self) -> u64 {
        self.regions
    }

    /// How many entries there are.
    pub(crate) fn entries(&self) -> usize {
        self.entries
    }

    /// Where the block of a region ends.
    pub(crate) fn block_end(&self, region: u64) -> u64 {
        ((region >> self.block_shift) + 1) << self.block_shift
    }

    /// The entry of a region.
    pub(crate) fn find(&mut self, region: u64) -> Option<&mut Entry> {
        let chain = self.chain_of(region);
        let mut link = self.chains[chain].as_mut();
        while let Some(entry) = link {
            if entry.regions.contains(&region) {
                return Some(entry);
            }
            link = entry.next.as_mut();
        }
        None
    }

    /// The first regions in flight among `regions`, which lie in one block.
    pub(crate) fn first_of(&self, regions: Range<u64>) -> Option<Range<u64>> {
        if self.entries == 0 {
            return None;
        }
        let mut first: Option<Range<u64>> = None;
        let mut link = self.chains[self.chain_of(regions.start)].as_ref();
        while let Some(entry) = link {
            let (start, end) = (entry.regions.start, entry.regions.end);
            let overlaps = start < regions.end && regions.start < end;
            if overlaps && first.as_ref().is_none_or(|first| start < first.start) {
                first = Some(start..end);
            }
            link = entry.next.as_ref();
        }
        first
    }

    /// Adds an entry, of whose regions none may be in flight, and which lies in one block.
    pub(crate) fn insert(&mut self, mut entry: PoolBox<Entry>) {
        self.entries += 1;
        self.regions += entry.unhydrated;
        let chain = self.chain_of(entry.regions.start);
        entry.next = self.chains[chain].take();
        self.chains[chain] = Some(entry);
    }

    /// Takes the entry that starts at a region.
    pub(crate) fn remove(&mut self, start: u64) -> Option<PoolBox<Entry>> {
        let chain = self.chain_of(start);
        let mut link = &mut self.chains[chain];
        while link
            .as_ref()
            .is_some_and(|entry| entry.regions.start != start)
        {
            link = &mut link.as_mut()?.next;
        }
        let mut entry = link.take()?;
        *link = entry.next.take();
        self.entries -= 1;
        self.regions -= entry.unhydrated;
        Some(entry)
    }

    fn chain_of(&self, region: u64) -> usize {
        (region >> self.block_shift) as usize % CHAINS
    }
}
