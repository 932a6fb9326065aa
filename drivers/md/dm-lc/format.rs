// SPDX-License-Identifier: GPL-2.0

//! What is on the cache device, byte by byte: superblock and records. Pure.
//!
//! The tables are in Documentation/admin-guide/device-mapper/dm-lc-rs-format.rst.

use super::{
    index::{
        parts,
        Part,
        BLOCK_SHIFT, //
    },
    platform::crc32c,
    space::{
        Space,
        MAX_SECTORS,
        RECORD_SECTORS, //
    }, //
};
use core::fmt;

/// The size of each copy of the superblock, in bytes.
pub const SUPERBLOCK_BYTES: usize = 4096;
/// Where the copies are, in sectors.
pub const SUPERBLOCK_SECTORS: [u64; 2] = [0, 8];
/// What is checked to be zero before a device is formatted: all that the two copies take.
pub const BLANK_BYTES: usize = 2 * SUPERBLOCK_BYTES;

/// What the checksum of a superblock covers, with the checksum.
const SUPERBLOCK_USED: usize = 512;
const SUPERBLOCK_MAGIC: &[u8; 8] = b"dm-lc-rs";
/// Version 1 had no records with headers of their own size, and no promoted extents.
const VERSION: u32 = 2;
const CLEAN: u32 = 1;
const ORDERED: u32 = 2;
const LOST_AT: usize = 112;
const BACKING_ID_AT: usize = 504;
/// How many runs of lost sectors a superblock has room for.
const LOST_RUNS: usize = (BACKING_ID_AT - LOST_AT) / 8;
const LOST_LENGTH: u64 = 1 << 48;
const LOST_LONGEST: u64 = u16::MAX as u64;

const RECORD_MAGIC: &[u8; 4] = b"lcRR";
const EXTENTS_AT: usize = 64;
const EXTENT_BYTES: usize = 16;
const DISCARDED: u64 = 1 << 48;
const PROMOTED: u64 = 1 << 49;
const SECTOR_MASK: u64 = DISCARDED - 1;
/// An extent has at most as many sectors as a bio can have.
const MAX_EXTENT: u32 = u32::MAX >> 9;

/// Identifies a cache: random, made when it is formatted.
pub type Uuid = [u8; 16];

/// Where the log goes on: what the next record has to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Due {
    /// Its position.
    pub position: u64,
    /// Its id.
    pub id: u64,
    /// The checksum of the header before it.
    pub chain: u32,
}

/// The superblock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Superblock {
    /// The cache's identity.
    pub uuid: Uuid,
    /// Counts how often the superblock was written.
    pub sequence: u64,
    /// Counts sessions.
    pub epoch: u64,
    /// Where the log is.
    pub space: Space,
    /// The length of the target that the cache belongs to.
    pub backing_sectors: u64,
    /// Which device that was, if it can be told.
    pub backing_id: BackingId,
    /// The oldest record that counts.
    pub tail: Due,
    /// All records with a lower id are durable.
    pub durable_id: u64,
    /// Whether the cache was shut down in order.
    pub clean: bool,
    /// Whether the backing device has nothing that is not in the log, or was; so that the log can be
    /// written back in the order of flushes.
    pub ordered: bool,
    /// What was damaged before it could be written back.
    pub lost: Lost,
}

/// What tells a backing device from others of its kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BackingId(u64);

impl BackingId {
    /// It has nothing by which it could be told.
    pub const UNKNOWN: BackingId = BackingId(0);

    /// What is known by these bytes; those of two kinds cannot be compared. `kind` is at least 1.
    pub fn new(kind: u8, bytes: &[u8]) -> Self {
        let low = u64::from(crc32c(bytes));
        let mut more = [kind; 4];
        for (place, byte) in more.iter_mut().zip(bytes.iter().rev()) {
            *place ^= *byte;
        }
        let high = u64::from(crc32c(&more) & 0x00ff_ffff);
        BackingId(u64::from(kind) << 56 | high << 32 | low)
    }

    /// Whether both are known, and are not the same device.
    pub fn differs(self, other: Self) -> bool {
        let kind = |id: Self| id.0 >> 56;
        kind(self) != 0 && kind(self) == kind(other) && self != other
    }

    /// Whether both are known, and are the same device.
    pub fn is_surely(self, other: Self) -> bool {
        self != Self::UNKNOWN && self == other
    }

    /// This, or else what was known before.
    pub fn or(self, before: Self) -> Self {
        if self == Self::UNKNOWN {
            before
        } else {
            self
        }
    }
}

/// Sectors of which the only copy was damaged: neither the log nor the backing device has what they
/// should hold, until they are written or discarded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lost {
    /// The first sector of each run, and above it how many there are.
    runs: [u64; LOST_RUNS],
    count: usize,
}

impl Lost {
    /// Nothing is lost.
    pub const NONE: Lost = Lost {
        runs: [0; LOST_RUNS],
        count: 0,
    };

    /// The runs: the first sector, and how many.
    pub fn runs(&self) -> impl Iterator<Item = (u64, u32)> + '_ {
        self.runs.iter().take(self.count).map(|run| {
            let sector = run & (LOST_LENGTH - 1);
            (sector, (run / LOST_LENGTH) as u32)
        })
    }

    /// How many sectors that are.
    pub fn sectors(&self) -> u64 {
        self.runs().map(|(_, sectors)| u64::from(sectors)).sum()
    }

    /// Adds a run. False if there is no room.
    pub fn add(&mut self, sector: u64, sectors: u32) -> bool {
        let last = self.count.checked_sub(1).and_then(|n| self.runs.get_mut(n));
        let (first, before) = match &last {
            Some(run) => (**run & (LOST_LENGTH - 1), **run / LOST_LENGTH),
            None => (0, 0),
        };
        let together = before + u64::from(sectors);
        match last {
            Some(run) if first + before == sector && together <= LOST_LONGEST => {
                *run = first | together * LOST_LENGTH;
                true
            }
            _ => {
                let Some(run) = self.runs.get_mut(self.count) else {
                    return false;
                };
                *run = sector | u64::from(sectors) * LOST_LENGTH;
                self.count += 1;
                true
            }
        }
    }

    /// Adds the sectors of a block that `mask` names. False if there is no room.
    pub fn add_part(&mut self, part: &Part, mask: u8) -> bool {
        let mut bits = (0..8u32).filter(|bit| mask >> bit & 1 != 0);
        let block = part.block << BLOCK_SHIFT;
        bits.all(|bit| self.add(block + u64::from(bit), 1))
    }

    /// Those that are lost still: which of a part are, `still` says. None if that are too many runs.
    pub fn filtered(&self, still: impl Fn(&Part) -> u8) -> Option<Lost> {
        let mut lost = Lost::NONE;
        for (sector, sectors) in self.runs() {
            for part in parts(sector, sectors) {
                if !lost.add_part(&part, still(&part)) {
                    return None;
                }
            }
        }
        Some(lost)
    }
}

/// What one copy of the superblock is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there are two of them, for a moment"
)]
pub enum Copy {
    /// Nothing but zeroes.
    Blank,
    /// Of a format of ours, but damaged, or of another version.
    Damaged(Damage),
    /// Of a dm-writeboost cache.
    Writeboost,
    /// Something else.
    Foreign,
    /// A superblock.
    Valid(Superblock),
}

/// Why a superblock of ours is not used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Damage {
    /// Its checksum is wrong.
    Checksum,
    /// It is of another version.
    Version(u32),
    /// The checksum is right, but a field is out of range.
    Field,
}

/// What the superblocks of a device say together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there are two of them, for a moment"
)]
pub enum Found {
    /// Nothing: it may be formatted.
    Blank,
    /// A cache.
    Cache(Superblock),
    /// Something that must not be touched.
    Refused(Refusal),
}

/// What is in the way on a cache device: displays as a sentence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Both copies are damaged.
    Damaged(Damage),
    /// A dm-writeboost cache.
    Writeboost,
    /// Other data.
    Foreign,
    /// The copies belong to different caches.
    Mixed,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Damaged(Damage::Version(version)) => {
                write!(f, "has version {version} of the format, expected {VERSION}")
            }
            Refusal::Damaged(_) => f.write_str("has damaged superblocks"),
            Refusal::Writeboost => f.write_str(
                "has a dm-writeboost cache: write it back with that module, then clear the device",
            ),
            Refusal::Foreign => f.write_str(
                "has other data: clear its first 8192 bytes, or say `format 1', if it is not needed",
            ),
            Refusal::Mixed => f.write_str("has superblocks of two different caches"),
        }
    }
}

/// What the bytes of both copies say.
pub fn find(copies: [&[u8]; 2]) -> Found {
    let copies = copies.map(Superblock::decode);
    match copies {
        [Copy::Blank, Copy::Blank] => Found::Blank,
        [Copy::Valid(one), Copy::Valid(other)] => {
            if one.uuid != other.uuid {
                Found::Refused(Refusal::Mixed)
            } else if one.sequence >= other.sequence {
                Found::Cache(one)
            } else {
                Found::Cache(other)
            }
        }
        // One copy is damaged, or was not written yet when the power went: the other is right.
        [Copy::Valid(superblock), _] | [_, Copy::Valid(superblock)] => Found::Cache(superblock),
        [Copy::Writeboost, _] => Found::Refused(Refusal::Writeboost),
        [Copy::Damaged(damage), _] | [_, Copy::Damaged(damage)] => {
            Found::Refused(Refusal::Damaged(damage))
        }
        _ => Found::Refused(Refusal::Foreign),
    }
}

impl Superblock {
    /// Writes it to a copy's bytes.
    pub fn encode(&self, block: &mut [u8; SUPERBLOCK_BYTES]) {
        block.fill(0);
        put(block, 4, &VERSION.to_le_bytes());
        put(block, 8, SUPERBLOCK_MAGIC);
        put(block, 16, &self.uuid);
        put(block, 32, &self.sequence.to_le_bytes());
        put(block, 40, &self.epoch.to_le_bytes());
        put(block, 48, &self.space.start().to_le_bytes());
        put(block, 56, &self.space.sectors().to_le_bytes());
        put(block, 64, &self.backing_sectors.to_le_bytes());
        put(block, 72, &self.tail.position.to_le_bytes());
        put(block, 80, &self.tail.id.to_le_bytes());
        put(block, 88, &self.durable_id.to_le_bytes());
        put(block, 96, &self.tail.chain.to_le_bytes());
        put(block, 100, &self.space.header_sectors().to_le_bytes());
        let clean = if self.clean { CLEAN } else { 0 };
        let ordered = if self.ordered { ORDERED } else { 0 };
        put(block, 104, &(clean | ordered).to_le_bytes());
        put(block, 108, &(self.lost.count as u32).to_le_bytes());
        for (number, run) in self.lost.runs.iter().take(self.lost.count).enumerate() {
            put(block, LOST_AT + 8 * number, &run.to_le_bytes());
        }
        put(block, BACKING_ID_AT, &self.backing_id.0.to_le_bytes());
        let crc = crc32c(&block[4..SUPERBLOCK_USED]);
        put(block, 0, &crc.to_le_bytes());
    }

    /// What the bytes of a copy are.
    pub fn decode(block: &[u8]) -> Copy {
        if block.iter().all(|&byte| byte == 0) {
            return Copy::Blank;
        }
        let Some(block) = block.get(..SUPERBLOCK_USED) else {
            return Copy::Foreign;
        };
        if block.starts_with(b"tsBW") {
            return Copy::Writeboost;
        }
        if &block[8..16] != SUPERBLOCK_MAGIC {
            // A flipped bit in the magic does not make a cache something else.
            return if nearly(&block[8..16], SUPERBLOCK_MAGIC) {
                Copy::Damaged(Damage::Checksum)
            } else {
                Copy::Foreign
            };
        }
        if u32_at(block, 0) != crc32c(&block[4..]) {
            return Copy::Damaged(Damage::Checksum);
        }
        match u32_at(block, 4) {
            1..=VERSION => {}
            version => return Copy::Damaged(Damage::Version(version)),
        }
        match Self::fields(block) {
            Some(superblock) => Copy::Valid(superblock),
            None => Copy::Damaged(Damage::Field),
        }
    }

    /// Whether nothing is in the log, for sure.
    pub fn is_empty(&self) -> bool {
        self.clean && self.durable_id == self.tail.id && self.lost == Lost::NONE
    }

    fn fields(block: &[u8]) -> Option<Superblock> {
        let space = Space::new(u64_at(block, 48), u64_at(block, 56), u32_at(block, 100))?;
        let superblock = Superblock {
            uuid: uuid_at(block, 16),
            sequence: u64_at(block, 32),
            epoch: u64_at(block, 40),
            space,
            backing_sectors: u64_at(block, 64),
            backing_id: BackingId(u64_at(block, BACKING_ID_AT)),
            tail: Due {
                position: u64_at(block, 72),
                id: u64_at(block, 80),
                chain: u32_at(block, 96),
            },
            durable_id: u64_at(block, 88),
            clean: u32_at(block, 104) & CLEAN != 0,
            ordered: u32_at(block, 104) & ORDERED != 0,
            lost: Lost {
                runs: core::array::from_fn(|number| u64_at(block, LOST_AT + 8 * number)),
                count: (u32_at(block, 108) as usize).min(LOST_RUNS),
            },
        };
        let counters = [superblock.sequence, superblock.epoch, superblock.tail.id];
        // Nobody counts so far: what is added to these numbers never overflows.
        let in_range = u32_at(block, 108) as usize <= LOST_RUNS
            && counters.iter().all(|&count| count < u64::MAX / 2)
            && (space.first_position()..u64::MAX / 2).contains(&superblock.tail.position)
            && space.next_record(superblock.tail.position) == superblock.tail.position
            && (1..=MAX_SECTORS).contains(&superblock.backing_sectors)
            && (superblock.tail.id..u64::MAX / 2).contains(&superblock.durable_id)
            && superblock.lost.runs().all(|(sector, sectors)| {
                sectors > 0 && sector + u64::from(sectors) <= superblock.backing_sectors
            });
        in_range.then_some(superblock)
    }
}

/// Whether few enough bytes differ that it must have been the same.
fn nearly(one: &[u8], other: &[u8]) -> bool {
    let same = one.iter().zip(other).filter(|(a, b)| a == b).count();
    same * 4 >= other.len() * 3
}

/// A run of sectors in a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// The first sector on the backing device.
    pub sector: u64,
    /// How many; at least 1.
    pub sectors: u32,
    /// The [checksum](super::checksum) of the data.
    pub crc: u32,
    /// The sectors were discarded: there is no data.
    pub discarded: bool,
    /// It is a copy of what the backing device had, for reads: nothing is lost with it.
    pub promoted: bool,
}

impl Extent {
    /// Whether it is what users wrote.
    pub fn is_written(&self) -> bool {
        !self.discarded && !self.promoted
    }

    /// How many sectors of data it has in the record.
    pub fn data_sectors(&self) -> u32 {
        if self.discarded {
            0
        } else {
            self.sectors
        }
    }
}

/// What a record's header says apart from its extents.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// The cache that it belongs to.
    pub uuid: Uuid,
    /// Its place in the log, and the header before it.
    pub at: Due,
    /// The session that wrote it.
    pub epoch: u64,
    /// All records with a lower id were durable before.
    pub durable_id: u64,
}

/// How many bytes a header has at most.
pub const HEADER_BYTES: usize = 4096;

/// How many extents a header of so many bytes has room for.
pub fn extents_in(header_bytes: usize) -> usize {
    header_bytes.saturating_sub(EXTENTS_AT) / EXTENT_BYTES
}

impl Header {
    /// Writes the header with its extents, of which there must be room for all; returns its
    /// checksum.
    pub fn encode(&self, extents: impl Iterator<Item = Extent>, block: &mut [u8]) -> u32 {
        block.fill(0);
        put(block, 4, RECORD_MAGIC);
        put(block, 8, &self.uuid);
        put(block, 24, &self.at.id.to_le_bytes());
        put(block, 32, &self.epoch.to_le_bytes());
        put(block, 40, &self.at.position.to_le_bytes());
        put(block, 48, &self.durable_id.to_le_bytes());
        put(block, 56, &self.at.chain.to_le_bytes());
        let mut count = 0u16;
        let slots = block[EXTENTS_AT..].chunks_exact_mut(EXTENT_BYTES);
        for (extent, slot) in extents.zip(slots) {
            let discarded = if extent.discarded { DISCARDED } else { 0 };
            let promoted = if extent.promoted { PROMOTED } else { 0 };
            put(
                slot,
                0,
                &(extent.sector | discarded | promoted).to_le_bytes(),
            );
            put(slot, 8, &extent.sectors.to_le_bytes());
            put(slot, 12, &extent.crc.to_le_bytes());
            count += 1;
        }
        put(block, 60, &count.to_le_bytes());
        put(block, 62, &((block.len() >> 9) as u16).to_le_bytes());
        let crc = crc32c(&block[4..]);
        put(block, 0, &crc.to_le_bytes());
        crc
    }
}

/// The header of a record, in memory that was read, and checked by itself: whether it continues
/// the log is another question.
#[derive(Clone, Copy)]
pub struct RecordHeader<'a> {
    block: &'a [u8],
}

impl<'a> RecordHeader<'a> {
    /// The header at the beginning of `bytes`; None if there is none of the cache of the superblock,
    /// it is longer, or anything in it is out of range.
    pub fn decode(bytes: &'a [u8], superblock: &Superblock) -> Option<Self> {
        let smallest = bytes.get(..superblock.space.header_bytes())?;
        if &smallest[4..8] != RECORD_MAGIC || uuid_at(smallest, 8) != superblock.uuid {
            return None;
        }
        let block = match usize::from(u16_at(smallest, 62)) << 9 {
            0 => smallest,
            len if (smallest.len()..=HEADER_BYTES).contains(&len) => bytes.get(..len)?,
            _ => return None,
        };
        if u32_at(block, 0) != crc32c(&block[4..]) {
            return None;
        }
        let record = RecordHeader { block };
        let sectors_of_header = (block.len() >> 9) as u64;
        let says = record.header();
        let counters = [says.at.id, says.at.position];
        let in_range = counters.iter().all(|&count| count < u64::MAX / 2)
            && says.durable_id <= says.at.id
            && (1..=extents_in(block.len())).contains(&record.count())
            && record.extents().all(|extent| {
                (1..=MAX_EXTENT).contains(&extent.sectors)
                    && !(extent.discarded && extent.promoted)
                    && extent
                        .sector
                        .checked_add(extent.sectors.into())
                        .is_some_and(|end| end <= superblock.backing_sectors)
            })
            && record.data_sectors() + sectors_of_header <= RECORD_SECTORS;
        in_range.then_some(record)
    }

    /// Its checksum.
    pub fn crc(&self) -> u32 {
        u32_at(self.block, 0)
    }

    /// How many bytes it has.
    pub fn bytes(&self) -> usize {
        self.block.len()
    }

    /// What it says apart from the extents.
    pub fn header(&self) -> Header {
        Header {
            uuid: uuid_at(self.block, 8),
            at: Due {
                position: u64_at(self.block, 40),
                id: u64_at(self.block, 24),
                chain: u32_at(self.block, 56),
            },
            epoch: u64_at(self.block, 32),
            durable_id: u64_at(self.block, 48),
        }
    }

    fn count(&self) -> usize {
        usize::from(u16_at(self.block, 60))
    }

    /// Its extents.
    pub fn extents(&self) -> impl Iterator<Item = Extent> + 'a {
        let slots = self.block[EXTENTS_AT..].chunks_exact(EXTENT_BYTES);
        slots.take(self.count()).map(|slot| {
            let place = u64_at(slot, 0);
            Extent {
                sector: place & SECTOR_MASK,
                sectors: u32_at(slot, 8),
                crc: u32_at(slot, 12),
                discarded: place & DISCARDED != 0,
                promoted: place & PROMOTED != 0,
            }
        })
    }

    /// How many sectors of data follow the header.
    pub fn data_sectors(&self) -> u64 {
        self.extents()
            .map(|extent| u64::from(extent.data_sectors()))
            .sum()
    }
}

fn put(block: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = block.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

fn bytes_at<const N: usize>(block: &[u8], at: usize) -> [u8; N] {
    let bytes = block.get(at..at + N);
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .unwrap_or([0; N])
}

fn u16_at(block: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes_at(block, at))
}

fn u32_at(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes_at(block, at))
}

fn u64_at(block: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes_at(block, at))
}

fn uuid_at(block: &[u8], at: usize) -> Uuid {
    bytes_at(block, at)
}
