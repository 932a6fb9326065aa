// SPDX-License-Identifier: GPL-2.0

//! The cache device: how its superblocks and its log are read and written.

use crate::{
    format::{
        self,
        Found,
        Superblock,
        BLANK_BYTES,
        SUPERBLOCK_BYTES,
        SUPERBLOCK_SECTORS, //
    },
    recovery, //
};
use dm::{
    dm_io::{
        Barrier,
        IoClient, //
    },
    prelude::*, //
};
use kernel::prelude::*;

/// The cache device.
pub(crate) struct Disk {
    pub(crate) device: BlockDevice,
    pub(crate) io: IoClient,
}

impl Disk {
    pub(crate) fn new(device: BlockDevice) -> Result<Self> {
        Ok(Disk {
            device,
            io: IoClient::new()?,
        })
    }

    /// What is on the device. Sleeps.
    pub(crate) fn find(&self) -> Result<Found> {
        let mut bytes = KVec::from_elem(0u8, BLANK_BYTES, GFP_KERNEL)?;
        self.io
            .read(&self.device, SUPERBLOCK_SECTORS[0], &mut bytes)?;
        let (one, other) = bytes.split_at(SUPERBLOCK_BYTES);
        Ok(format::find([one, other]))
    }

    /// Writes both copies of the superblock, durably, with the next sequence number. `block` is
    /// memory of the size of one. Sleeps.
    pub(crate) fn write_superblock(&self, superblock: &mut Superblock, block: &mut [u8]) -> Result {
        superblock.sequence += 1;
        superblock.encode((&mut *block).try_into().map_err(|_| EINVAL)?);
        for sector in SUPERBLOCK_SECTORS {
            self.io.write(&self.device, sector, block, Barrier::Fua)?;
        }
        Ok(())
    }
}

impl recovery::Read for &Disk {
    type Error = Error;

    fn read(&mut self, sector: u64, memory: &mut [u8]) -> Result {
        self.io.read(&self.device, sector, memory)
    }
}
