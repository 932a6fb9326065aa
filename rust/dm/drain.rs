// SPDX-License-Identifier: GPL-2.0

//! Waiting until a block device has done all that it was given, whoever gave it.
//!
//! How depends on what the device is:
//!
//! | device | |
//! |---|---|
//! | of requests, also a mapped one | its queue is frozen: it counts each request until it is done, and whoever waits for one |
//! | mapped device of bios | it is suspended internally, without flushing: it counts each bio |
//! | other of bios | its queue is frozen, which sees a bio as long as it is submitted; from then on its driver's accounting shows it |
//!
//! To suspend a mapped device of requests would not do: device-mapper waits for those alone that it has
//! begun to map, not for those in its queue.
//!
//! What is submitted meanwhile waits, and goes on afterwards. So nobody may be waiting for a bio
//! whose submitter this stops, and that first has to be submitted through the device.
//!
//! A mapped device is suspended by an item of a workqueue. Who suspends it by command waits for its
//! file system with the device's lock held, and the file system may wait for bios that the drain's
//! caller holds back: a thread that waits for that lock cannot give up, but one that waits for the
//! item can. And the caller may be a message, which keeps its own device from being suspended: the
//! lock is taken by a thread that keeps nobody from anything.

use crate::{
    bindings::helpers,
    block_device::{
        Bdev,
        MappedDevice, //
    },
    compat,
    noio::NoIo,
    wait,
    workqueue::OwnedQueue, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Release, //
        },
        Arc, //
    },
    time::{
        msecs_to_jiffies,
        Delta, //
    },
    workqueue::{
        impl_has_work,
        new_work,
        Work,
        WorkItem, //
    }, //
};

/// A drain to come, which needs no memory any more.
pub struct Drain<'a> {
    device: &'a Bdev,
    queue: &'a OwnedQueue,
    /// For a mapped device of bios.
    suspension: Option<Arc<Suspension>>,
}

impl<'a> Drain<'a> {
    /// A drain of the device; if that is a mapped device of bios, items of the queue suspend it.
    /// Sleeps.
    ///
    /// Fails with `EOPNOTSUPP` if its driver does not account for what it has in flight: that of md
    /// can be told not to.
    pub fn new(device: &'a Bdev, queue: &'a OwnedQueue) -> Result<Self> {
        let mapped = if device.is_request_based() {
            None
        } else {
            MappedDevice::get(device.number())
        };
        let suspension = mapped.map(Suspension::new).transpose()?;
        // SAFETY: The device is open.
        if suspension.is_none() && !unsafe { helpers::bdev_counts_inflight(device.as_ptr()) } {
            return Err(compat::eopnotsupp());
        }
        Ok(Drain {
            device,
            queue,
            suspension,
        })
    }

    /// Waits until the device has done what it was given before, at most `limit_ms` milliseconds for
    /// its queue and as long again for its driver. A fatal signal may end the wait. Sleeps.
    ///
    /// Fails with `ETIMEDOUT` if that is over; the device goes on as before, but for a mapped device of
    /// bios, which takes nothing new until its suspension has ended.
    pub fn wait(self, limit_ms: u32) -> Result {
        let limit = Some(Delta::from_millis(limit_ms.into()));
        if let Some(suspension) = self.suspension {
            // It is in no queue yet.
            let _ = self.queue.enqueue(suspension.clone());
            return in_time(wait::until(|| suspension.over.load(Acquire) == 1, limit));
        }
        let device = self.device.as_ptr();
        // SAFETY: The device is open, and with it its queue lives; it is unfrozen below.
        let mut drained = unsafe {
            helpers::bdev_freeze_queue_start(device);
            helpers::bdev_freeze_queue_wait(device, msecs_to_jiffies(limit_ms))
        };
        // A queue of requests has none in flight when it is empty.
        if drained && !self.device.is_request_based() {
            // SAFETY: The device is open.
            let idle = || unsafe { helpers::bdev_count_inflight(device) } == 0;
            drained = wait::until(idle, limit);
        }
        // SAFETY: It was frozen above.
        unsafe { helpers::bdev_unfreeze_queue(device) };
        in_time(drained)
    }
}

fn in_time(drained: bool) -> Result {
    if drained {
        Ok(())
    } else {
        Err(compat::etimedout())
    }
}

/// The suspension of a mapped device, and its end.
#[pin_data]
struct Suspension {
    #[pin]
    work: Work<Suspension>,
    device: MappedDevice,
    /// 1 when it has been.
    over: Atomic<u32>,
}

impl_has_work! {
    impl HasWork<Suspension> for Suspension { self.work }
}

impl Suspension {
    fn new(device: MappedDevice) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Suspension {
                work <- new_work!("dm_drain"),
                device,
                over: Atomic::new(0),
            }),
            GFP_KERNEL,
        )
    }
}

impl WorkItem for Suspension {
    type Pointer = Arc<Suspension>;

    fn run(this: Arc<Self>) {
        let _noio = NoIo::enter();
        // SAFETY: The mapped device is held; it is resumed right away.
        unsafe {
            helpers::dm_internal_suspend(this.device.as_ptr());
            helpers::dm_internal_resume(this.device.as_ptr());
        }
        this.over.store(1, Release);
    }
}
