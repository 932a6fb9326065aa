// SPDX-License-Identifier: GPL-2.0

//! The superblock of dm-clone's metadata, as it is on disk. Pure.
//!
//! The metadata device is divided into blocks of 4 KiB. Block 0 is the superblock:
//!
//! ```text
//! offset  size  field (little-endian)
//!      0     4  checksum: crc32c of bytes 4.. of the block, XOR 257649492
//!      4     4  flags: 0
//!      8     8  number of this block: 0
//!     16    16  uuid: 0, unused
//!     32     8  magic: 0x8af27f64
//!     40     4  version: 1
//!     44   128  root of the metadata space map
//!    172     8  region size in sectors
//!    180     8  size of the target in sectors
//!    188     8  block of the root of the region bitset
//!    196        zeroes to the end of the block
//! ```
//!
//! The region bitset is a persistent array of 64-bit words: region `r` is bit `r % 64` of word
//! `r / 64`, 1 if hydrated. It and the space map are the kernel's own persistent-data structures.

use core::fmt;

/// The size of a metadata block in bytes.
pub const BLOCK_SIZE: usize = 4096;
/// The size of a metadata block in sectors.
pub const BLOCK_SECTORS: u64 = 8;
/// Where the superblock is, in blocks.
pub const SUPERBLOCK_LOCATION: u64 = 0;
/// More blocks than this a space map does not manage: 255 bitmaps of 16,320 blocks each.
pub const MAX_BLOCKS: u64 = 255 * ((1 << 14) - 64);
/// The bytes that the root of a space map takes in the superblock.
pub const SPACE_MAP_ROOT_SIZE: usize = 128;

const CHECKSUM_XOR: u32 = 257_649_492;
const MAGIC: u64 = 0x8af2_7f64;
const VERSION: u32 = 1;

const CHECKSUM: usize = 0;
const BLOCK_NUMBER: usize = 8;
const MAGIC_AT: usize = 32;
const VERSION_AT: usize = 40;
const SPACE_MAP_ROOT: usize = 44;
const REGION_SECTORS: usize = 172;
const TARGET_SECTORS: usize = 180;
const BITSET_ROOT: usize = 188;
const END: usize = 196;

/// What a superblock says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Superblock {
    /// The root of the metadata space map.
    pub space_map_root: [u8; SPACE_MAP_ROOT_SIZE],
    /// The size of a region in sectors.
    pub region_sectors: u64,
    /// The size of the target in sectors.
    pub target_sectors: u64,
    /// The block of the root of the region bitset.
    pub bitset_root: u64,
}

/// Why a block is no superblock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SuperblockError {
    /// It says that it is another block.
    BlockNumber {
        /// The number in the block.
        found: u64,
        /// Where it was read.
        expected: u64,
    },
    /// It is not dm-clone's.
    Magic {
        /// The number in its place.
        found: u64,
    },
    /// It was damaged.
    Checksum {
        /// Computed from the block.
        computed: u32,
        /// Stored in the block.
        stored: u32,
    },
    /// It is of a format that we do not know.
    Version {
        /// The version in the block.
        found: u32,
    },
}

impl fmt::Display for SuperblockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            SuperblockError::BlockNumber { found, expected } => {
                write!(
                    f,
                    "Superblock check failed: blocknr {found}, expected {expected}"
                )
            }
            SuperblockError::Magic { found } => {
                write!(
                    f,
                    "Superblock check failed: magic {found}, expected {MAGIC}"
                )
            }
            SuperblockError::Checksum { computed, stored } => {
                write!(
                    f,
                    "Superblock check failed: checksum {computed}, expected {stored}"
                )
            }
            SuperblockError::Version { found } => write!(
                f,
                "Clone metadata version {found} found, but only versions between {VERSION} and \
                 {VERSION} supported."
            ),
        }
    }
}

impl Superblock {
    /// Writes the superblock into a block of [`BLOCK_SIZE`] zeroes, or over another superblock, all
    /// but what [`seal`] adds.
    pub fn encode(&self, block: &mut [u8]) {
        block[..END].fill(0);
        put(block, MAGIC_AT, MAGIC.to_le_bytes());
        put(block, VERSION_AT, VERSION.to_le_bytes());
        put(block, SPACE_MAP_ROOT, self.space_map_root);
        put(block, REGION_SECTORS, self.region_sectors.to_le_bytes());
        put(block, TARGET_SECTORS, self.target_sectors.to_le_bytes());
        put(block, BITSET_ROOT, self.bitset_root.to_le_bytes());
    }

    /// How many blocks the space map manages, which its root begins with. [`MAX_BLOCKS`] at most,
    /// unless the superblock was tampered with.
    pub fn space_map_blocks(&self) -> u64 {
        u64::from_le_bytes(get(&self.space_map_root, 0))
    }

    /// Reads a block that [`check`] has found to be a superblock.
    pub fn decode(block: &[u8]) -> Self {
        Superblock {
            space_map_root: get(block, SPACE_MAP_ROOT),
            region_sectors: u64::from_le_bytes(get(block, REGION_SECTORS)),
            target_sectors: u64::from_le_bytes(get(block, TARGET_SECTORS)),
            bitset_root: u64::from_le_bytes(get(block, BITSET_ROOT)),
        }
    }
}

/// Completes a superblock that is about to be written to block `location`. `crc` is the crc32c of
/// some bytes, from a seed of all ones and not inverted at the end.
pub fn seal(block: &mut [u8], location: u64, crc: impl Fn(&[u8]) -> u32) {
    put(block, BLOCK_NUMBER, location.to_le_bytes());
    let checksum = crc(&block[CHECKSUM + 4..]) ^ CHECKSUM_XOR;
    put(block, CHECKSUM, checksum.to_le_bytes());
}

/// Checks a block that was read from block `location`. `crc` is as for [`seal`].
pub fn check(
    block: &[u8],
    location: u64,
    crc: impl Fn(&[u8]) -> u32,
) -> Result<(), SuperblockError> {
    let number = u64::from_le_bytes(get(block, BLOCK_NUMBER));
    if number != location {
        return Err(SuperblockError::BlockNumber {
            found: number,
            expected: location,
        });
    }
    let magic = u64::from_le_bytes(get(block, MAGIC_AT));
    if magic != MAGIC {
        return Err(SuperblockError::Magic { found: magic });
    }
    let stored = u32::from_le_bytes(get(block, CHECKSUM));
    let computed = crc(&block[CHECKSUM + 4..]) ^ CHECKSUM_XOR;
    if computed != stored {
        return Err(SuperblockError::Checksum { computed, stored });
    }
    let version = u32::from_le_bytes(get(block, VERSION_AT));
    if version != VERSION {
        return Err(SuperblockError::Version { found: version });
    }
    Ok(())
}

/// Whether a block was never written: then the device is to be formatted.
pub fn is_blank(block: &[u8]) -> bool {
    block.iter().all(|&byte| byte == 0)
}

// PANIC: Both are only called with blocks of `BLOCK_SIZE` bytes and fields that lie within them.
fn put<const N: usize>(block: &mut [u8], at: usize, field: [u8; N]) {
    block[at..at + N].copy_from_slice(&field);
}

fn get<const N: usize>(block: &[u8], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&block[at..at + N]);
    field
}
