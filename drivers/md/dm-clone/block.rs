// SPDX-License-Identifier: GPL-2.0

//! The blocks of the metadata device, apart from the superblock: what their heads say, and how
//! they are sealed and checked. Pure.
//!
//! Each begins with a checksum, the crc32c of all bytes behind it, XOR a number for its kind, and
//! has its own number in it. All numbers are little-endian.
//!
//! ```text
//! tree node                 array block                bitmap              index
//!    0  4  checksum            0  4  checksum             0  4  checksum      0  4  checksum
//!    4  4  1 inner, 2 leaf     4  4  most values: 509     4  4  0             4  4  0
//!    8  8  own number          8  4  values               8  8  own number    8  8  own number
//!   16  4  entries            12  4  size of one: 8      16     2 bits for   16     16 bytes for
//!   20  4  most entries       16  8  own number                 each block          each bitmap
//!   24  4  size of a value    24     values
//!   28  4  0
//!   32     keys, 8 bytes each; then values, 8 bytes each
//! ```

use super::{
    format::BLOCK_SIZE,
    platform::{
        array,
        crc32c,
        Array,
        NoMemory, //
    }, //
};
use core::fmt;

/// The bytes of a word of the bitset, and of any value.
pub const WORD_SIZE: usize = 8;
/// Where the values of an array block begin.
pub const ARRAY_VALUES: usize = 24;
/// How many words of the bitset are in an array block.
pub const WORDS_PER_BLOCK: usize = (BLOCK_SIZE - ARRAY_VALUES) / WORD_SIZE;

const ARRAY_MOST: usize = 4;
const ARRAY_COUNT: usize = 8;
const ARRAY_SIZE: usize = 12;

/// What a block is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A node of the tree that says where array blocks are.
    Node,
    /// Words of the region bitset.
    Array,
    /// Says where the bitmaps are.
    Index,
    /// Says which blocks are in use.
    Bitmap,
}

impl Kind {
    fn salt(self) -> u32 {
        match self {
            Kind::Node => 121_107,
            Kind::Array => 595_846_735,
            Kind::Index => 160_478,
            Kind::Bitmap => 240_779,
        }
    }

    /// Where a block has its own number.
    fn number_at(self) -> usize {
        match self {
            Kind::Array => 16,
            Kind::Node | Kind::Index | Kind::Bitmap => 8,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Node => "tree node",
            Kind::Array => "array block",
            Kind::Index => "space map index",
            Kind::Bitmap => "space map bitmap",
        }
    }
}

/// What is wrong with a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Damage {
    /// Where it is.
    pub block: u64,
    /// What it should be.
    pub kind: Kind,
    /// What it is not.
    pub reason: &'static str,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Block {} is no valid {}: {}",
            self.block,
            self.kind.name(),
            self.reason
        )
    }
}

/// Memory for blocks, zeroed.
pub fn zeroed(blocks: usize) -> Result<Array<u8>, NoMemory> {
    array(blocks * BLOCK_SIZE, 0)
}

/// Completes a block that is about to be written to block `number`.
pub fn seal(kind: Kind, block: &mut [u8], number: u64) {
    put_u64(block, kind.number_at(), number);
    let checksum = crc32c(&block[4..]) ^ kind.salt();
    put_u32(block, 0, checksum);
}

/// Checks a block that was read from block `number`.
pub fn check(kind: Kind, block: &[u8], number: u64) -> Result<(), Damage> {
    let damage = |reason| {
        Err(Damage {
            block: number,
            kind,
            reason,
        })
    };
    if crc32c(&block[4..]) ^ kind.salt() != get_u32(block, 0) {
        return damage("wrong checksum");
    }
    if get_u64(block, kind.number_at()) != number {
        return damage("has another number");
    }
    Ok(())
}

/// Checks that an array block, which [`check`] has passed, has `count` values.
pub fn check_array(block: &[u8], number: u64, count: usize) -> Result<(), Damage> {
    let expected = [
        (ARRAY_MOST, WORDS_PER_BLOCK),
        (ARRAY_COUNT, count),
        (ARRAY_SIZE, WORD_SIZE),
    ];
    for (at, value) in expected {
        if get_u32(block, at) as usize != value {
            return Err(Damage {
                block: number,
                kind: Kind::Array,
                reason: "has values of another number or size",
            });
        }
    }
    Ok(())
}

/// Begins an array block of `count` values in a block of zeroes, or over another array block.
pub fn begin_array(block: &mut [u8], count: usize) {
    let before = (get_u32(block, ARRAY_COUNT) as usize).min(WORDS_PER_BLOCK);
    if before > count {
        block[ARRAY_VALUES + count * WORD_SIZE..ARRAY_VALUES + before * WORD_SIZE].fill(0);
    }
    put_u32(block, ARRAY_MOST, WORDS_PER_BLOCK as u32);
    put_u32(block, ARRAY_COUNT, count as u32);
    put_u32(block, ARRAY_SIZE, WORD_SIZE as u32);
}

// PANIC: All are only called with blocks of `BLOCK_SIZE` bytes and fields that lie within them.

/// The 32 bits at `at`.
pub fn get_u32(block: &[u8], at: usize) -> u32 {
    let mut field = [0; 4];
    field.copy_from_slice(&block[at..at + 4]);
    u32::from_le_bytes(field)
}

/// The 64 bits at `at`.
pub fn get_u64(block: &[u8], at: usize) -> u64 {
    let mut field = [0; 8];
    field.copy_from_slice(&block[at..at + 8]);
    u64::from_le_bytes(field)
}

/// Writes 32 bits at `at`.
pub fn put_u32(block: &mut [u8], at: usize, value: u32) {
    block[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// Writes 64 bits at `at`.
pub fn put_u64(block: &mut [u8], at: usize, value: u64) {
    block[at..at + 8].copy_from_slice(&value.to_le_bytes());
}
