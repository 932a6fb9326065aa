// SPDX-License-Identifier: GPL-2.0

//! Which superblock a cache begins with: the one on its device, if that is a cache of this backing device,
//! or a new one. What is anything else is refused.

use crate::{
    disk::Disk,
    format::{
        BackingId,
        Due,
        Found,
        Lost,
        Superblock, //
    },
    space::{
        Space,
        MIN_CACHE_SECTORS, //
    },
    table_line::Options,
    NAME, //
};
use dm::prelude::*;
use kernel::prelude::*;

/// The superblock to begin with: what is on the device, or a new one, which is not written yet.
pub(crate) fn superblock_for(
    disk: &Disk,
    backing: &BlockDevice,
    backing_sectors: u64,
    options: &Options,
) -> Result<Superblock, CtrError> {
    let device = disk.device.number();
    let backing_id = backing.identity().map_or(BackingId::UNKNOWN, |identity| {
        BackingId::new(identity.kind(), identity.bytes())
    });
    let found = disk
        .find()
        .map_err(|errno| CtrError::new(errno, c"Failed to read superblocks of cache device"))?;
    let superblock = match found {
        Found::Refused(refusal) if !options.format => {
            dm::error!(NAME, "cache device {} {}", device, refusal);
            return Err(CtrError::new(EINVAL, c"Cache device is not one of lc"));
        }
        Found::Cache(superblock) if !options.format => superblock,
        _ => return new_superblock(disk, backing_sectors, backing_id),
    };
    if superblock.space.end() > disk.device.sectors() {
        dm::error!(
            NAME,
            "cache device {}: expected at least {} sectors, has {}",
            device,
            superblock.space.end(),
            disk.device.sectors()
        );
        return Err(CtrError::new(EINVAL, c"Cache device has become smaller"));
    }
    let has_grown =
        superblock.backing_sectors < backing_sectors && superblock.backing_id.is_surely(backing_id);
    if superblock.backing_sectors != backing_sectors && !has_grown && !superblock.is_empty() {
        dm::error!(
            NAME,
            "cache device {}: is of a backing device of {} sectors, the target has {}",
            device,
            superblock.backing_sectors,
            backing_sectors
        );
        return Err(CtrError::new(EINVAL, c"Cache is of another backing device"));
    }
    // A cache that has nothing may serve any.
    if superblock.backing_id.differs(backing_id) && !superblock.is_empty() {
        dm::error!(
            NAME,
            "cache device {}: has what was written to another backing device than {}",
            device,
            backing.number()
        );
        return Err(CtrError::new(EINVAL, c"Cache is of another backing device"));
    }
    let header_sectors = superblock.space.header_sectors();
    if disk.device.logical_block_size() > header_sectors << SECTOR_SHIFT {
        dm::error!(
            NAME,
            "cache device {}: expected blocks of {} bytes at most, has {}",
            device,
            header_sectors << SECTOR_SHIFT,
            disk.device.logical_block_size()
        );
        return Err(CtrError::new(EINVAL, c"Cache device has other blocks"));
    }
    Ok(Superblock {
        backing_sectors,
        backing_id: backing_id.or(superblock.backing_id),
        ..superblock
    })
}

fn new_superblock(
    disk: &Disk,
    backing_sectors: u64,
    backing_id: BackingId,
) -> Result<Superblock, CtrError> {
    let header_sectors = match disk.device.logical_block_size() {
        512 => 1,
        1024..=4096 => 8,
        bytes => {
            dm::error!(
                NAME,
                "cache device {}: expected blocks of 4096 bytes at most, has {}",
                disk.device.number(),
                bytes
            );
            return Err(CtrError::new(EINVAL, c"Cache device has other blocks"));
        }
    };
    let space = Space::for_device(disk.device.sectors(), header_sectors).ok_or_else(|| {
        dm::error!(
            NAME,
            "cache device {}: expected at least {} sectors, has {}",
            disk.device.number(),
            MIN_CACHE_SECTORS,
            disk.device.sectors()
        );
        CtrError::new(EINVAL, c"Cache device is too small")
    })?;
    let mut uuid = [0; 16];
    dm::random::fill(&mut uuid);
    Ok(Superblock {
        uuid,
        sequence: 0,
        epoch: 0,
        space,
        backing_sectors,
        backing_id,
        tail: Due {
            position: space.first_position(),
            id: 1,
            chain: 0,
        },
        durable_id: 1,
        clean: false,
        ordered: false,
        lost: Lost::NONE,
    })
}
