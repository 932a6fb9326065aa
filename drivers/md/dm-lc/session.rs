// SPDX-License-Identifier: GPL-2.0

//! A session of a cache, from the recovery of its log to its rest: what a table does with it when it is
//! resumed and suspended, and the superblock in between.

use crate::{
    cache::Cache,
    format::{
        Due,
        Superblock, //
    },
    index::{
        parts,
        shard_of, //
    },
    platform::{
        crc32c,
        zeroed, //
    },
    recovery,
    space::RECORD_SECTORS,
    writeback::Writer,
    NAME, //
};
use dm::{
    noio::NoIo,
    prelude::*, //
};
use kernel::{
    prelude::*,
    sync::atomic::{
        Relaxed,
        Release, //
    }, //
};

impl Cache {
    /// Reads the log, if that was not done before, and begins a session. Sleeps.
    pub(crate) fn load(&self) -> Result {
        // The device is suspended, maybe with a file system on it that memory would be taken from.
        let _noio = NoIo::enter();
        let mut writer = self.writer.lock();
        if self.failed.is_set() && self.loaded.is_set() {
            // The device can be resumed, so that it can be read from and removed.
            return Ok(());
        }
        let Writer {
            superblock, block, ..
        } = &mut *writer;
        if !self.loaded.is_set() {
            let due = self.recover(superblock)?;
            // What was found may not be durable, though it is used from now on.
            self.disk.device.flush()?;
            superblock.epoch += 1;
            superblock.durable_id = due.id;
            self.head
                .lock()
                .log
                .start(superblock.tail.position, due.position);
            self.written.store(due.position, Release);
            self.durable.store(due.position, Relaxed);
            self.durable_id.store(due.id, Relaxed);
            self.due_id.store(due.id, Relaxed);
            self.tail_id.store(superblock.tail.id, Relaxed);
            self.epoch.store(superblock.epoch, Relaxed);
            self.committer.lock().start(superblock, due);
            // Another table may have left writes in the volatile cache of the device.
            self.note_backing_written();
        }
        superblock.clean = false;
        self.disk.write_superblock(superblock, block)?;
        self.ordered.store(superblock.ordered.into(), Relaxed);
        self.loaded.set();
        Ok(())
    }

    fn recover(&self, superblock: &mut Superblock) -> Result<Due> {
        let window = 2 * (RECORD_SECTORS as usize) << SECTOR_SHIFT;
        let mut window = zeroed(window)?;
        // After an attempt that failed some of it may be here already, which does no harm.
        let mut has_room = true;
        let mut lost = superblock.lost;
        for (sector, sectors) in superblock.lost.runs() {
            for part in parts(sector, sectors) {
                let mut shard = self.shards[shard_of(part.block)].lock();
                if shard.reserve() {
                    shard.insert_lost(&part);
                } else {
                    has_room = false;
                }
            }
        }
        let due = recovery::walk(
            &mut &self.disk,
            superblock,
            &mut window,
            |extent, position, data| {
                if data.is_none() {
                    has_room &= lost.add(extent.sector, extent.sectors);
                    self.found_damage(extent.sector, extent.sectors, "");
                }
                for part in parts(extent.sector, extent.sectors) {
                    let mut shard = self.shards[shard_of(part.block)].lock();
                    if extent.discarded {
                        shard.forget(&part, position);
                    } else if shard.reserve() {
                        let crc = data.map_or(0, |data| crc32c(part.of(data)));
                        shard.insert(&part, position, crc, u64::MAX);
                        if data.is_none() {
                            shard.lose(&part, position);
                        }
                    } else {
                        has_room = false;
                    }
                }
            },
        );
        let device = self.disk.device.number();
        let due = match due {
            Ok(due) => due,
            Err(recovery::Error::Device(errno)) => {
                dm::error!(NAME, "cache device {}: its log cannot be read", device);
                return Err(errno);
            }
            Err(recovery::Error::Damaged(id)) => {
                dm::error!(
                    NAME,
                    "cache device {}: record {} was durable, and is damaged",
                    device,
                    id
                );
                return Err(dm::compat::eilseq());
            }
        };
        let lost = lost.filtered(|part| self.shards[shard_of(part.block)].lock().lost(part));
        let Some(lost) = lost.filter(|_| has_room) else {
            dm::error!(
                NAME,
                "cache device {}: its log has too many parts, or too much of it is damaged",
                device
            );
            return Err(ENOSPC);
        };
        superblock.lost = lost;
        self.lost_sectors.store(lost.sectors(), Relaxed);
        for shard in &self.shards {
            shard.lock().clear_counters();
        }
        Ok(due)
    }

    /// Has the log written back in the order of flushes from now on, or not. Fails with `EBUSY` if what
    /// is in it was not written for that. Under the lock of `setting`; sleeps.
    pub(crate) fn order(this: &Shared<Self>, wanted: bool) -> Result {
        let mut writer = this.writer.lock();
        if !this.loaded.is_set() {
            return Err(EAGAIN);
        }
        if writer.superblock.ordered == wanted || this.failed.is_set() {
            return Ok(());
        }
        if wanted && !this.is_clean() {
            return Err(EBUSY);
        }
        writer.superblock.ordered = wanted;
        Self::write_superblock(this, &mut writer, false)?;
        this.ordered.store(wanted.into(), Relaxed);
        Ok(())
    }

    /// Begins to use `table`, with these settings.
    pub(crate) fn resume(this: &Shared<Self>, table: &Table) {
        *this.table.lock() = Some(table.clone());
        this.recall_failed_flush();
        this.suspended.store(0, Release);
        this.paused.store(0, Relaxed);
        Self::start_clock(this);
        Self::start_ageing(this);
        Self::kick_writeback(this);
    }

    /// No bio is in flight. Lets everything come to rest, and makes the log durable. Sleeps.
    pub(crate) fn suspend(this: &Shared<Self>) {
        this.suspended.store(1, Release);
        Self::quiesce(this);
        if !this.failed.is_set() && this.loaded.is_set() {
            // What this cannot make durable stays undone, as after a crash; it has been reported.
            let _ = Self::shut_down(this);
        }
        let table = this.table.lock().take();
        drop(table);
    }

    fn shut_down(this: &Shared<Self>) -> Result {
        crate::commit::commit(this)?;
        Self::write_superblock(this, &mut this.writer.lock(), true)
    }

    /// From which record on the log need not be durable. What is before the tail is needed no more: in an
    /// ordered log that may have passed records that were never flushed.
    fn durable_id_for(&self, superblock: &Superblock) -> u64 {
        self.durable_id.load(Relaxed).max(superblock.tail.id)
    }

    /// Writes the superblock as things are. Sleeps.
    fn write_superblock(this: &Shared<Self>, writer: &mut Writer, clean: bool) -> Result {
        let Writer {
            superblock, block, ..
        } = writer;
        superblock.durable_id = this.durable_id_for(superblock);
        superblock.clean = clean;
        this.disk
            .write_superblock(superblock, block)
            .inspect_err(|_| Self::fail(this, "its superblock cannot be written"))
    }

    /// Writes the superblock unless it is on the device as it would be. Sleeps.
    pub(crate) fn commit_superblock(this: &Shared<Self>) -> Result {
        let mut writer = this.writer.lock();
        if this.failed.is_set() || !this.loaded.is_set() {
            return Err(EIO);
        }
        if writer.superblock.durable_id == this.durable_id_for(&writer.superblock) {
            return Ok(());
        }
        Self::write_superblock(this, &mut writer, false)
    }
}
