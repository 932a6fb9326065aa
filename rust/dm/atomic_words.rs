// SPDX-License-Identifier: GPL-2.0

//! Large maps of bits that are read without a lock: an array of 64-bit words.
//!
//! ```ignore
//! let map = AtomicWords::zeroed(1 << 20)?;
//! map.store_release(3, map.load_acquire(3) | 1);  // writers exclude each other otherwise
//! ```

use core::mem::size_of;
use kernel::{
    alloc::{
        flags::{
            GFP_KERNEL,
            __GFP_ZERO, //
        },
        AllocError,
        KVVec, //
    },
    sync::atomic::{
        Acquire,
        Atomic,
        Release, //
    }, //
};

/// Words that are read and written by any number of threads. Their memory is virtually contiguous.
pub struct AtomicWords(KVVec<Atomic<u64>>);

impl AtomicWords {
    /// `len` words, all 0. The allocator zeroes them, which is faster than to store each. May
    /// sleep.
    pub fn zeroed(len: usize) -> Result<Self, AllocError> {
        let mut words = KVVec::<Atomic<u64>>::with_capacity(len, GFP_KERNEL | __GFP_ZERO)?;
        // SAFETY: There is room for `len` words, and the vector is empty. Their memory is zeroed,
        // and 64 zero bits are an atomic 0.
        unsafe { words.inc_len(len) };
        Ok(AtomicWords(words))
    }

    /// How many words there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A word, 0 past the last; what its writer wrote before it is seen afterwards. Any context.
    #[inline]
    pub fn load_acquire(&self, index: usize) -> u64 {
        self.0.get(index).map_or(0, |word| word.load(Acquire))
    }

    /// Writes the words from `first` on to `bytes`, little-endian, as many as there are and as fit.
    /// For whoever excludes writers by other means: what they wrote before is not ordered. Any
    /// context.
    pub fn copy_le(&self, first: usize, bytes: &mut [u8]) {
        let words = self.0.get(first..).unwrap_or(&[]);
        for (word, bytes) in words.iter().zip(bytes.chunks_exact_mut(size_of::<u64>())) {
            // SAFETY: The pointer is to a live, aligned word. A volatile load of one is atomic; the
            // kernel crate's own is a call for each.
            let bits = unsafe { word.as_ptr().read_volatile() };
            bytes.copy_from_slice(&bits.to_le_bytes());
        }
    }

    /// Replaces a word; past the last nothing happens. Any context.
    #[inline]
    pub fn store_release(&self, index: usize, bits: u64) {
        if let Some(word) = self.0.get(index) {
            word.store(bits, Release);
        }
    }
}
