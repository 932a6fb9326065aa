// SPDX-License-Identifier: GPL-2.0

//! The hooks: what runs for each bio of the system while there is a top.
//!
//! | hook | where | what it does |
//! |---|---|---|
//! | entry | `submit_bio_noacct` | leads a bio to the top of its device, if that has one |
//! | second | `__submit_bio` | leads what was past the first: in a throttle, or in the list of a thread that sleeps |
//! | end | tracepoint `block_bio_complete` | stops counting a bio that was led |
//!
//! The second is the last function before a bio enters the queue of its device. A bio can be
//! between the two for long. It is in place while one may be that was submitted before there was a
//! top, see [`super::stragglers`]; the others, while there is a top.
//!
//! The first two are callbacks of the function tracer, called where the functions begin. They are
//! plain ones: they do not change where a function goes, so they get along with other tracers,
//! kprobes and live patches, and they are called whatever else is attached there. Hence:
//!
//! - What is called is legal in every context that submits or ends bios. It takes no lock, allocates
//!   nothing, and does not sleep. What it looks at is protected by RCU.
//! - It changes a bio only before its function has looked at it, on the thread that submits it.
//! - When `unregister_ftrace_function()` returns, no thread is in a callback, nor in a trampoline
//!   that leads to one. The same holds for the tracepoint.
//!
//! Locks: `users`, which excludes writers of both tables and changes of the hooks. Under it the
//! kernel's own locks of the tracers are taken. None is held while a hook runs.

use super::{
    original::Fork,
    table::{
        InProbe,
        NoPreemption,
        Table, //
    },
    top::Lane, //
};
use crate::{
    bindings::{
        self,
        helpers, //
    },
    bio::OF_ITS_DEVICE,
    block_device::Bdev,
    compat, //
};
use kernel::{
    error::to_result,
    ffi::{
        c_ulong,
        c_void, //
    },
    new_mutex,
    prelude::*,
    sync::{
        rcu,
        Arc,
        Mutex, //
    },
    types::Opaque, //
};

/// In `bi_flags`: the bio was sent to an original by its target, see [`super::pass`].
pub(super) const PASSED: u16 = 1 << 14;
/// In `bi_flags`: the bio was led to a top, and is counted there.
const COUNTED: u16 = 1 << 15;
const _: () = assert!(
    bindings::BIO_FLAG_LAST <= 14,
    "the kernel uses a bit of bi_flags that is ours"
);

/// In `bi_flags`: the sector counts from the start of the disk, not of the partition.
pub(super) const REMAPPED: u16 = 1 << bindings::BIO_REMAPPED;
const TRACE_COMPLETION: u16 = 1 << bindings::BIO_TRACE_COMPLETION;

/// The originals and the tops of a module, and the hooks that are in place while there are tops.
#[pin_data]
pub struct Interposer {
    originals: Table<Fork>,
    lanes: Table<Lane>,
    #[pin]
    users: Mutex<Users>,
    #[pin]
    entry: Hook,
    #[pin]
    second: Hook,
    module: &'static ThisModule,
}

/// Who needs the hooks.
struct Users {
    /// How many tops there are.
    tops: usize,
    /// How many of [`Stragglers`](super::Stragglers) there are.
    stragglers: usize,
}

impl Interposer {
    /// One without originals, for a module, which stays as long as the hooks are in place. Fails with
    /// `ENOENT` in a kernel without the function of the second hook. May sleep.
    pub fn new(module: &'static ThisModule) -> Result<Arc<Self>> {
        let entry: unsafe extern "C" fn(*mut bindings::bio) = bindings::submit_bio_noacct;
        let second = function(c"__submit_bio")?;
        let interposer = pin_init!(Interposer {
            originals: Table::new(),
            lanes: Table::new(),
            users <- new_mutex!(Users { tops: 0, stragglers: 0 }, "Interposer::users"),
            entry <- Hook::new(entry as usize),
            second <- Hook::new(second),
            module,
        });
        Arc::pin_init(interposer, GFP_KERNEL)
    }

    /// The module.
    pub(super) fn module(&self) -> &'static ThisModule {
        self.module
    }

    /// Puts a device into the table of originals. Fails with `EBUSY` if it is there, or is a top.
    pub(super) fn add_original(&self, device: &Bdev, fork: &Arc<Fork>) -> Result {
        let device = device.as_ptr();
        let _writer = self.users.lock();
        let known = {
            let guard = rcu::read_lock();
            self.originals.find(device, &guard).is_some()
                || self.lanes.find(device, &guard).is_some()
        };
        if known {
            return Err(EBUSY);
        }
        self.originals.insert(device, fork.clone())
    }

    /// Undoes [`add_original`](Self::add_original).
    pub(super) fn remove_original(&self, device: &Bdev) {
        let _writer = self.users.lock();
        self.originals.remove(device.as_ptr());
    }

    /// Puts a device into the table of tops, and entry and end hook in place if it is the first.
    /// Fails with `ELOOP` if it is an original, or if the original is a top.
    pub(super) fn add_top(&self, original: &Bdev, lane: &Arc<Lane>) -> Result {
        let mut users = self.users.lock();
        let in_a_loop = {
            let guard = rcu::read_lock();
            self.originals.find(lane.device, &guard).is_some()
                || self.lanes.find(original.as_ptr(), &guard).is_some()
        };
        if in_a_loop {
            return Err(compat::eloop());
        }
        self.lanes.insert(lane.device, lane.clone())?;
        if users.tops == 0 {
            if let Err(error) = self.install() {
                self.lanes.remove(lane.device);
                return Err(error);
            }
        }
        users.tops += 1;
        Ok(())
    }

    /// Undoes [`add_top`](Self::add_top).
    pub(super) fn remove_top(&self, lane: &Arc<Lane>) {
        let mut users = self.users.lock();
        self.lanes.remove(lane.device);
        users.tops -= 1;
        if users.tops == 0 {
            self.entry.uninstall();
            self.unhook_end();
        }
    }

    /// Puts the second hook in place, if it is not. The caller has a top, or will have one before
    /// an original leads anywhere. Sleeps.
    pub(super) fn add_stragglers(&self) -> Result {
        let mut users = self.users.lock();
        if users.stragglers == 0 {
            // SAFETY: The caller of `remove_stragglers` keeps this alive until then; it is not
            // installed, and the lock is held. It is the hook of an interposer.
            unsafe { self.second.install(straggler) }?;
        }
        users.stragglers += 1;
        Ok(())
    }

    /// Undoes [`add_stragglers`](Self::add_stragglers).
    pub(super) fn remove_stragglers(&self) {
        let mut users = self.users.lock();
        users.stragglers -= 1;
        if users.stragglers == 0 {
            self.second.uninstall();
        }
    }

    /// Puts entry and end hook in place: first that of the end, for what the others count. Under
    /// `users`.
    fn install(&self) -> Result {
        let this: *const Interposer = self;
        // SAFETY: `ended` takes a pointer to an interposer, which lives until `uninstall`: every
        // top has a reference to it.
        to_result(unsafe { helpers::trace_bio_complete(Some(ended), this.cast_mut().cast()) })?;
        // SAFETY: As above; the caller holds `users`, and there was no top.
        unsafe { self.entry.install(entered) }.inspect_err(|_| self.unhook_end())
    }

    /// Takes the end hook away: when this returns it is not running. Under `users`; sleeps.
    fn unhook_end(&self) {
        let this: *const Interposer = self;
        // SAFETY: This is what `install` has registered.
        unsafe { helpers::untrace_bio_complete(Some(ended), this.cast_mut().cast()) }
    }

    /// Leads a bio whose device may be an original, if it has a top.
    ///
    /// # Safety
    ///
    /// `bio` must be one that is being submitted by this thread.
    #[inline(never)]
    unsafe fn redirect(&self, bio: *mut bindings::bio) {
        // SAFETY: The caller's promise.
        let device = unsafe { (*bio).bi_bdev };
        let reader = NoPreemption::begin();
        let fork = self.originals.find(device, &reader);
        let Some(lane) = fork.and_then(|fork| fork.lane(&reader)) else {
            return;
        };
        let top = lane.count_in();
        drop(reader);
        // SAFETY: The caller's promise; it was counted.
        unsafe { lead(bio, top) }
    }

    /// As [`redirect`](Self::redirect), of one that is past the checks of the entry.
    ///
    /// # Safety
    ///
    /// As for that; the bio was not passed to the original.
    #[inline(never)]
    unsafe fn redirect_straggler(&self, bio: *mut bindings::bio) {
        // SAFETY: The caller's promise.
        let (device, flags) = unsafe { ((*bio).bi_bdev, (*bio).bi_flags) };
        let reader = NoPreemption::begin();
        let Some(fork) = self.originals.find(device, &reader) else {
            return;
        };
        let Some(lane) = fork.lane(&reader) else {
            return;
        };
        if flags & REMAPPED != 0 {
            // Of a whole disk: a clone of a bio that was passed. Of a partition: it has been found
            // on its disk, which is to be undone for the top.
            let Some(partition) = fork.partition else {
                return;
            };
            // SAFETY: The caller's promise.
            let iter = unsafe { &mut (*bio).bi_iter };
            // An empty flush has no position.
            if iter.bi_size >> crate::block_device::SECTOR_SHIFT != 0 {
                iter.bi_sector = iter.bi_sector.wrapping_sub(partition.start);
            }
        }
        lane.counts.stragglers().add();
        let top = lane.count_in();
        drop(reader);
        // SAFETY: The caller's promise; it was counted.
        unsafe { lead(bio, top) }
    }

    /// Stops counting a bio that was led and has ended, and makes it one for the original again:
    /// its submitter may look at its device, or submit it once more.
    ///
    /// # Safety
    ///
    /// `bio` must be one that was counted and has ended, before its submitter is told. Called in a
    /// probe.
    #[inline(never)]
    unsafe fn leave(&self, bio: *mut bindings::bio) {
        // SAFETY: The caller's promise; it does not outlive this call.
        let probe = unsafe { InProbe::assume() };
        // SAFETY: The caller promises a bio that nobody else has now.
        let bio = unsafe { &mut *bio };
        // The device is still that of the top, which is in the table as long as bios are counted.
        if let Some(lane) = self.lanes.find(bio.bi_bdev, &probe) {
            bio.bi_flags &= !COUNTED;
            bio.bi_bdev = lane.original;
            if bio.bi_status != 0 {
                lane.counts.failed().add();
            }
            lane.counts.ended().add();
        }
    }
}

/// Makes a bio one for a top.
///
/// # Safety
///
/// `bio` must be one that is being submitted by this thread, and that was counted for the lane of
/// the device `top`.
#[inline(always)]
unsafe fn lead(bio: *mut bindings::bio, top: *mut bindings::block_device) {
    // SAFETY: The caller promises a bio that is this thread's to change, and it is counted, so the
    // device is open.
    unsafe {
        // What fails the checks that follow has to come to the end hook as well.
        (*bio).bi_flags = (*bio).bi_flags & !OF_ITS_DEVICE | COUNTED | TRACE_COMPLETION;
        // A top completes bios by itself. One that is polled for would occupy its thread, which may
        // have to submit what the bio needs.
        (*bio).bi_opf &= !bindings::REQ_POLLED;
        if (*bio).bi_opf & (bindings::REQ_NOWAIT | bindings::REQ_ATOMIC) != 0 {
            drop_wishes(bio, top);
        }
        (*bio).bi_bdev = top;
        // Charged to the same cgroup, for that device.
        bindings::bio_associate_blkg(bio);
    }
}

/// Takes off what the original would have met, and `top` can do without or meets anyway. Its users do
/// not expect an error.
///
/// # Safety
///
/// As for [`lead`].
#[cold]
unsafe fn drop_wishes(bio: *mut bindings::bio, top: *mut bindings::block_device) {
    // SAFETY: The caller's promise, as in `lead`.
    unsafe {
        if !helpers::bdev_nowait(top) {
            (*bio).bi_opf &= !bindings::REQ_NOWAIT;
        }
        // No device tears a block.
        if (*bio).bi_iter.bi_size <= helpers::bdev_logical_block_size(top) {
            (*bio).bi_opf &= !bindings::REQ_ATOMIC;
        }
    }
}

/// Where a function of the kernel is that it does not export. Sleeps.
///
/// The function tracer takes names as well, but asks all functions of the kernel and its modules for
/// theirs, which takes seconds on a slow machine. And where that fails for want of memory, it says
/// that it has succeeded, and traces them all.
fn function(name: &CStr) -> Result<usize> {
    let mut address = 0;
    // SAFETY: The name ends with a NUL; the address is a local.
    to_result(unsafe { helpers::function_address(name.as_char_ptr(), &mut address) })?;
    Ok(address)
}

/// A callback of the function tracer.
///
/// # Invariants
///
/// It is initialised, and changed by nobody while it is registered.
#[pin_data]
struct Hook {
    #[pin]
    ops: Opaque<bindings::ftrace_ops>,
    /// Where its function is.
    function: usize,
}

// SAFETY: It is changed under the interposer's lock only, by calls that are legal on any thread.
unsafe impl Send for Hook {}
// SAFETY: As above.
unsafe impl Sync for Hook {}

impl Hook {
    fn new(function: usize) -> impl PinInit<Self> {
        pin_init!(Hook {
            function,
            // SAFETY: The slot is ours to write.
            ops <- Opaque::ffi_init(|slot: *mut bindings::ftrace_ops| unsafe {
                slot.write(bindings::ftrace_ops::default())
            }),
        })
    }

    /// Has `callback` called where a function of one bio begins. Sleeps.
    ///
    /// Fails with `EINVAL` if it cannot be traced.
    ///
    /// # Safety
    ///
    /// It must not be installed, and only one thread may do this or the opposite at a time. What
    /// the callback needs must be there until [`uninstall`](Self::uninstall) returns.
    unsafe fn install(&self, callback: Callback) -> Result {
        let ops = self.ops.get();
        let fresh = bindings::ftrace_ops {
            func: Some(callback),
            // It stays even where an administrator turns tracing off.
            flags: bindings::FTRACE_OPS_FL_PERMANENT as c_ulong,
            ..Default::default()
        };
        // SAFETY: Not registered, so nobody looks at it, and the caller excludes others.
        unsafe { ops.write(fresh) };
        let (remove, reset) = (0, 1);
        // SAFETY: The operations are valid, and not registered.
        to_result(unsafe { bindings::ftrace_set_filter_ip(ops, self.function, remove, reset) })
            // SAFETY: As above; they stay where they are until they are unregistered, being pinned.
            .and_then(|()| unsafe { to_result(bindings::register_ftrace_function(ops)) })
            // SAFETY: Not registered.
            .inspect_err(|_| unsafe { bindings::ftrace_free_filter(ops) })
    }

    /// Takes the callback away: when this returns none is running. It must be installed. Sleeps.
    fn uninstall(&self) {
        let ops = self.ops.get();
        // SAFETY: It is registered; the interposer's lock is held.
        unsafe { bindings::unregister_ftrace_function(ops) };
        // SAFETY: Not registered any more.
        unsafe { bindings::ftrace_free_filter(ops) };
    }
}

/// What the function tracer calls, with its operations.
type Callback =
    unsafe extern "C" fn(c_ulong, c_ulong, *mut bindings::ftrace_ops, *mut bindings::ftrace_regs);

/// The first argument of a function that is traced.
///
/// # Safety
///
/// Called in a callback of the function tracer, of a function whose first argument is a bio.
#[inline(always)]
unsafe fn argument(regs: *mut bindings::ftrace_regs) -> *mut bindings::bio {
    // SAFETY: The registers that a plain callback gets are those of the C calling convention, in
    // their places of `pt_regs`: the first argument is in `di`.
    unsafe { (*regs.cast::<bindings::pt_regs>()).di as *mut bindings::bio }
}

/// # Safety
///
/// Called by the function tracer where `submit_bio_noacct` is entered.
unsafe extern "C" fn entered(
    _ip: c_ulong,
    _parent: c_ulong,
    ops: *mut bindings::ftrace_ops,
    regs: *mut bindings::ftrace_regs,
) {
    // SAFETY: The operations are those of an interposer's hook, which lives as long as that is
    // installed.
    let interposer =
        unsafe { &*kernel::container_of!(Opaque::cast_from(ops), Interposer, entry.ops) };
    // SAFETY: The function is one of a bio, which is being submitted by this thread.
    let bio = unsafe { argument(regs) };
    // SAFETY: As above.
    let (device, flags) = unsafe { ((*bio).bi_bdev, (*bio).bi_flags) };
    // Nearly all bios of the system are gone after this. One that was passed to the original is let
    // through by the kernel's own mark, which what is cloned of it has as well.
    if interposer.originals.may_have(device) && flags & REMAPPED == 0 {
        // SAFETY: As above.
        unsafe { interposer.redirect(bio) }
    }
}

/// # Safety
///
/// Called by the function tracer where `__submit_bio` is entered.
unsafe extern "C" fn straggler(
    _ip: c_ulong,
    _parent: c_ulong,
    ops: *mut bindings::ftrace_ops,
    regs: *mut bindings::ftrace_regs,
) {
    // SAFETY: As in `entered`.
    let interposer =
        unsafe { &*kernel::container_of!(Opaque::cast_from(ops), Interposer, second.ops) };
    // SAFETY: As in `entered`.
    let bio = unsafe { argument(regs) };
    // SAFETY: As in `entered`.
    let (device, flags) = unsafe { ((*bio).bi_bdev, (*bio).bi_flags) };
    if interposer.originals.may_have(device) && flags & PASSED == 0 {
        // SAFETY: As above; it was not passed.
        unsafe { interposer.redirect_straggler(bio) }
    }
}

/// # Safety
///
/// Called by the tracepoint `block_bio_complete`, with the interposer that it was registered with
/// and a bio that has ended, before its submitter is told.
unsafe extern "C" fn ended(
    interposer: *mut c_void,
    _queue: *mut bindings::request_queue,
    bio: *mut bindings::bio,
) {
    // SAFETY: The caller promises a live bio.
    if unsafe { (*bio).bi_flags } & COUNTED != 0 {
        // SAFETY: The interposer lives as long as the probe is registered; the bio is counted.
        unsafe { (*interposer.cast::<Interposer>()).leave(bio) }
    }
}
