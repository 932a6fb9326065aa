// SPDX-License-Identifier: GPL-2.0

//! Commits: what makes hydrated regions durable, and the bios that need it.
//!
//! A flush promises that every write acknowledged before it survives a crash. For a write into a
//! region that is hydrated but not committed, that takes the data on the destination and the
//! region in the metadata; a commit provides both, in the right order. The same holds for a FUA
//! write, of which the region must be durable when it completes.
//!
//! What only was copied in the background needs no commit for a flush: after a crash it is as on
//! the source, and is copied again. It waits for the timer.
//!
//! Flushes and FUA writes that come while a commit is under way form a group, which the next commit
//! serves together.

use crate::{
    engine::{
        Commits,
        Engine, //
    },
    log,
    metadata::{
        CommitError,
        Committed,
        Mode, //
    },
    target::CloneTarget, //
};
use dm::prelude::*;
use kernel::{
    prelude::*,
    sync::atomic::{
        Full,
        Relaxed, //
    }, //
};

/// Sends a write into hydrated regions to the destination; a FUA write waits until they are
/// hydrated durably.
pub(crate) fn send_write(this: &Shared<Engine>, bio: OwnedBio<CloneTarget>) {
    let metadata = this.metadata();
    let regions = metadata.geometry().touched(bio.range());
    if metadata.note_write(regions) && bio.is_fua() {
        this.commits.lock().fua_writes.push(bio);
        Engine::kick_commit(this);
    } else if bio.is_fua() && metadata.mode() != Mode::ReadWrite && metadata.has_user_data() {
        // Of a flush with data device-mapper makes two: it sends the second whatever became of the first.
        // So this may say that all before it is durable.
        bio.end(Status::IOERR);
    } else {
        let sector = bio.sector();
        bio.submit(&this.dest, sector);
    }
}

/// Queues a flush for the commit that it needs.
pub(crate) fn flush(this: &Shared<Engine>, bio: OwnedBio<CloneTarget>) {
    this.commits.lock().flushes.push(bio);
    Engine::kick_commit(this);
}

/// Commits, and serves the bios that waited for it. Sleeps.
pub(crate) fn serve(this: &Shared<Engine>) {
    // Only what came before the commit begins may be acknowledged after it.
    let Commits {
        flushes,
        fua_writes,
        fua_done,
    } = core::mem::take(&mut *this.commits.lock());

    let mut served = 0;
    let mut each = || served += 1;
    match commit(this) {
        Ok(committed) => {
            for bio in flushes.inspect(|_| each()) {
                match committed {
                    // The commit has flushed the destination.
                    Committed::Now => bio.end(Status::OK),
                    Committed::Already => bio.submit(&this.dest, 0),
                }
            }
            for bio in fua_writes.inspect(|_| each()) {
                let sector = bio.sector();
                bio.submit(&this.dest, sector);
            }
            for bio in fua_done.inspect(|_| each()) {
                bio.end(Status::OK);
            }
            this.groups.lock().note(served);
        }
        Err(_) => {
            flushes.for_each(|bio| bio.end(Status::IOERR));
            fua_writes.for_each(|bio| bio.end(Status::IOERR));
            fua_done.for_each(|bio| bio.end(Status::IOERR));
        }
    }
}

/// How many flushes and FUA writes were served together.
#[derive(Clone, Copy, Default)]
pub(crate) struct Groups {
    /// How many groups there were.
    pub(crate) groups: u64,
    /// How many bios were in all groups.
    pub(crate) bios: u64,
    /// How many were in the largest one.
    pub(crate) largest: u64,
}

impl Groups {
    fn note(&mut self, bios: u64) {
        if bios != 0 {
            self.groups += 1;
            self.bios += bios;
            self.largest = self.largest.max(bios);
        }
    }
}

/// Makes durable what is hydrated; when that fails, says so. Sleeps.
pub(crate) fn commit(this: &Engine) -> Result<Committed, CommitError> {
    let result = this.metadata().commit(|| this.dest.flush());
    if let Ok(Committed::Now) = &result {
        this.stats.commits.fetch_add(1, Relaxed);
    }
    if let Err(CommitError::Failed { step, errno, mode }) = &result {
        let name = this.table.device_name();
        let mode = match mode {
            Mode::ReadWrite => "read-write",
            Mode::ReadOnly => "read-only",
            Mode::Fail => "fail",
        };
        dm::error!(
            log::NAME,
            "{}: Metadata operation `{}' failed: error = {}",
            name,
            step,
            errno.to_errno()
        );
        dm::error!(log::NAME, "{}: Aborting current metadata transaction", name);
        dm::info!(log::NAME, "{}: Switching to {} mode", name, mode);
        this.table.event();
    }
    if this.metadata().is_complete() && this.announced.xchg(1, Full) == 0 {
        this.write_copier.retire();
        this.sweep_copier.retire();
        this.table.event();
    }
    result
}

/// Whether user space knows that a clone is complete which was so from the start.
pub(crate) fn note_complete_at_start(this: &Engine) {
    if this.metadata().is_complete() {
        this.write_copier.retire();
        this.sweep_copier.retire();
        this.announced.store(1, Relaxed);
    }
}
