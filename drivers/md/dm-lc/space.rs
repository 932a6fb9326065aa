// SPDX-License-Identifier: GPL-2.0

//! Where the log is on the cache device: positions and sectors. Pure.
//!
//! A *position* counts sectors that were ever written to the log. It only grows: of two copies of
//! a block, the one at the higher position is the newer one.

use core::num::NonZero;

/// A record has at most this many sectors, its header included; so has what is written at a time.
pub const RECORD_SECTORS: u64 = 1032;
/// What a record of that size has of data at least, whatever the size of its header.
pub const DATA_SECTORS: u32 = 1024;
/// How many buffers there are in memory, hence how many writes of the log may be under way.
pub const BUFFERS: usize = 8;
/// The log begins here on a device that is formatted.
const LOG_START: u64 = 2048;
/// A log has at least so many records of full size.
const MIN_RECORDS: u64 = 4 * BUFFERS as u64;

/// The size that a cache device has at least, in sectors.
pub const MIN_CACHE_SECTORS: u64 = LOG_START + MIN_RECORDS * RECORD_SECTORS;
/// No device is larger, in sectors: so no sum of two numbers of sectors overflows.
pub const MAX_SECTORS: u64 = 1 << 48;

/// The place of the log, and the size of a record's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Space {
    start: u64,
    sectors: NonZero<u64>,
    header_sectors: u32,
}

impl Space {
    /// A log from sector `start` on, of `sectors` sectors. None if it is too small or too large, or
    /// if headers can not have that size.
    pub fn new(start: u64, sectors: u64, header_sectors: u32) -> Option<Self> {
        let right = matches!(header_sectors, 1 | 8)
            && (LOG_START..=MAX_SECTORS).contains(&start)
            && (MIN_RECORDS * RECORD_SECTORS..=MAX_SECTORS).contains(&sectors)
            && start % 8 == 0
            && sectors % 8 == 0;
        let sectors = NonZero::new(sectors).filter(|_| right)?;
        Some(Space {
            start,
            sectors,
            header_sectors,
        })
    }

    /// The log of a device of `sectors` sectors that is to be formatted.
    pub fn for_device(sectors: u64, header_sectors: u32) -> Option<Self> {
        Space::new(
            LOG_START,
            sectors.checked_sub(LOG_START)? / 8 * 8,
            header_sectors,
        )
    }

    /// Its first sector on the device.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// How many sectors it has.
    pub fn sectors(&self) -> u64 {
        self.sectors.get()
    }

    /// How many percent of it so many sectors are.
    pub fn percent(&self, sectors: u64) -> u64 {
        sectors.saturating_mul(100) / self.sectors
    }

    /// The sector behind it.
    pub fn end(&self) -> u64 {
        self.start + self.sectors.get()
    }

    /// The size of a header in sectors.
    pub fn header_sectors(&self) -> u32 {
        self.header_sectors
    }

    /// The size of a header in bytes.
    pub fn header_bytes(&self) -> usize {
        (self.header_sectors as usize) << 9
    }

    /// The first position of a new log.
    pub fn first_position(&self) -> u64 {
        self.sectors.get()
    }

    /// The sector on the device that a position is at.
    #[inline]
    pub fn sector(&self, position: u64) -> u64 {
        self.start + position % self.sectors
    }

    /// How many sectors there are from a position to the end of the device's part of the log.
    pub fn left(&self, position: u64) -> u64 {
        self.sectors.get() - position % self.sectors
    }

    /// Where the record begins that follows what ends at `position`.
    pub fn next_record(&self, position: u64) -> u64 {
        let left = self.left(position);
        if left < RECORD_SECTORS {
            position.saturating_add(left)
        } else {
            position
        }
    }
}
