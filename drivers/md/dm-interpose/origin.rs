// SPDX-License-Identifier: GPL-2.0

//! An original, and the steps by which a top comes below its users and goes again.
//!
//! # Attach
//!
//! 1. Open the top, check that it fits, put the hooks in place. All that can fail for want of
//!    memory or of a fitting device is done, and nothing has been touched.
//! 2. Freeze the file system: it writes out what it has, and writes no more.
//! 3. Begin to hold bios back; lead new ones to the top; drain the original of those it was given
//!    before; end the hold. This is the moment of a snapshot.
//!    If the original does not finish in time, lead nothing any more, and only then thaw: the attach
//!    has failed.
//! 4. Thaw. From here on the top may have writes that nothing else has, so there is no way back.
//! 5. Wait for threads that were interrupted while they submitted a bio past the hooks, or that
//!    somebody else's freeze of the queue has kept from entering it, and drain the original once
//!    more. Only raw writers can have had such a bio. If that takes too long, the message fails,
//!    and the top stays: the second hook as well, where it is not known who may still come.
//! 6. Later, by a timer: when no bio can be any more that was submitted before, stop looking for
//!    such.
//!
//! # Switch and detach
//!
//! Freeze; lead new bios to the other top, or to none; wait until the last one has left the old
//! top; thaw. When that takes too long, the top goes on leaving: a timer looks after it.
//!
//! # Locks
//!
//! In the order in which they are taken:
//!
//! 1. that of [`dm::registry`]
//! 2. `steps`, `shown`, `listener`: leaves, held for a moment.
//! 3. those of [`dm::interpose`]; of [`Hold`], which any context takes.
//!
//! One step is taken at a time: whoever takes one has the [`Turn`], and `presuspend` waits for it with
//! a lock of device-mapper's. So the step takes no such lock itself: an original that is a mapped
//! device of bios is suspended by an item of the queue, see [`dm::drain`]. Somebody may be suspending it
//! already, who waits for its file system, which waits for bios that are held: then the drain ends
//! without success, and the hold with it.

use crate::{
    fit::{
        self,
        Misfit,
        Traits, //
    },
    hold::Hold,
    registry::Originals,
    state::{
        Name,
        Refusal,
        State,
        Step, //
    },
    NAME, //
};
use core::fmt;
use dm::{
    block_device::DevNumber,
    compat,
    drain::Drain,
    freeze::Frozen,
    interpose::{
        Counted,
        Interposer,
        MayCome,
        Original,
        Stragglers,
        Top, //
    },
    module_ref::ModuleRef,
    noio::NoIo,
    prelude::*, //
};
use kernel::{
    new_condvar,
    new_mutex,
    prelude::*,
    sync::{
        lock::{
            mutex::MutexBackend,
            Guard, //
        },
        Arc,
        CondVar,
        Mutex, //
    },
    time::{
        msecs_to_jiffies,
        Delta,
        Instant,
        Monotonic, //
    },
    workqueue::{
        impl_has_delayed_work,
        new_delayed_work,
        DelayedWork,
        WorkItem, //
    }, //
};

/// How long the original may take to finish what it was given, in milliseconds.
const DRAIN_MS: u32 = 10_000;
/// How long a top may take to finish what it was given before the message fails, in milliseconds.
const LEAVE_MS: i64 = 10_000;
/// The same where there is no message that could fail.
const LEAVE_UNASKED_MS: i64 = 500;
/// How often it is looked whether a top has left, and whether stragglers may come, in milliseconds.
const LOOK_MS: u32 = 100;

/// What a status shows of the steps so far.
#[derive(Clone, Copy)]
pub(crate) struct Shown {
    pub(crate) state: Name,
    /// The top, also the one that leaves.
    pub(crate) top: Option<DevNumber>,
    /// How long the last freeze took, in microseconds.
    pub(crate) freeze_us: u64,
    /// How long the last drain took, of the original or of a top, in microseconds.
    pub(crate) drain_us: u64,
}

/// Why a step was not taken, or not finished: displays as a sentence.
pub(crate) enum Failure {
    /// It is not possible now.
    Refused(Refusal),
    /// There is no such device.
    NoDevice(Error),
    /// It is not a mapped device.
    NotMapped,
    /// Device-mapper hands requests to it.
    RequestBased,
    /// It sends its I/O to the original itself.
    OverOriginal,
    /// The original's driver does not say what it has in flight.
    NotCounted,
    /// It does not fit the original.
    Misfit(Misfit),
    /// It cannot be opened or hooked.
    Open(Error),
    /// The file system could not be frozen.
    Freeze(Error),
    /// The original did not finish what it was given in time.
    Drain(Error),
    /// It is attached, but the original may still be given what was submitted before.
    Unsure(Error),
    /// The top has I/O in flight still.
    InFlight,
}

impl Failure {
    /// The errno for user space.
    pub(crate) fn errno(&self) -> Error {
        match self {
            Failure::Refused(Refusal::NotAttached) => ENOENT,
            Failure::Refused(_) => EBUSY,
            Failure::NotMapped | Failure::RequestBased | Failure::Misfit(_) => EINVAL,
            Failure::OverOriginal => compat::eloop(),
            Failure::NotCounted => compat::eopnotsupp(),
            Failure::NoDevice(error)
            | Failure::Open(error)
            | Failure::Freeze(error)
            | Failure::Drain(error)
            | Failure::Unsure(error) => *error,
            Failure::InFlight => compat::etimedout(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Refused(refusal) => refusal.fmt(f),
            Failure::NoDevice(_) => f.write_str("there is no such block device"),
            Failure::NotMapped => f.write_str("it is not a mapped device"),
            Failure::RequestBased => f.write_str("it is a mapped device of requests, not of bios"),
            Failure::OverOriginal => f.write_str(
                "it is over the original itself, not over the interpose device: its I/O would come \
                 back to it without end",
            ),
            Failure::NotCounted => f.write_str(
                "the original does not count its I/O, so nobody could wait for it: write 1 to its \
                 queue/iostats",
            ),
            Failure::Misfit(misfit) => misfit.fmt(f),
            Failure::Open(error) if *error == EBUSY => {
                f.write_str("it is in use: mounted, part of another device, or attached")
            }
            Failure::Open(error) if *error == ENXIO => f.write_str("it has no live table"),
            Failure::Open(error) if *error == compat::eloop() => {
                f.write_str("it is an original itself, or the original is attached")
            }
            Failure::Open(error) => {
                write!(f, "it cannot be opened or hooked: {}", error.to_errno())
            }
            Failure::Freeze(error) => write!(
                f,
                "the file system cannot be frozen: {}; see `nofreeze'",
                error.to_errno()
            ),
            Failure::Drain(error) => write!(
                f,
                "the original does not finish its I/O: {}",
                error.to_errno()
            ),
            Failure::Unsure(error) => write!(
                f,
                "it is attached, but the original does not finish what it had before: {}",
                error.to_errno()
            ),
            Failure::InFlight => write!(
                f,
                "the old top has I/O in flight after {} s; it gets no more, and goes when it has \
                 finished",
                LEAVE_MS / 1000
            ),
        }
    }
}

struct Steps {
    state: State<Arc<Top>>,
    /// Whether somebody has the [`Turn`].
    taken: bool,
    /// Catches what was submitted before the original led anywhere, as long as that may come.
    stragglers: Option<Stragglers>,
    /// Set when no table is left that would keep the module while a top leaves.
    module: Option<ModuleRef>,
}

/// An original, shared by the tables of its mapped device.
#[pin_data]
pub(crate) struct Origin {
    #[pin]
    original: Original,
    #[pin]
    hold: Hold,
    #[pin]
    steps: Mutex<Steps>,
    /// The turn has been given back.
    #[pin]
    given_back: CondVar,
    #[pin]
    shown: Mutex<Shown>,
    /// The table whose events tell of what happens by itself, and its number.
    #[pin]
    listener: Mutex<Option<(u64, Table)>>,
    #[pin]
    timer: DelayedWork<Origin>,
    originals: Arc<Originals>,
}

impl_has_delayed_work! {
    impl HasDelayedWork<Origin> for Origin { self.timer }
}

impl Origin {
    /// An original with nothing attached. Fails as [`Original::new`]. Sleeps.
    pub(crate) fn new(
        originals: Arc<Originals>,
        interposer: Arc<Interposer>,
        device: &Bdev,
    ) -> Result<Arc<Self>> {
        let original = Original::new(interposer, device)?;
        let origin = try_pin_init!(Origin {
            original <- original,
            hold <- Hold::new(),
            steps <- new_mutex!(
                Steps {
                    state: State::new(),
                    taken: false,
                    stragglers: None,
                    module: None,
                },
                "Origin::steps"
            ),
            given_back <- new_condvar!("Origin::given_back"),
            shown <- new_mutex!(
                Shown { state: Name::Idle, top: None, freeze_us: 0, drain_us: 0 },
                "Origin::shown"
            ),
            listener <- new_mutex!(None, "Origin::listener"),
            timer <- new_delayed_work!("Origin::timer"),
            originals,
        }? Error);
        Arc::pin_init(origin, GFP_KERNEL)
    }

    /// The device's number.
    pub(crate) fn number(&self) -> DevNumber {
        self.original.number()
    }

    /// What holds bios back on their way here.
    #[inline]
    pub(crate) fn hold(&self) -> &Hold {
        &self.hold
    }

    /// The device itself.
    #[inline]
    pub(crate) fn original(&self) -> &Original {
        &self.original
    }

    /// How many bios went which way.
    pub(crate) fn counted(&self) -> Counted {
        self.original.counted()
    }

    /// What a status shows. May sleep, but not for long.
    pub(crate) fn shown(&self) -> Shown {
        *self.shown.lock()
    }

    /// Has the events of what happens by itself go to `table`, of the instance of this number.
    pub(crate) fn listen(&self, instance: u64, table: Table) {
        *self.listener.lock() = Some((instance, table));
    }

    /// Forgets the table of the instance, if it is the one that has the events.
    pub(crate) fn unlisten(&self, instance: u64) {
        let mut listener = self.listener.lock();
        if matches!(&*listener, Some((number, _)) if *number == instance) {
            *listener = None;
        }
    }

    fn event(&self) {
        if let Some((_, table)) = &*self.listener.lock() {
            table.event();
        }
    }

    /// Waits until no step is under way, and begins one. Sleeps.
    fn turn(&self) -> Turn<'_> {
        let mut steps = self.steps.lock();
        while steps.taken {
            self.given_back.wait(&mut steps);
        }
        steps.taken = true;
        Turn { origin: self }
    }

    /// Waits for the step under way, and allows none from now on, or again. Sleeps.
    pub(crate) fn suspend(&self, suspended: bool) {
        self.turn().steps().state.suspend(suspended);
    }

    /// Shows a state, and tells of it.
    fn show_as(&self, state: Name, top: Option<DevNumber>) {
        let mut shown = self.shown.lock();
        shown.state = state;
        shown.top = top;
        drop(shown);
        self.event();
    }

    // --- the steps -----------------------------------------------------------

    /// Leads bios to the mapped device of this number. Sleeps.
    ///
    /// When it fails with [`Failure::Unsure`] it is done but for waiting.
    pub(crate) fn attach(&self, device: DevNumber, freeze: bool) -> Result<(), Failure> {
        let turn = self.turn();
        turn.check(Step::Attach)?;
        let top = self.open(device)?;
        let mut stragglers = Stragglers::catch(&self.original).map_err(Failure::Open)?;
        let [first, second] = [self.drain()?, self.drain()?];
        self.show_as(Name::Attaching, Some(top.number()));

        let _noio = NoIo::enter();
        let frozen = self.freeze(freeze).inspect_err(|_| turn.show())?;
        if let Err(error) = self.lead_and_drain(&turn, &top, first) {
            // Before the thaw: what the file system writes then must not go to a top that is on its
            // way out, which may keep it to itself.
            drop(self.original.unlead());
            turn.steps().state.leave();
            drop(top);
            // Where the original does not finish either, the top goes on leaving.
            turn.wait_for_leaving(LEAVE_UNASKED_MS);
            drop(frozen);
            let _ = turn.settle();
            return Err(Failure::Drain(error));
        }
        drop(frozen);
        // Not undone from here on, whatever happens: see invariant 7.
        let waited = self.original.wait_for_submitters(DRAIN_MS);
        if waited.is_err() {
            stragglers.stay();
        }
        let drained = waited.and_then(|()| self.drain_held(second));
        turn.steps().stragglers = Some(stragglers);
        turn.show();
        drained.map_err(Failure::Unsure)
    }

    /// Leads bios to another mapped device. Sleeps.
    pub(crate) fn switch(&self, device: DevNumber, freeze: bool) -> Result<(), Failure> {
        let turn = self.turn();
        turn.check(Step::Switch)?;
        let top = self.open(device)?;
        let _noio = NoIo::enter();
        let frozen = self.freeze(freeze)?;
        drop(self.original.lead(top.clone()).map_err(Failure::Open)?);
        turn.steps().state.lead(top);
        turn.wait_for_leaving(LEAVE_MS);
        drop(frozen);
        turn.settle()
    }

    /// Leads bios nowhere any more. Sleeps.
    ///
    /// When it fails with [`Failure::InFlight`] it is done but for waiting, and may be asked for
    /// again.
    pub(crate) fn detach(&self, freeze: bool) -> Result<(), Failure> {
        let turn = self.turn();
        turn.check(Step::Detach)?;
        let _noio = NoIo::enter();
        let is_attached = turn.steps().state.current().is_some();
        let frozen = self.freeze(freeze && is_attached)?;
        drop(self.original.unlead());
        turn.steps().state.leave();
        turn.wait_for_leaving(LEAVE_MS);
        drop(frozen);
        turn.settle()
    }

    /// No table has the original any more: detaches what is attached. What takes longer is left to
    /// the timer. Sleeps, for half a second or so at most.
    pub(crate) fn close(this: &Arc<Self>) {
        // Nothing of the module is left to run when the last table is gone.
        OwnedQueue::cancel_delayed(this);
        let turn = this.turn();
        let _noio = NoIo::enter();
        let attached = turn.steps().state.current().map(|top| top.number());
        if let Some(number) = attached {
            dm::warning!(
                NAME,
                "Device {}: its last table is gone, {} is detached",
                this.number(),
                number
            );
        }
        drop(this.original.unlead());
        turn.steps().state.leave();
        turn.wait_for_leaving(LEAVE_UNASKED_MS);
        if turn.settle().is_ok() {
            return;
        }
        // The table that is about to go still has the module, so this does not fail; if it did,
        // the top's own drop would wait here.
        turn.steps().module = ModuleRef::new(this.originals.module()).ok();
        drop(turn);
        this.look_later();
    }

    /// Opens what is to be attached, and checks that it fits.
    fn open(&self, device: DevNumber) -> Result<Arc<Top>, Failure> {
        if !device.is_mapped() {
            return Err(Failure::NotMapped);
        }
        let original = traits(&self.original);
        let mode = if original.read_only {
            Mode::Read
        } else {
            Mode::ReadWrite
        };
        // What does not fit is said before what is in its way.
        let looked_at = BlockDevice::open(device, Mode::Read).map_err(Failure::Open)?;
        if looked_at.is_request_based() {
            return Err(Failure::RequestBased);
        }
        if looked_at.is_over(&self.original).map_err(Failure::Open)? {
            return Err(Failure::OverOriginal);
        }
        fit::check(&original, &traits(&looked_at)).map_err(Failure::Misfit)?;
        let top = Top::open(&self.original, device, mode).map_err(Failure::Open)?;
        Arc::new(top, GFP_KERNEL).map_err(|error| Failure::Open(error.into()))
    }

    fn freeze(&self, freeze: bool) -> Result<Option<Frozen<'_>>, Failure> {
        if !freeze {
            return Ok(None);
        }
        let began = Instant::<Monotonic>::now();
        let frozen = self.original.freeze().map_err(Failure::Freeze)?;
        self.shown.lock().freeze_us = micros(began);
        Ok(Some(frozen))
    }

    /// From a moment on, all that is submitted goes to `top`, and what was submitted before is
    /// done.
    fn lead_and_drain(&self, turn: &Turn<'_>, top: &Arc<Top>, drain: Drain<'_>) -> Result {
        let began = Instant::<Monotonic>::now();
        let holding = self.hold.begin(&self.original);
        drop(self.original.lead(top.clone())?);
        turn.steps().state.lead(top.clone());
        let drained = drain.wait(DRAIN_MS);
        drop(holding);
        self.shown.lock().drain_us = micros(began);
        drained
    }

    fn drain_held(&self, drain: Drain<'_>) -> Result {
        let _holding = self.hold.begin(&self.original);
        drain.wait(DRAIN_MS)
    }

    /// A drain of the original, for when nothing may be allocated.
    fn drain(&self) -> Result<Drain<'_>, Failure> {
        Drain::new(&self.original, self.originals.queue()).map_err(|error| {
            if error == compat::eopnotsupp() {
                Failure::NotCounted
            } else {
                Failure::Open(error)
            }
        })
    }

    /// Has the timer look whether a top has left, and whether stragglers may come.
    pub(crate) fn look_later(self: &Arc<Self>) {
        // If it is to look already, it will.
        let _ = OwnedQueue::enqueue_delayed(self.clone(), msecs_to_jiffies(LOOK_MS));
    }

    /// Whether there is something for the timer to look at.
    pub(crate) fn is_unsettled(&self) -> bool {
        let steps = self.steps.lock();
        steps.state.is_leaving() || steps.stragglers.is_some()
    }
}

/// The right to take a step; nobody else changes the state meanwhile. Given back when it is dropped.
struct Turn<'a> {
    origin: &'a Origin,
}

impl Turn<'_> {
    /// The steps so far, for a moment: the caller does not sleep with the lock held.
    fn steps(&self) -> Guard<'_, Steps, MutexBackend> {
        self.origin.steps.lock()
    }

    fn check(&self, step: Step) -> Result<(), Failure> {
        self.steps().state.check(step).map_err(Failure::Refused)
    }

    /// Shows the state that the steps are in, and tells of it.
    fn show(&self) {
        let steps = self.steps();
        let state = steps.state.name();
        let top = steps.state.leaving().next().or(steps.state.current());
        let top = top.map(|top| top.number());
        drop(steps);
        self.origin.show_as(state, top);
    }

    /// A top that leaves, if there is one that has something in flight.
    fn busy(&self) -> Option<Arc<Top>> {
        let steps = self.steps();
        let busy = steps.state.leaving().find(|top| !top.is_idle());
        busy.cloned()
    }

    /// Waits until nothing is in flight in the tops that leave, for `limit_ms` at most.
    fn wait_for_leaving(&self, limit_ms: i64) {
        if !self.steps().state.is_leaving() {
            return;
        }
        let limit = Delta::from_millis(limit_ms);
        let began = Instant::<Monotonic>::now();
        while let Some(top) = self.busy() {
            if !top.wait_idle(limit - began.elapsed()) {
                break;
            }
        }
        self.origin.shown.lock().drain_us = micros(began);
    }

    /// A top that has left, which is the caller's to close.
    fn gone(&self) -> Option<Arc<Top>> {
        self.steps().state.gone(|top| top.is_idle())
    }

    /// Lets the tops go that have left. Nothing is frozen: the last one to go takes the hooks away,
    /// which takes a while.
    fn settle(&self) -> Result<(), Failure> {
        while let Some(top) = self.gone() {
            drop(top);
        }
        if self.steps().state.current().is_none() {
            let stragglers = self.steps().stragglers.take();
            drop(stragglers);
        }
        self.show();
        if self.steps().state.is_leaving() {
            Err(Failure::InFlight)
        } else {
            Ok(())
        }
    }

    /// Lets the tops go that have left: whether there is one that has not.
    fn look_at_leaving(&self) -> bool {
        let has_left = self.steps().state.leaving().any(|top| top.is_idle());
        if has_left {
            let _ = self.settle();
        }
        self.steps().state.is_leaving()
    }

    /// Stops catching stragglers if none may come: whether to look again.
    fn look_at_stragglers(&self) -> bool {
        let stragglers = self.steps().stragglers.take();
        let Some(mut stragglers) = stragglers else {
            return false;
        };
        let may_come = stragglers.may_come(&self.origin.original);
        if may_come == MayCome::Never {
            return false;
        }
        self.steps().stragglers = Some(stragglers);
        may_come == MayCome::Still
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.steps().taken = false;
        self.origin.given_back.notify_all();
    }
}

impl HasQueue for Origin {
    fn queue(&self) -> &OwnedQueue {
        self.originals.queue()
    }
}

impl WorkItem for Origin {
    type Pointer = Arc<Origin>;

    fn run(this: Arc<Self>) {
        let turn = this.turn();
        let leaving = turn.look_at_leaving();
        if turn.look_at_stragglers() || leaving {
            drop(turn);
            this.look_later();
            return;
        }
        let module = turn.steps().module.take();
        drop(turn);
        // The module goes last: its exit waits for this item, by way of their queue.
        drop(this);
        drop(module);
    }
}

/// What users of a device rely on.
fn traits(device: &Bdev) -> Traits {
    Traits {
        sectors: device.sectors(),
        block_bytes: device.logical_block_size(),
        read_only: device.is_read_only(),
        write_cache: device.has_write_cache(),
        stable_writes: device.needs_stable_writes(),
        polled: device.has_polled_bios(),
        zoned: device.is_zoned(),
        inline_crypto: device.has_inline_crypto(),
        atomic_bytes: device.max_atomic_write(),
        protection_bytes: device.protection_bytes(),
    }
}

fn micros(began: Instant<Monotonic>) -> u64 {
    began.elapsed().as_micros_ceil().try_into().unwrap_or(0)
}
