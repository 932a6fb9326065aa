// SPDX-License-Identifier: GPL-2.0

//! The message `check`: the log on the cache device, compared with its checksums.
//!
//! What is in memory still is not looked at. Nothing is written back meanwhile, so that what is read
//! is not overwritten.

use crate::{
    cache::Cache,
    platform::zeroed,
    recovery::{
        self,
        Checked, //
    },
    space::RECORD_SECTORS,
    NAME, //
};
use dm::prelude::*;
use kernel::prelude::*;

/// Goes through the log. `EINTR`: a signal came. Sleeps.
pub(crate) fn check(this: &Shared<Cache>) -> Result<Checked> {
    if !this.loaded.is_set() {
        return Err(EAGAIN);
    }
    let bytes = 2 * (RECORD_SECTORS as usize) << SECTOR_SHIFT;
    // Before the lock, which whoever makes room for the memory may wait for.
    let mut window = zeroed(bytes)?;
    let writer = this.writer.lock();
    let device = this.disk.device.number();
    let found = recovery::check(
        &mut Interruptible(this),
        &writer.superblock,
        &mut window,
        this.written(),
        |id, extent| {
            if this.damage_told.allows() {
                dm::error!(
                    NAME,
                    "cache device {}: record {}: data of sectors {} to {} is damaged",
                    device,
                    id,
                    extent.sector,
                    extent.sector + u64::from(extent.sectors) - 1
                );
            }
        },
    );
    let found = found.map_err(|error| match error {
        recovery::Error::Device(errno) => errno,
        recovery::Error::Damaged(id) => {
            dm::error!(NAME, "cache device {}: record {} is damaged", device, id);
            this.count_damage(1);
            dm::compat::eilseq()
        }
    })?;
    match found.damaged {
        0 => this.note_checked(),
        damaged => this.count_damage(damaged),
    }
    Ok(found)
}

/// The cache device, until a signal comes.
struct Interruptible<'a>(&'a Shared<Cache>);

impl recovery::Read for Interruptible<'_> {
    type Error = Error;

    fn read(&mut self, sector: u64, memory: &mut [u8]) -> Result {
        if kernel::current!().signal_pending() {
            return Err(EINTR);
        }
        // What waits for the end of a batch: there is none, but it is the lock that tells.
        crate::write::end_overlaps(self.0);
        let disk = &self.0.disk;
        disk.io.read(&disk.device, sector, memory)
    }
}
