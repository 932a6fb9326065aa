// SPDX-License-Identifier: GPL-2.0

//! The target: what device-mapper calls.

use crate::{
    admission::Wanted,
    cache::Cache,
    message::Message,
    promote,
    read,
    readers::Turn as ReadTurn,
    registry::{
        self,
        CacheRef,
        Caches,
        Devices,
        User, //
    },
    status,
    table_line::{
        Knob,
        Mode,
        Options,
        Settings, //
    },
    verify::{
        self,
        Check, //
    },
    write::{
        self,
        Outcome,
        Turn, //
    },
    writeback,
    NAME, //
};
use core::{
    fmt::{
        self,
        Write, //
    },
    ops::Range, //
};
use dm::{
    device::Mode as OpenMode,
    once_flag::OnceFlag,
    prelude::*, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::Relaxed,
        Arc, //
    }, //
};

/// The longest discard, in sectors. Its blocks are looked up one by one.
const MAX_DISCARD_SECTORS: u32 = 1 << 16;

/// A table's line.
pub(crate) struct LcTarget {
    table: Table,
    cache: CacheRef,
    /// Held open for the table, which `dmsetup deps` shows; the cache opens them for itself.
    devices: Devices,
    sectors: Sector,
    /// The settings of the table line, which are in force once the table was resumed.
    settings: Settings,
    in_force: OnceFlag,
}

/// What a bio changes on the backing device.
#[derive(Clone, Copy)]
pub(crate) struct Around {
    /// The first sector.
    pub(crate) sector: Sector,
    /// How many.
    pub(crate) sectors: u32,
    /// If the log has the same, how many [batches](Cache::batches) had begun or ended; None: it went around
    /// the log.
    pub(crate) logged: Option<u64>,
}

impl Around {
    /// What a bio that is about to be sent there changes.
    pub(crate) fn of(bio: &Bio, logged: Option<u64>) -> Self {
        Around {
            sector: bio.sector(),
            sectors: bio.sectors(),
            logged,
        }
    }
}

/// What is noted on a bio.
#[derive(Default)]
pub(crate) struct PerBio {
    /// The bio reads from the cache device, and is counted there.
    pub(crate) reads: Option<ReadTurn>,
    /// The backing device has what it reads, too.
    pub(crate) clean: bool,
    /// How many sectors of a write that waits are in the log.
    pub(crate) done: u32,
    /// What the data of a read is compared with.
    pub(crate) check: Option<Check>,
    /// It changes sectors of the backing device by itself.
    pub(crate) around: Option<Around>,
    /// What is to be copied to the cache when it has ended.
    pub(crate) wanted: Option<Wanted>,
}

#[vtable]
impl Target for LcTarget {
    const NAME: &'static CStr = c"lc";
    const VERSION: [u32; 3] = [1, 0, 0];

    type Global = Arc<Caches>;
    type PerBio = PerBio;

    fn ctr(
        ti: &mut Ctr<'_, Self>,
        args: &mut Args<'_>,
    ) -> Result<impl PinInit<Self, Error>, CtrError> {
        let mut open = |name, message| {
            let path = args
                .next(name)
                .map_err(|e| CtrError::argument(NAME, e, message))?;
            ti.open(path, OpenMode::ReadWrite)
                .map_err(|errno| CtrError::new(errno, message))
        };
        let devices = Devices {
            backing: open("backing device", c"Error opening backing device")?,
            cache: open("cache device", c"Error opening cache device")?,
        };
        let options =
            Options::parse(args).map_err(|e| CtrError::argument(NAME, e, c"Invalid argument"))?;
        let sectors = ti.sectors();
        if devices.backing.number() == devices.cache.number() {
            return Err(CtrError::new(EINVAL, c"Backing and cache are one device"));
        }
        if devices.backing.sectors() < sectors {
            dm::error!(
                NAME,
                "backing device {}: expected at least {} sectors, has {}",
                devices.backing.number(),
                sectors,
                devices.backing.sectors()
            );
            return Err(CtrError::new(
                EINVAL,
                c"Backing device is smaller than the target",
            ));
        }
        let table = ti.table();
        let user = User {
            device: table.device_number(),
            begin: ti.begin(),
            sectors,
        };
        let cache = registry::open(ti.global(), &devices, user, &options)?;
        ti.set_flushes(1);
        ti.set_discards();
        let settings = options.settings;
        let in_force = OnceFlag::new();
        Ok(try_init!(LcTarget { table, cache, devices, sectors, settings, in_force }? Error))
    }

    #[inline]
    fn map<'a>(&'a self, bio: MapBio<'a, Self>) -> Mapped<'a> {
        // Nothing else has so little to spare.
        if bio.op() == Op::Read {
            return read::map(&self.cache, || self.cache.share(), bio);
        }
        if bio.is_flush() {
            return self.map_flush(bio);
        }
        match bio.op() {
            Op::Write => self.map_write(bio),
            Op::Discard => self.map_discard(bio),
            _ => bio.end(Status::NOTSUPP),
        }
    }

    #[inline]
    fn end_io<'a>(&self, mut bio: EndBio<'a, Self>) -> Ended<'a> {
        // Almost always there is nothing else to look at.
        let PerBio {
            reads,
            around,
            wanted,
            ..
        } = *bio.per_bio();
        if let Some(around) = around {
            return self.went_around(bio, around);
        }
        let Some(turn) = reads else {
            if bio.is_flush() {
                return self.end_flush(bio);
            }
            if let (Status::OK, Some(wanted)) = (bio.outcome(), wanted) {
                promote::read(&self.cache, wanted);
            }
            return bio.done();
        };
        self.cache.readers.end(turn);
        if bio.outcome() == Status::OK && bio.per_bio().check.is_none() {
            return bio.done();
        }
        self.end_read(bio)
    }

    fn presuspend(&self) {
        self.cache.forget_old_failure();
    }

    fn postsuspend(&self) {
        Cache::suspend(&self.cache.share());
    }

    fn preresume(&self) -> Result {
        self.cache.load()?;
        let _setting = self.cache.setting.lock();
        if !self.in_force.is_set() {
            self.check_mode(Mode::Writeback, self.settings.mode)?;
        }
        // Also if it was in force before: another table may have been about to be.
        self.order(&self.settings())
    }

    fn resume(&self) {
        let cache = self.cache.share();
        Cache::resume(&cache, &self.table);
        // From then on messages change them.
        if !self.in_force.is_set() {
            let _setting = cache.setting.lock();
            Cache::change_settings(&cache, self.settings);
            self.in_force.set();
        }
    }

    fn status(&self, kind: StatusKind, out: &mut StatusWriter<'_>) -> fmt::Result {
        match kind {
            StatusKind::Info { .. } => status::write_info(&self.cache, out),
            StatusKind::Table => {
                let (backing, cache) = (&self.devices.backing, &self.devices.cache);
                write!(out, "{} {} ", backing.number(), cache.number())?;
                self.settings().write_table(out)
            }
            StatusKind::Ima => {
                write!(
                    out,
                    ",backing_device_name={},cache_device_name={},cache_uuid=",
                    self.devices.backing.number(),
                    self.devices.cache.number(),
                )?;
                status::write_uuid(&self.cache.uuid, out)?;
                write!(out, ",mode={}", self.settings().mode.name())
            }
        }
    }

    fn message(&self, args: &mut Args<'_>, out: &mut StatusWriter<'_>) -> Result<Reply> {
        let cache = self.cache.share();
        let refuse = |error: &dyn fmt::Display| {
            dm::error!(NAME, "{}: {}", self.table.device_name(), error);
            EINVAL
        };
        let setting = cache.setting.lock();
        let before = cache.settings();
        let message = Message::parse(args, &before).map_err(|refused| refuse(&refused))?;
        if !matches!(message, Message::Set(_)) {
            // It may take long.
            drop(setting);
        }
        match message {
            Message::Flush => writeback::flush(&cache)?,
            Message::FlushBuffer => crate::commit::commit(&cache)?,
            Message::CommitSuperblock => Cache::commit_superblock(&cache)?,
            Message::Check => {
                let found = crate::check::check(&cache)?;
                let _ = write!(out, "{found}");
                return Ok(Reply::Written);
            }
            Message::ClearStat => cache.clear_counters(),
            Message::Stats => {
                // What does not fit is asked for again, with more room.
                let _ = status::write_stats(&cache, out);
                return Ok(Reply::Written);
            }
            Message::Set(settings) => {
                self.check_mode(before.mode, settings.mode)?;
                self.order(&settings)?;
                Cache::change_settings(&cache, settings);
            }
        }
        Ok(Reply::None)
    }

    fn iterate_devices(&self, visit: &mut dyn FnMut(&Device, Range<Sector>) -> Visit) -> Visit {
        visit(&self.devices.backing, 0..self.sectors)?;
        // For the size of its blocks.
        visit(&self.devices.cache, 0..self.devices.cache.sectors())
    }

    fn io_hints(&self, limits: &mut Limits) {
        let Devices { backing, cache } = &self.devices;
        let block = backing.logical_block_size().max(cache.logical_block_size());
        limits.set_discard_granularity(block);
        limits.set_max_hw_discard_sectors(MAX_DISCARD_SECTORS);
    }
}

impl LcTarget {
    /// The settings that this table has, or would have.
    fn settings(&self) -> Settings {
        if self.in_force.is_set() {
            self.cache.settings()
        } else {
            self.settings
        }
    }

    /// A flush of a user has ended that was sent to the backing device.
    #[inline(never)]
    fn end_flush<'a>(&self, bio: EndBio<'a, Self>) -> Ended<'a> {
        let status = match bio.outcome() {
            // Meanwhile another may have failed, and have said what was lost of what this one is for.
            Status::OK if self.cache.take_backing_lost() => Status::IOERR,
            Status::OK => return bio.done(),
            status => {
                self.cache.note_backing_failure();
                self.cache.totals.backing_errors.fetch_add(1, Relaxed);
                status
            }
        };
        self.cache.note_failed_flush();
        bio.done_with(status)
    }

    /// A read from the cache device has ended that is to be compared, or has failed.
    #[inline(never)]
    fn end_read<'a>(&self, mut bio: EndBio<'a, Self>) -> Ended<'a> {
        let PerBio { clean, check, .. } = *bio.per_bio();
        let status = match bio.outcome() {
            Status::OK => check.map_or(Status::OK, |check| {
                verify::compare(&self.cache, &bio, &check)
            }),
            status => {
                self.cache.totals.read_errors.fetch_add(1, Relaxed);
                status
            }
        };
        if status != Status::OK && clean {
            return verify::read_elsewhere(&self.cache, bio);
        }
        bio.done_with(status)
    }

    /// Whether the mode may change from one to the other now.
    fn check_mode(&self, from: Mode, to: Mode) -> Result {
        if from == to || to != Mode::Passthrough || self.cache.is_clean() {
            return Ok(());
        }
        dm::error!(
            NAME,
            "{}: mode `passthrough': expected a cache of which all is written back",
            self.table.device_name()
        );
        Err(EBUSY)
    }

    /// Has the log written back in the order that settings want. Under the lock of `setting`.
    fn order(&self, settings: &Settings) -> Result {
        let wanted = settings.is_set(Knob::PrefixConsistent);
        Cache::order(&self.cache.share(), wanted).inspect_err(|&errno| {
            if errno == EBUSY {
                dm::error!(
                    NAME,
                    "{}: prefix_consistent `1': expected a cache of which all is written back",
                    self.table.device_name()
                );
            }
        })
    }

    /// A bio has changed the backing device.
    #[inline(never)]
    fn went_around<'a>(&self, bio: EndBio<'a, Self>, around: Around) -> Ended<'a> {
        // Now, and not when it was sent: a flush that came in between has not reached it, and took
        // the mark away; and what was copied in between may be older.
        if bio.op() == Op::Write {
            let was_written = self.cache.is_backing_written();
            self.cache.note_backing_written();
            if bio.is_fua() && bio.outcome() != Status::OK {
                self.cache.note_failed_fua(was_written);
            }
        }
        let is_alone = write::forget_clean(&self.cache, around.sector, around.sectors);
        // What the log has of the same sectors is written back after it, unless a batch was under way.
        let is_first = around
            .logged
            .is_some_and(|then| self.cache.batches() == then);
        if is_alone || is_first {
            return bio.done();
        }
        let (ended, bio) = bio.keep();
        write::overlaps(&self.cache.share(), bio);
        ended
    }

    #[inline]
    fn map_write<'a>(&'a self, mut bio: MapBio<'a, Self>) -> Mapped<'a> {
        let cache: &Cache = &self.cache;
        let sector = bio.sector();
        if bio.is_fua() && cache.has_failed_flush() {
            return bio.kill();
        }
        if write::may_go_around(cache, &bio) {
            write::note_around(cache, bio.sectors());
            let around = Around::of(&bio, None);
            bio.per_bio().around = Some(around);
            return bio.remap(&cache.backing, sector);
        }
        let mut done = 0;
        match write::append(cache, || self.cache.share(), &bio, &mut done, Turn::Last) {
            Outcome::Done if bio.is_fua() => {
                let (mapped, bio) = bio.take();
                write::wait_for_flush(self.cache.share(), bio);
                mapped
            }
            Outcome::Done if cache.is_in(Mode::Writethrough) => {
                let (mapped, bio) = bio.take();
                write::write_through(&self.cache.share(), bio);
                mapped
            }
            Outcome::Done => bio.end(Status::OK),
            Outcome::Failed => self.refuse(bio),
            Outcome::Wait => {
                bio.per_bio().done = done;
                let (mapped, bio) = bio.take();
                write::wait(&self.cache.share(), bio);
                mapped
            }
        }
    }

    #[inline(never)]
    fn map_discard<'a>(&self, bio: MapBio<'a, Self>) -> Mapped<'a> {
        if write::may_go_around(&self.cache, &bio) {
            let (mapped, bio) = bio.take();
            write::pass_down(&self.cache, bio);
            return mapped;
        }
        let outcome = write::append_discard(&self.cache, || self.cache.share(), &bio, Turn::Last);
        if outcome == Outcome::Failed {
            return self.refuse(bio);
        }
        let (mapped, bio) = bio.take();
        match outcome {
            Outcome::Wait => write::wait(&self.cache.share(), bio),
            _ => write::pass_down(&self.cache, bio),
        }
        mapped
    }

    /// The cache has failed.
    #[inline(never)]
    fn refuse<'a>(&self, bio: MapBio<'a, Self>) -> Mapped<'a> {
        if !self.cache.is_bypassed() {
            return bio.kill();
        }
        let (mapped, bio) = bio.take();
        write::refuse(&self.cache, bio);
        mapped
    }

    #[inline(never)]
    fn map_flush<'a>(&'a self, bio: MapBio<'a, Self>) -> Mapped<'a> {
        let cache: &Cache = &self.cache;
        // Also if it has failed: it has nothing that anybody could lose.
        if cache.flushes_backing_alone() {
            return bio.remap(&cache.backing, 0);
        }
        if cache.has_failed() {
            // Whoever asks is told, and by that the next is served.
            let is_lost = cache.take_backing_lost();
            return if cache.is_bypassed() && !is_lost {
                bio.remap(&cache.backing, 0)
            } else {
                cache.note_failed_flush();
                bio.kill()
            };
        }
        let (mapped, bio) = bio.take();
        write::wait_for_flush(self.cache.share(), bio);
        mapped
    }
}
