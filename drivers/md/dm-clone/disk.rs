// SPDX-License-Identifier: GPL-2.0

//! The metadata device: how a [`Store`] reads and writes it, opens what is there, and has it
//! formatted.
//!
//! The kernel's own persistent-data library formats it, as for the kernel's own module. It does
//! not do the transactions that follow: it would copy, allocate and look up much that a change of
//! a bitset does not need, for each single word.

use crate::{
    block,
    format::{
        self,
        Superblock, //
    },
    geometry::Geometry,
    platform::crc32c,
    region_map::word_count,
    space_map::OpenError,
    store::{
        needed_to_format,
        Disk,
        Store, //
    }, //
};
use dm::{
    dm_io::{
        Barrier,
        IoClient, //
    },
    persistent_data::{
        array::Array,
        block_manager::{
            BlockManager,
            Validator, //
        },
        transaction_manager::TransactionManager, //
    },
    prelude::*, //
};
use kernel::{
    error::code,
    prelude::*, //
};

/// How many locks of metadata blocks one thread may hold: a path through the bitset's tree, and
/// what its shadowing takes along.
const MAX_CONCURRENT_LOCKS: u32 = 5;

/// The metadata device.
pub(crate) struct MetadataDisk {
    device: BlockDevice,
    io: IoClient,
}

impl Disk for MetadataDisk {
    type Error = Error;

    fn blocks(&self) -> u64 {
        self.device.sectors() / format::BLOCK_SECTORS
    }

    fn read(&self, block: u64, into: &mut [u8]) -> Result {
        self.io
            .read(&self.device, block * format::BLOCK_SECTORS, into)
    }

    fn write(&self, blocks: &mut dyn Iterator<Item = (u64, &[u8])>) -> Result {
        let mut pieces = blocks.map(|(at, bytes)| (at * format::BLOCK_SECTORS, bytes));
        self.io.write_all(&self.device, &mut pieces)
    }

    fn write_superblock(&self, block: &[u8]) -> Result {
        let sector = format::SUPERBLOCK_LOCATION * format::BLOCK_SECTORS;
        // Not as one: a mapped device does not tell that the flush of a write with data has failed.
        self.io.flush(&self.device)?;
        self.io.write(&self.device, sector, block, Barrier::Fua)
    }
}

/// Opens what is on the device, or formats a blank one. Sleeps.
pub(crate) fn open_or_format(
    device: &BlockDevice,
    geometry: &Geometry,
) -> Result<Store<MetadataDisk>> {
    let disk = MetadataDisk::new(device)?;
    match disk.superblock()? {
        Some(superblock) => open(disk, superblock, geometry),
        None => {
            check_room(&disk, geometry)?;
            format(device, geometry)?;
            reopen(device, geometry)
        }
    }
}

/// Opens what was on the device before; never formats. Sleeps.
pub(crate) fn reopen(device: &BlockDevice, geometry: &Geometry) -> Result<Store<MetadataDisk>> {
    let disk = MetadataDisk::new(device)?;
    let superblock = disk.superblock()?.ok_or(EPERM)?;
    open(disk, superblock, geometry)
}

impl MetadataDisk {
    fn new(device: &BlockDevice) -> Result<Self> {
        Ok(MetadataDisk {
            device: device.reopen()?,
            io: IoClient::new()?,
        })
    }

    /// The superblock; None on a blank device.
    fn superblock(&self) -> Result<Option<Superblock>> {
        let mut block = block::zeroed(1)?;
        self.read(format::SUPERBLOCK_LOCATION, &mut block)
            .inspect_err(|_| error!("Failed to read_lock superblock"))?;
        if format::is_blank(&block) {
            return Ok(None);
        }
        SuperblockValidator::check(&block, format::SUPERBLOCK_LOCATION)?;
        Ok(Some(Superblock::decode(&block)))
    }
}

fn open(
    disk: MetadataDisk,
    superblock: Superblock,
    geometry: &Geometry,
) -> Result<Store<MetadataDisk>> {
    if superblock.region_sectors != u64::from(geometry.region_sectors())
        || superblock.target_sectors != geometry.target_sectors()
    {
        error!("Region and/or target size don't match the ones in metadata");
        return Err(EINVAL);
    }
    if superblock.space_map_blocks() > format::MAX_BLOCKS {
        error!(
            "The space map has {} blocks, more than the {} that are possible",
            superblock.space_map_blocks(),
            format::MAX_BLOCKS
        );
        return Err(EINVAL);
    }
    Store::open(disk, superblock, geometry.regions()).map_err(report)
}

/// Says what is wrong with metadata.
pub(crate) fn report(error: OpenError<Error>) -> Error {
    match error {
        OpenError::NoMemory(error) => error.into(),
        OpenError::Device(error) => error,
        OpenError::Damage(damage) => {
            error!("{}", damage);
            dm::compat::eilseq()
        }
    }
}

/// Refuses a device that could not take a transaction that changes everything.
fn check_room(disk: &MetadataDisk, geometry: &Geometry) -> Result {
    let needed = needed_to_format(geometry.regions(), disk.blocks());
    if disk.blocks() >= needed {
        return Ok(());
    }
    error!(
        "Metadata device {}: expected at least {} sectors for {} regions, has {}",
        disk.device.number(),
        needed * format::BLOCK_SECTORS,
        geometry.regions(),
        disk.device.sectors()
    );
    Err(ENOSPC)
}

/// Writes metadata of which no region is hydrated.
fn format(device: &BlockDevice, geometry: &Geometry) -> Result {
    let blocks = BlockManager::new(
        device.reopen()?,
        format::BLOCK_SIZE as u32,
        MAX_CONCURRENT_LOCKS,
    )
    .inspect_err(|_| error!("Failed to create block manager"))?;
    let mut tm = TransactionManager::create(blocks, format::SUPERBLOCK_LOCATION)
        .inspect_err(|_| error!("Failed to create transaction manager"))?;
    let mut bitset = Array::<u64>::empty(&mut tm)
        .inspect_err(|_| error!("Failed to create empty on-disk bitset"))?;
    // Fits: there are 2^31 regions at most.
    let words = u32::try_from(word_count(geometry.regions()))?;
    bitset.resize(&mut tm, words, 0).inspect_err(|_| {
        error!(
            "Failed to resize on-disk bitset to {} entries",
            geometry.regions()
        )
    })?;
    let bitset_root = bitset.root();
    let pre_committed = tm
        .pre_commit()
        .inspect_err(|_| error!("dm_tm_pre_commit failed"))?;
    let mut space_map_root = [0; format::SPACE_MAP_ROOT_SIZE];
    pre_committed
        .copy_space_map_root(&mut space_map_root)
        .inspect_err(|_| error!("__copy_sm_root failed"))?;
    let superblock = Superblock {
        space_map_root,
        region_sectors: geometry.region_sectors().into(),
        target_sectors: geometry.target_sectors(),
        bitset_root,
    };
    pre_committed
        .format::<SuperblockValidator>(|block| superblock.encode(block))
        .inspect_err(|_| error!("Failed to commit superblock"))
}

/// Checks and completes superblocks on their way from and to the disk.
struct SuperblockValidator;

impl Validator for SuperblockValidator {
    const NAME: &'static CStr = c"superblock";

    fn prepare(block: &mut [u8], location: u64) {
        format::seal(block, location, crc32c);
    }

    fn check(block: &[u8], location: u64) -> Result {
        format::check(block, location, crc32c).map_err(|error| {
            error!("{}", error);
            match error {
                format::SuperblockError::BlockNumber { .. } => code::ENOTBLK,
                format::SuperblockError::Magic { .. }
                | format::SuperblockError::Checksum { .. } => dm::compat::eilseq(),
                format::SuperblockError::Version { .. } => EINVAL,
            }
        })
    }
}

macro_rules! error {
    ($($text:tt)+) => { dm::error!($crate::log::METADATA, $($text)+) };
}
use error;
