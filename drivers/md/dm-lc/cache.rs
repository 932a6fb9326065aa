// SPDX-License-Identifier: GPL-2.0

//! A cache in use: its state, which all tables of a mapped device share, and its work items.
//!
//! | work item | what it does | started by |
//! |---|---|---|
//! | log | writes buffers that are full, serves flushes, see [`crate::commit`]; makes room, see [`crate::room`] | `map`, the writeback |
//! | log timer | writes the open buffer | the first write to a buffer |
//! | admit | writes that waited for room, see [`crate::write`] | whatever makes room |
//! | writeback | writes the log back, see [`crate::writeback`] | the log item, `map`, messages |
//! | retry timer | the writeback, after the backing device failed | the writeback |
//! | barrier timer | as log, for flushes that may wait for others | the first of them |
//! | verify | reads whose checksum is that of more than they ask for, see [`crate::verify`] | `map` |
//! | promote | copies what was read, see [`crate::promote`] | `end_io` |
//! | pace | lets in writes that are slowed down, see [`crate::throttle`] | the first that waits |
//! | clock | what is to be done every second, see [`crate::clock`] | settings that want it |
//!
//! Locks, in the order in which they are taken:
//!
//! 0. that of [`dm::registry`] (sleeps)
//! 1. `setting` (sleeps): whoever changes the settings
//! 2. `clock` (sleeps): how busy the backing device is
//! 3. `writer` (sleeps): writing back, and the superblock
//! 4. `committer` (sleeps): writing the log, and giving it up; `verifier`, `promoter` (sleep)
//! 5. a shard of the index; never two
//! 6. `head`: the buffers, and the bios that wait
//! 7. `table`, `settings`, `admission`, and the lock of `readers`

use crate::{
    admission::Admission,
    clock::Clock,
    commit::Committer,
    disk::Disk,
    format::{
        BackingId,
        Due,
        Found,
        Lost,
        Superblock,
        Uuid, //
    },
    index::{
        parts,
        shard_of,
        Counters,
        Shard,
        Usage,
        SHARDS, //
    },
    log::Log,
    platform::{
        crc32c,
        zeroed, //
    },
    promote::Promoter,
    readers::Readers,
    recovery,
    registry::Devices,
    space::{
        Space,
        BUFFERS,
        MIN_CACHE_SECTORS,
        RECORD_SECTORS, //
    },
    table_line::{
        Knob,
        Mode,
        Options,
        Settings, //
    },
    target::LcTarget,
    throttle::Throttle,
    verify::Verifier,
    writeback::Writer,
    NAME, //
};
use dm::{
    once_flag::OnceFlag,
    prelude::*,
    ratelimit::Ratelimit,
    shared_memory::SharedMemory, //
};
use kernel::{
    new_condvar,
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Full,
            Relaxed,
            Release, //
        },
        CondVar,
        Mutex, //
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

const LOG: u64 = 0;
const ADMIT: u64 = 1;
const WRITEBACK: u64 = 2;
const LOG_TIMER: u64 = 3;
const RETRY_TIMER: u64 = 4;
const BARRIER_TIMER: u64 = 5;
const CLOCK: u64 = 6;
const VERIFY: u64 = 7;
const PACE: u64 = 8;
const PROMOTE: u64 = 9;

/// How often writes are let in that are slowed down, in milliseconds.
const PACE_MS: u32 = 10;

/// The window of the writeback, in sectors: as many full records as there may be.
pub(crate) const WINDOW_SECTORS: u64 = 2 * BUFFERS as u64 * RECORD_SECTORS;

/// What is appended to the log, and the bios that wait for that.
pub(crate) struct Head {
    pub(crate) log: Log,
    pub(crate) throttle: Throttle,
    /// When those that wait were last let in.
    pub(crate) paced: Option<Instant<Monotonic>>,
    /// Writes and discards for which there is no room.
    pub(crate) waiting: BioList<OwnedBio<LcTarget>>,
    /// Whether the admit item has some of them: what comes now must not overtake them.
    pub(crate) admitting: bool,
    /// Reads that are to be compared with a checksum of more than they ask for.
    pub(crate) to_verify: BioList<OwnedBio<LcTarget>>,
    /// Flushes, and FUA writes that are in the log but not durable.
    pub(crate) flushes: BioList<OwnedBio<LcTarget>>,
}

/// What went wrong, and how much was done: for the status. Each number is right by itself.
pub(crate) struct Totals {
    pub(crate) flushes: Atomic<u64>,
    pub(crate) log_flushes: Atomic<u64>,
    pub(crate) cache_sectors: Atomic<u64>,
    pub(crate) user_sectors: Atomic<u64>,
    pub(crate) promoted: Atomic<u64>,
    pub(crate) seq_bypassed: Atomic<u64>,
    pub(crate) written_back: Atomic<u64>,
    pub(crate) backing_writes: Atomic<u64>,
    pub(crate) discards: Atomic<u64>,
    pub(crate) read_errors: Atomic<u64>,
    pub(crate) cache_errors: Atomic<u64>,
    pub(crate) backing_errors: Atomic<u64>,
    pub(crate) crc_errors: Atomic<u64>,
    pub(crate) stalls: Atomic<u64>,
    pub(crate) throttled: Atomic<u64>,
}

impl Totals {
    fn new() -> Self {
        Totals {
            flushes: Atomic::new(0),
            log_flushes: Atomic::new(0),
            cache_sectors: Atomic::new(0),
            user_sectors: Atomic::new(0),
            promoted: Atomic::new(0),
            seq_bypassed: Atomic::new(0),
            written_back: Atomic::new(0),
            backing_writes: Atomic::new(0),
            discards: Atomic::new(0),
            read_errors: Atomic::new(0),
            cache_errors: Atomic::new(0),
            backing_errors: Atomic::new(0),
            crc_errors: Atomic::new(0),
            stalls: Atomic::new(0),
            throttled: Atomic::new(0),
        }
    }
}

/// What a read needs to know of the settings, in one word: it is looked at once for each.
#[derive(Clone, Copy)]
pub(crate) struct ReadSettings(u32);

impl ReadSettings {
    const VERIFY: u32 = 1 << 31;

    fn of(settings: &Settings) -> Self {
        let verify = if settings.is_set(Knob::VerifyReads) {
            Self::VERIFY
        } else {
            0
        };
        ReadSettings(verify | settings.get(Knob::ReadCacheThreshold))
    }

    /// Whether what is read from the cache device is compared with its checksum.
    #[inline]
    pub(crate) fn verifies(self) -> bool {
        self.0 & Self::VERIFY != 0
    }

    /// What is read is copied if it is of a run of at most so many blocks; 0: it is not.
    #[inline]
    pub(crate) fn cache_threshold(self) -> u32 {
        self.0 & !Self::VERIFY
    }
}

/// A cache.
#[pin_data]
pub(crate) struct Cache {
    pub(crate) disk: Disk,
    pub(crate) backing: BlockDevice,
    pub(crate) space: Space,
    /// Identifies the cache.
    pub(crate) uuid: Uuid,
    /// The table in use, to tell of events.
    #[pin]
    table: IrqLock<Option<Table>>,
    #[pin]
    settings: IrqLock<Settings>,
    /// [`Settings::mode`], for bios.
    mode: Atomic<u32>,
    /// Nothing is written to the cache device any more.
    failed: OnceFlag,
    /// It has failed, and what it has nothing of goes to the backing device: see [`Cache::fail`].
    bypassed: OnceFlag,
    /// For what is said of damaged data.
    #[pin]
    pub(crate) damage_told: Ratelimit,
    suspended: Atomic<u32>,

    pub(crate) shards: KVec<Pin<KBox<IrqLock<Shard>>>>,
    #[pin]
    pub(crate) head: IrqLock<Head>,
    /// Notified when the last data is in place in a closed buffer.
    #[pin]
    pub(crate) copied: CondVar,
    /// Notified when the tail has moved, or does not for an error.
    #[pin]
    pub(crate) tail_moved: CondVar,
    /// The memory of each buffer.
    pub(crate) memory: KVec<SharedMemory>,
    /// Up to this position the log is on the cache device, from there on in memory.
    written: Atomic<u64>,
    /// Up to this position, and to the record with this id, it is durable.
    pub(crate) durable: Atomic<u64>,
    pub(crate) durable_id: Atomic<u64>,
    pub(crate) due_id: Atomic<u64>,
    pub(crate) tail_id: Atomic<u64>,
    /// What is before this position no recovery finds.
    pub(crate) tail: Atomic<u64>,
    pub(crate) epoch: Atomic<u64>,
    /// Something was written to the backing device that a flush has to make durable.
    pub(crate) backing_written: Atomic<u32>,
    /// The index had no room for a write.
    pub(crate) index_full: Atomic<u32>,
    /// The backing device has failed, and the retry timer runs.
    pub(crate) paused: Atomic<u32>,
    /// Counts the batches of the writeback: odd while one is under way.
    batches: Atomic<u64>,
    /// The batch that may be writing what was discarded meanwhile.
    discarded_in: Atomic<u64>,
    /// What reads need to know of the settings: see [`ReadSettings`].
    read_settings: Atomic<u32>,
    /// [`Superblock::ordered`], for bios.
    ordered: Atomic<u32>,
    /// Something damaged was found that user space was not told of.
    damage: Atomic<u32>,
    /// How many sectors are lost, by the superblock.
    pub(crate) lost_sectors: Atomic<u64>,
    /// How busy the backing device was lately, in percent.
    pub(crate) backing_load: Atomic<u32>,
    /// What is before this position is to be written back at any rate.
    pub(crate) drain_to: Atomic<u64>,
    #[pin]
    pub(crate) readers: Readers,
    /// Held from the look at the settings to their change.
    #[pin]
    pub(crate) setting: Mutex<()>,
    #[pin]
    pub(crate) committer: Mutex<Committer>,
    #[pin]
    pub(crate) writer: Mutex<Writer>,
    #[pin]
    pub(crate) clock: Mutex<Clock>,
    #[pin]
    pub(crate) verifier: Mutex<Verifier>,
    #[pin]
    pub(crate) promoter: Mutex<Promoter>,
    /// What was read lately.
    #[pin]
    pub(crate) admission: IrqLock<Admission>,
    pub(crate) totals: Totals,

    queue: OwnedQueue,
    #[pin]
    log_work: Work<Cache, LOG>,
    #[pin]
    admit_work: Work<Cache, ADMIT>,
    #[pin]
    writeback_work: Work<Cache, WRITEBACK>,
    #[pin]
    verify_work: Work<Cache, VERIFY>,
    #[pin]
    promote_work: Work<Cache, PROMOTE>,
    #[pin]
    log_timer: DelayedWork<Cache, LOG_TIMER>,
    #[pin]
    retry_timer: DelayedWork<Cache, RETRY_TIMER>,
    #[pin]
    barrier_timer: DelayedWork<Cache, BARRIER_TIMER>,
    #[pin]
    clock_work: DelayedWork<Cache, CLOCK>,
    #[pin]
    pace_timer: DelayedWork<Cache, PACE>,
}

impl_has_work! {
    impl HasWork<Cache, 0> for Cache { self.log_work }
    impl HasWork<Cache, 1> for Cache { self.admit_work }
    impl HasWork<Cache, 2> for Cache { self.writeback_work }
    impl HasWork<Cache, 7> for Cache { self.verify_work }
    impl HasWork<Cache, 9> for Cache { self.promote_work }
}
impl_has_delayed_work! {
    impl HasDelayedWork<Cache, 3> for Cache { self.log_timer }
    impl HasDelayedWork<Cache, 4> for Cache { self.retry_timer }
    impl HasDelayedWork<Cache, 5> for Cache { self.barrier_timer }
    impl HasDelayedWork<Cache, 6> for Cache { self.clock_work }
    impl HasDelayedWork<Cache, 8> for Cache { self.pace_timer }
}

/// How many entries each shard of the index has: one for each block that fits into the log, and an
/// eighth for blocks in several parts and for uneven shards.
fn entries_per_shard(space: &Space) -> u64 {
    space.sectors() / 8 * 9 / 8 / SHARDS as u64
}

impl Cache {
    /// Looks at the cache device, and allocates what it takes to use it. Writes nothing. Sleeps.
    pub(crate) fn open(
        devices: &Devices,
        backing_sectors: u64,
        options: &Options,
    ) -> Result<Owner<Self>, CtrError> {
        let no_memory = |errno| CtrError::new(errno, c"Failed to allocate memory for the cache");
        let disk = devices
            .cache
            .reopen()
            .and_then(Disk::new)
            .map_err(|errno| CtrError::new(errno, c"Failed to open cache device"))?;
        let backing = devices
            .backing
            .reopen()
            .map_err(|errno| CtrError::new(errno, c"Failed to open backing device"))?;
        let superblock = superblock_for(&disk, &backing, backing_sectors, options)?;
        let space = superblock.space;

        let mut shards =
            KVec::with_capacity(SHARDS, GFP_KERNEL).map_err(|e| no_memory(e.into()))?;
        for _ in 0..SHARDS {
            let shard = Shard::new(entries_per_shard(&space)).map_err(|e| no_memory(e.into()))?;
            let shard = KBox::pin_init(new_irq_lock!(shard, "dm_lc_shard"), GFP_KERNEL)
                .map_err(no_memory)?;
            shards
                .push(shard, GFP_KERNEL)
                .map_err(|e| no_memory(e.into()))?;
        }
        let mut memory =
            KVec::with_capacity(BUFFERS, GFP_KERNEL).map_err(|e| no_memory(e.into()))?;
        for _ in 0..BUFFERS {
            let buffer = SharedMemory::zeroed((RECORD_SECTORS as usize) << SECTOR_SHIFT)
                .map_err(no_memory)?;
            memory
                .push(buffer, GFP_KERNEL)
                .map_err(|e| no_memory(e.into()))?;
        }
        let head = Head {
            log: Log::new(space).map_err(|e| no_memory(e.into()))?,
            throttle: Throttle::new(space.sectors()),
            paced: None,
            waiting: BioList::new(),
            admitting: false,
            to_verify: BioList::new(),
            flushes: BioList::new(),
        };
        let committer = Committer::new(&superblock).map_err(no_memory)?;
        let writer = Writer::new(superblock).map_err(no_memory)?;
        let verifier = Verifier::new().map_err(no_memory)?;
        let promoter = Promoter::new().map_err(no_memory)?;
        let admission = Admission::new().map_err(|e| no_memory(e.into()))?;
        let queue = OwnedQueue::new(c"dm-lc").map_err(no_memory)?;
        let settings = options.settings;
        let mode = settings.mode;
        let read_settings = ReadSettings::of(&settings);
        let lost_sectors = superblock.lost.sectors();
        let uuid = superblock.uuid;

        Owner::pin_init(try_pin_init!(Cache {
            disk,
            backing,
            space,
            uuid,
            table <- new_irq_lock!(None, "dm_lc_table"),
            settings <- new_irq_lock!(settings, "dm_lc_settings"),
            mode: Atomic::new(mode as u32),
            failed: OnceFlag::new(),
            bypassed: OnceFlag::new(),
            damage_told <- Ratelimit::new(),
            suspended: Atomic::new(1),
            shards,
            head <- new_irq_lock!(head, "dm_lc_head"),
            copied <- new_condvar!("dm_lc_copied"),
            tail_moved <- new_condvar!("dm_lc_tail_moved"),
            memory,
            written: Atomic::new(0),
            durable: Atomic::new(0),
            durable_id: Atomic::new(0),
            due_id: Atomic::new(0),
            tail_id: Atomic::new(0),
            tail: Atomic::new(0),
            epoch: Atomic::new(0),
            backing_written: Atomic::new(0),
            index_full: Atomic::new(0),
            paused: Atomic::new(0),
            batches: Atomic::new(0),
            discarded_in: Atomic::new(0),
            read_settings: Atomic::new(read_settings.0),
            ordered: Atomic::new(0),
            damage: Atomic::new(0),
            lost_sectors: Atomic::new(lost_sectors),
            backing_load: Atomic::new(0),
            drain_to: Atomic::new(0),
            readers <- Readers::new(),
            setting <- new_mutex!((), "dm_lc_setting"),
            committer <- new_mutex!(committer, "dm_lc_committer"),
            writer <- new_mutex!(writer, "dm_lc_writer"),
            clock <- new_mutex!(Clock::default(), "dm_lc_clock"),
            verifier <- new_mutex!(verifier, "dm_lc_verifier"),
            promoter <- new_mutex!(promoter, "dm_lc_promoter"),
            admission <- new_irq_lock!(admission, "dm_lc_admission"),
            totals: Totals::new(),
            queue,
            log_work <- new_work!("dm_lc_log"),
            admit_work <- new_work!("dm_lc_admit"),
            writeback_work <- new_work!("dm_lc_writeback"),
            verify_work <- new_work!("dm_lc_verify"),
            promote_work <- new_work!("dm_lc_promote"),
            log_timer <- new_delayed_work!("dm_lc_log_timer"),
            retry_timer <- new_delayed_work!("dm_lc_retry_timer"),
            barrier_timer <- new_delayed_work!("dm_lc_barrier_timer"),
            clock_work <- new_delayed_work!("dm_lc_clock"),
            pace_timer <- new_delayed_work!("dm_lc_pace"),
        }? Error))
        .map_err(no_memory)
    }

    /// Reads the log, if that was not done before, and begins a session. Sleeps.
    pub(crate) fn load(&self) -> Result {
        let mut writer = self.writer.lock();
        if self.failed.is_set() {
            // The device can be resumed, so that it can be read from and removed.
            return Ok(());
        }
        let Writer {
            superblock,
            block,
            loaded,
            ..
        } = &mut *writer;
        if !*loaded {
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
            self.backing_written.store(1, Relaxed);
        }
        superblock.clean = false;
        self.disk.write_superblock(superblock, block)?;
        self.ordered.store(superblock.ordered.into(), Relaxed);
        *loaded = true;
        Ok(())
    }

    /// Has the log written back in the order of flushes from now on, or not. Fails with `EBUSY` if what
    /// is in it was not written for that. Under the lock of `setting`; sleeps.
    pub(crate) fn order(this: &Shared<Self>, wanted: bool) -> Result {
        let mut writer = this.writer.lock();
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

    /// Whether the backing device gets nothing but what is written back.
    pub(crate) fn is_ordered(&self) -> bool {
        self.ordered.load(Relaxed) != 0
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

    /// Begins to use `table`, with these settings.
    pub(crate) fn resume(this: &Shared<Self>, table: &Table) {
        *this.table.lock() = Some(table.clone());
        this.suspended.store(0, Release);
        this.paused.store(0, Relaxed);
        Self::start_clock(this);
        Self::kick_writeback(this);
    }

    /// No bio is in flight. Lets everything come to rest, and makes the log durable. Sleeps.
    pub(crate) fn suspend(this: &Shared<Self>) {
        this.suspended.store(1, Release);
        Self::quiesce(this);
        if !this.failed.is_set() && this.writer.lock().loaded {
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

    /// Writes the superblock as things are. Sleeps.
    fn write_superblock(this: &Shared<Self>, writer: &mut Writer, clean: bool) -> Result {
        let Writer {
            superblock, block, ..
        } = writer;
        superblock.durable_id = this.durable_id.load(Relaxed);
        superblock.clean = clean;
        this.disk
            .write_superblock(superblock, block)
            .inspect_err(|_| Self::fail(this, "its superblock cannot be written"))
    }

    /// Writes the superblock unless it is on the device as it would be. Sleeps.
    pub(crate) fn commit_superblock(this: &Shared<Self>) -> Result {
        let mut writer = this.writer.lock();
        if this.failed.is_set() || !writer.loaded {
            return Err(EIO);
        }
        if writer.superblock.durable_id == this.durable_id.load(Relaxed) {
            return Ok(());
        }
        Self::write_superblock(this, &mut writer, false)
    }

    /// Waits until no work item runs or is about to. Sleeps.
    pub(crate) fn quiesce(this: &Shared<Self>) {
        this.queue.cancel_delayed::<_, LOG_TIMER>(this);
        this.queue.cancel_delayed::<_, RETRY_TIMER>(this);
        this.queue.cancel_delayed::<_, BARRIER_TIMER>(this);
        this.queue.cancel_delayed::<_, CLOCK>(this);
        this.queue.cancel_delayed::<_, PACE>(this);
        this.queue.flush();
    }

    /// From now on nothing is written to the cache device. May sleep.
    ///
    /// Nothing can be made durable either; unless all that was written and discarded is, and the
    /// settings say so: then the cache device is bypassed. What it has, and the backing device has
    /// not, cannot be changed any more, so that it is as good as before when it returns. All else
    /// goes to the backing device.
    pub(crate) fn fail(this: &Shared<Self>, why: &str) {
        if this.failed.is_set() {
            return;
        }
        let may_bypass = this.settings().is_set(Knob::BypassOnError);
        let (waiting, flushes) = {
            let mut head = this.head.lock();
            let is_durable = head.log.last_change() <= this.durable.load(Relaxed);
            if may_bypass && is_durable && !this.may_write_discarded() {
                this.bypassed.set();
            }
            // Nothing is appended after that.
            this.failed.set();
            (head.waiting.take_all(), head.flushes.take_all())
        };
        this.totals.cache_errors.fetch_add(1, Relaxed);
        dm::error!(
            NAME,
            "cache device {}: {}: {}",
            this.disk.device.number(),
            why,
            if this.is_bypassed() {
                "it is bypassed"
            } else {
                "no more writes"
            }
        );
        for bio in waiting {
            crate::write::refuse(this, bio);
        }
        for bio in flushes {
            crate::write::flushed(this, bio, Err(EIO));
        }
        this.tail_moved.notify_all();
        crate::room::forget_clean(this);
        this.event();
    }

    /// Whether the cache device has failed. Any context.
    #[inline]
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.is_set()
    }

    /// Whether it has failed and is bypassed. Any context.
    #[inline]
    pub(crate) fn is_bypassed(&self) -> bool {
        self.bypassed.is_set()
    }

    pub(crate) fn is_suspended(&self) -> bool {
        self.suspended.load(Relaxed) != 0
    }

    /// Tells user space that something has changed. May sleep.
    pub(crate) fn event(&self) {
        let table = self.table.lock().clone();
        if let Some(table) = table {
            table.event();
        }
    }

    pub(crate) fn settings(&self) -> Settings {
        *self.settings.lock()
    }

    /// Replaces the settings, under the lock of `setting`. May sleep.
    pub(crate) fn change_settings(this: &Shared<Self>, settings: Settings) {
        let before = core::mem::replace(&mut *this.settings.lock(), settings);
        this.mode.store(settings.mode as u32, Relaxed);
        this.read_settings
            .store(ReadSettings::of(&settings).0, Relaxed);
        if settings.mode == Mode::Passthrough {
            crate::room::forget_clean(this);
        }
        if before.mode != settings.mode {
            this.event();
        }
        Self::start_clock(this);
        Self::kick_writeback(this);
    }

    /// Whether this is the mode.
    #[inline]
    pub(crate) fn is_in(&self, mode: Mode) -> bool {
        self.mode.load(Relaxed) == mode as u32
    }

    /// What reads need to know of the settings. Any context.
    #[inline]
    pub(crate) fn read_settings(&self) -> ReadSettings {
        ReadSettings(self.read_settings.load(Relaxed))
    }

    /// Data on the cache device is not as it was written. Any context.
    pub(crate) fn found_damage(&self, sector: u64, sectors: u32, what: &str) {
        self.totals.crc_errors.fetch_add(1, Relaxed);
        self.damage.store(1, Relaxed);
        if self.damage_told.allows() {
            dm::error!(
                NAME,
                "cache device {}: data of sectors {} to {} is damaged{}",
                self.disk.device.number(),
                sector,
                sector + u64::from(sectors).saturating_sub(1),
                what
            );
        }
    }

    /// Sends the event for damage that was found. May sleep.
    pub(crate) fn tell_of_damage(&self) {
        if self.damage.load(Relaxed) != 0 && self.damage.xchg(0, Full) != 0 {
            self.event();
        }
    }

    /// Whether nothing is in the log, nor about to be, and nothing is lost.
    pub(crate) fn is_clean(&self) -> bool {
        let head = self.head.lock();
        let is_empty = head.log.used() == 0 && head.waiting.is_empty() && !head.admitting;
        is_empty && self.lost_sectors.load(Relaxed) == 0
    }

    /// How many batches have begun or ended.
    pub(crate) fn batches(&self) -> u64 {
        self.batches.load(Relaxed)
    }

    /// A batch is about to look at the index.
    pub(crate) fn begin_batch(&self) {
        self.batches.fetch_add(1, Full);
    }

    /// Nothing of the batch is under way any more.
    pub(crate) fn end_batch(&self) {
        self.batches.fetch_add(1, Full);
    }

    /// Copies were removed from the index, since their sectors were discarded: the batch under way
    /// may have found them before.
    pub(crate) fn note_discard(&self) {
        let batch = self.batches.load(Relaxed);
        if batch & 1 != 0 {
            self.discarded_in.store(batch, Relaxed);
        }
    }

    /// Whether a batch may write sectors to the backing device of which the index has nothing any
    /// more. A write that overtook it there would be lost.
    #[inline]
    pub(crate) fn may_write_discarded(&self) -> bool {
        let batch = self.batches.load(Relaxed);
        batch & 1 != 0 && self.discarded_in.load(Relaxed) == batch
    }

    /// The position from which on the log is in memory. Under the lock of a shard, what is there is
    /// there as long as the lock is held.
    #[inline]
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Acquire)
    }

    /// The log is written up to `position`: returns when nobody reads that part from memory any
    /// more.
    pub(crate) fn set_written(&self, position: u64) {
        self.written.store(position, Release);
        self.pass_all_shards();
    }

    /// Whoever has a shard locked when this is called has unlocked it when it returns.
    pub(crate) fn pass_all_shards(&self) {
        for shard in &self.shards {
            drop(shard.lock());
        }
    }

    /// The counters of the status, and how many entries of the index are in use, for clean copies,
    /// and there.
    pub(crate) fn count(&self) -> (Counters, [u64; 3]) {
        let mut counters = [0; 16];
        let mut entries = [0; 3];
        for shard in &self.shards {
            let shard = shard.lock();
            for (sum, count) in counters.iter_mut().zip(shard.counters()) {
                *sum += count;
            }
            let Usage {
                used,
                clean,
                capacity,
            } = shard.usage();
            for (sum, count) in entries.iter_mut().zip([used, clean, capacity]) {
                *sum += u64::from(count);
            }
        }
        (counters, entries)
    }

    pub(crate) fn clear_counters(&self) {
        for shard in &self.shards {
            shard.lock().clear_counters();
        }
    }

    /// How many bytes of memory the cache takes, apart from a few kilobytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        let index: usize = self.shards.iter().map(|shard| shard.lock().bytes()).sum();
        let buffers: usize = self.memory.iter().map(SharedMemory::len).sum();
        index + buffers + Log::bytes() + Writer::bytes() + Promoter::memory_bytes()
    }

    /// Lets the log item look at what is to be written. Any context.
    pub(crate) fn kick_log(this: Shared<Self>) {
        let queue = &this.clone().queue;
        // An item that is queued already will see what is there when it runs.
        let _ = queue.enqueue::<_, LOG>(this);
    }

    /// Lets the admit item try again. Any context.
    pub(crate) fn kick_admit(this: &Shared<Self>) {
        let _ = this.queue.enqueue::<_, ADMIT>(this.clone());
    }

    /// Lets the verify item look at the reads that wait for it. Any context.
    pub(crate) fn kick_verify(this: &Shared<Self>) {
        let _ = this.queue.enqueue::<_, VERIFY>(this.clone());
    }

    /// Lets the promote item look at what was read. Any context.
    pub(crate) fn kick_promote(this: &Shared<Self>) {
        let _ = this.queue.enqueue::<_, PROMOTE>(this.clone());
    }

    /// Lets the writeback see whether there is something to do. Any context.
    pub(crate) fn kick_writeback(this: &Shared<Self>) {
        let _ = this.queue.enqueue::<_, WRITEBACK>(this.clone());
    }

    /// Has the buffer that was just opened written before long. Any context.
    pub(crate) fn start_log_timer(this: &Shared<Self>) {
        let seconds = this.settings().get(Knob::FlushCurrentBufferInterval);
        if seconds != 0 {
            let delay = msecs_to_jiffies(seconds.saturating_mul(1000));
            let _ = this
                .queue
                .enqueue_delayed::<_, LOG_TIMER>(this.clone(), delay);
        }
    }

    /// Has the flushes that wait served, at once or when others may have joined them. Any context.
    pub(crate) fn start_barrier(this: Shared<Self>) {
        match this.settings().get(Knob::BarrierDeadlineMs) {
            0 => Self::kick_log(this),
            deadline => {
                let queue = &this.clone().queue;
                let _ = queue.enqueue_delayed::<_, BARRIER_TIMER>(this, msecs_to_jiffies(deadline));
            }
        }
    }

    /// Has those that wait let in before long. Any context.
    pub(crate) fn start_pace(this: &Shared<Self>) {
        let delay = msecs_to_jiffies(PACE_MS);
        let _ = this.queue.enqueue_delayed::<_, PACE>(this.clone(), delay);
    }

    /// Has the clock tick in a second, if there is a reason to. Any context.
    pub(crate) fn start_clock(this: &Shared<Self>) {
        if !this.is_suspended() && Clock::is_wanted(&this.settings()) {
            let delay = msecs_to_jiffies(crate::clock::TICK_MS);
            let _ = this.queue.enqueue_delayed::<_, CLOCK>(this.clone(), delay);
        }
    }

    /// Has the writeback try again in so many milliseconds. Any context.
    pub(crate) fn set_retry_timer(this: &Shared<Self>, milliseconds: u32) {
        let delay = msecs_to_jiffies(milliseconds);
        this.queue.reschedule::<_, RETRY_TIMER>(this, delay);
    }
}

/// The superblock to begin with: what is on the device, or a new one, which is not written yet.
fn superblock_for(
    disk: &Disk,
    backing: &BlockDevice,
    backing_sectors: u64,
    options: &Options,
) -> Result<Superblock, CtrError> {
    let device = disk.device.number();
    let backing_id = backing.identity().map_or(BackingId::UNKNOWN, |identity| {
        BackingId::new(identity.kind(), identity.bytes())
    });
    let found = disk
        .find()
        .map_err(|errno| CtrError::new(errno, c"Failed to read superblocks of cache device"))?;
    let superblock = match found {
        Found::Refused(refusal) if !options.format => {
            dm::error!(NAME, "cache device {} {}", device, refusal);
            return Err(CtrError::new(EINVAL, c"Cache device is not one of lc"));
        }
        Found::Cache(superblock) if !options.format => superblock,
        _ => return new_superblock(disk, backing_sectors, backing_id),
    };
    if superblock.space.end() > disk.device.sectors() {
        dm::error!(
            NAME,
            "cache device {}: expected at least {} sectors, has {}",
            device,
            superblock.space.end(),
            disk.device.sectors()
        );
        return Err(CtrError::new(EINVAL, c"Cache device has become smaller"));
    }
    let has_grown =
        superblock.backing_sectors < backing_sectors && superblock.backing_id.is_surely(backing_id);
    if superblock.backing_sectors != backing_sectors && !has_grown && !superblock.is_empty() {
        dm::error!(
            NAME,
            "cache device {}: is of a backing device of {} sectors, the target has {}",
            device,
            superblock.backing_sectors,
            backing_sectors
        );
        return Err(CtrError::new(EINVAL, c"Cache is of another backing device"));
    }
    // A cache that has nothing may serve any.
    if superblock.backing_id.differs(backing_id) && !superblock.is_empty() {
        dm::error!(
            NAME,
            "cache device {}: has what was written to another backing device than {}",
            device,
            backing.number()
        );
        return Err(CtrError::new(EINVAL, c"Cache is of another backing device"));
    }
    let header_sectors = superblock.space.header_sectors();
    if disk.device.logical_block_size() > header_sectors << SECTOR_SHIFT {
        dm::error!(
            NAME,
            "cache device {}: expected blocks of {} bytes at most, has {}",
            device,
            header_sectors << SECTOR_SHIFT,
            disk.device.logical_block_size()
        );
        return Err(CtrError::new(EINVAL, c"Cache device has other blocks"));
    }
    Ok(Superblock {
        backing_sectors,
        backing_id: backing_id.or(superblock.backing_id),
        ..superblock
    })
}

fn new_superblock(
    disk: &Disk,
    backing_sectors: u64,
    backing_id: BackingId,
) -> Result<Superblock, CtrError> {
    let header_sectors = match disk.device.logical_block_size() {
        512 => 1,
        1024..=4096 => 8,
        bytes => {
            dm::error!(
                NAME,
                "cache device {}: expected blocks of 4096 bytes at most, has {}",
                disk.device.number(),
                bytes
            );
            return Err(CtrError::new(EINVAL, c"Cache device has other blocks"));
        }
    };
    let space = Space::for_device(disk.device.sectors(), header_sectors).ok_or_else(|| {
        dm::error!(
            NAME,
            "cache device {}: expected at least {} sectors, has {}",
            disk.device.number(),
            MIN_CACHE_SECTORS,
            disk.device.sectors()
        );
        CtrError::new(EINVAL, c"Cache device is too small")
    })?;
    let mut uuid = [0; 16];
    dm::random::fill(&mut uuid);
    Ok(Superblock {
        uuid,
        sequence: 0,
        epoch: 0,
        space,
        backing_sectors,
        backing_id,
        tail: Due {
            position: space.first_position(),
            id: 1,
            chain: 0,
        },
        durable_id: 1,
        clean: false,
        ordered: false,
        lost: Lost::NONE,
    })
}

impl WorkItem<LOG> for Cache {
    type Pointer = Shared<Cache>;

    fn run(this: Shared<Cache>) {
        crate::commit::serve(&this, false);
    }
}

impl WorkItem<VERIFY> for Cache {
    type Pointer = Shared<Cache>;

    fn run(this: Shared<Cache>) {
        crate::verify::run(&this);
    }
}

impl WorkItem<PROMOTE> for Cache {
    type Pointer = Shared<Cache>;

    fn run(this: Shared<Cache>) {
        crate::promote::run(&this);
    }
}

impl WorkItem<LOG_TIMER> for Cache {
    type Pointer = Shared<Cache>;

    fn run(this: Shared<Cache>) {
        crate::commit::serve(&this, true);
    }
}

impl WorkItem<ADMIT> for Cache {
    type Pointer = Shared<Cache>;

    fn run(this: Shared<Cache>) {
        crate::write::admit(&this);
    }
}

impl WorkItem<WRITEBACK> for Cache {
    type Pointer = Shared<Cache>;

    fn run(this: Shared<Cache>) {
        crate::writeback::run(&this);
    }
}

impl WorkItem<RETRY_TIMER> for Cache {
    type Pointer = Shared<Cache>;

    fn run(this: Shared<Cache>) {
        this.paused.store(0, Relaxed);
        crate::writeback::run(&this);
    }
}

impl WorkItem<BARRIER_TIMER> for Cache {
    type Pointer = Shared<Cache>;

    fn run(this: Shared<Cache>) {
        crate::commit::serve(&this, false);
    }
}

impl WorkItem<PACE> for Cache {
    type Pointer = Shared<Cache>;

    fn run(this: Shared<Cache>) {
        crate::write::pace(&this);
    }
}

impl WorkItem<CLOCK> for Cache {
    type Pointer = Shared<Cache>;

    fn run(this: Shared<Cache>) {
        crate::clock::tick(&this);
        Cache::start_clock(&this);
    }
}
