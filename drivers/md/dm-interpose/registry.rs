// SPDX-License-Identifier: GPL-2.0

//! Which originals there are, and whose they are.
//!
//! The tables of one mapped device share the original, with what is attached to it: a new table of
//! an `interpose` device does not detach. Another mapped device cannot have the same original.

use crate::{
    origin::Origin,
    NAME, //
};
use dm::{
    block_device::DevNumber,
    compat,
    interpose::Interposer,
    prelude::*,
    registry::{
        Entry,
        Registry,
        TableRef, //
    }, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// What all originals of the module have in common.
pub(crate) struct Originals {
    open: Arc<Registry<Open>>,
    interposer: Arc<Interposer>,
    /// What is left to do for originals that no table has any more. The module's exit waits for it.
    queue: OwnedQueue,
    module: &'static ThisModule,
}

/// A table's share in its original. The last one to go detaches what is attached.
pub(crate) type OriginRef = TableRef<Open>;

/// An original of some tables.
pub(crate) struct Open {
    /// The mapped device that has it.
    owner: DevNumber,
    origin: Arc<Origin>,
}

impl Entry for Open {
    type Object = Origin;
    type Share = ();

    fn object(&self) -> &Arc<Origin> {
        &self.origin
    }

    /// Waits for no I/O that may not end. Whoever opens the device next finds it free, or is told
    /// that it is not.
    fn close(&self) {
        Origin::close(&self.origin);
    }
}

impl Open {
    /// Whether a table of `owner` shares this for its original `device`, or the error that it may
    /// not.
    fn fits(&self, device: DevNumber, owner: DevNumber) -> Result<bool> {
        let original = self.origin.number();
        if original == device {
            if self.owner != owner {
                dm::error!(NAME, "Device {} is the original of {}", device, self.owner);
                return Err(EBUSY);
            }
            return Ok(true);
        }
        // A drain of a mapped device suspends it, for which an interpose device waits until its own
        // step is over; and that may be in a freeze, which waits for what the drain's caller holds
        // back.
        if self.owner == device || original == owner {
            dm::error!(
                NAME,
                "{} is interposed by {}: neither may be an interpose device on the other",
                original,
                self.owner
            );
            return Err(compat::eloop());
        }
        Ok(false)
    }
}

impl Originals {
    /// None yet. May sleep.
    pub(crate) fn new(module: &'static ThisModule) -> Result<Arc<Self>> {
        let originals = Originals {
            open: Registry::new()?,
            interposer: Interposer::new(module)?,
            queue: OwnedQueue::new(c"dm-interpose")?,
            module,
        };
        Ok(Arc::new(originals, GFP_KERNEL)?)
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
        let number = device.number();
        self.open.open(
            |open, _| open.fits(number, owner),
            (),
            || {
                let origin = Origin::new(self.clone(), self.interposer.clone(), device)
                    .inspect_err(|&error| {
                        if error == EBUSY {
                            dm::error!(NAME, "Device {} is attached, or not yet detached", number);
                        }
                    })?;
                Ok(Open { owner, origin })
            },
        )
    }
}
