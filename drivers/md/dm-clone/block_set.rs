// SPDX-License-Identifier: GPL-2.0

//! A set of blocks of the region bitset, in which the next one is found fast. Pure.
//!
//! A bit for each block, and one for each 64 of them that says whether there is any: 2^31 regions
//! have 66,000 blocks, and so 17 words that say where to look.

use super::{
    platform::{
        array,
        Array,
        NoMemory, //
    },
    region_map::word_count, //
};

/// A set of numbers below a bound.
///
/// # Invariants
///
/// A bit of `groups` is set if and only if the word of `bits` with its number is not 0.
#[derive(Default)]
pub struct BlockSet {
    bits: Array<u64>,
    groups: Array<u64>,
}

impl BlockSet {
    /// No block, of `blocks`.
    pub fn new(blocks: usize) -> Result<Self, NoMemory> {
        let words = word_count(blocks as u64);
        Ok(BlockSet {
            bits: array(words, 0)?,
            groups: array(word_count(words as u64), 0)?,
        })
    }

    // PANIC: Blocks are below the bound.

    /// Adds a block.
    pub fn insert(&mut self, block: usize) {
        self.bits[block / 64] |= 1 << (block % 64);
        self.groups[block / 4096] |= 1 << (block / 64 % 64);
    }

    /// Takes a block away.
    pub fn remove(&mut self, block: usize) {
        self.bits[block / 64] &= !(1 << (block % 64));
        if self.bits[block / 64] == 0 {
            self.groups[block / 4096] &= !(1 << (block / 64 % 64));
        }
    }

    /// The first block from `from` on.
    pub fn next(&self, from: usize) -> Option<usize> {
        let here = self.bits.get(from / 64)? & u64::MAX << (from % 64);
        if here != 0 {
            return Some(from / 64 * 64 + here.trailing_zeros() as usize);
        }
        let word = next_set(&self.groups, from / 64 + 1)?;
        Some(word * 64 + self.bits[word].trailing_zeros() as usize)
    }
}

/// The first bit from `from` on that is set.
fn next_set(bits: &[u64], from: usize) -> Option<usize> {
    let mut skipped = u64::MAX << (from % 64);
    for (number, bits) in bits.iter().enumerate().skip(from / 64) {
        if bits & skipped != 0 {
            return Some(number * 64 + (bits & skipped).trailing_zeros() as usize);
        }
        skipped = u64::MAX;
    }
    None
}
