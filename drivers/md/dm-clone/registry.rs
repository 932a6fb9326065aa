// SPDX-License-Identifier: GPL-2.0

//! One metadata object per metadata device.
//!
//! A new table that opened the metadata for itself would go by a map from before the old table's
//! last commits, and lose what was hydrated in between. So the tables of one mapped device share
//! the metadata; any other mapped device is refused.
//!
//! It is refused also where it would write to a device that a clone here has for its metadata or
//! for its destination, or keep its own metadata on a device that a clone here reads or writes.
//! Several clones may have one source.

use crate::{
    engine::Devices,
    geometry::Geometry,
    metadata::Metadata, //
};
use dm::{
    block_device::DevNumber,
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

/// The metadata that are open.
pub(crate) type OpenMetadata = Registry<Open>;

/// A table's share in its metadata.
pub(crate) type MetadataRef = TableRef<Open>;

/// Metadata that are open.
pub(crate) struct Open {
    /// The metadata device.
    device: DevNumber,
    /// The mapped device that has it.
    owner: DevNumber,
    /// The other devices of the table that was loaded last.
    dest: DevNumber,
    source: DevNumber,
    metadata: Arc<Metadata>,
}

impl Entry for Open {
    type Object = Metadata;

    fn object(&self) -> &Arc<Metadata> {
        &self.metadata
    }

    fn close(&self) {
        self.metadata.close();
    }
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

    /// Whether a table of `owner` with these devices shares this, or the error that it may not.
    fn fits(&self, devices: &Devices, owner: DevNumber, geometry: &Geometry) -> Result<bool> {
        if self.owner != owner {
            if let Some((device, role)) = self.conflict(devices) {
                dm::error!(
                    crate::log::METADATA,
                    "Device {} is in use by clone {}, as its {} device",
                    device,
                    self.owner,
                    role
                );
                return Err(EBUSY);
            }
            return Ok(false);
        }
        let same = self.device == devices.metadata.number();
        if same && self.metadata.geometry() != geometry {
            dm::error!(
                crate::log::METADATA,
                "Region and/or target size don't match the ones in metadata"
            );
            return Err(EINVAL);
        }
        Ok(same)
    }
}

/// The metadata for a table of `owner` with these devices: what its other tables have open, or else
/// opened or formatted now. Sleeps.
///
/// Fails with `EBUSY` if another mapped device is in the way, with `EINVAL` if it is for another
/// geometry, or as [`Metadata::open`].
pub(crate) fn open(
    registry: &Arc<OpenMetadata>,
    devices: &Devices,
    owner: DevNumber,
    geometry: Geometry,
) -> Result<MetadataRef> {
    let (dest, source) = (devices.dest.number(), devices.source.number());
    registry.open(
        |open| open.fits(devices, owner, &geometry),
        |open| (open.dest, open.source) = (dest, source),
        || {
            Ok(Open {
                device: devices.metadata.number(),
                owner,
                dest,
                source,
                metadata: Metadata::open(devices.metadata.reopen()?, geometry)?,
            })
        },
    )
}
