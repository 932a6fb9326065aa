// SPDX-License-Identifier: GPL-2.0

//! The metadata of a clone: which regions are hydrated, in memory and on disk.
//!
//! In memory the [`RegionMap`] is the truth that I/O goes by, and [`Uncommitted`] knows what of it
//! the disk does not know yet. On disk are a superblock and a bitset, changed in transactions that
//! write what they change to free places and switch over by writing the superblock: a [`Store`].
//!
//! A commit is, in this order (each step is what makes the next one safe):
//!
//! 1. The blocks of the bitset that have something new are taken, as they are. What becomes
//!    hydrated in them from here on waits for the next commit.
//! 2. The destination is flushed: the data of every region that was taken is durable.
//! 3. The blocks are written, and flushed with all that the transaction changed.
//! 4. The superblock is written, and flushed: the regions are hydrated durably.
//!
//! (Blocks that there is no room to keep are written in step 1. Nothing refers to them before
//! step 4.)
//!
//! So a crash finds the metadata of this commit or of the one before, and the data of a region that
//! is hydrated on disk is always there.
//!
//! When a step fails, the transaction is thrown away and the metadata becomes read-only for good.
//! What was hydrated stays so in memory: the destination has the data, and acknowledged writes do
//! not vanish from a running system. They are not durable though, and a flush says so.
//!
//! When every region is hydrated durably, nothing of all this is needed any more, and its memory is
//! freed.
//!
//! Locks, in the order in which they are taken: `store` (sleeps), `uncommitted` (interrupts off).

use crate::{
    disk::{
        self,
        MetadataDisk, //
    },
    format,
    geometry::Geometry,
    log,
    region_map::RegionMap,
    store::{
        self,
        Changes,
        Done,
        Store, //
    },
    uncommitted::{
        By,
        Uncommitted, //
    }, //
};
use core::ops::Range;
use dm::{
    noio::NoIo,
    once_flag::OnceFlag,
    prelude::*, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex, //
    }, //
};

/// A metadata device longer than this has space that the format cannot use, in sectors: 16 GiB.
const MAX_USEFUL_SECTORS: u64 = 1 << 25;

/// What may still be done.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Everything.
    ReadWrite,
    /// A commit has failed: nothing more becomes durable.
    ReadOnly,
    /// And the metadata could not even be opened again.
    Fail,
}

/// Why what is hydrated could not be made durable.
pub(crate) enum CommitError {
    /// An earlier commit has failed.
    ReadOnly,
    /// This one has, and left read-write mode.
    Failed {
        /// In which step.
        step: &'static str,
        /// How.
        errno: Error,
        /// The mode now.
        mode: Mode,
    },
}

/// What a commit did.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Committed {
    /// Everything that was hydrated before is durable, and the destination has been flushed.
    Now,
    /// There was nothing to commit.
    Already,
}

/// What reading the map came to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loaded {
    /// It was read.
    Now,
    /// It was read, and the device has no room to commit everything at once.
    NearlyFull,
    /// It was read long ago.
    Before,
}

/// Metadata blocks in use and in all.
pub(crate) struct Usage {
    pub(crate) used: u64,
    pub(crate) total: u64,
}

/// The metadata of one clone, shared by the tables of its mapped device.
#[pin_data]
pub(crate) struct Metadata {
    geometry: Geometry,
    regions: RegionMap,
    #[pin]
    uncommitted: IrqLock<Uncommitted>,
    /// A [`Mode`], in the order of its values.
    mode: Atomic<u32>,
    /// Whether every region is hydrated durably.
    complete: OnceFlag,
    /// Metadata blocks in use when the last commit ended, and in all. Not asked of the store, which
    /// a commit keeps for as long as the devices make it.
    used: Atomic<u64>,
    blocks: u64,
    #[pin]
    store: Mutex<OnDisk>,
}

/// The on-disk side.
struct OnDisk {
    device: BlockDevice,
    /// None once closed, when everything is committed, or when it could not be opened again after a
    /// failure.
    open: Option<Store<MetadataDisk>>,
    loaded: bool,
}

impl Metadata {
    /// Opens the metadata on `device`, or formats it if it was never written. Sleeps.
    ///
    /// What is on disk must be for the same `geometry`. The map is not read yet, see
    /// [`load`](Self::load).
    pub(crate) fn open(device: BlockDevice, geometry: Geometry) -> Result<Arc<Self>> {
        if device.sectors() > MAX_USEFUL_SECTORS {
            dm::warning!(
                log::NAME,
                "Metadata device {} is larger than {} sectors: excess space will not be used.",
                device.number(),
                format::MAX_BLOCKS * format::BLOCK_SECTORS
            );
        }
        let regions = RegionMap::new(geometry.regions())
            .inspect_err(|_| error!("Failed to allocate memory for region bitmap"))?;
        let uncommitted = Uncommitted::new(geometry.regions())
            .inspect_err(|_| error!("Failed to allocate dirty bitmap"))?;
        let open = disk::open_or_format(&device, &geometry)?;
        let (used, blocks) = open.usage();
        Arc::pin_init(
            pin_init!(Metadata {
                geometry,
                regions,
                uncommitted <- new_irq_lock!(uncommitted, "dm_clone_uncommitted"),
                mode: Atomic::new(Mode::ReadWrite as u32),
                complete: OnceFlag::new(),
                used: Atomic::new(used),
                blocks,
                store <- new_mutex!(OnDisk {
                    device,
                    open: Some(open),
                    loaded: false,
                }, "dm_clone_store"),
            }),
            GFP_KERNEL,
        )
    }

    /// Reads the map, the first time that it is called. Before that no region counts as hydrated.
    /// Sleeps.
    pub(crate) fn load(&self) -> Result<Loaded> {
        // The device may be suspended, with a file system on it that memory would be taken from.
        let _noio = NoIo::enter();
        let mut store = self.store.lock();
        if store.loaded {
            return Ok(Loaded::Before);
        }
        let mut open = match store.open.take() {
            Some(open) => open,
            // What a call before has left of its own is not what is on disk.
            None => disk::reopen(&store.device, &self.geometry)?,
        };
        self.uncommitted.lock().begin_load();
        open.load(|block, values| self.uncommitted.lock().load(&self.regions, block, values))
            .map_err(disk::report)
            .inspect_err(|_| error!("Failed to load on-disk region map"))?;
        let missing = open.missing();
        store.open = Some(open);
        store.loaded = true;
        self.note_complete(&mut store);
        if missing == 0 || self.is_complete() {
            return Ok(Loaded::Now);
        }
        dm::warning!(
            log::METADATA,
            "Metadata device {} is nearly full: {} sectors are missing to commit everything at \
             once",
            store.device.number(),
            missing * format::BLOCK_SECTORS
        );
        Ok(Loaded::NearlyFull)
    }

    /// How the target is divided.
    pub(crate) fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Which regions are hydrated. Any context.
    pub(crate) fn regions(&self) -> &RegionMap {
        &self.regions
    }

    /// Whether every region is hydrated, durably. Any context.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete.is_set()
    }

    /// What may still be done. Any context.
    pub(crate) fn mode(&self) -> Mode {
        match self.mode.load(Relaxed) {
            mode if mode == Mode::ReadWrite as u32 => Mode::ReadWrite,
            mode if mode == Mode::ReadOnly as u32 => Mode::ReadOnly,
            _ => Mode::Fail,
        }
    }

    /// How many regions are hydrated durably. Any context.
    pub(crate) fn committed(&self) -> u64 {
        self.uncommitted.lock().committed()
    }

    /// Whether a user's data is in a region that is not hydrated durably: then a flush needs a
    /// commit. Any context.
    pub(crate) fn has_user_data(&self) -> bool {
        self.uncommitted.lock().has_user_data()
    }

    /// A user writes into `regions`, which are hydrated. Whether one of them is not so durably: then
    /// a flush that follows needs a commit, and so does this write if it is FUA. Any context.
    pub(crate) fn note_write(&self, regions: Range<u64>) -> bool {
        let uncommitted = !self.is_complete() && self.regions.is_uncommitted(regions);
        if uncommitted {
            self.uncommitted.lock().note_user();
        }
        uncommitted
    }

    /// How many regions are hydrated, perhaps not durably yet. Any context.
    pub(crate) fn hydrated(&self) -> u64 {
        self.uncommitted.lock().hydrated()
    }

    /// Whether every region is hydrated, perhaps not durably yet. Any context.
    pub(crate) fn is_all_hydrated(&self) -> bool {
        self.hydrated() == self.geometry.regions()
    }

    /// Marks regions as hydrated: their data on the destination is written, or was discarded. Any
    /// context. Returns whether there is now something to commit.
    ///
    /// The caller makes sure that no copy into any of them is in flight.
    pub(crate) fn mark(&self, regions: Range<u64>, by: By) -> bool {
        let mut uncommitted = self.uncommitted.lock();
        uncommitted.mark(&self.regions, regions, by);
        uncommitted.is_dirty()
    }

    /// Makes durable what is hydrated. `flush` makes the data on the destination durable. Sleeps.
    ///
    /// When a step fails, the metadata is no longer in [`Mode::ReadWrite`] afterwards.
    pub(crate) fn commit(&self, flush: impl Fn() -> Result) -> Result<Committed, CommitError> {
        let mut store = self.store.lock();
        if self.mode() != Mode::ReadWrite {
            return if self.uncommitted.lock().is_dirty() {
                Err(CommitError::ReadOnly)
            } else {
                Ok(Committed::Already)
            };
        }
        if !self.uncommitted.lock().begin_commit() {
            return Ok(Committed::Already);
        }
        let mut done = self.write_transaction(&mut store, 0, &flush);
        while let Ok(Done::Part(from)) = done {
            // It goes on with what there was no room for, not with what has become dirty before that since:
            // once around, or those who wait would wait as long as anything is hydrated.
            self.uncommitted.lock().go_on_with_commit();
            done = self.write_transaction(&mut store, from, &flush);
        }
        if let Some(open) = store.open.as_ref() {
            self.used.store(open.usage().0, Relaxed);
        }
        done?;
        self.note_complete(&mut store);
        Ok(Committed::Now)
    }

    /// Commits what there is room for as one transaction.
    fn write_transaction(
        &self,
        store: &mut OnDisk,
        from: usize,
        flush: &impl Fn() -> Result,
    ) -> Result<Done, CommitError> {
        let mut changes = Taking {
            metadata: self,
            flush,
        };
        let result = match store.open.as_mut() {
            Some(open) => open.commit(from, &mut changes),
            None => Err(store::CommitError::Device(EIO)),
        };
        let done = result.map_err(|error| {
            let (step, errno) = match error {
                store::CommitError::Flush(errno) => ("flush destination device", errno),
                store::CommitError::Device(errno) => ("dm_clone_metadata_commit", errno),
                store::CommitError::NoSpace => ("dm_clone_metadata_commit", ENOSPC),
            };
            let mode = self.abort(store);
            self.mode.store(mode as u32, Relaxed);
            CommitError::Failed { step, errno, mode }
        })?;
        self.uncommitted.lock().end_commit(done == Done::All);
        let mut from = 0;
        // One block at a time, so that interrupts are not kept off for long.
        while let Some(block) = self.uncommitted.lock().settle(&self.regions, from) {
            from = block + 1;
        }
        Ok(done)
    }

    /// Throws the transaction under way away; what was committed before it stays. Returns the mode
    /// that this leaves.
    fn abort(&self, store: &mut OnDisk) -> Mode {
        // Whoever would make room in memory may be waiting for this commit.
        let _noio = NoIo::enter();
        store.open = disk::reopen(&store.device, &self.geometry).ok();
        match store.open {
            Some(_) => Mode::ReadOnly,
            None => Mode::Fail,
        }
    }

    /// If everything is committed, nothing but that is worth to be known from now on.
    fn note_complete(&self, store: &mut OnDisk) {
        if self.committed() == self.geometry.regions() && !self.is_complete() {
            self.complete.set();
            self.regions.retire();
            let memory = self.uncommitted.lock().retire();
            drop(memory);
            store.open = None;
        }
    }

    /// How many metadata blocks are used. Any context.
    pub(crate) fn usage(&self) -> Usage {
        Usage {
            used: self.used.load(Relaxed),
            total: self.blocks,
        }
    }

    /// Closes the device; afterwards nothing can be committed. Sleeps.
    pub(crate) fn close(&self) {
        self.store.lock().open = None;
    }
}

/// What a commit finds to do.
struct Taking<'a, F> {
    metadata: &'a Metadata,
    flush: &'a F,
}

impl<F: Fn() -> Result> Changes for Taking<'_, F> {
    type Error = Error;

    fn next(&mut self, from: usize) -> Option<usize> {
        self.metadata.uncommitted.lock().next_dirty(from)
    }

    fn take(&mut self, block: usize, values: &mut [u8]) {
        let Metadata {
            uncommitted,
            regions,
            ..
        } = self.metadata;
        uncommitted.lock().take(regions, block, values);
    }

    fn flush(&mut self) -> Result {
        (self.flush)()
    }
}

macro_rules! error {
    ($($text:tt)+) => { dm::error!($crate::log::METADATA, $($text)+) };
}
use error;
