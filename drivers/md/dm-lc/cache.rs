// SPDX-License-Identifier: GPL-2.0

//! A cache in use: its state, which all tables of a mapped device share.
//!
//! Locks, in the order in which they are taken:
//!
//! 0. that of [`dm::registry`] (sleeps)
//! 1. `setting` (sleeps): whoever changes the settings
//! 2. `clock` (sleeps): how busy the backing device is; `ageing` (sleeps)
//! 3. `writer` (sleeps): writing back, and the superblock
//! 4. `committer` (sleeps): writing the log, and giving it up; `verifier`, `promoter` (sleep)
//! 5. that of `backing_flushes` (sleeps)
//! 6. a shard of the index; never two
//! 7. `head`: the buffers, and the bios that wait
//! 8. `table`, `settings`, `admission`, `written_runs`, and the lock of `readers`

use crate::{
    admission::Admission,
    adopt,
    backing::Flushes,
    clock::{
        Ageing,
        Clock, //
    },
    commit::{
        Committer,
        Failed, //
    },
    disk::Disk,
    format::Uuid,
    index::{
        Counters,
        Shard,
        Usage,
        SHARDS, //
    },
    log::Log,
    promote::Promoter,
    readers::Readers,
    registry::Devices,
    runs::Runs,
    space::{
        Space,
        BUFFERS,
        RECORD_SECTORS, //
    },
    table_line::{
        Knob,
        Mode,
        Options,
        Settings,
        WriteSettings, //
    },
    target::LcTarget,
    throttle::Throttle,
    verify::Verifier,
    work::{
        ADMIT,
        AGE,
        BARRIER_TIMER,
        CLOCK,
        LOG,
        LOG_TIMER,
        PACE,
        PROMOTE,
        RETRY_TIMER,
        VERIFY,
        WRITEBACK, //
    },
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
        Instant,
        Monotonic, //
    },
    workqueue::{
        new_delayed_work,
        new_work,
        DelayedWork,
        Work, //
    }, //
};

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
    /// What went around the log, is done, and ends when no batch is under way.
    pub(crate) overlaps: BioList<DoneBio<LcTarget>>,
    /// Writes that are in the log and are to go to the backing device too, when no batch is under way.
    pub(crate) through: BioList<OwnedBio<LcTarget>>,
    /// Flushes, and FUA writes that are in the log but not durable.
    pub(crate) flushes: BioList<OwnedBio<LcTarget>>,
    /// Some of them are flushes: they are for what others have written as well.
    pub(crate) has_flush: bool,
}

/// What went wrong, and how much was done: for the status. Each number is right by itself.
pub(crate) struct Totals {
    pub(crate) flushes: Atomic<u64>,
    pub(crate) log_flushes: Atomic<u64>,
    pub(crate) cache_sectors: Atomic<u64>,
    pub(crate) user_sectors: Atomic<u64>,
    pub(crate) promoted: Atomic<u64>,
    pub(crate) seq_bypassed: Atomic<u64>,
    pub(crate) around_sectors: Atomic<u64>,
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
            around_sectors: Atomic::new(0),
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
    pub(crate) table: IrqLock<Option<Table>>,
    #[pin]
    settings: IrqLock<Settings>,
    /// What writes need to know of the settings: see [`WriteSettings`].
    write_settings: Atomic<u32>,
    /// Nothing is written to the cache device any more.
    pub(crate) failed: OnceFlag,
    /// It has failed, and what it has nothing of goes to the backing device: see [`Cache::fail`]. Both are set
    /// under the lock of `head`.
    bypassed: OnceFlag,
    /// For what is said of damaged data.
    #[pin]
    pub(crate) damage_told: Ratelimit,
    pub(crate) suspended: Atomic<u32>,

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
    pub(crate) written: Atomic<u64>,
    /// Up to this position, and to the record with this id, it is durable.
    pub(crate) durable: Atomic<u64>,
    pub(crate) durable_id: Atomic<u64>,
    pub(crate) due_id: Atomic<u64>,
    pub(crate) tail_id: Atomic<u64>,
    /// What is before this position no recovery finds.
    pub(crate) tail: Atomic<u64>,
    pub(crate) epoch: Atomic<u64>,
    #[pin]
    pub(crate) backing_flushes: Flushes,
    /// The index had no room for a write.
    pub(crate) index_full: Atomic<u32>,
    /// The backing device has failed, and the retry timer runs.
    pub(crate) paused: Atomic<u32>,
    /// The log was read, and a session begun. Nothing may be written before. Set with the lock of the
    /// writer.
    pub(crate) loaded: OnceFlag,
    /// Counts the batches of the writeback: odd while one is under way.
    batches: Atomic<u64>,
    /// The batch that may be writing what was discarded meanwhile.
    discarded_in: Atomic<u64>,
    /// What reads need to know of the settings: see [`ReadSettings`].
    read_settings: Atomic<u32>,
    /// [`Superblock::ordered`](crate::format::Superblock::ordered), for bios.
    pub(crate) ordered: Atomic<u32>,
    /// Something damaged was found that user space was not told of.
    damage: Atomic<u32>,
    /// Something damaged was found, and no check since has found nothing.
    needs_check: Atomic<u32>,
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
    pub(crate) ageing: Mutex<Ageing>,
    #[pin]
    pub(crate) verifier: Mutex<Verifier>,
    #[pin]
    pub(crate) promoter: Mutex<Promoter>,
    /// What was read lately.
    #[pin]
    pub(crate) admission: IrqLock<Admission>,
    /// What was written lately.
    #[pin]
    pub(crate) written_runs: IrqLock<Runs>,
    pub(crate) totals: Totals,

    pub(crate) queue: OwnedQueue,
    /// For the verify item, which the log item may wait for: in want of memory a queue has one thread.
    pub(crate) verify_queue: OwnedQueue,
    #[pin]
    pub(crate) log_work: Work<Cache, LOG>,
    #[pin]
    pub(crate) admit_work: Work<Cache, ADMIT>,
    #[pin]
    pub(crate) writeback_work: Work<Cache, WRITEBACK>,
    #[pin]
    pub(crate) verify_work: Work<Cache, VERIFY>,
    #[pin]
    pub(crate) promote_work: Work<Cache, PROMOTE>,
    #[pin]
    pub(crate) log_timer: DelayedWork<Cache, LOG_TIMER>,
    #[pin]
    pub(crate) retry_timer: DelayedWork<Cache, RETRY_TIMER>,
    #[pin]
    pub(crate) barrier_timer: DelayedWork<Cache, BARRIER_TIMER>,
    #[pin]
    pub(crate) clock_work: DelayedWork<Cache, CLOCK>,
    #[pin]
    pub(crate) age_timer: DelayedWork<Cache, AGE>,
    #[pin]
    pub(crate) pace_timer: DelayedWork<Cache, PACE>,
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
        let superblock = adopt::superblock_for(&disk, &backing, backing_sectors, options)?;
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
            overlaps: BioList::new(),
            through: BioList::new(),
            flushes: BioList::new(),
            has_flush: false,
        };
        let committer = Committer::new(&superblock).map_err(no_memory)?;
        let writer = Writer::new(superblock).map_err(no_memory)?;
        let verifier = Verifier::new().map_err(no_memory)?;
        let promoter = Promoter::new().map_err(no_memory)?;
        let admission = Admission::new().map_err(|e| no_memory(e.into()))?;
        let queue = OwnedQueue::new(c"dm-lc").map_err(no_memory)?;
        let verify_queue = OwnedQueue::new(c"dm-lc-verify").map_err(no_memory)?;
        let settings = options.settings;
        let write_settings = WriteSettings::of(&settings).word();
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
            write_settings: Atomic::new(write_settings),
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
            backing_flushes <- Flushes::new(),
            index_full: Atomic::new(0),
            paused: Atomic::new(0),
            loaded: OnceFlag::new(),
            batches: Atomic::new(0),
            discarded_in: Atomic::new(0),
            read_settings: Atomic::new(read_settings.0),
            ordered: Atomic::new(0),
            damage: Atomic::new(0),
            needs_check: Atomic::new(0),
            lost_sectors: Atomic::new(lost_sectors),
            backing_load: Atomic::new(0),
            drain_to: Atomic::new(0),
            readers <- Readers::new(),
            setting <- new_mutex!((), "dm_lc_setting"),
            committer <- new_mutex!(committer, "dm_lc_committer"),
            writer <- new_mutex!(writer, "dm_lc_writer"),
            clock <- new_mutex!(Clock::default(), "dm_lc_clock"),
            ageing <- new_mutex!(Ageing::new(), "dm_lc_ageing"),
            verifier <- new_mutex!(verifier, "dm_lc_verifier"),
            promoter <- new_mutex!(promoter, "dm_lc_promoter"),
            admission <- new_irq_lock!(admission, "dm_lc_admission"),
            written_runs <- new_irq_lock!(Runs::default(), "dm_lc_written_runs"),
            totals: Totals::new(),
            queue,
            verify_queue,
            log_work <- new_work!("dm_lc_log"),
            admit_work <- new_work!("dm_lc_admit"),
            writeback_work <- new_work!("dm_lc_writeback"),
            verify_work <- new_work!("dm_lc_verify"),
            promote_work <- new_work!("dm_lc_promote"),
            log_timer <- new_delayed_work!("dm_lc_log_timer"),
            retry_timer <- new_delayed_work!("dm_lc_retry_timer"),
            barrier_timer <- new_delayed_work!("dm_lc_barrier_timer"),
            clock_work <- new_delayed_work!("dm_lc_clock"),
            age_timer <- new_delayed_work!("dm_lc_age"),
            pace_timer <- new_delayed_work!("dm_lc_pace"),
        }? Error))
        .map_err(no_memory)
    }

    /// Whether the backing device gets nothing but what is written back.
    pub(crate) fn is_ordered(&self) -> bool {
        self.ordered.load(Relaxed) != 0
    }

    /// From now on nothing is written to the cache device. May sleep.
    ///
    /// Nothing can be made durable either; unless all that was written and discarded is, and the
    /// settings say so: then the cache device is bypassed. What it has, and the backing device has
    /// not, cannot be changed any more, so that it is as good as before when it returns. All else
    /// goes to the backing device.
    pub(crate) fn fail(this: &Shared<Self>, why: &str) {
        let may_bypass = this.settings().is_set(Knob::BypassOnError);
        let (waiting, flushes) = {
            let mut head = this.head.lock();
            if this.failed.is_set() {
                // Another was first, perhaps just now, and says it.
                return;
            }
            if may_bypass && this.has_durable(&head) && !this.may_write_discarded() {
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
        crate::write::flushed(this, flushes, Err(Failed::Cache(EIO)));
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
    pub(crate) fn is_bypassed(&self) -> bool {
        // Who has seen without the lock that it has failed may not see yet what became of it.
        let _head = self.head.lock();
        self.bypassed.is_set()
    }

    /// The same, for each write's way: it may be found a little later. Any context.
    #[inline]
    pub(crate) fn seems_bypassed(&self) -> bool {
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
        this.write_settings
            .store(WriteSettings::of(&settings).word(), Relaxed);
        this.read_settings
            .store(ReadSettings::of(&settings).0, Relaxed);
        if settings.mode == Mode::Passthrough {
            crate::room::forget_clean(this);
        }
        if before.mode != settings.mode {
            this.event();
        }
        Self::start_clock(this);
        if before.get(Knob::FlushCurrentBufferInterval)
            != settings.get(Knob::FlushCurrentBufferInterval)
        {
            Self::restart_log_timer(this);
        }
        Self::restart_ageing(this);
        Self::kick_writeback(this);
    }

    /// Whether this is the mode.
    #[inline]
    pub(crate) fn is_in(&self, mode: Mode) -> bool {
        self.write_settings().has(mode)
    }

    /// What writes need to know of the settings. Any context.
    #[inline]
    pub(crate) fn write_settings(&self) -> WriteSettings {
        WriteSettings::from_word(self.write_settings.load(Relaxed))
    }

    /// What reads need to know of the settings. Any context.
    #[inline]
    pub(crate) fn read_settings(&self) -> ReadSettings {
        ReadSettings(self.read_settings.load(Relaxed))
    }

    /// Whether the log on the cache device is perhaps not as it was written: something damaged was found
    /// or is lost. Any context.
    pub(crate) fn needs_check(&self) -> bool {
        self.needs_check.load(Relaxed) != 0 || self.lost_sectors.load(Relaxed) != 0
    }

    /// The log was checked, and is as it was written.
    pub(crate) fn note_checked(&self) {
        self.needs_check.store(0, Relaxed);
    }

    /// So much on the cache device is not as it was written. Any context.
    pub(crate) fn count_damage(&self, times: u64) {
        self.totals.crc_errors.fetch_add(times, Relaxed);
        self.needs_check.store(1, Relaxed);
    }

    /// Data on the cache device is not as it was written. Any context.
    pub(crate) fn found_damage(&self, sector: u64, sectors: u32, what: &str) {
        self.count_damage(1);
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

    fn has_durable(&self, head: &Head) -> bool {
        head.log.last_change() <= self.durable.load(Relaxed)
    }

    /// Whether all that was written to the log, and discarded, is durable there.
    pub(crate) fn is_all_durable(&self) -> bool {
        self.has_durable(&self.head.lock())
    }

    /// Whether the cache device has no part in what is written: no recovery finds anything on it. Any context.
    pub(crate) fn writes_backing_alone(&self) -> bool {
        self.is_in(Mode::Passthrough) && self.head.lock().log.used() == 0
    }

    /// Whether it has none in a flush, of which nobody has to be told anything else. Any context.
    pub(crate) fn flushes_backing_alone(&self) -> bool {
        self.writes_backing_alone() && !self.has_backing_lost()
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
}
