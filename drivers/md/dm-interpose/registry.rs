// SPDX-License-Identifier: GPL-2.0

//! Which originals there are, and whose they are.
//!
//! While a table is replaced, the old one and the new one are open at the same time. They share the
//! original, with what is attached to it: a new table of an `interpose` device does not detach.
//! Another mapped device cannot have the same original.

use crate::{
    origin::Origin,
    NAME, //
};
use core::ops::Deref;
use dm::{
    block_device::DevNumber,
    compat,
    interpose::Interposer,
    prelude::*, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    }, //
};

/// The originals of the module's tables.
#[pin_data]
pub(crate) struct Registry {
    #[pin]
    open: Mutex<KVec<Open>>,
    interposer: Arc<Interposer>,
    /// What is left to do for originals that no table has any more. The module's exit waits for it.
    queue: OwnedQueue,
    module: &'static ThisModule,
}

struct Open {
    /// The mapped device that has it.
    owner: DevNumber,
    /// How many tables of that device.
    tables: usize,
    origin: Arc<Origin>,
}

impl Registry {
    /// An empty registry. May sleep.
    pub(crate) fn new(module: &'static ThisModule) -> Result<Arc<Self>> {
        let interposer = Interposer::new()?;
        let queue = OwnedQueue::new(c"dm-interpose")?;
        Arc::pin_init(
            pin_init!(Registry {
                open <- new_mutex!(KVec::new(), "dm_interpose_registry"),
                interposer,
                queue,
                module,
            }),
            GFP_KERNEL,
        )
    }

    /// The queue for what outlives the tables.
    pub(crate) fn queue(&self) -> &OwnedQueue {
        &self.queue
    }

    /// The module.
    pub(crate) fn module(&self) -> &'static ThisModule {
        self.module
    }

    /// The original on `device`, for a table of `owner`. Sleeps.
    ///
    /// Fails with `EBUSY` if another mapped device has it, if a top is still leaving that an
    /// earlier one has attached, or if the device is a top itself; with `ELOOP` if the device is an
    /// interpose device, or `owner` an original.
    pub(crate) fn open(self: &Arc<Self>, device: &Bdev, owner: DevNumber) -> Result<OriginRef> {
        let mut open = self.open.lock();
        let number = device.number();
        if let Some(entry) = open
            .iter_mut()
            .find(|entry| entry.origin.number() == number)
        {
            if entry.owner != owner {
                dm::error!(NAME, "Device {} is the original of {}", number, entry.owner);
                return Err(EBUSY);
            }
            entry.tables += 1;
            return Ok(OriginRef {
                registry: self.clone(),
                origin: entry.origin.clone(),
            });
        }
        // A drain of a mapped device is a suspension that device-mapper resumes without telling its
        // target: an interpose device would take no step any more.
        if let Some(lower) = open
            .iter()
            .find(|entry| entry.owner == number || entry.origin.number() == owner)
        {
            dm::error!(
                NAME,
                "{} is interposed by {}: neither may be an interpose device on the other",
                lower.origin.number(),
                lower.owner
            );
            return Err(compat::eloop());
        }
        open.reserve(1, GFP_KERNEL)?;
        let origin =
            Origin::new(self.clone(), self.interposer.clone(), device).inspect_err(|&error| {
                if error == EBUSY {
                    dm::error!(NAME, "Device {} is attached, or not yet detached", number);
                }
            })?;
        open.push(
            Open {
                owner,
                tables: 1,
                origin: origin.clone(),
            },
            GFP_KERNEL,
        )?;
        Ok(OriginRef {
            registry: self.clone(),
            origin,
        })
    }
}

/// A table's share in its original. The last one to go detaches what is attached.
pub(crate) struct OriginRef {
    registry: Arc<Registry>,
    origin: Arc<Origin>,
}

impl Deref for OriginRef {
    type Target = Arc<Origin>;

    fn deref(&self) -> &Arc<Origin> {
        &self.origin
    }
}

impl Drop for OriginRef {
    /// Sleeps, but waits for no I/O that may not end.
    fn drop(&mut self) {
        let mut open = self.registry.open.lock();
        let ours = |entry: &Open| Arc::ptr_eq(&entry.origin, &self.origin);
        let Some(index) = open.iter().position(ours) else {
            return;
        };
        open[index].tables -= 1;
        if open[index].tables == 0 {
            // Under the lock: whoever opens the device next finds it free, or is told that it is
            // not.
            Origin::close(&self.origin);
            let _ = open.remove(index);
        }
    }
}
