// SPDX-License-Identifier: GPL-2.0

//! How fast writes are let in when there is little room left in the log. Pure.
//!
//! The backing device takes a batch of the writeback in its own time, which may be seconds. If writes
//! were let in until the log is full, then all of them would stop, until the next batch makes room
//! for a moment. Instead they are slowed down before, in the *zone* in which the last part of the log
//! is used: half way through it they are let in as fast as the writeback makes room, before that
//! faster, and behind it slower.
//!
//! What a write takes is paid from a credit that grows with [time](Throttle::tick). It may be
//! overdrawn by one write, so that a large one needs no saving.

/// The zone is so much of the log, but not more than [`MAX_ZONE`] sectors.
const ZONE_SHARE: u64 = 8;
const MAX_ZONE: u64 = 1 << 18;
/// Sectors that become free in a second, at most: it bounds the products below.
const MAX_RATE: u64 = 1 << 32;
const SECOND: u64 = 1_000_000_000;
/// The longest time that a tick counts, in nanoseconds.
const MAX_TICK: u64 = SECOND / 10;

/// The credit, and what it grows by.
pub struct Throttle {
    /// Writes are slowed down when there is room for fewer sectors.
    zone: u64,
    /// How many sectors the writeback frees in a second; 0: that is not known yet.
    rate: u64,
    /// In billionths of a sector.
    credit: i64,
}

impl Throttle {
    /// For a log of so many sectors.
    pub fn new(log_sectors: u64) -> Self {
        Throttle {
            zone: (log_sectors / ZONE_SHARE).clamp(1, MAX_ZONE),
            rate: 0,
            credit: 0,
        }
    }

    /// The writeback has freed `sectors` sectors in so many nanoseconds.
    pub fn note_batch(&mut self, sectors: u64, nanoseconds: u64) {
        let rate = sectors.min(MAX_RATE) * SECOND / nanoseconds.max(1);
        let rate = rate.clamp(1, MAX_RATE);
        self.rate = match self.rate {
            0 => rate,
            before => (3 * before + rate) / 4,
        };
    }

    /// Whether writes are slowed down when there is room for so many sectors.
    #[inline]
    pub fn slows(&self, room: u64) -> bool {
        self.rate != 0 && room < self.zone
    }

    /// Whether a write has to wait.
    #[inline]
    pub fn is_closed(&self, room: u64) -> bool {
        self.slows(room) && self.credit <= 0
    }

    /// A write was let in.
    #[inline]
    pub fn pay(&mut self, room: u64, sectors: u32) {
        if self.slows(room) {
            self.credit -= (u64::from(sectors) * SECOND) as i64;
        }
    }

    /// So many nanoseconds have passed for those that wait.
    pub fn tick(&mut self, room: u64, nanoseconds: u64) {
        let speed = self.rate * 2 * room.min(self.zone) / self.zone;
        let gain = (speed * nanoseconds.min(MAX_TICK)) as i64;
        // What nobody has used in time is gone.
        self.credit = (self.credit + gain).min(gain.max(1));
    }
}
