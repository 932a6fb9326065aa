// SPDX-License-Identifier: GPL-2.0

//! Flushes of the backing device, and who has to know when one fails.
//!
//! A device may say only once that it has lost what was in its volatile cache: to the flush that finds it, or
//! to a write with FUA, whoever has written what is lost. Users and the writeback write there beside each other.
//! So one flush goes on at a time, and each failure is counted before the next: a batch that sees the count
//! change is written again, and users are told by the next flush that is theirs.

use crate::cache::Cache;
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Full,
            Relaxed, //
        },
        Mutex, //
    },
    time::{
        Instant,
        Monotonic, //
    }, //
};

/// Nothing was written to the backing device by users that is not durable.
const NOTHING: u32 = 0;
/// Something was.
const SOMETHING: u32 = 1;
/// A flush is under way for what was.
const BEING_FLUSHED: u32 = 2;

/// For how long a write with FUA may belong to a flush that has failed, in milliseconds: device-mapper sends
/// it at once, from a work item.
const PARTED_MS: u64 = 5000;

/// For whom the backing device is flushed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asker {
    /// Users who want all durable that was written before.
    Users,
    /// Users who want their own writes durable, which are in the log.
    Fua,
    /// The cache itself, with its log.
    Log,
    /// The writeback, for what it has written.
    Batch,
}

/// What is known of it.
#[pin_data]
pub(crate) struct Flushes {
    /// Held during a flush.
    #[pin]
    flushing: Mutex<()>,
    /// Whether users have written something that a flush has to make durable: [`NOTHING`] and so on.
    written: Atomic<u32>,
    /// Some of that is lost, and no user knows.
    lost: Atomic<u32>,
    /// How often the device may have said that it has lost something.
    failures: Atomic<u32>,
    /// When a flush of a user has failed last: see [`Flushes::now`]; 0: none has.
    told_at: Atomic<u64>,
    since: Instant<Monotonic>,
}

impl Flushes {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Flushes {
            flushing <- new_mutex!((), "dm_lc_flushing"),
            written: Atomic::new(NOTHING),
            lost: Atomic::new(0),
            failures: Atomic::new(0),
            told_at: Atomic::new(0),
            since: Instant::now(),
        })
    }

    /// Milliseconds, never 0.
    fn now(&self) -> u64 {
        1 + self.since.elapsed().as_millis().unsigned_abs()
    }

    fn was_told_lately(&self, told_at: u64) -> bool {
        if self.now().saturating_sub(told_at) < PARTED_MS {
            return true;
        }
        // Unless there was another meanwhile.
        let _ = self.told_at.cmpxchg(told_at, 0, Relaxed);
        false
    }
}

impl Cache {
    /// Makes durable what is on the backing device; unless this is for a batch, nothing is done if users have
    /// written nothing there. A loss that the device says now, and that the asker does not speak of, is noted.
    /// Sleeps.
    pub(crate) fn flush_backing(&self, asker: Asker) -> Result {
        let flushes = &self.backing_flushes;
        if asker != Asker::Batch && !self.is_backing_written() {
            return Ok(());
        }
        let _one = flushes.flushing.lock();
        let was_written = self.is_backing_written();
        if asker != Asker::Batch && !was_written {
            // By the flush that this one waited for.
            return Ok(());
        }
        if was_written {
            // What ends from now on is not in this flush.
            flushes.written.xchg(BEING_FLUSHED, Full);
        }
        let flushed = self.backing.flush();
        if flushed.is_ok() {
            let _ = flushes.written.cmpxchg(BEING_FLUSHED, NOTHING, Full);
            return Ok(());
        }
        self.note_backing_failure();
        if was_written || self.is_backing_written() {
            self.note_backing_written();
            if asker != Asker::Users {
                flushes.lost.store(1, Relaxed);
            }
        }
        flushed
    }

    /// The backing device has failed a flush, or a write with FUA, and may have said so of what others have
    /// written. Any context.
    pub(crate) fn note_backing_failure(&self) {
        self.backing_flushes.failures.fetch_add(1, Full);
    }

    /// A user's write with FUA has failed there, and he is told of nothing but that; `was_written`: others had
    /// written something before that was not durable. Any context.
    pub(crate) fn note_failed_fua(&self, was_written: bool) {
        self.note_backing_failure();
        if was_written {
            self.backing_flushes.lost.store(1, Relaxed);
        }
    }

    /// How often it has.
    pub(crate) fn backing_failures(&self) -> u32 {
        self.backing_flushes.failures.load(Acquire)
    }

    /// Users' data has come to the backing device, and may be in its volatile cache. Any context.
    pub(crate) fn note_backing_written(&self) {
        self.backing_flushes.written.store(SOMETHING, Relaxed);
    }

    /// Whether users have written something to the backing device that is not durable yet, for all that is
    /// known. Any context.
    pub(crate) fn is_backing_written(&self) -> bool {
        self.backing_flushes.written.load(Acquire) != NOTHING
    }

    /// Whether something that users have written there is lost, and none of them knows. Any context.
    pub(crate) fn has_backing_lost(&self) -> bool {
        self.backing_flushes.lost.load(Relaxed) != 0
    }

    /// The same; who asks is told of it, and nobody after him. Any context.
    pub(crate) fn take_backing_lost(&self) -> bool {
        self.has_backing_lost() && self.backing_flushes.lost.xchg(0, Full) != 0
    }

    /// A flush of a user has failed, and he is about to be told. It may be that of a write with data, which
    /// device-mapper divides into a flush and a write with FUA: it sends that whatever became of the flush.
    /// Any context.
    pub(crate) fn note_failed_flush(&self) {
        let flushes = &self.backing_flushes;
        flushes.told_at.store(flushes.now(), Relaxed);
    }

    /// Whether a write with FUA has to fail, since it may belong to a flush that has. Nothing tells whose it is:
    /// all of them do, for a while. Any context.
    #[inline]
    pub(crate) fn has_failed_flush(&self) -> bool {
        match self.backing_flushes.told_at.load(Relaxed) {
            0 => false,
            told_at => self.backing_flushes.was_told_lately(told_at),
        }
    }

    /// The device is about to be suspended: forgets a failure of too long ago. So one that is known when it is
    /// [resumed](Self::recall_failed_flush) is of just before, or of meanwhile. Any context.
    pub(crate) fn forget_old_failure(&self) {
        let _ = self.has_failed_flush();
    }

    /// The device is resumed. If a flush has failed as it was suspended, device-mapper may have kept its write
    /// with FUA until now, however long that was. Any context.
    pub(crate) fn recall_failed_flush(&self) {
        if self.backing_flushes.told_at.load(Relaxed) != 0 {
            self.note_failed_flush();
        }
    }
}
