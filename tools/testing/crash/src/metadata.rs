// SPDX-License-Identifier: GPL-2.0

//! Reads a clone's metadata from its device or an image of it, and finds everything that is wrong with it.
//!
//! It shares nothing with the kernel's code, which it judges: superblock, space map and bitset are read as
//! the format says, every block's checksum and number is checked, and the reference counts of the space
//! map must be those that the blocks have.

use std::cell::RefCell;

use anyhow::{bail, ensure, Context, Result};
use iomodel::device::{Buffer, Device};
use iomodel::stamp::SECTOR;

use crate::log::{Content, Dictionary};

const BLOCK: usize = 4096;
const SECTORS_IN_BLOCK: usize = BLOCK / SECTOR;

/// A kind of block: what its checksum is combined with, and where its own number is.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    tag: u32,
    number_at: usize,
}

const SUPERBLOCK: Kind = kind("superblock", 257_649_492, 8);
const BTREE_NODE: Kind = kind("b-tree node", 121_107, 8);
const ARRAY_BLOCK: Kind = kind("array block", 595_846_735, 16);
const INDEX: Kind = kind("index of the space map", 160_478, 8);
const BITMAP: Kind = kind("bitmap of the space map", 240_779, 8);

const fn kind(name: &'static str, tag: u32, number_at: usize) -> Kind {
    Kind {
        name,
        tag,
        number_at,
    }
}

const MAGIC: u64 = 0x8af2_7f64;
const VERSION: u32 = 1;
/// Words in an array block, and blocks in a bitmap.
const WORDS: u64 = 509;
const COUNTS: u64 = 16320;

/// Which regions are hydrated: bit `r % 64` of word `r / 64`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
pub struct Hydrated(Vec<u64>);

impl Hydrated {
    pub fn none(regions: u64) -> Self {
        Hydrated(vec![0; regions.div_ceil(64) as usize])
    }

    pub fn has(&self, region: u64) -> bool {
        (self.0[(region / 64) as usize] >> (region % 64)) & 1 != 0
    }

    pub fn count(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}

/// What an image is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing was committed yet: whoever opens it formats it.
    Blank,
    Metadata(Hydrated),
}

/// Where metadata are read from.
pub trait Blocks {
    /// How many blocks there are.
    fn count(&self) -> u64;

    /// The bytes of a block below `count`.
    fn read(&self, number: u64) -> Result<Vec<u8>>;
}

/// An image of a target's own disk: the content of each sector.
pub struct Image<'a> {
    pub contents: &'a [Content],
    pub dictionary: &'a Dictionary,
}

impl Blocks for Image<'_> {
    fn count(&self) -> u64 {
        (self.contents.len() / SECTORS_IN_BLOCK) as u64
    }

    fn read(&self, number: u64) -> Result<Vec<u8>> {
        let sectors = &self.contents[number as usize * SECTORS_IN_BLOCK..][..SECTORS_IN_BLOCK];
        let sectors = sectors
            .iter()
            .map(|&content| self.dictionary.sector(content));
        Ok(sectors.flatten().copied().collect())
    }
}

/// A metadata device that nobody uses.
pub struct OnDevice {
    device: Device,
    buffer: RefCell<Buffer>,
}

impl OnDevice {
    pub fn new(device: Device) -> Self {
        OnDevice {
            device,
            buffer: RefCell::default(),
        }
    }
}

impl Blocks for OnDevice {
    fn count(&self) -> u64 {
        self.device.sectors() / SECTORS_IN_BLOCK as u64
    }

    fn read(&self, number: u64) -> Result<Vec<u8>> {
        let mut buffer = self.buffer.borrow_mut();
        let first = number * SECTORS_IN_BLOCK as u64;
        let bytes = buffer.part(&(0..SECTORS_IN_BLOCK as u64));
        self.device.read(first, bytes)?;
        Ok(bytes.to_vec())
    }
}

/// Reads all metadata. `shape`: the sizes in sectors of a region and of the clone, which the superblock must say.
pub fn read(blocks: &dyn Blocks, shape: (u64, u64)) -> Result<Found> {
    let mut reader = Reader {
        blocks,
        counts: vec![0; blocks.count() as usize],
    };
    let superblock = reader.bytes(0)?;
    if superblock.iter().all(|&byte| byte == 0) {
        return Ok(Found::Blank);
    }
    let superblock = reader.block(0, SUPERBLOCK)?;
    let field = |at: usize| u64_at(&superblock, at);
    ensure!(field(32) == MAGIC, "superblock: magic {:#x}", field(32));
    ensure!(
        u32_at(&superblock, 40) == VERSION,
        "superblock: version {}",
        u32_at(&superblock, 40)
    );
    let (region, sectors) = shape;
    ensure!(
        (field(172), field(180)) == shape,
        "superblock: regions of {} sectors, {} in all",
        field(172),
        field(180)
    );
    let space_map = SpaceMap {
        blocks: field(44),
        allocated: field(52),
        index: field(60),
        counts: field(68),
    };
    ensure!(
        space_map.blocks <= blocks.count(),
        "superblock: a space map of {} blocks",
        space_map.blocks
    );
    let hydrated = reader
        .bitset(field(188), sectors.div_ceil(region))
        .context("bitset")?;
    reader.check_space_map(&space_map).context("space map")?;
    Ok(Found::Metadata(hydrated))
}

/// The root of the space map.
struct SpaceMap {
    blocks: u64,
    allocated: u64,
    index: u64,
    counts: u64,
}

/// What is done with a key and a value of a b-tree.
type Leaf<'a, R> = dyn FnMut(&mut R, u64, &[u8]) -> Result<()> + 'a;

struct Reader<'a> {
    blocks: &'a dyn Blocks,
    /// How often each block has been read, that is, is referred to.
    counts: Vec<u32>,
}

impl Reader<'_> {
    fn bytes(&self, number: u64) -> Result<Vec<u8>> {
        ensure!(
            number < self.blocks.count(),
            "block {number}: beyond the end of the device"
        );
        self.blocks.read(number)
    }

    /// A block that something refers to.
    fn block(&mut self, number: u64, kind: Kind) -> Result<Vec<u8>> {
        let bytes = self.bytes(number)?;
        // The checksums are not inverted at the end, as crc32c usually is.
        let computed = !crc32c::crc32c(&bytes[4..]) ^ kind.tag;
        ensure!(
            computed == u32_at(&bytes, 0),
            "block {number}: bad checksum of a {}",
            kind.name
        );
        let said = u64_at(&bytes, kind.number_at);
        ensure!(
            said == number,
            "block {number}: a {} that says it is block {said}",
            kind.name
        );
        self.counts[number as usize] += 1;
        Ok(bytes)
    }

    /// Calls `leaf(key, value)` for what is in a b-tree, in its order.
    fn btree(&mut self, root: u64, value_size: usize, leaf: &mut Leaf<'_, Self>) -> Result<()> {
        let node = self.block(root, BTREE_NODE)?;
        let entries = u32_at(&node, 16) as usize;
        let room = u32_at(&node, 20) as usize;
        let is_leaf = match u32_at(&node, 4) {
            1 => false,
            2 => true,
            flags => bail!("block {root}: flags {flags}"),
        };
        let size = if is_leaf { value_size } else { 8 };
        ensure!(
            u32_at(&node, 24) as usize == size,
            "block {root}: values of {} bytes",
            u32_at(&node, 24)
        );
        ensure!(
            entries <= room && 32 + room * (8 + size) <= BLOCK,
            "block {root}: {entries} entries of {room}"
        );
        for entry in 0..entries {
            let key = u64_at(&node, 32 + entry * 8);
            let value = &node[32 + room * 8 + entry * size..][..size];
            if is_leaf {
                leaf(self, key, value)?;
                continue;
            }
            let mut first = None;
            self.btree(u64_at(value, 0), value_size, &mut |reader, below, value| {
                first.get_or_insert(below);
                leaf(reader, below, value)
            })?;
            ensure!(
                first == Some(key),
                "block {root}: key {key}, below which the first is {first:?}"
            );
        }
        Ok(())
    }

    fn bitset(&mut self, root: u64, regions: u64) -> Result<Hydrated> {
        let wanted = regions.div_ceil(64);
        let mut words = Vec::with_capacity(wanted as usize);
        self.btree(root, 8, &mut |reader, key, value| {
            let number = u64_at(value, 0);
            let block = reader.block(number, ARRAY_BLOCK)?;
            let (room, entries) = (u32_at(&block, 4), u32_at(&block, 8));
            let left = wanted - words.len() as u64;
            ensure!(
                key * WORDS == words.len() as u64
                    && u64::from(room) == WORDS
                    && u64::from(entries) == left.min(WORDS)
                    && u32_at(&block, 12) == 8,
                "block {number}: the {key}th of the array, with {entries} words of {room}"
            );
            words.extend((0..entries as usize).map(|word| u64_at(&block, 24 + word * 8)));
            Ok(())
        })?;
        ensure!(
            words.len() as u64 == wanted,
            "{} words, not {wanted}",
            words.len()
        );
        if regions % 64 != 0 {
            let last = words.last().expect("there is a region");
            ensure!(last >> (regions % 64) == 0, "bits behind the last region");
        }
        Ok(Hydrated(words))
    }

    /// The last to be read, when all other references are known.
    fn check_space_map(&mut self, map: &SpaceMap) -> Result<()> {
        let index = self.block(map.index, INDEX)?;
        let mut bitmaps = Vec::new();
        for bitmap in 0..map.blocks.div_ceil(COUNTS) as usize {
            let entry = &index[16 + bitmap * 16..][..16];
            let bitmap = self.block(u64_at(entry, 0), BITMAP)?;
            bitmaps.push((bitmap, u32_at(entry, 8), u32_at(entry, 12)));
        }
        let mut high = Vec::new();
        self.btree(map.counts, 4, &mut |_, key, value| {
            high.push((key, u32_at(value, 0)));
            Ok(())
        })?;
        ensure!(high.is_empty(), "blocks that are shared: {high:?}");

        let mut allocated = 0;
        for (bitmap, (bytes, free, none_before)) in bitmaps.iter().enumerate() {
            let first = bitmap as u64 * COUNTS;
            let mut used = 0;
            for block in first..map.blocks.min(first + COUNTS) {
                let place = (block - first) as usize;
                let pair = (u64_at(bytes, 16 + place / 32 * 8) >> (place % 32 * 2)) & 3;
                let count = ((pair & 1) << 1) | (pair >> 1);
                let wanted = self.counts[block as usize];
                ensure!(
                    count == u64::from(wanted),
                    "block {block}: counted {count} times, referred to {wanted} times"
                );
                ensure!(
                    count != 0 || place >= *none_before as usize,
                    "bitmap {bitmap}: block {block} is free, the first that is said to be is {none_before}"
                );
                used += u64::from(count != 0);
            }
            ensure!(
                u64::from(*free) + used == COUNTS,
                "bitmap {bitmap}: {free} free and {used} used blocks"
            );
            allocated += used;
        }
        ensure!(
            allocated == map.allocated,
            "{allocated} blocks are allocated, the root says {}",
            map.allocated
        );
        Ok(())
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}
