// SPDX-License-Identifier: GPL-2.0

//! Comparing what is read from the cache device with its checksums.
//!
//! The index has a checksum for each part of a block as it was written. A read of such parts as a
//! whole is compared when it [ends](compare), where it is. For a read of less, a work item reads all of
//! the part, and copies what was asked for.

use crate::{
    cache::Cache,
    checksum::Sum,
    index::{
        parts,
        Stored, //
    },
    platform::crc32c,
    target::{
        LcTarget,
        PerBio, //
    }, //
};
use dm::{
    prelude::*,
    shared_memory::SharedMemory, //
};
use kernel::{
    prelude::*,
    sync::atomic::Relaxed, //
};

/// The longest part, in bytes.
const BLOCK_BYTES: usize = 4096;

/// What a read is compared with.
#[derive(Clone, Copy)]
pub(crate) struct Check {
    /// The first sector of the read.
    sector: u64,
    /// How many sectors have the checksum.
    sectors: u32,
    sum: u32,
    /// Where they are in the log, if they are more than the read.
    position: u64,
    /// How many come before those of the read.
    skip: u32,
}

impl Check {
    /// A read of all that has the checksum.
    pub(crate) fn whole(sector: u64, sectors: u32, sum: u32) -> Self {
        Check {
            sector,
            sectors,
            sum,
            position: 0,
            skip: 0,
        }
    }

    /// A read at a position in what has the checksum.
    pub(crate) fn part(sector: u64, position: u64, stored: Stored) -> Self {
        Check {
            sector,
            sectors: stored.sectors,
            sum: stored.crc,
            position: stored.position,
            skip: position.saturating_sub(stored.position) as u32,
        }
    }
}

/// Compares a read that has come from the cache device as a whole. Interrupt context.
#[inline(never)]
pub(crate) fn compare(cache: &Owner<Cache>, bio: &EndBio<'_, LcTarget>, check: &Check) -> Status {
    let mut sum = Sum::default();
    for part in parts(check.sector, check.sectors) {
        match bio.crc32c(part.offset as u32, part.sectors()) {
            Ok(crc) => sum.add(crc),
            Err(_) => return Status::IOERR,
        }
    }
    if sum.value() == check.sum {
        return Status::OK;
    }
    cache.found_damage(check.sector, check.sectors, "");
    Cache::kick_writeback(&cache.share());
    dm::compat::eilseq().into()
}

/// A read of a clean copy has failed: sends it to the backing device. Interrupt context.
#[inline(never)]
pub(crate) fn read_elsewhere<'a>(cache: &Owner<Cache>, bio: EndBio<'a, LcTarget>) -> Ended<'a> {
    match bio.again() {
        Ok((ended, mut bio)) => {
            *bio.per_bio() = PerBio::default();
            wait(&cache.share(), bio);
            ended
        }
        Err(bio) => bio.done_with(Status::IOERR),
    }
}

/// Memory for a part.
pub(crate) struct Verifier {
    bytes: KVec<u8>,
    shared: SharedMemory,
}

impl Verifier {
    pub(crate) fn new() -> Result<Self> {
        Ok(Verifier {
            bytes: KVec::from_elem(0, BLOCK_BYTES, GFP_KERNEL)?,
            shared: SharedMemory::zeroed(BLOCK_BYTES)?,
        })
    }

    fn read(&mut self, cache: &Cache, bio: &Bio, check: &Check) -> Result {
        let len = (check.sectors as usize) << SECTOR_SHIFT;
        let bytes = self.bytes.get_mut(..len).ok_or(EINVAL)?;
        let disk = &cache.disk;
        disk.io
            .read(&disk.device, cache.space.sector(check.position), bytes)
            .inspect_err(|_| {
                cache.totals.read_errors.fetch_add(1, Relaxed);
            })?;
        if crc32c(bytes) != check.sum {
            cache.found_damage(check.sector, bio.sectors(), "");
            return Err(dm::compat::eilseq());
        }
        self.shared.store(0, bytes)?;
        let from = (check.skip as usize) << SECTOR_SHIFT;
        self.shared.copy_to_bio(from, bio, 0, bio.sectors())
    }
}

/// Has a read of a part compared, and ended; or one that nobody counts read from the backing device.
/// Any context.
pub(crate) fn wait(this: &Shared<Cache>, bio: OwnedBio<LcTarget>) {
    this.head.lock().to_verify.push(bio);
    Cache::kick_verify(this);
}

/// Serves the reads that wait. Sleeps.
pub(crate) fn run(this: &Shared<Cache>) {
    let mut verifier = this.verifier.lock();
    let bios = this.head.lock().to_verify.take_all();
    for mut bio in bios {
        let PerBio {
            reads,
            check,
            clean,
            ..
        } = core::mem::take(bio.per_bio());
        let read = |turn| {
            let result = check
                .ok_or(EIO)
                .and_then(|check| verifier.read(this, &bio, &check));
            this.readers.end(turn);
            result
        };
        match reads.map(read) {
            Some(Err(errno)) if !clean => bio.end(errno),
            Some(Ok(())) => bio.end(Status::OK),
            _ => read_backing(this, bio),
        }
    }
    this.tell_of_damage();
}

/// Reads what cannot be read from its clean copy, which is forgotten.
fn read_backing(cache: &Cache, bio: OwnedBio<LcTarget>) {
    let sector = bio.sector();
    crate::write::forget_clean(cache, sector, bio.sectors());
    bio.submit(&cache.backing, sector);
}
