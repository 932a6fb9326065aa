// SPDX-License-Identifier: GPL-2.0

//! Writing the log, and making it durable.
//!
//! A flush promises that every write acknowledged before it survives a crash: the buffers that have
//! such writes are written, and the device is flushed once for all flushes that came until then.
//! Those that come while this is under way form a group, which is served next. A flush for which
//! nothing is new costs a flush of the device, and no write.

use crate::{
    backing::Asker,
    cache::Cache,
    format::{
        Due,
        Superblock,
        HEADER_BYTES, //
    },
    log::{
        Closed,
        Session, //
    },
    space::BUFFERS, //
};
use dm::prelude::*;
use kernel::{
    prelude::*,
    sync::atomic::Relaxed, //
};

/// How often a write to the cache device is tried.
pub(crate) const TRIES: u32 = 3;

/// Why what was written is not durable.
#[derive(Clone, Copy)]
pub(crate) enum Failed {
    /// The cache device has failed.
    Cache(Error),
    /// The backing device has lost something, now or before.
    Backing(Error),
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Cache(errno) | Failed::Backing(errno) => errno,
        }
    }
}

/// What writes the log.
pub(crate) struct Committer {
    session: Session,
    /// What the next record has to be.
    due: Due,
    /// Memory for a header.
    header: KVec<u8>,
}

impl Committer {
    pub(crate) fn new(superblock: &Superblock) -> Result<Self> {
        Ok(Committer {
            session: Session {
                uuid: superblock.uuid,
                epoch: 0,
            },
            due: superblock.tail,
            header: KVec::from_elem(0, HEADER_BYTES, GFP_KERNEL)?,
        })
    }

    /// Goes on at `due`, in the session of the superblock.
    pub(crate) fn start(&mut self, superblock: &Superblock, due: Due) {
        self.session.epoch = superblock.epoch;
        self.due = due;
    }

    /// Writes everything that was appended before. Sleeps.
    fn write_all(&mut self, cache: &Shared<Cache>) -> Result {
        if cache.has_failed() {
            return Err(EIO);
        }
        let target = cache.head.lock().log.close();
        while cache.written() < target {
            self.write_ready(cache, target)?;
        }
        Ok(())
    }

    /// Writes closed buffers, and returns how many. If there is one before `target`, waits until
    /// its data is in place.
    fn write_ready(&mut self, cache: &Shared<Cache>, target: u64) -> Result<usize> {
        if cache.has_failed() {
            return Err(EIO);
        }
        let mut ready = [const { None }; BUFFERS];
        let count = take_ready(cache, &mut ready, target);
        if count == 0 {
            return Ok(0);
        }
        self.write_buffers(cache, ready.iter().flatten())
            .inspect_err(|_| Cache::fail(cache, "its log cannot be written"))?;
        cache.due_id.store(self.due.id, Relaxed);
        cache.set_written(self.due.position);
        let waiting = {
            let mut head = cache.head.lock();
            for closed in ready.into_iter().flatten() {
                head.log.free(closed);
            }
            !head.waiting.is_empty() || head.admitting
        };
        if waiting {
            Cache::kick_admit(cache);
        }
        Ok(count)
    }

    /// Seals buffers and writes them, all at the same time.
    fn write_buffers<'c>(
        &mut self,
        cache: &Cache,
        ready: impl Iterator<Item = &'c Closed> + Clone,
    ) -> Result {
        let durable_id = cache.durable_id.load(Relaxed);
        let (mut sectors, mut written, mut promoted) = (0, 0, 0);
        for closed in ready.clone() {
            let memory = &cache.memory[closed.buffer];
            let mut stored = Ok(());
            self.due = closed.seal(
                &self.session,
                durable_id,
                self.due,
                &mut self.header,
                |at, header| {
                    let at = (at as usize) << SECTOR_SHIFT;
                    stored = memory.store(at, header);
                },
            );
            stored?;
            sectors += u64::from(closed.sectors);
            let data = closed.data_sectors();
            written += data.0;
            promoted += data.1;
        }
        cache.totals.cache_sectors.fetch_add(sectors, Relaxed);
        cache.totals.user_sectors.fetch_add(written, Relaxed);
        cache.totals.promoted.fetch_add(promoted, Relaxed);
        let pieces = ready.map(|closed| {
            (
                cache.space.sector(closed.position),
                &cache.memory[closed.buffer],
                0..(closed.sectors as usize) << SECTOR_SHIFT,
            )
        });
        again(|| {
            let device = &cache.disk.device;
            cache.disk.io.write_all_shared(device, &mut pieces.clone())
        })
    }

    /// Makes durable what was written, on both devices.
    fn flush(&mut self, cache: &Shared<Cache>, asker: Asker) -> Result<(), Failed> {
        if let Err(errno) = cache.flush_backing(asker) {
            cache.totals.backing_errors.fetch_add(1, Relaxed);
            // It was noted for those who ask for what is there.
            if asker != Asker::Fua {
                return Err(Failed::Backing(errno));
            }
        }
        if asker == Asker::Users && cache.take_backing_lost() {
            return Err(Failed::Backing(EIO));
        }
        // Once: what a device has lost may be said at the first flush only.
        let flushed = cache.disk.device.flush();
        flushed
            .inspect_err(|_| Cache::fail(cache, "it cannot be flushed"))
            .map_err(Failed::Cache)?;
        cache.totals.log_flushes.fetch_add(1, Relaxed);
        cache.durable_id.store(self.due.id, Relaxed);
        cache.durable.store(self.due.position, Relaxed);
        Ok(())
    }
}

/// Tries so often as it makes sense.
fn again(mut attempt: impl FnMut() -> Result) -> Result {
    let mut result = attempt();
    for _ in 1..TRIES {
        if result.is_ok() {
            break;
        }
        result = attempt();
    }
    result
}

/// Takes closed buffers. If there is one before `target` for which data is still being copied,
/// waits for that.
fn take_ready(cache: &Cache, ready: &mut [Option<Closed>; BUFFERS], target: u64) -> usize {
    let mut head = cache.head.lock();
    loop {
        let mut count = 0;
        while let Some(slot) = ready.get_mut(count) {
            *slot = head.log.take_ready();
            if slot.is_none() {
                break;
            }
            count += 1;
        }
        if count != 0 || cache.written() >= target {
            return count;
        }
        cache.copied.wait(&mut head);
    }
}

/// Serves the flushes that wait, and writes the buffers that are closed; with `close` the open one
/// as well. Then makes room for what comes next. Sleeps.
///
/// What comes meanwhile has the log item run again: others, who need room, or wait for the committer, are
/// not kept from it by those who flush all the time.
pub(crate) fn serve(this: &Shared<Cache>, close: bool) {
    let mut committer = this.committer.lock();
    if close {
        // A failure has been reported.
        let _ = committer.write_all(this);
    }
    let (flushes, asker) = {
        let mut head = this.head.lock();
        let asker = match core::mem::take(&mut head.has_flush) {
            true => Asker::Users,
            false => Asker::Fua,
        };
        (head.flushes.take_all(), asker)
    };
    if !flushes.is_empty() {
        let result = committer
            .write_all(this)
            .map_err(Failed::Cache)
            .and_then(|()| committer.flush(this, asker));
        crate::write::flushed(this, flushes, result);
    }
    let written = committer.write_ready(this, 0);
    crate::room::make(this);
    drop(committer);
    if written.is_ok_and(|count| count != 0) {
        // As many may be full by now: but others who want the log come first.
        Cache::kick_log(this.clone());
    }
    if crate::writeback::is_above_watermark(this) {
        Cache::kick_writeback(this);
    }
}

/// Makes everything durable that was appended to the log. Sleeps. `EAGAIN`: the log was not read.
pub(crate) fn commit(this: &Shared<Cache>) -> Result {
    if !this.loaded.is_set() {
        return Err(EAGAIN);
    }
    let mut committer = this.committer.lock();
    committer.write_all(this)?;
    Ok(committer.flush(this, Asker::Log)?)
}
