// SPDX-License-Identifier: GPL-2.0

//! What device-mapper calls.
//!
//! ```text
//! 0 <sectors of DEVICE> interpose <DEVICE>
//! ```

use crate::{
    message::Message,
    origin::Failure,
    registry::{
        OriginRef,
        Originals, //
    },
    state::Step,
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
    block_device::DevNumber,
    compat,
    prelude::*, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    }, //
};

/// Counts the tables that there have been, for [`InterposeTarget::instance`].
static INSTANCES: Atomic<u64> = Atomic::new(0);

/// A table line.
///
/// The fields are dropped in this order, after [`Drop`] has seen to it that the origin knows the
/// table no more.
pub(crate) struct InterposeTarget {
    /// The original, as this table has it open.
    device: Device,
    origin: OriginRef,
    table: Table,
    /// Which of all tables this one is.
    instance: u64,
}

#[vtable]
impl Target for InterposeTarget {
    const NAME: &'static CStr = c"interpose";
    const VERSION: [u32; 3] = [1, 0, 0];
    const FEATURES: Features = Features::SINGLETON.and(Features::TRANSPARENT);

    type Global = Arc<Originals>;
    type PerBio = ();

    fn ctr(
        ti: &mut Ctr<'_, Self>,
        args: &mut Args<'_>,
    ) -> Result<impl PinInit<Self, Error>, CtrError> {
        let bad = |error| CtrError::argument(NAME, error, c"Invalid argument");
        let path = args.next("device").map_err(bad)?;
        if let Ok(surplus) = args.next("device") {
            return Err(bad(surplus.invalid("no more words after the device")));
        }
        let device = ti
            .open_unclaimed(path)
            .map_err(|errno| CtrError::new(errno, c"Device lookup failed"))?;
        let table = ti.table();
        if device.number() == table.device_number() {
            return Err(CtrError::new(
                compat::eloop(),
                c"A device cannot be its own original",
            ));
        }
        if device.is_zoned() {
            return Err(CtrError::new(EINVAL, c"Zoned devices are not supported"));
        }
        // What the top has sent comes a second time when a path fails, and would be led to the top.
        if device.is_nvme_multipath() {
            return Err(CtrError::new(
                EINVAL,
                c"NVMe multipath devices are not supported",
            ));
        }
        if device.sectors() != ti.sectors() {
            dm::error!(
                NAME,
                "Device {} has {} sectors, the table {}",
                device.number(),
                device.sectors(),
                ti.sectors()
            );
            return Err(CtrError::new(
                EINVAL,
                c"The table must be as long as the device",
            ));
        }
        let origin = ti
            .global()
            .open(&device, table.device_number())
            .map_err(|errno| CtrError::new(errno, c"Cannot use the device as an original"))?;

        ti.set_flushes(1);
        ti.set_discards();
        ti.set_erasing();
        let instance = INSTANCES.fetch_add(1, Relaxed);
        Ok(try_init!(InterposeTarget { device, origin, table, instance }? Error))
    }

    fn map<'a>(&'a self, bio: MapBio<'a, Self>) -> Mapped<'a> {
        if self.origin.hold().is_on() {
            return self.keep(bio);
        }
        bio.pass(self.origin.original())
    }

    fn presuspend(&self) {
        self.origin.suspend(true);
    }

    fn presuspend_undo(&self) {
        self.origin.suspend(false);
    }

    fn resume(&self) {
        self.origin.listen(self.instance, self.table.clone());
        self.origin.suspend(false);
    }

    fn status(&self, kind: StatusKind, out: &mut StatusWriter<'_>) -> fmt::Result {
        match kind {
            StatusKind::Info { .. } => self.write_info(out),
            StatusKind::Table => write!(out, "{}", self.device.number()),
            StatusKind::Ima => self.write_measurement(out),
        }
    }

    fn message(&self, args: &mut Args<'_>, _out: &mut StatusWriter<'_>) -> Result<Reply> {
        let name = self.table.device_name();
        let Message { step, top, freeze } = Message::parse(args).map_err(|refused| {
            dm::error!(NAME, "{}: {}", name, refused);
            EINVAL
        })?;
        let device = top
            .map(|top| DevNumber::find(top.as_c_str()))
            .transpose()
            .map_err(Failure::NoDevice);
        let taken = device.and_then(|device| match (step, device) {
            (Step::Attach, Some(device)) => self.origin.attach(device, freeze),
            (Step::Switch, Some(device)) => self.origin.switch(device, freeze),
            _ => self.origin.detach(freeze),
        });
        if self.origin.is_unsettled() {
            self.origin.look_later();
        }
        match taken {
            Ok(()) => Ok(Reply::None),
            Err(failure) => {
                match top {
                    Some(top) => {
                        let word = top.as_c_str().to_bytes().escape_ascii();
                        dm::error!(NAME, "{}: {} {}: {}", name, step, word, failure);
                    }
                    None => dm::error!(NAME, "{}: {}: {}", name, step, failure),
                }
                Err(failure.errno())
            }
        }
    }

    fn iterate_devices(&self, visit: &mut dyn FnMut(&Device, Range<Sector>) -> Visit) -> Visit {
        visit(&self.device, 0..self.device.sectors())
    }
}

impl InterposeTarget {
    /// A bio that came while bios are held back.
    #[inline(never)]
    fn keep<'a>(&self, bio: MapBio<'a, Self>) -> Mapped<'a> {
        if bio.is_nowait() {
            return bio.end(Status::AGAIN);
        }
        let (mapped, bio) = bio.take();
        if let Some(bio) = self.origin.hold().keep(bio) {
            bio.pass(self.origin.original());
        }
        mapped
    }

    fn write_info(&self, out: &mut StatusWriter<'_>) -> fmt::Result {
        let shown = self.origin.shown();
        let counted = self.origin.counted();
        write!(out, "{} ", shown.state)?;
        match shown.top {
            Some(top) => write!(out, "{top}")?,
            None => out.write_str("-")?,
        }
        write!(
            out,
            " redirected {} in_flight {} bypassed {} stragglers {} held {} errors {} freeze_us {} \
             drain_us {}",
            counted.led,
            counted.in_flight,
            counted.passed,
            counted.stragglers,
            self.origin.hold().count(),
            counted.failed,
            shown.freeze_us,
            shown.drain_us
        )
    }

    fn write_measurement(&self, out: &mut StatusWriter<'_>) -> fmt::Result {
        let shown = self.origin.shown();
        write!(
            out,
            ",device={},state={}",
            self.device.number(),
            shown.state
        )?;
        match shown.top {
            Some(top) => write!(out, ",top={top}"),
            None => Ok(()),
        }
    }
}

impl Drop for InterposeTarget {
    fn drop(&mut self) {
        self.origin.unlisten(self.instance);
    }
}
