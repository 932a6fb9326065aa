// SPDX-License-Identifier: GPL-2.0

//! The target: what device-mapper calls.

use crate::{
    commit,
    discard,
    engine::{
        Devices,
        Engine, //
    },
    geometry::Geometry,
    hydrate::{
        self,
        Wait, //
    },
    log,
    message::Message,
    metadata::{
        Loaded,
        Mode, //
    },
    read,
    registry::{
        self,
        OpenMetadata, //
    },
    stats,
    sweep,
    table_line::{
        parse_geometry,
        Options,
        Refused, //
    },
    users::Begun, //
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
    prelude::*, //
};
use kernel::{
    prelude::*,
    str::CString,
    sync::Arc, //
};

/// A clone.
pub(crate) struct CloneTarget {
    engine: Owner<Engine>,
    /// The words of the table line after the devices, as they came.
    words: KVec<CString>,
}

/// What a clone notes on a bio.
#[derive(Default)]
pub(crate) struct PerBio {
    /// What this write hydrates.
    overwrites: Option<Overwrite>,
    /// For [`Users`](crate::users::Users). There is one if there is an overwrite, too: `end_io` looks
    /// at nothing else.
    begun: Option<Begun>,
}

/// A write that covers regions whole.
#[derive(Clone, Copy)]
struct Overwrite {
    /// The first of them.
    first: u64,
    /// Whether it came as FUA. The flag itself does not survive a device without a cache.
    fua: bool,
}

impl PerBio {
    /// Notes that the bio hydrates the regions in flight from `first` on.
    pub(crate) fn overwrite(&mut self, first: u64, fua: bool) {
        self.overwrites = Some(Overwrite { first, fua });
        self.begun.get_or_insert(Begun::UNSEEN);
    }
}

#[vtable]
impl Target for CloneTarget {
    const NAME: &'static CStr = c"clone";
    const VERSION: [u32; 3] = [1, 0, 0];

    type Global = Arc<OpenMetadata>;
    type PerBio = PerBio;

    fn ctr(
        ti: &mut Ctr<'_, Self>,
        args: &mut Args<'_>,
    ) -> Result<impl PinInit<Self, Error>, CtrError> {
        if args.len() < 4 {
            return Err(CtrError::new(EINVAL, c"Invalid number of arguments"));
        }
        let devices = open_devices(ti, args)?;
        let words = keep_words(args)?;
        let block = |device: &Device| device.logical_block_size() >> SECTOR_SHIFT;
        let block_sectors = block(&devices.source).max(block(&devices.dest));
        let geometry = parse_geometry(args, ti.sectors(), block_sectors).map_err(refuse)?;
        let options = Options::parse(args).map_err(refuse)?;
        warn_of_rest(args);
        check_roles(&devices)?;
        check_sizes(&devices, &geometry, block_sectors)?;

        let table = ti.table();
        let metadata = registry::open(ti.global(), &devices, &table, geometry)
            .map_err(|errno| CtrError::new(errno, c"Failed to load metadata"))?;

        ti.set_flushes(1);
        ti.set_discards();
        let engine = Engine::new(table, devices, metadata, &options)?;
        let engine = Owner::pin_init(engine)
            .map_err(|errno| CtrError::new(errno, c"Failed to allocate clone structure"))?;
        Ok(try_init!(CloneTarget { engine, words }? Error))
    }

    fn map<'a>(&'a self, bio: MapBio<'a, Self>) -> Mapped<'a> {
        // Most clones are complete most of their time. Then nothing is left to commit, which could
        // fail or which a flush would have to wait for: what else there may be to do is kept out of
        // the way.
        if self.engine.metadata().is_complete() && bio.op() != Op::Discard {
            let sector = bio.sector();
            return bio.remap(&self.engine.dest, sector);
        }
        if bio.is_flush() {
            return self.map_flush(bio);
        }
        self.map_incomplete(bio)
    }

    fn end_io<'a>(&self, mut bio: EndBio<'a, Self>) -> Ended<'a> {
        match bio.per_bio().begun {
            Some(begun) => self.end_noted(bio, begun),
            None => bio.done(),
        }
    }

    fn postsuspend(&self) {
        let engine = self.engine.share();
        sweep::suspend(&engine);
        Engine::quiesce(&engine);
        // What this cannot make durable stays undone, as after a crash; it has been reported.
        let _ = commit::commit(&engine);
    }

    fn preresume(&self) -> Result {
        if self.engine.metadata().load()? == Loaded::NearlyFull {
            self.engine.table.event();
        }
        commit::note_complete_at_start(&self.engine);
        Ok(())
    }

    fn resume(&self) {
        sweep::resume(&self.engine.share());
    }

    fn status(&self, kind: StatusKind, out: &mut StatusWriter<'_>) -> fmt::Result {
        match kind {
            StatusKind::Info { noflush } => self.write_info(noflush, out),
            StatusKind::Table => self.write_table(out),
            StatusKind::Ima => self.write_measurement(out),
        }
    }

    fn message(&self, args: &mut Args<'_>, out: &mut StatusWriter<'_>) -> Result<Reply> {
        let engine = self.engine.share();
        let message = Message::parse(args).map_err(|refused| {
            dm::error!(log::NAME, "{}: {}", engine.table.device_name(), refused);
            EINVAL
        })?;
        match message {
            Message::Hydration(on) => engine.settings.set_hydration(on),
            Message::Threshold(regions) => engine.settings.set_threshold(regions),
            Message::BatchSize(regions) => engine.settings.set_batch_size(regions),
            Message::MinShare(percent) => engine.flights.lock().sweep.pace.set_share(percent),
            Message::Stats => {
                // What does not fit is asked for again, with more room.
                let _ = stats::write(&engine, out);
                return Ok(Reply::Written);
            }
        }
        Engine::kick_sweep(&engine);
        Ok(Reply::None)
    }

    fn iterate_devices(&self, visit: &mut dyn FnMut(&Device, Range<Sector>) -> Visit) -> Visit {
        let whole = 0..self.engine.metadata().geometry().target_sectors();
        visit(&self.engine.source, whole.clone())?;
        visit(&self.engine.dest, whole)
    }

    fn io_hints(&self, limits: &mut Limits) {
        let geometry = self.engine.metadata().geometry();
        let region_bytes = geometry.region_sectors() << SECTOR_SHIFT;
        if limits.io_opt() < region_bytes || limits.io_opt() & (region_bytes - 1) != 0 {
            limits.set_io_min(region_bytes);
            limits.set_io_opt(region_bytes);
        }
        self.hint_discards(limits);
    }
}

impl CloneTarget {
    /// Maps what is not a flush while some region may have to be looked up, and discards.
    #[inline(never)]
    fn map_incomplete<'a>(&'a self, mut bio: MapBio<'a, Self>) -> Mapped<'a> {
        let metadata = self.engine.metadata();
        if metadata.mode() == Mode::Fail {
            return bio.kill();
        }
        let (op, sector) = (bio.op(), bio.sector());
        if op == Op::Discard {
            let (mapped, bio) = bio.take();
            discard::map(&self.engine.share(), bio);
            return mapped;
        }
        if bio.sectors() == 0 {
            return bio.remap(&self.engine.dest, sector);
        }
        // Without background copies there is none to keep out of the way of users.
        if self.engine.settings.hydration() {
            bio.per_bio().begun = Some(self.engine.users.begin(self.engine.clock()));
        }
        if !bio.is_write() {
            return read::map(&self.engine, bio);
        }
        if let Some(regions) = hydrate::begin_overwrite(&self.engine, bio.range()) {
            return self.map_overwrite(bio, regions);
        }

        // The part of the write that lies in hydrated regions, or in one that is not; the rest
        // comes back.
        let geometry = metadata.geometry();
        let touched = geometry.touched(bio.range());
        let (hydrated, run) = metadata.regions().run(touched.clone());
        let regions = touched.start..touched.start + if hydrated { run } else { 1 };
        let sectors = geometry.sectors_to(regions.end, sector);
        if sectors < bio.sectors() && bio.accept_partial(sectors).is_err() {
            return bio.kill();
        }
        if hydrated && !bio.is_fua() {
            metadata.note_write(regions);
            return bio.remap(&self.engine.dest, sector);
        }
        let (mapped, bio) = bio.take();
        if hydrated {
            commit::send_write(&self.engine.share(), bio);
        } else {
            hydrate::write(&self.engine.share(), bio, Wait::MustNot);
        }
        mapped
    }

    /// Ends a bio that was mapped while some region might have to be looked up.
    #[inline(never)]
    fn end_noted<'a>(&self, mut bio: EndBio<'a, Self>, begun: Begun) -> Ended<'a> {
        self.engine.users.end(begun, || self.engine.clock());
        let Some(Overwrite { first, fua }) = bio.per_bio().overwrites else {
            return bio.done();
        };
        let engine = self.engine.share();
        let outcome = bio.outcome();
        hydrate::overwritten(&engine, first, outcome);
        if !fua || outcome != Status::OK {
            return bio.done();
        }
        let (ended, bio) = bio.keep();
        engine.commits.lock().fua_done.push(bio);
        Engine::kick_commit(&engine);
        ended
    }

    #[inline(never)]
    fn map_flush<'a>(&'a self, bio: MapBio<'a, Self>) -> Mapped<'a> {
        let metadata = self.engine.metadata();
        if metadata.mode() == Mode::Fail {
            return bio.kill();
        }
        if !metadata.has_user_data() {
            return bio.remap(&self.engine.dest, 0);
        }
        let (mapped, bio) = bio.take();
        commit::flush(&self.engine.share(), bio);
        mapped
    }

    /// Sends a write to the destination of which some regions are in flight for it. Those before
    /// them are hydrated.
    fn map_overwrite<'a>(&'a self, mut bio: MapBio<'a, Self>, regions: Range<u64>) -> Mapped<'a> {
        let sector = bio.sector();
        let first = regions.start;
        let geometry = self.engine.metadata().geometry();
        let sectors = geometry.sectors_to(regions.end, sector);
        if sectors < bio.sectors() && bio.accept_partial(sectors).is_err() {
            hydrate::overwritten(&self.engine.share(), first, Status::IOERR);
            return bio.kill();
        }
        let fua = bio.is_fua();
        bio.per_bio().overwrite(first, fua);
        bio.remap(&self.engine.dest, sector)
    }

    /// Says in which units discards are wanted; stops passing them down to a device that does not
    /// take those of a region.
    ///
    /// Long discards are divided on their way here, at multiples of the granularity that is set
    /// here. Until the clone is complete these must be the boundaries of regions, or each division
    /// would leave a region that is covered only in part by either bio. The destination divides
    /// what is passed down by itself.
    fn hint_discards(&self, limits: &mut Limits) {
        let engine = &self.engine;
        let region_sectors = engine.metadata().geometry().region_sectors();
        let dest_max = engine.dest.max_discard_sectors();
        if engine.settings.get().discard_passdown {
            let reason = if dest_max == 0 {
                Some("discard unsupported")
            } else if dest_max < region_sectors {
                Some("max discard sectors smaller than a region")
            } else {
                None
            };
            if let Some(reason) = reason {
                dm::warning!(
                    log::NAME,
                    "Destination device ({}) {}: Disabling discard passdown.",
                    engine.dest.number(),
                    reason
                );
                engine.settings.set_discard_passdown(false);
            } else if engine.metadata().is_complete() {
                return limits.copy_discard_limits(&engine.dest);
            }
        }
        // A region is a power of two of sectors.
        limits.set_discard_granularity(region_sectors << SECTOR_SHIFT);
        limits.set_max_hw_discard_sectors(Limits::MAX_DISCARD_SECTORS & !(region_sectors - 1));
    }

    fn write_info(&self, noflush: bool, out: &mut StatusWriter<'_>) -> fmt::Result {
        let engine = &self.engine;
        let metadata = engine.metadata();
        if metadata.mode() == Mode::Fail {
            return out.write_str("Fail");
        }
        // The metadata may be in use by another table, whose destination is to be flushed.
        if !noflush && !sweep::is_suspended(engine) {
            // A failure shows as the mode below.
            let _ = commit::commit(engine);
            if metadata.mode() == Mode::Fail {
                return out.write_str("Error");
            }
        }
        let usage = metadata.usage();
        let geometry = metadata.geometry();
        let mode = match metadata.mode() {
            Mode::ReadWrite => "rw",
            Mode::ReadOnly | Mode::Fail => "ro",
        };
        write!(
            out,
            "{} {}/{} {} {}/{} {} {} {}",
            crate::format::BLOCK_SECTORS,
            usage.used,
            usage.total,
            geometry.region_sectors(),
            metadata.committed(),
            geometry.regions(),
            engine.flights.lock().table.regions(),
            engine.settings.get(),
            mode
        )
    }

    fn write_measurement(&self, out: &mut StatusWriter<'_>) -> fmt::Result {
        let engine = &self.engine;
        write!(
            out,
            ",metadata_device_name={},destination_device_name={},source_device_name={},region_size={}",
            engine.metadata_dev.number(),
            engine.dest.number(),
            engine.source.number(),
            engine.metadata().geometry().region_sectors()
        )
    }

    fn write_table(&self, out: &mut StatusWriter<'_>) -> fmt::Result {
        let engine = &self.engine;
        write!(
            out,
            "{} {} {}",
            engine.metadata_dev.number(),
            engine.dest.number(),
            engine.source.number()
        )?;
        for word in &self.words {
            out.write_str(" ")?;
            out.word(word)?;
        }
        Ok(())
    }
}

impl Drop for CloneTarget {
    /// Timers would keep the engine up to a second.
    fn drop(&mut self) {
        Engine::quiesce(&self.engine.share());
    }
}

fn open_devices(ti: &mut Ctr<'_, CloneTarget>, args: &mut Args<'_>) -> Result<Devices, CtrError> {
    let mut open = |name, mode, message| {
        let path = args
            .next(name)
            .map_err(|e| CtrError::argument(log::NAME, e, message))?;
        ti.open(path, mode)
            .map_err(|errno| CtrError::new(errno, message))
    };
    Ok(Devices {
        metadata: open(
            "metadata device",
            OpenMode::ReadWrite,
            c"Error opening metadata device",
        )?,
        dest: open(
            "destination device",
            OpenMode::ReadWrite,
            c"Error opening destination device",
        )?,
        source: open(
            "source device",
            OpenMode::Read,
            c"Error opening source device",
        )?,
    })
}

fn keep_words(args: &Args<'_>) -> Result<KVec<CString>, CtrError> {
    let mut words = KVec::new();
    for word in args.rest() {
        CString::try_from(word)
            .and_then(|word| words.push(word, GFP_KERNEL))
            .map_err(|_| CtrError::new(ENOMEM, c"Failed to allocate memory for table line"))?;
    }
    Ok(words)
}

/// Refuses a table line for a word in it.
fn refuse(refused: Refused<'_>) -> CtrError {
    CtrError::argument(log::NAME, refused.error, refused.message)
}

/// Words after the last group never meant anything, and are let pass; but somebody meant something
/// by them.
fn warn_of_rest(args: &mut Args<'_>) {
    if let Ok(word) = args.next("word") {
        dm::warning!(
            log::NAME,
            "`{}' and what follows it has no meaning after the core arguments",
            word.as_c_str().to_bytes().escape_ascii()
        );
    }
}

/// Refuses a device in two roles: each role overwrites or assumes what another needs.
fn check_roles(devices: &Devices) -> Result<(), CtrError> {
    let Devices {
        metadata,
        dest,
        source,
    } = devices;
    for (names, one, other) in [
        ("metadata and destination", metadata, dest),
        ("metadata and source", metadata, source),
        ("destination and source", dest, source),
    ] {
        if one.number() == other.number() {
            dm::error!(
                log::NAME,
                "{}: expected different devices, both are {}",
                names,
                one.number()
            );
            return Err(CtrError::new(EINVAL, c"A device has two roles"));
        }
    }
    Ok(())
}

/// Refuses devices that device-mapper would refuse later, when the metadata were formatted.
fn check_sizes(devices: &Devices, geometry: &Geometry, block_sectors: u32) -> Result<(), CtrError> {
    if geometry.target_sectors() & (u64::from(block_sectors) - 1) != 0 {
        dm::error!(
            log::NAME,
            "expected a length that is a multiple of {} sectors, a block of its devices, got {}",
            block_sectors,
            geometry.target_sectors()
        );
        return Err(CtrError::new(
            EINVAL,
            c"Length is no multiple of a block of the devices",
        ));
    }
    for (name, device) in [("source", &devices.source), ("destination", &devices.dest)] {
        if device.sectors() < geometry.target_sectors() {
            dm::error!(
                log::NAME,
                "{} device {}: expected at least {} sectors, has {}",
                name,
                device.number(),
                geometry.target_sectors(),
                device.sectors()
            );
            return Err(CtrError::new(EINVAL, c"Device is smaller than the target"));
        }
    }
    Ok(())
}
