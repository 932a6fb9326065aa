// SPDX-License-Identifier: GPL-2.0

//! A device whose bios can be led elsewhere.

use super::{
    counts::{
        Counted,
        Counts, //
    },
    hook::Interposer,
    table::NoPreemption,
    top::{
        Lane,
        Top, //
    }, //
};
use crate::{
    bindings::{
        self,
        helpers, //
    },
    block_device::{
        Bdev,
        BlockDevice,
        Sector, //
    },
    compat,
    device::Mode,
    wait, //
};
use core::{
    ops::Deref,
    ptr, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Release, //
        },
        Arc,
        Mutex, //
    },
    time::{
        Delta,
        Instant,
        Monotonic, //
    }, //
};

/// What the hooks have to know of an original.
///
/// # Invariants
///
/// `to` is null or points at the lane of a top that lives at least until a grace period after the
/// pointer has been replaced.
pub(super) struct Fork {
    to: Atomic<*mut Lane>,
    pub(super) partition: Option<Partition>,
}

/// Where a partition is.
#[derive(Clone, Copy)]
pub(super) struct Partition {
    /// The first sector on its disk.
    pub(super) start: Sector,
}

impl Fork {
    /// Where bios are led. Any context.
    #[inline]
    pub(super) fn lane<'g>(&'g self, _reader: &'g NoPreemption) -> Option<&'g Lane> {
        // SAFETY: The pointer is to a live, aligned word; a volatile load of one is atomic.
        let to = unsafe { self.to.as_ptr().read_volatile() };
        // SAFETY: By the type invariants, the lane lives as long as RCU waits for the reader.
        unsafe { to.as_ref() }
    }
}

/// The device that bios are passed to: the original itself, or the disk that it is a partition of.
///
/// # Invariants
///
/// It is valid as long as the original is open.
struct PassedTo(*mut bindings::block_device);

// SAFETY: A device is used from any thread.
unsafe impl Send for PassedTo {}
// SAFETY: As above.
unsafe impl Sync for PassedTo {}

impl PassedTo {
    fn of(original: &BlockDevice) -> Self {
        // INVARIANT: It is the original; or its disk, of which a partition has a reference.
        PassedTo(if original.is_request_based() {
            original.as_ptr()
        } else {
            // SAFETY: The device is open. The disk of one that is no partition is itself.
            unsafe { helpers::bdev_whole(original.as_ptr()) }
        })
    }
}

/// A device in the table of originals, with its fork. It is open, for reading and without a claim,
/// which takes nothing from its users.
struct Listed {
    interposer: Arc<Interposer>,
    fork: Arc<Fork>,
    counts: Arc<Counts>,
    passed_to: PassedTo,
    device: BlockDevice,
}

impl Drop for Listed {
    /// Sleeps.
    fn drop(&mut self) {
        self.interposer.remove_original(&self.device);
    }
}

/// A device whose bios can be led to a [`Top`].
///
/// # Invariants
///
/// The fork of `listed` leads to the lane of `top`, or nowhere if there is none.
#[pin_data(PinnedDrop)]
pub struct Original {
    listed: Listed,
    /// Also excludes changes of where the fork leads.
    #[pin]
    top: Mutex<Option<Arc<Top>>>,
}

impl Original {
    /// Makes a device one. Sleeps.
    ///
    /// Fails with `EBUSY` if it is one already, or if bios are led to it.
    pub fn new(interposer: Arc<Interposer>, device: &Bdev) -> Result<impl PinInit<Self, Error>> {
        let device = BlockDevice::open(device.number(), Mode::Read)?;
        let counts = Arc::new(Counts::new()?, GFP_KERNEL)?;
        let fork = Arc::new(
            Fork {
                to: Atomic::new(ptr::null_mut()),
                partition: device.partition_start().map(|start| Partition { start }),
            },
            GFP_KERNEL,
        )?;
        interposer.add_original(&device, &fork)?;
        let listed = Listed {
            interposer,
            fork,
            counts,
            passed_to: PassedTo::of(&device),
            device,
        };
        Ok(try_pin_init!(Self {
            listed,
            top <- new_mutex!(None, "Original::top"),
        }? Error))
    }

    pub(super) fn interposer(&self) -> &Arc<Interposer> {
        &self.listed.interposer
    }

    #[inline]
    pub(super) fn counts(&self) -> &Arc<Counts> {
        &self.listed.counts
    }

    /// Leads the bios that are submitted from now on to `top`; returns the top they were led to
    /// before. When this returns, nothing more goes there. Sleeps.
    ///
    /// Fails with `EINVAL` if the top was opened for another original: a bio that ends becomes one for
    /// the original of its top again.
    pub fn lead(&self, top: Arc<Top>) -> Result<Option<Arc<Top>>> {
        if !top.lane.counts.are_of(self.counts()) {
            return Err(EINVAL);
        }
        Ok(self.replace(Some(top)))
    }

    /// Leads bios nowhere any more; returns the top they were led to before. When this returns,
    /// nothing more goes there. Sleeps.
    pub fn unlead(&self) -> Option<Arc<Top>> {
        self.replace(None)
    }

    fn replace(&self, new: Option<Arc<Top>>) -> Option<Arc<Top>> {
        let mut top = self.top.lock();
        let lane = new
            .as_ref()
            .map_or(ptr::null(), |new| Arc::as_ptr(&new.lane));
        // INVARIANT: `top` has the new one before the mutex is released, and the old one leaves it
        // a grace period later.
        self.listed.fork.to.store(lane.cast_mut(), Release);
        // SAFETY: Waits; the caller may sleep.
        unsafe { bindings::synchronize_rcu() };
        // No hook has seen the old one that has not counted its bio by now.
        core::mem::replace(&mut *top, new)
    }

    /// The first sector on the disk, if it is a partition, else 0.
    #[inline]
    pub(super) fn start(&self) -> Sector {
        self.listed
            .fork
            .partition
            .map_or(0, |partition| partition.start)
    }

    /// Where bios are sent that are passed, with sectors that count from the start of the disk.
    ///
    /// A driver of bios may send on to its own device what it has made of such a bio, and what it makes
    /// has not our mark: sent to a partition, that would be led as one that was under way to it
    /// before. Sent to the disk, it is a bio of another device.
    #[inline]
    pub(super) fn passed_to(&self) -> &Bdev {
        // SAFETY: By the type invariants of `PassedTo`, the device is valid as long as `self`.
        unsafe { Bdev::from_raw(self.listed.passed_to.0) }
    }

    /// How many bios went which way.
    pub fn counted(&self) -> Counted {
        self.listed.counts.sums()
    }

    /// Waits until each bio that was submitted before has either entered the queue of its device
    /// or been led to a top, also that of a thread that was interrupted in between, or that waits
    /// for somebody's freeze of the queue to end. Sleeps, for a tenth of a second or more.
    ///
    /// Not while bios are held back: a thread that polls for one of them never gets there.
    ///
    /// Fails with `ETIMEDOUT` when somebody has waited before the queue for all of `limit_ms`; a fatal
    /// signal may end the wait as well.
    pub fn wait_for_submitters(&self, limit_ms: u32) -> Result {
        let device = self.listed.device.as_ptr();
        // SAFETY: The device is open.
        let is_free = || !unsafe { helpers::bdev_has_waiters(device) };
        let limit = Delta::from_millis(limit_ms.into());
        let began = Instant::<Monotonic>::now();
        while wait::until(is_free, Some(limit - began.elapsed())) && began.elapsed() < limit {
            // Where they sleep, they have entered, unless it was before the queue. Who has been woken
            // there may have to sleep there again.
            // SAFETY: The device is open; the caller may sleep.
            if unsafe { helpers::bdev_synchronize_submitters(device) } {
                return Ok(());
            }
        }
        Err(compat::etimedout())
    }
}

impl Deref for Original {
    type Target = Bdev;

    #[inline]
    fn deref(&self) -> &Bdev {
        &self.listed.device
    }
}

#[pinned_drop]
impl PinnedDrop for Original {
    /// Drops the top, if it leads to one. Sleeps.
    fn drop(self: Pin<&mut Self>) {
        drop(self.unlead());
    }
}
