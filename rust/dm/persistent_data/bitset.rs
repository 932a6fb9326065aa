// SPDX-License-Identifier: GPL-2.0

//! Bits in the blocks of a [`TransactionManager`].
//!
//! On disk a bitset is an [`Array`] of 64-bit words, bit `n` being bit `n % 64` of word `n / 64`:
//! the format of the kernel's own bitsets. Those are a cache of one word over an array, bound to
//! their transaction manager by a pointer to themselves; here the same cache is a few lines over
//! [`Array`], and moves like any value.

use super::{
    array::Array,
    transaction_manager::TransactionManager, //
};
use kernel::prelude::*;

/// The bits in a word.
const WORD_BITS: u32 = u64::BITS;

/// The word that was used last.
struct Cached {
    index: u32,
    word: u64,
    dirty: bool,
}

/// A persistent bitset, as of a transaction.
///
/// Changes stay in memory until a bit of another word is changed or [`flush`](Self::flush) is
/// called, which gives the root for the superblock; there is no other way to the root.
///
/// When a change fails, so has the transaction, and the value is of no further use: drop it along
/// with the [`TransactionManager`].
pub struct Bitset {
    words: Array<u64>,
    bits: u32,
    cached: Option<Cached>,
}

impl Bitset {
    /// Makes a bitset of length 0. Sleeps.
    pub fn empty(tm: &mut TransactionManager) -> Result<Self> {
        Ok(Bitset {
            words: Array::empty(tm)?,
            bits: 0,
            cached: None,
        })
    }

    /// The bitset of `bits` bits at `root`, as of the last commit.
    pub fn open(root: u64, bits: u32) -> Self {
        Bitset {
            words: Array::open(root, bits.div_ceil(WORD_BITS)),
            bits,
            cached: None,
        }
    }

    /// The number of bits.
    pub fn len(&self) -> u32 {
        self.bits
    }

    /// Whether there are no bits.
    pub fn is_empty(&self) -> bool {
        self.bits == 0
    }

    /// Makes the bitset `new_bits` long. Sleeps.
    ///
    /// Words that are added have all bits `fill`. As everywhere with this format, bits beyond the
    /// end in the last word keep their values, and are the new bits' if the length grows over
    /// them.
    pub fn resize(&mut self, tm: &mut TransactionManager, new_bits: u32, fill: bool) -> Result {
        self.flush(tm)?;
        // The word may be about to go.
        self.cached = None;
        let fill = if fill { u64::MAX } else { 0 };
        self.words.resize(tm, new_bits.div_ceil(WORD_BITS), fill)?;
        self.bits = new_bits;
        Ok(())
    }

    /// Sets a bit; `EINVAL` beyond the end. Sleeps.
    pub fn set(&mut self, tm: &mut TransactionManager, bit: u32) -> Result {
        let cached = self.load(tm, bit)?;
        cached.word |= mask(bit);
        cached.dirty = true;
        Ok(())
    }

    /// Clears a bit; `EINVAL` beyond the end. Sleeps.
    pub fn clear(&mut self, tm: &mut TransactionManager, bit: u32) -> Result {
        let cached = self.load(tm, bit)?;
        cached.word &= !mask(bit);
        cached.dirty = true;
        Ok(())
    }

    /// Whether a bit is set; `EINVAL` beyond the end. Sleeps.
    pub fn test(&self, tm: &TransactionManager, bit: u32) -> Result<bool> {
        self.check_bit(bit)?;
        let word = match &self.cached {
            Some(cached) if cached.index == bit / WORD_BITS => cached.word,
            _ => self.words.get(tm, bit / WORD_BITS)?,
        };
        Ok(word & mask(bit) != 0)
    }

    /// Calls `f` with the index and the bits of every word, in order, until it fails. Sleeps.
    ///
    /// As [`Array::for_each`]. The bits of the last word beyond the end of the bitset are
    /// undefined.
    pub fn for_each_word(
        &self,
        tm: &TransactionManager,
        mut f: impl FnMut(u32, u64) -> Result,
    ) -> Result {
        self.words.for_each(tm, |index, word| match &self.cached {
            Some(cached) if cached.index == index => f(index, cached.word),
            _ => f(index, word),
        })
    }

    /// Writes what was changed in memory to the transaction's blocks, and returns the root of the
    /// bitset, for the superblock. Sleeps.
    pub fn flush(&mut self, tm: &mut TransactionManager) -> Result<u64> {
        if let Some(cached) = self.cached.as_mut().filter(|cached| cached.dirty) {
            self.words.set(tm, cached.index, cached.word)?;
            cached.dirty = false;
        }
        Ok(self.words.root())
    }

    fn check_bit(&self, bit: u32) -> Result {
        if bit < self.bits {
            Ok(())
        } else {
            Err(EINVAL)
        }
    }

    /// Has the word of `bit` in the cache.
    fn load(&mut self, tm: &mut TransactionManager, bit: u32) -> Result<&mut Cached> {
        self.check_bit(bit)?;
        let index = bit / WORD_BITS;
        if !matches!(&self.cached, Some(cached) if cached.index == index) {
            self.flush(tm)?;
            self.cached = None;
            let word = self.words.get(tm, index)?;
            return Ok(self.cached.insert(Cached {
                index,
                word,
                dirty: false,
            }));
        }
        self.cached.as_mut().ok_or(EINVAL)
    }
}

/// The bit in its word.
fn mask(bit: u32) -> u64 {
    1 << (bit % WORD_BITS)
}
