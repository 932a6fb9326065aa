// SPDX-License-Identifier: GPL-2.0

//! Which regions are hydrated: the truth that I/O goes by. Pure.
//!
//! One bit a region, in 64-bit words, and for each word two bits that say whether it has regions
//! that are not committed. Readers take no lock. Bits are changed only through [`Uncommitted`],
//! whose lock thus orders the writers. A region that is hydrated stays so.
//!
//! When all regions are hydrated durably, nothing is left to be known, and the memory is freed.
//!
//! [`Uncommitted`]: super::uncommitted::Uncommitted

use super::platform::{
    NoMemory,
    Retirable,
    Words, //
};
use core::ops::Range;

/// How many regions share a word.
pub const WORD_REGIONS: u64 = 64;

/// The map of hydrated regions.
pub struct RegionMap {
    maps: Retirable<Maps>,
    regions: u64,
}

/// # Invariants
///
/// There is a word for each 64 regions or part thereof; bits past the last region are 0. A word
/// with a region that is not committed has its bit in `dirty`, or in `taken`, or in both.
struct Maps {
    hydrated: Words,
    /// Words with regions that became hydrated since a commit took the word.
    dirty: Words,
    /// Words that the commit under way has taken.
    taken: Words,
}

impl RegionMap {
    /// A map of `regions` regions, none of which is hydrated.
    pub fn new(regions: u64) -> Result<Self, NoMemory> {
        let words = word_count(regions);
        Ok(RegionMap {
            maps: Retirable::new(Maps {
                hydrated: Words::new(words)?,
                dirty: Words::new(word_count(words as u64))?,
                taken: Words::new(word_count(words as u64))?,
            })?,
            regions,
        })
    }

    /// How many regions there are.
    pub fn regions(&self) -> u64 {
        self.regions
    }

    /// Frees the memory, and counts every region as hydrated and committed from now on. Sleeps.
    pub fn retire(&self) {
        self.maps.retire();
    }

    /// Whether a region is hydrated. Regions past the last are not.
    pub fn is_hydrated(&self, region: u64) -> bool {
        let (word, bit) = position(region);
        self.word(word) >> bit & 1 != 0
    }

    /// The state of the first of `regions`, and how many from there on are in the same state. There
    /// are none past the last region.
    pub fn run(&self, regions: Range<u64>) -> (bool, u64) {
        let hydrated = self.is_hydrated(regions.start);
        let end = regions.end.min(self.regions);
        // Of the first it is not asked again: it may have become hydrated since.
        let others = regions.start.saturating_add(1)..end;
        let end = self.next(others, !hydrated).unwrap_or(end);
        (hydrated, end.saturating_sub(regions.start))
    }

    /// The first of `regions` that is not hydrated.
    pub fn next_unhydrated(&self, regions: Range<u64>) -> Option<u64> {
        self.next(regions, false)
    }

    /// How many of `regions` are not hydrated.
    pub fn unhydrated(&self, regions: Range<u64>) -> u64 {
        masks(regions.start..regions.end.min(self.regions))
            .map(|(word, mask)| u64::from((mask & !self.word(word)).count_ones()))
            .sum()
    }

    /// Whether any of `regions` may be hydrated, but not durably. It may also be only a neighbour
    /// of such a region. No is certain: they were hydrated durably before the call, or are not
    /// hydrated.
    pub fn is_uncommitted(&self, regions: Range<u64>) -> bool {
        let words = regions.start / WORD_REGIONS..word_count(regions.end) as u64;
        let any = |maps: &Maps| {
            // In this order: a word is taken before it ceases to be dirty.
            masks(words).any(|(group, mask)| {
                maps.dirty.load(group) & mask != 0 || maps.taken.load(group) & mask != 0
            })
        };
        self.maps.with(any).unwrap_or(false)
    }

    /// The first of `regions` in the given state.
    fn next(&self, regions: Range<u64>, hydrated: bool) -> Option<u64> {
        let end = regions.end.min(self.regions);
        let search = |maps: &Maps| {
            let mut region = regions.start;
            while region < end {
                let (word, bit) = position(region);
                let bits = maps.hydrated.load(word);
                let wanted = (if hydrated { bits } else { !bits }) >> bit;
                if wanted != 0 {
                    let found = region + u64::from(wanted.trailing_zeros());
                    return (found < end).then_some(found);
                }
                region = region - u64::from(bit) + WORD_REGIONS;
            }
            None
        };
        let all_hydrated = (hydrated && regions.start < end).then_some(regions.start);
        self.maps.with(search).unwrap_or(all_hydrated)
    }

    /// The 64 regions of a word, the first in the lowest bit.
    pub fn word(&self, word: usize) -> u64 {
        let bits = self.maps.with(|maps| maps.hydrated.load(word));
        bits.unwrap_or_else(|| valid_mask(word, self.regions))
    }

    /// How many words there are.
    pub fn words(&self) -> usize {
        word_count(self.regions)
    }

    /// Takes over words as they are on disk, from the first on. For
    /// [`Uncommitted`](super::uncommitted::Uncommitted), as all that follow. Returns how many
    /// regions they have.
    pub(super) fn load(&self, first: usize, values: impl Iterator<Item = u64>) -> u64 {
        let load = |maps: &Maps| {
            let mut regions = 0;
            for (word, bits) in (first..).zip(values) {
                // Not to write zeroes over zeroes, but over what an earlier call may have left.
                if bits != 0 || maps.hydrated.load(word) != 0 {
                    let bits = bits & valid_mask(word, self.regions);
                    maps.hydrated.store(word, bits);
                    regions += u64::from(bits.count_ones());
                }
            }
            regions
        };
        self.maps.with(load).unwrap_or(0)
    }

    /// Adds hydrated regions; says of each word that has new ones how many those are.
    pub(super) fn add(&self, regions: Range<u64>, mut new: impl FnMut(usize, u32)) {
        let add = |maps: &Maps| {
            for (word, mask) in masks(regions.start..regions.end.min(self.regions)) {
                let bits = maps.hydrated.load(word);
                let added = mask & !bits;
                if added != 0 {
                    // Who sees the region as hydrated sees that it is not committed.
                    let (group, bit) = position(word as u64);
                    maps.dirty.store(group, maps.dirty.load(group) | 1 << bit);
                    maps.hydrated.store(word, bits | added);
                    new(word, added.count_ones());
                }
            }
        };
        let _ = self.maps.with(add);
    }

    /// Takes some words for a commit: writes them to `values`, and none is dirty any more.
    pub(super) fn take(&self, words: Range<usize>, values: &mut [u8]) {
        let take = |maps: &Maps| {
            for (group, mask) in masks(words.start as u64..words.end as u64) {
                let dirty = maps.dirty.load(group);
                if dirty & mask != 0 {
                    let taken = maps.taken.load(group);
                    maps.taken.store(group, taken | dirty & mask);
                    maps.dirty.store(group, dirty & !mask);
                }
            }
            maps.hydrated.copy(words.start, values);
        };
        let _ = self.maps.with(take);
    }

    /// Some words that were taken are durable.
    pub(super) fn settle(&self, words: Range<usize>) {
        let settle = |maps: &Maps| {
            for (group, mask) in masks(words.start as u64..words.end as u64) {
                let taken = maps.taken.load(group);
                if taken & mask != 0 {
                    maps.taken.store(group, taken & !mask);
                }
            }
        };
        let _ = self.maps.with(settle);
    }
}

/// How many words hold `regions` regions.
pub fn word_count(regions: u64) -> usize {
    (regions / WORD_REGIONS + u64::from(regions % WORD_REGIONS != 0)) as usize
}

/// Where a region's bit is.
fn position(region: u64) -> (usize, u32) {
    (
        (region / WORD_REGIONS) as usize,
        (region % WORD_REGIONS) as u32,
    )
}

/// The bits of a word that stand for regions.
pub fn valid_mask(word: usize, regions: u64) -> u64 {
    let first = (word as u64).saturating_mul(WORD_REGIONS);
    match regions.saturating_sub(first) {
        0 => 0,
        left if left >= WORD_REGIONS => u64::MAX,
        left => (1 << left) - 1,
    }
}

/// The words that `bits` lie in, each with a mask of them.
fn masks(bits: Range<u64>) -> impl Iterator<Item = (usize, u64)> {
    let words = if bits.is_empty() {
        0..0
    } else {
        bits.start / WORD_REGIONS..word_count(bits.end) as u64
    };
    words.map(move |word| {
        let first = word * WORD_REGIONS;
        let from = bits.start.saturating_sub(first);
        let to = (bits.end - first).min(WORD_REGIONS);
        (
            word as usize,
            u64::MAX << from & u64::MAX >> (WORD_REGIONS - to),
        )
    })
}
