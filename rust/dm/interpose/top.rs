// SPDX-License-Identifier: GPL-2.0

//! The device that an original's bios are led to.

use super::{
    counts::LaneCounts,
    hook::Interposer,
    original::Original, //
};
use crate::{
    bindings,
    block_device::{
        Bdev,
        Claimed,
        DevNumber, //
    },
    device::Mode,
    module_ref::ModuleRef,
    wait, //
};
use core::ops::Deref;
use kernel::{
    prelude::*,
    sync::Arc,
    time::Delta, //
};

/// What the hooks have to know of a top.
pub(super) struct Lane {
    /// The device: open as long as there is a bio that is counted here, and as long as the lane can
    /// be found.
    pub(super) device: *mut bindings::block_device,
    /// The original, which is what a bio has as its device again when it has ended. Not used here:
    /// whoever has submitted the bio has it open.
    pub(super) original: *mut bindings::block_device,
    pub(super) counts: LaneCounts,
}

impl Lane {
    /// Counts a bio that is led here: the device, which stays open until it has ended.
    #[inline(always)]
    pub(super) fn count_in(&self) -> *mut bindings::block_device {
        self.counts.led().add();
        self.device
    }
}

// SAFETY: The devices are addresses, or ones that stay open.
unsafe impl Send for Lane {}
// SAFETY: As above.
unsafe impl Sync for Lane {}

/// A device that an original's bios can be led to: opened for this alone, and counted.
///
/// Dropping it waits until all bios that were led to it have ended, for as long as that takes;
/// [`is_idle`](Self::is_idle) tells whether it would. Sleeps.
///
/// # Invariants
///
/// `lane` is in the interposer's table of tops by this device, and the interposer counts this top.
pub struct Top {
    interposer: Arc<Interposer>,
    pub(super) lane: Arc<Lane>,
    device: Claimed,
    /// The hooks stay with a top that is forgotten, and so does their code.
    _module: ModuleRef,
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
        let lane = Arc::new(
            Lane {
                device: device.as_ptr(),
                original: original.as_ptr(),
                counts: LaneCounts::take(original.counts())?,
            },
            GFP_KERNEL,
        )?;
        let module = ModuleRef::new(interposer.module())?;
        interposer.add_top(original, &lane)?;
        // INVARIANT: It was just added.
        Ok(Top {
            interposer: interposer.clone(),
            lane,
            device,
            _module: module,
        })
    }

    /// Whether no bio is under way that was led here. Where none is led any more, it stays so.
    pub fn is_idle(&self) -> bool {
        self.lane.counts.is_idle()
    }

    /// Waits until no bio is under way that was led here, `limit` at most; then true.
    ///
    /// Only what is no longer led to becomes idle. Sleeps; a fatal signal ends the wait.
    pub fn wait_idle(&self, limit: Delta) -> bool {
        wait::until(|| self.is_idle(), Some(limit))
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
        // An original that leads here has a reference to us: there is none.
        wait::until(|| self.is_idle(), None);
        self.interposer.remove_top(&self.lane);
    }
}
