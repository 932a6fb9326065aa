// SPDX-License-Identifier: GPL-2.0

//! The device that an original's bios are led to.

use super::{
    counts::Counts,
    hook::Interposer,
    original::Original, //
};
use crate::{
    bindings::{
        self,
        helpers, //
    },
    block_device::{
        Bdev,
        Claimed,
        DevNumber, //
    },
    device::Mode,
    once_flag::OnceFlag, //
};
use core::ops::Deref;
use kernel::{
    prelude::*,
    sync::Arc,
    time::Jiffies,
    types::Opaque, //
};

/// What the hooks have to know of a top.
///
/// # Invariants
///
/// `users` is initialised. Its first reference is dropped once, by [`Lane::close`]; from the moment
/// when no other is left either, `idle` is complete.
#[pin_data(PinnedDrop)]
pub(super) struct Lane {
    /// The device: open as long as there is a bio that is counted here, and as long as the lane can
    /// be found.
    pub(super) device: *mut bindings::block_device,
    pub(super) counts: Arc<Counts>,
    #[pin]
    users: Opaque<bindings::percpu_ref>,
    #[pin]
    idle: Opaque<bindings::completion>,
    closed: OnceFlag,
}

// SAFETY: References and completions are used from any thread; the device is one that stays open.
unsafe impl Send for Lane {}
// SAFETY: As above.
unsafe impl Sync for Lane {}

impl Lane {
    fn new(device: *mut bindings::block_device, counts: Arc<Counts>) -> Result<Arc<Self>> {
        let lane = try_pin_init!(Lane {
            device,
            counts,
            // SAFETY: The slot is ours to initialise.
            idle <- Opaque::ffi_init(|slot| unsafe { helpers::init_completion(slot) }),
            // INVARIANT: The first reference is there.
            users <- Opaque::try_ffi_init(|slot| {
                // SAFETY: The slot is ours to initialise, and `all_gone` is for this type.
                kernel::error::to_result(unsafe {
                    bindings::percpu_ref_init(slot, Some(all_gone), 0, bindings::GFP_KERNEL)
                })
            }),
            closed: OnceFlag::new(),
        }? Error);
        Arc::pin_init(lane, GFP_KERNEL)
    }

    /// Counts a bio that is led here. Any context.
    ///
    /// The caller has found the lane where an original leads to it, and is in the same RCU section:
    /// the first reference is not dropped before that is over.
    #[inline]
    pub(super) fn enter(&self) {
        self.counts.led.add();
        // SAFETY: By the type invariants, the reference counter is initialised.
        unsafe { helpers::percpu_ref_get(self.users.get()) }
    }

    /// The bio has ended. Once for each [`enter`](Self::enter), in an RCU section. Any context.
    #[inline]
    pub(super) fn leave(&self) {
        self.counts.ended.add();
        // SAFETY: As above; the reference is that of the bio.
        unsafe { helpers::percpu_ref_put(self.users.get()) }
    }

    /// No original leads here any more, nor will one: what is under way are the last bios.
    /// Calls exclude each other.
    pub(super) fn close(&self) {
        if !self.closed.is_set() {
            self.closed.set();
            // SAFETY: By the type invariants, the first reference is there, and it is dropped only
            // here, once.
            unsafe { bindings::percpu_ref_kill_and_confirm(self.users.get(), None) }
        }
    }
}

#[pinned_drop]
impl PinnedDrop for Lane {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: The counter is initialised, and nobody can use it any more.
        unsafe { bindings::percpu_ref_exit(self.users.get()) }
    }
}

/// # Safety
///
/// Called for the `users` of a [`Lane`], when the last reference is gone. Any context.
unsafe extern "C" fn all_gone(users: *mut bindings::percpu_ref) {
    // SAFETY: The caller promises it: the counter is a field of a live lane.
    let lane = unsafe { kernel::container_of!(Opaque::cast_from(users), Lane, users) };
    // SAFETY: As above; the completion is initialised.
    unsafe { bindings::complete_all((*lane).idle.get()) }
}

/// A device that an original's bios can be led to: opened for this alone, and counted.
///
/// Dropping it waits until all bios that were led to it have ended, for as long as that takes;
/// [`wait_idle`](Self::wait_idle) tells whether it would. Sleeps.
///
/// # Invariants
///
/// `lane` is in the interposer's table of tops by this device, and the interposer counts this top.
pub struct Top {
    interposer: Arc<Interposer>,
    pub(super) lane: Arc<Lane>,
    device: Claimed,
}

impl Top {
    /// Opens the device for reading and, with [`Mode::ReadWrite`], for writing, for nobody else to
    /// open it exclusively, and forgets what is cached of it. Puts the hooks in place if this is
    /// the first top there is. Sleeps.
    ///
    /// Fails with `EBUSY` if somebody has claimed the device, with `ELOOP` if it is an original or
    /// if bios are led to the original itself: a bio is led only once.
    pub fn open(original: &Original, device: DevNumber, mode: Mode) -> Result<Self> {
        let interposer = original.interposer();
        let device = Claimed::open(device, mode)?;
        // SAFETY: The device is open. What is dirty stays.
        unsafe { bindings::invalidate_bdev(device.as_ptr()) };
        let lane = Lane::new(device.as_ptr(), original.counts().clone())?;
        interposer.add_top(original, &lane)?;
        // INVARIANT: It was just added.
        Ok(Top {
            interposer: interposer.clone(),
            lane,
            device,
        })
    }

    /// Waits until no bio is under way that was led here, `limit` at most; then true.
    ///
    /// Only what is no longer led to becomes idle. Sleeps; a fatal signal ends the wait.
    pub fn wait_idle(&self, limit: Jiffies) -> bool {
        // SAFETY: The completion is initialised.
        let left =
            unsafe { bindings::wait_for_completion_killable_timeout(self.lane.idle.get(), limit) };
        left > 0
    }
}

impl Deref for Top {
    type Target = Bdev;

    fn deref(&self) -> &Bdev {
        &self.device
    }
}

impl Drop for Top {
    fn drop(&mut self) {
        // An original that leads here has a reference to us: there is none, and nobody else closes.
        self.lane.close();
        // SAFETY: The completion is initialised.
        unsafe { bindings::wait_for_completion(self.lane.idle.get()) };
        self.interposer.remove_top(&self.lane);
    }
}
