// SPDX-License-Identifier: GPL-2.0

//! What is known of some block devices, found by the device, without a lock.
//!
//! Every bio of the system asks, so that a device is *not* here must cost next to nothing: one load
//! and a comparison, nearly always.

use crate::bindings::{
    self,
    helpers, //
};
use core::ptr;
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Release, //
        },
        rcu,
        Arc, //
    },
    types::NotThreadSafe, //
};

/// While this lives, what was found in a table is not freed.
///
/// # Safety
///
/// A removal waits for whoever has it: see [`Table::remove`].
pub(super) unsafe trait Reader {}

// SAFETY: It is waited for by a grace period of RCU.
unsafe impl Reader for rcu::Guard {}

/// The thread is not interrupted by another. As much as [`rcu::Guard`] for a third of what that
/// costs, in which nothing sleeps and little is done.
pub(super) struct NoPreemption(NotThreadSafe);

impl NoPreemption {
    /// From here on.
    #[inline(always)]
    pub(super) fn begin() -> Self {
        // SAFETY: It is allowed again when the value is dropped.
        unsafe { helpers::preempt_disable() };
        NoPreemption(NotThreadSafe)
    }
}

impl Drop for NoPreemption {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: It was disabled for this value, on this thread.
        unsafe { helpers::preempt_enable() }
    }
}

// SAFETY: RCU waits for whoever cannot be interrupted.
unsafe impl Reader for NoPreemption {}

/// A tracepoint calls its probe: the time of that call.
pub(super) struct InProbe(());

impl InProbe {
    /// # Safety
    ///
    /// For the time of one call of a probe, and not longer.
    #[inline(always)]
    pub(super) unsafe fn assume() -> Self {
        InProbe(())
    }
}

// SAFETY: Removals wait for the probes of tracepoints.
unsafe impl Reader for InProbe {}

const BUCKETS: usize = 256;

type Link<T> = Atomic<*mut Entry<T>>;

struct Entry<T> {
    next: Link<T>,
    device: *mut bindings::block_device,
    value: Arc<T>,
}

/// A table of devices. Its devices are compared by address, and not used.
///
/// # Invariants
///
/// Each bucket is a list of entries that end with a null link. Each entry is a live `KBox` as long
/// as a reader may have found it: it is freed when these are gone that were there when it left its
/// list.
pub(super) struct Table<T> {
    buckets: [Link<T>; BUCKETS],
}

// SAFETY: The table owns its entries, as values of `Arc<T>`; addresses of devices are plain numbers
// here.
unsafe impl<T: Send + Sync> Send for Table<T> {}
// SAFETY: As above; entries are shared among threads as `&T`.
unsafe impl<T: Send + Sync> Sync for Table<T> {}

/// The pointer in a link. An RCU dereference: on all that is reached through it, the loads follow.
#[inline(always)]
fn load<T>(link: &Link<T>) -> *mut Entry<T> {
    // SAFETY: The pointer is to a live, aligned word. A volatile load of one is atomic; the kernel
    // crate's own is a call.
    unsafe { link.as_ptr().read_volatile() }
}

impl<T> Table<T> {
    /// An empty table.
    pub(super) fn new() -> Self {
        // INVARIANT: All lists are empty.
        Table {
            buckets: [const { Atomic::new(ptr::null_mut()) }; BUCKETS],
        }
    }

    #[inline(always)]
    fn bucket(&self, device: *mut bindings::block_device) -> &Link<T> {
        // Devices are objects of a slab, of more than a thousand bytes: these bits of their
        // addresses differ, and to take the second byte is one instruction.
        &self.buckets[device.addr() >> 8 & (BUCKETS - 1)]
    }

    /// Whether it is worth the trouble to look for a device: false for nearly all that are not here.
    /// Any context.
    #[inline(always)]
    pub(super) fn may_have(&self, device: *mut bindings::block_device) -> bool {
        !load(self.bucket(device)).is_null()
    }

    /// What is known of a device. Any context.
    #[inline]
    pub(super) fn find<'g>(
        &'g self,
        device: *mut bindings::block_device,
        _reader: &'g impl Reader,
    ) -> Option<&'g T> {
        let mut entry = load(self.bucket(device));
        // SAFETY: By the type invariants, what a link leads to is live while the reader is.
        while let Some(found) = unsafe { entry.as_ref() } {
            if found.device == device {
                return Some(&found.value);
            }
            entry = load(&found.next);
        }
        None
    }

    /// Adds a device. The caller excludes other writers, and sees to it that the device is not here.
    /// Sleeps.
    pub(super) fn insert(&self, device: *mut bindings::block_device, value: Arc<T>) -> Result {
        let bucket = self.bucket(device);
        let entry = Entry {
            next: Atomic::new(load(bucket)),
            device,
            value,
        };
        let entry = KBox::into_raw(KBox::new(entry, GFP_KERNEL)?);
        // INVARIANT: The new entry is complete, and leads to the rest of the list.
        bucket.store(entry, Release);
        Ok(())
    }

    /// Removes a device; when this returns no reader has it any more. The caller excludes other
    /// writers. Sleeps.
    pub(super) fn remove(&self, device: *mut bindings::block_device) {
        let mut link = self.bucket(device);
        loop {
            let entry = load(link);
            // SAFETY: By the type invariants, entries in a list are live, and there is no other
            // writer that could remove one.
            let Some(found) = (unsafe { entry.as_ref() }) else {
                return;
            };
            if found.device != device {
                link = &found.next;
                continue;
            }
            link.store(load(&found.next), Release);
            // SAFETY: Waits; the caller may sleep.
            unsafe {
                bindings::synchronize_rcu();
                helpers::tracepoint_synchronize();
            }
            // SAFETY: The entry came from a box, is in no list, and each reader that may have found
            // it is gone.
            drop(unsafe { KBox::from_raw(entry) });
            return;
        }
    }
}
