// SPDX-License-Identifier: GPL-2.0

//! One metadata object per metadata device.
//!
//! While a table is replaced, the old one and the new one are open at the same time: `dmsetup load`
//! constructs the new table long before `dmsetup resume` ends the old one. Were each to open the
//! metadata for itself, the new one would go by a map from before the old one's last commits, and
//! lose what was hydrated in between. So the tables of one mapped device share the metadata; any
//! other mapped device is refused.
//!
//! It is refused also where it would write to a device that a clone here has for its metadata or
//! for its destination, or keep its own metadata on a device that a clone here reads or writes.
//! Several clones may have one source.

use crate::{
    engine::Devices,
    geometry::Geometry,
    metadata::Metadata, //
};
use core::ops::Deref;
use dm::block_device::DevNumber;
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    }, //
};

/// The metadata that are open.
#[pin_data]
pub(crate) struct Registry {
    #[pin]
    open: Mutex<KVec<Open>>,
}

struct Open {
    /// The metadata device.
    device: DevNumber,
    /// The mapped device that has it.
    owner: DevNumber,
    /// The other devices of the table that was loaded last.
    dest: DevNumber,
    source: DevNumber,
    /// How many tables of that device.
    tables: usize,
    metadata: Arc<Metadata>,
}

impl Open {
    /// Which of a new clone's devices is in the way of this one, and as what this one has it.
    fn conflict(&self, devices: &Devices) -> Option<(DevNumber, &'static str)> {
        let (metadata, dest, source) = (
            devices.metadata.number(),
            devices.dest.number(),
            devices.source.number(),
        );
        let roles = [
            (self.device, "metadata"),
            (self.dest, "destination"),
            (self.source, "source"),
        ];
        roles.into_iter().find(|&(device, role)| {
            metadata == device
                || dest == device && role != "source"
                || source == device && role == "metadata"
        })
    }
}

impl Registry {
    /// An empty registry. May sleep.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Registry { open <- new_mutex!(KVec::new(), "dm_clone_registry") }),
            GFP_KERNEL,
        )
    }

    /// The metadata for a table of `owner` with these devices: what its other tables have open, or
    /// else opened or formatted now. Sleeps.
    ///
    /// Fails with `EBUSY` if another mapped device is in the way, with `EINVAL` if it is for
    /// another geometry, or as [`Metadata::open`].
    pub(crate) fn open(
        self: &Arc<Self>,
        devices: &Devices,
        owner: DevNumber,
        geometry: Geometry,
    ) -> Result<MetadataRef> {
        let mut open = self.open.lock();
        let number = devices.metadata.number();
        let mut others = open.iter().filter(|entry| entry.owner != owner);
        let conflict = others.find_map(|entry| Some((entry, entry.conflict(devices)?)));
        if let Some((entry, (device, role))) = conflict {
            dm::error!(
                crate::log::METADATA,
                "Device {} is in use by clone {}, as its {} device",
                device,
                entry.owner,
                role
            );
            return Err(EBUSY);
        }
        if let Some(entry) = open.iter_mut().find(|entry| entry.device == number) {
            if *entry.metadata.geometry() != geometry {
                dm::error!(
                    crate::log::METADATA,
                    "Region and/or target size don't match the ones in metadata"
                );
                return Err(EINVAL);
            }
            entry.tables += 1;
            entry.dest = devices.dest.number();
            entry.source = devices.source.number();
            return Ok(MetadataRef {
                registry: self.clone(),
                metadata: entry.metadata.clone(),
            });
        }
        open.reserve(1, GFP_KERNEL)?;
        let metadata = Metadata::open(devices.metadata.reopen()?, geometry)?;
        open.push(
            Open {
                device: number,
                owner,
                dest: devices.dest.number(),
                source: devices.source.number(),
                tables: 1,
                metadata: metadata.clone(),
            },
            GFP_KERNEL,
        )?;
        Ok(MetadataRef {
            registry: self.clone(),
            metadata,
        })
    }
}

/// A table's share in its metadata. The last one to go closes the device.
pub(crate) struct MetadataRef {
    registry: Arc<Registry>,
    metadata: Arc<Metadata>,
}

impl Deref for MetadataRef {
    type Target = Metadata;

    fn deref(&self) -> &Metadata {
        &self.metadata
    }
}

impl Drop for MetadataRef {
    /// Sleeps.
    fn drop(&mut self) {
        let mut open = self.registry.open.lock();
        let ours = |entry: &Open| Arc::ptr_eq(&entry.metadata, &self.metadata);
        let Some(index) = open.iter().position(ours) else {
            return;
        };
        open[index].tables -= 1;
        if open[index].tables == 0 {
            // Closed under the lock: whoever opens the device next finds it closed.
            self.metadata.close();
            let _ = open.remove(index);
        }
    }
}
