// SPDX-License-Identifier: GPL-2.0

//! The way of a read: to where the newest copy of its first sector is, with as many of the sectors
//! behind it as are there too. The rest comes back as another bio.

use crate::{
    cache::{
        Cache,
        ReadSettings, //
    },
    checksum::Sum,
    index::{
        parts,
        shard_of,
        Look,
        Part,
        Stored, //
    },
    promote,
    readers::Turn,
    target::LcTarget,
    verify::{
        self,
        Check, //
    }, //
};
use dm::prelude::*;
use kernel::prelude::*;

/// Where the first sectors of a read are.
enum Place {
    /// On the backing device, so many sectors.
    Backing(u32),
    /// On the cache device, at a position of the log, so many sectors; counted as a read there. With
    /// their checksum, if that is wanted, and whether they are on the backing device too.
    Cache(u64, u32, Turn, Option<u32>, bool),
    /// The same, but the checksum is that of more.
    Part(u64, u32, Turn, Stored, bool),
    /// Nowhere any more.
    Lost,
    /// In memory; so many sectors were copied. 0: none could be.
    Memory(u32),
}

/// Sends a read where it belongs.
#[inline]
pub(crate) fn map<'a>(
    cache: &'a Cache,
    handle: impl Fn() -> Shared<Cache>,
    mut bio: MapBio<'a, LcTarget>,
) -> Mapped<'a> {
    let sector = bio.sector();
    let settings = cache.read_settings();
    let place = find(cache, settings, &bio);
    let sectors = match &place {
        Place::Backing(sectors)
        | Place::Cache(_, sectors, ..)
        | Place::Part(_, sectors, ..)
        | Place::Memory(sectors) => *sectors,
        Place::Lost => return bio.end(dm::compat::eilseq()),
    };
    if sectors < bio.sectors() && bio.accept_partial(sectors).is_err() {
        if let Place::Cache(_, _, turn, ..) | Place::Part(_, _, turn, ..) = place {
            cache.readers.end(turn);
        }
        return bio.kill();
    }
    if settings.cache_threshold() != 0 {
        let from_backing = matches!(place, Place::Backing(_));
        bio.per_bio().wanted = promote::noted(cache, sector, sectors, from_backing);
    }
    match place {
        Place::Backing(_) => bio.remap(&cache.backing, sector),
        Place::Cache(position, sectors, turn, sum, clean) => {
            bio.per_bio().reads = Some(turn);
            bio.per_bio().clean = clean;
            if let Some(sum) = sum {
                bio.per_bio().check = Some(Check::whole(sector, sectors, sum));
            }
            if clean || sum.is_some() {
                bio.keep_data();
            }
            bio.remap(&cache.disk.device, cache.space.sector(position))
        }
        Place::Part(position, _, turn, stored, clean) => {
            bio.per_bio().reads = Some(turn);
            bio.per_bio().clean = clean;
            bio.per_bio().check = Some(Check::part(sector, position, stored));
            let (mapped, bio) = bio.take();
            verify::wait(&handle(), bio);
            mapped
        }
        Place::Memory(_) | Place::Lost => bio.end(Status::OK),
    }
}

#[inline]
fn find(cache: &Cache, settings: ReadSettings, bio: &Bio) -> Place {
    let mut parts = parts(bio.sector(), bio.sectors());
    let Some(first) = parts.next() else {
        return Place::Backing(0);
    };
    let mut shard = cache.shards[shard_of(first.block)].lock();
    let look = shard.look(&first);
    let in_memory = cache.written();
    shard.count_read(&look, in_memory, first.mask);
    match look.position {
        None => {
            drop(shard);
            Place::Backing(extend(cache, &first, look, parts, None, None).0)
        }
        Some(_) if look.is_lost() => Place::Lost,
        Some(position) if position < in_memory => {
            let turn = cache.readers.begin();
            drop(shard);
            let sum = match look.crc() {
                _ if !settings.verifies() => None,
                None => {
                    let (sectors, stored) = (look.sectors, look.stored());
                    return Place::Part(position, sectors, turn, stored, look.clean);
                }
                Some(crc) => {
                    let mut sum = Sum::default();
                    sum.add(crc);
                    Some(sum)
                }
            };
            let (sectors, sum) = if first.sectors() == bio.sectors() {
                (look.sectors, sum)
            } else {
                extend(cache, &first, look, parts, Some(position), sum)
            };
            let sum = sum.map(|sum| sum.value());
            Place::Cache(position, sectors, turn, sum, look.clean)
        }
        Some(position) => {
            let copied = copy(cache, bio, 0, position, look.sectors);
            drop(shard);
            match copied {
                Ok(()) => Place::Memory(copy_more(cache, bio, &first, look, parts)),
                Err(_) => Place::Memory(0),
            }
        }
    }
}

/// How many sectors, beginning with those of the first part, are missing; or in the log, one behind
/// the other from a position on, and all clean or none; and their checksum, if `sum` is that of the
/// first part.
#[inline]
fn extend(
    cache: &Cache,
    first: &Part,
    look: Look,
    rest: impl Iterator<Item = Part>,
    position: Option<u64>,
    mut sum: Option<Sum>,
) -> (u32, Option<Sum>) {
    let Look {
        mut sectors, clean, ..
    } = look;
    if sectors < first.sectors() {
        return (sectors, sum);
    }
    for part in rest {
        let mut shard = cache.shards[shard_of(part.block)].lock();
        let look = shard.look(&part);
        let due = position.map(|position| position + u64::from(sectors));
        if look.position != due || look.clean != clean {
            break;
        }
        if let Some(sum) = &mut sum {
            let Some(crc) = look.crc() else {
                break;
            };
            sum.add(crc);
        }
        shard.count_read(&look, u64::MAX, part.mask);
        sectors += look.sectors;
        if look.sectors < part.mask.count_ones() {
            break;
        }
    }
    (sectors, sum)
}

/// Copies the parts behind the first, as long as they are in memory; returns how many sectors were
/// copied with those of the first.
fn copy_more(
    cache: &Cache,
    bio: &Bio,
    first: &Part,
    look: Look,
    rest: impl Iterator<Item = Part>,
) -> u32 {
    let mut sectors = look.sectors;
    if sectors < first.mask.count_ones() {
        return sectors;
    }
    for part in rest {
        let mut shard = cache.shards[shard_of(part.block)].lock();
        let look = shard.look(&part);
        let in_memory = cache.written();
        let Some(position) = look.position.filter(|&position| position >= in_memory) else {
            break;
        };
        shard.count_read(&look, in_memory, part.mask);
        if copy(cache, bio, sectors, position, look.sectors).is_err() {
            break;
        }
        sectors += look.sectors;
        if look.sectors < part.mask.count_ones() {
            break;
        }
    }
    sectors
}

/// Copies sectors that are in memory to a read; under the lock of their shard, so that they stay
/// there.
fn copy(cache: &Cache, bio: &Bio, skip: u32, position: u64, sectors: u32) -> Result {
    let found = cache.head.lock().log.find(position);
    let (buffer, offset) = found.ok_or(EIO)?;
    let at = (offset as usize) << SECTOR_SHIFT;
    cache.memory[buffer].copy_to_bio(at, bio, skip, sectors)
}
