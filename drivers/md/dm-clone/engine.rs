// SPDX-License-Identifier: GPL-2.0

//! What a clone does apart from the call that a bio comes with: its state, and its work items.
//!
//! | work item | what it does | started by |
//! |---|---|---|
//! | I/O | writes and discards that `map` could not do | `map`, the end of a copy |
//! | commit | flushes and FUA writes that need a commit | `map`, `end_io`, the I/O item |
//! | commit timer | a commit at most a second after the first change | the first change |
//! | sweep | background copies, see [`crate::sweep`] | `resume`, messages, the end of a copy |
//! | retry timer | the sweep, when something that failed is due again | the sweep |
//!
//! Nothing runs when nothing is to be done: an idle clone has no timer.
//!
//! Locks, in the order in which they are taken. All but those of [`Metadata`] are leaves of each
//! other, and none is held while something sleeps:
//!
//! 1. the store of [`Metadata`] (sleeps)
//! 2. `in_flight`
//! 3. what is uncommitted of [`Metadata`]
//! 4. `deferred`, `commits`

use crate::{
    commit::Groups,
    copy_regions::{
        CopyRegions,
        PIECE_SECTORS, //
    },
    failures::Failures,
    in_flight::{
        Entry,
        InFlight, //
    },
    metadata::Metadata,
    registry::MetadataRef,
    stats::Stats,
    sweep::{
        self,
        Sweep, //
    },
    table_line::Options,
    target::CloneTarget,
    users::Users, //
};
use dm::{
    copier::{
        Copier,
        Lanesize, //
    },
    mempool::Pool,
    prelude::*,
    ratelimit::Ratelimit, //
};
use kernel::{
    new_condvar,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        CondVar, //
    },
    time::{
        msecs_to_jiffies,
        Instant,
        Monotonic, //
    },
    workqueue::{
        impl_has_delayed_work,
        impl_has_work,
        new_delayed_work,
        new_work,
        DelayedWork,
        Work,
        WorkItem, //
    }, //
};

/// How long a change waits for company before it is committed, unless a flush comes.
const COMMIT_PERIOD_MS: u32 = 1000;
/// How many objects of a kind are kept in reserve, so that I/O goes on without free memory.
const RESERVE: usize = 256;
/// Regions of one copy lie in one block of this many sectors: 4 MiB.
const COPY_BLOCK_SECTORS: u32 = 1 << 13;
/// How much memory the copies that writes wait for may take in all, in bytes: 16 MiB.
const WRITE_COPY_BYTES: usize = 1 << 24;
/// How many of their buffers are kept from copy to copy.
const KEPT_WRITE_COPIES: usize = 4;

const IO: u64 = 0;
const COMMIT: u64 = 1;
const SWEEP: u64 = 2;
const COMMIT_TIMER: u64 = 3;
const RETRY_TIMER: u64 = 4;

/// Settings that messages may change while the clone runs.
pub(crate) struct Settings {
    hydration: Atomic<u32>,
    discard_passdown: Atomic<u32>,
    /// As the batch size, [`UNSET`] if the target is to choose.
    threshold: Atomic<u64>,
    batch_size: Atomic<u64>,
}

/// A setting that was not given. Given ones have 32 bits.
const UNSET: u64 = u64::MAX;

impl Settings {
    fn new(options: &Options) -> Self {
        Settings {
            hydration: Atomic::new(options.hydration.into()),
            discard_passdown: Atomic::new(options.discard_passdown.into()),
            threshold: Atomic::new(options.hydration_threshold.map_or(UNSET, u64::from)),
            batch_size: Atomic::new(options.hydration_batch_size.map_or(UNSET, u64::from)),
        }
    }

    pub(crate) fn get(&self) -> Options {
        Options {
            hydration: self.hydration(),
            discard_passdown: self.discard_passdown.load(Relaxed) != 0,
            hydration_threshold: u32::try_from(self.threshold.load(Relaxed)).ok(),
            hydration_batch_size: u32::try_from(self.batch_size.load(Relaxed)).ok(),
        }
    }

    /// Whether regions are hydrated in the background.
    pub(crate) fn hydration(&self) -> bool {
        self.hydration.load(Relaxed) != 0
    }

    pub(crate) fn set_hydration(&self, on: bool) {
        self.hydration.store(on.into(), Relaxed);
    }

    pub(crate) fn set_discard_passdown(&self, on: bool) {
        self.discard_passdown.store(on.into(), Relaxed);
    }

    pub(crate) fn set_threshold(&self, regions: u32) {
        self.threshold.store(regions.into(), Relaxed);
    }

    pub(crate) fn set_batch_size(&self, regions: u32) {
        self.batch_size.store(regions.into(), Relaxed);
    }
}

/// Bios for the I/O work item.
#[derive(Default)]
pub(crate) struct Deferred {
    /// Reads, of which parts may be under way.
    pub(crate) reads: BioList<OwnedBio<CloneTarget>>,
    /// Writes, to be sent or to hydrate their region first.
    pub(crate) writes: BioList<OwnedBio<CloneTarget>>,
    pub(crate) discards: BioList<OwnedBio<CloneTarget>>,
    /// Writes that need a lane for a copy, when all are in use. Only the I/O work item has them wait here.
    pub(crate) for_lanes: BioList<OwnedBio<CloneTarget>>,
}

/// Bios for the commit work item.
#[derive(Default)]
pub(crate) struct Commits {
    /// Flushes.
    pub(crate) flushes: BioList<OwnedBio<CloneTarget>>,
    /// FUA writes into hydrated regions, to be sent when those are hydrated durably.
    pub(crate) fua_writes: BioList<OwnedBio<CloneTarget>>,
    /// FUA writes that hydrated their region: done, but for the commit.
    pub(crate) fua_done: BioList<DoneBio<CloneTarget>>,
}

/// What is in flight, and whether more may be.
pub(crate) struct Flights {
    pub(crate) table: InFlight,
    pub(crate) sweep: Sweep,
    pub(crate) failures: Failures,
}

/// The state of a clone.
#[pin_data]
pub(crate) struct Engine {
    pub(crate) table: Table,
    pub(crate) source: Device,
    pub(crate) dest: Device,
    /// Held open for the table, which `dmsetup deps` shows; the metadata opens it for itself.
    pub(crate) metadata_dev: Device,
    pub(crate) metadata: MetadataRef,
    pub(crate) settings: Settings,

    #[pin]
    pub(crate) flights: IrqLock<Flights>,
    /// Notified when nothing is in flight any more.
    #[pin]
    pub(crate) landed: CondVar,
    #[pin]
    pub(crate) deferred: IrqLock<Deferred>,
    #[pin]
    pub(crate) commits: IrqLock<Commits>,
    /// How flushes and FUA writes were served.
    #[pin]
    pub(crate) groups: IrqLock<Groups>,
    pub(crate) users: Users,
    pub(crate) stats: Stats,
    /// What [`now`](Self::now) counts from.
    made: Instant<Monotonic>,
    /// Whether user space has been told that the clone is complete.
    pub(crate) announced: Atomic<u32>,
    /// For what is said of copies that failed.
    #[pin]
    pub(crate) failures: Ratelimit,

    pub(crate) entries: Pool<Entry>,
    /// For the copies that writes wait for.
    pub(crate) write_copier: Copier<CopyRegions>,
    /// For those of the sweep.
    pub(crate) sweep_copier: Copier<CopyRegions>,

    queue: OwnedQueue,
    #[pin]
    io_work: Work<Engine, IO>,
    #[pin]
    commit_work: Work<Engine, COMMIT>,
    #[pin]
    sweep_work: Work<Engine, SWEEP>,
    #[pin]
    commit_timer: DelayedWork<Engine, COMMIT_TIMER>,
    #[pin]
    retry_timer: DelayedWork<Engine, RETRY_TIMER>,
}

impl_has_work! {
    impl HasWork<Engine, 0> for Engine { self.io_work }
    impl HasWork<Engine, 1> for Engine { self.commit_work }
    impl HasWork<Engine, 2> for Engine { self.sweep_work }
}
impl_has_delayed_work! {
    impl HasDelayedWork<Engine, 3> for Engine { self.commit_timer }
    impl HasDelayedWork<Engine, 4> for Engine { self.retry_timer }
}

/// The devices of a clone.
pub(crate) struct Devices {
    pub(crate) metadata: Device,
    pub(crate) dest: Device,
    pub(crate) source: Device,
}

impl Engine {
    /// Makes an engine at rest. May sleep.
    pub(crate) fn new(
        table: Table,
        devices: Devices,
        metadata: MetadataRef,
        options: &Options,
    ) -> Result<impl PinInit<Self>, CtrError> {
        let no_table = |errno| CtrError::new(errno, c"Failed to allocate hydration hash table");
        let no_queue = |errno| CtrError::new(errno, c"Failed to allocate workqueue");
        let no_copier = |errno| CtrError::new(errno, c"Failed to allocate copy buffers");
        let no_pool = |errno| {
            CtrError::new(
                errno,
                c"Failed to create dm_clone_region_hydration memory pool",
            )
        };

        let region_sectors = metadata.geometry().region_sectors();
        let block_shift = (COPY_BLOCK_SECTORS / region_sectors)
            .max(1)
            .trailing_zeros();
        let flights = Flights {
            table: InFlight::new(block_shift).map_err(no_table)?,
            sweep: Sweep::new(),
            failures: Failures::new().map_err(|_| no_table(ENOMEM))?,
        };
        let queue = OwnedQueue::new(c"dm-clone").map_err(no_queue)?;
        // A queue of its own: the I/O work item waits for memory, which copies may have to end for.
        let copies = Arc::new(
            OwnedQueue::new(c"dm-clone-copy").map_err(no_queue)?,
            GFP_KERNEL,
        )
        .map_err(|_| no_queue(ENOMEM))?;
        let piece = (PIECE_SECTORS << SECTOR_SHIFT) as usize;
        let for_write = (region_sectors.min(PIECE_SECTORS) << SECTOR_SHIFT) as usize;
        let write_lanes = Lanesize {
            capacity: for_write,
            most: (WRITE_COPY_BYTES >> for_write.trailing_zeros()).min(RESERVE),
            keep: KEPT_WRITE_COPIES,
        };
        let sweep_lanes = Lanesize {
            capacity: piece,
            most: sweep::MOST_COPIES,
            keep: sweep::KEPT_COPIES,
        };
        let write_copier = Copier::new(copies.clone(), write_lanes).map_err(no_copier)?;
        let sweep_copier = Copier::new(copies, sweep_lanes).map_err(no_copier)?;
        let entries = Pool::new(RESERVE).map_err(no_pool)?;
        let settings = Settings::new(options);

        Ok(pin_init!(Engine {
            table,
            source: devices.source,
            dest: devices.dest,
            metadata_dev: devices.metadata,
            metadata,
            settings,
            flights <- new_irq_lock!(flights, "dm_clone_flights"),
            landed <- new_condvar!("dm_clone_landed"),
            deferred <- new_irq_lock!(Deferred::default(), "dm_clone_deferred"),
            commits <- new_irq_lock!(Commits::default(), "dm_clone_commits"),
            groups <- new_irq_lock!(Groups::default(), "dm_clone_groups"),
            users: Users::new(),
            stats: Stats::new(),
            made: Instant::now(),
            announced: Atomic::new(0),
            failures <- Ratelimit::new(),
            entries,
            write_copier,
            sweep_copier,
            queue,
            io_work <- new_work!("dm_clone_io"),
            commit_work <- new_work!("dm_clone_commit"),
            sweep_work <- new_work!("dm_clone_sweep"),
            commit_timer <- new_delayed_work!("dm_clone_commit_timer"),
            retry_timer <- new_delayed_work!("dm_clone_retry_timer"),
        }))
    }

    /// The map and its metadata.
    pub(crate) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Lets the I/O work item look at what was deferred. Any context.
    pub(crate) fn kick_io(this: &Shared<Self>) {
        // An item that is queued already will see what is there when it runs.
        let _ = this.queue.enqueue::<_, IO>(this.clone());
    }

    /// Lets the commit work item look at what waits for it. Any context.
    pub(crate) fn kick_commit(this: &Shared<Self>) {
        let _ = this.queue.enqueue::<_, COMMIT>(this.clone());
    }

    /// Lets the sweep go on. Any context.
    pub(crate) fn kick_sweep(this: &Shared<Self>) {
        let _ = this.queue.enqueue::<_, SWEEP>(this.clone());
    }

    /// Has what was changed committed before long. Any context.
    pub(crate) fn start_commit_timer(this: &Shared<Self>) {
        let delay = msecs_to_jiffies(COMMIT_PERIOD_MS);
        let _ = OwnedQueue::enqueue_delayed::<_, COMMIT_TIMER>(this.clone(), delay);
    }

    /// Lets the sweep go on in so many milliseconds, whatever was arranged before. Any context.
    pub(crate) fn set_retry_timer(this: &Shared<Self>, milliseconds: u64) {
        let delay = msecs_to_jiffies(u32::try_from(milliseconds).unwrap_or(u32::MAX));
        OwnedQueue::reschedule::<_, RETRY_TIMER>(this, delay);
    }

    /// The time, in nanoseconds since the engine was made. Any context.
    pub(crate) fn clock(&self) -> u64 {
        self.made.elapsed().as_nanos().try_into().unwrap_or(0)
    }

    /// The time, in milliseconds since the engine was made. Any context.
    pub(crate) fn now(&self) -> u64 {
        self.made.elapsed().as_millis().try_into().unwrap_or(0)
    }

    /// Waits until no work item runs or is about to. No new copy may be started meanwhile.
    /// Sleeps.
    pub(crate) fn quiesce(this: &Shared<Self>) {
        OwnedQueue::cancel_delayed::<_, RETRY_TIMER>(this);
        OwnedQueue::cancel_delayed::<_, COMMIT_TIMER>(this);
        this.queue.flush();
    }
}

impl HasQueue for Engine {
    fn queue(&self) -> &OwnedQueue {
        &self.queue
    }
}

impl WorkItem<IO> for Engine {
    type Pointer = Shared<Engine>;

    fn run(this: Shared<Engine>) {
        let (reads, writes, discards) = {
            let mut deferred = this.deferred.lock();
            (
                deferred.reads.take_all(),
                deferred.writes.take_all(),
                deferred.discards.take_all(),
            )
        };
        for bio in reads {
            crate::read::send(&this, bio);
        }
        for bio in writes {
            crate::hydrate::write(&this, bio, crate::hydrate::Wait::May);
        }
        for bio in discards {
            crate::discard::mark_and_pass_down(&this, bio);
        }
        crate::hydrate::go_on_with_lanes(&this);
    }
}

impl WorkItem<COMMIT> for Engine {
    type Pointer = Shared<Engine>;

    fn run(this: Shared<Engine>) {
        crate::commit::serve(&this);
    }
}

impl WorkItem<SWEEP> for Engine {
    type Pointer = Shared<Engine>;

    fn run(this: Shared<Engine>) {
        sweep::sweep(&this);
    }
}

impl WorkItem<COMMIT_TIMER> for Engine {
    type Pointer = Shared<Engine>;

    fn run(this: Shared<Engine>) {
        crate::commit::serve(&this);
    }
}

impl WorkItem<RETRY_TIMER> for Engine {
    type Pointer = Shared<Engine>;

    fn run(this: Shared<Engine>) {
        sweep::sweep(&this);
    }
}
