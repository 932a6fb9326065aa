// SPDX-License-Identifier: GPL-2.0

//! Waiting until a block device has done all that it was given, whoever gave it.
//!
//! How depends on what the device is:
//!
//! | device | |
//! |---|---|
//! | of requests | its queue is frozen: it counts each request until it is done |
//! | mapped device | it is suspended internally, without flushing: it counts each bio |
//! | other of bios | its queue is frozen, which sees a bio as long as it is submitted; from then on its driver's accounting shows it |
//!
//! What is submitted meanwhile waits, and goes on afterwards. So nobody may be waiting for a bio
//! whose submitter this stops, and that first has to be submitted through the device.

use crate::{
    bindings::{
        self,
        helpers, //
    },
    block_device::{
        Bdev,
        MappedDevice, //
    },
    compat, //
};
use kernel::{
    prelude::*,
    time::{
        msecs_to_jiffies,
        Delta,
        Instant,
        Monotonic, //
    }, //
};

/// How long between two looks at a driver's accounting, in milliseconds.
const POLL_MS: u32 = 1;

impl Bdev {
    /// Waits until the device has done what it was given before, at most `limit_ms` milliseconds.
    /// Sleeps.
    ///
    /// Fails with `ETIMEDOUT` if that is over; the device goes on as before. For a mapped device
    /// there is no limit: what a suspension of it waits for is its own.
    pub fn drain(&self, limit_ms: u32) -> Result {
        if let Some(mapped) = MappedDevice::get(self.number()) {
            // SAFETY: The mapped device is held; it is resumed right away.
            unsafe {
                helpers::dm_internal_suspend(mapped.as_ptr());
                helpers::dm_internal_resume(mapped.as_ptr());
            }
            return Ok(());
        }
        let began = Instant::<Monotonic>::now();
        // SAFETY: The device is open, and with it its queue lives; it is unfrozen below.
        let empty = unsafe {
            helpers::bdev_freeze_queue_start(self.as_ptr());
            helpers::bdev_freeze_queue_wait(self.as_ptr(), msecs_to_jiffies(limit_ms))
        };
        let drained = if empty {
            self.wait_for_accounting(began, limit_ms)
        } else {
            Err(compat::etimedout())
        };
        // SAFETY: It was frozen above.
        unsafe { helpers::bdev_unfreeze_queue(self.as_ptr()) };
        drained
    }

    /// Waits until the device's statistics show nothing in flight. Of a queue of requests that is
    /// so when it is empty.
    fn wait_for_accounting(&self, began: Instant<Monotonic>, limit_ms: u32) -> Result {
        if self.is_request_based() {
            return Ok(());
        }
        // SAFETY: The device is open.
        while unsafe { helpers::bdev_count_inflight(self.as_ptr()) } != 0 {
            if began.elapsed() > Delta::from_millis(limit_ms.into()) {
                return Err(compat::etimedout());
            }
            // SAFETY: The caller may sleep.
            unsafe { bindings::msleep(POLL_MS) };
        }
        Ok(())
    }
}
