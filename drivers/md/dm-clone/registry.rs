// SPDX-License-Identifier: GPL-2.0

//! One metadata object per metadata device.
//!
//! A new table that opened the metadata for itself would go by a map from before the old table's
//! last commits, and lose what was hydrated in between. So the tables of one mapped device share
//! the metadata; any other mapped device is refused.
//!
//! It is refused also where it would write to a device that a clone here has for its metadata or
//! for its destination, or keep its own metadata on a device that a clone here reads or writes; and
//! so is another line of the same table. Several clones may have one source.

use crate::{
    engine::Devices,
    geometry::Geometry,
    metadata::Metadata, //
};
use dm::{
    block_device::DevNumber,
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
    metadata: Arc<Metadata>,
}

/// What a table has besides its metadata.
pub(crate) struct Others {
    table: usize,
    dest: DevNumber,
    source: DevNumber,
}

impl Entry for Open {
    type Object = Metadata;
    type Share = Others;

    fn object(&self) -> &Arc<Metadata> {
        &self.metadata
    }

    fn close(&self) {
        self.metadata.close();
    }
}

impl Open {
    /// Which of a new table's devices is in the way of a table that shares this, and as what that
    /// has it. If the new one `replaces` it, they may share all that is not formatted.
    fn conflict(
        &self,
        others: &Others,
        devices: &Devices,
        replaces: bool,
    ) -> Option<(DevNumber, &'static str)> {
        let (metadata, dest, source) = (
            devices.metadata.number(),
            devices.dest.number(),
            devices.source.number(),
        );
        let roles = [
            (self.device, "metadata"),
            (others.dest, "destination"),
            (others.source, "source"),
        ];
        roles.into_iter().find(|&(device, role)| {
            if replaces {
                return metadata == device && role != "metadata";
            }
            metadata == device || dest == device || source == device && role != "source"
        })
    }

    /// Whether `table` with these devices shares this, which `tables` have, or the error that it may
    /// not.
    fn fits(
        &self,
        tables: &mut dyn Iterator<Item = &Others>,
        devices: &Devices,
        table: &Table,
        geometry: &Geometry,
    ) -> Result<bool> {
        let is_ours = self.owner == table.device_number();
        for others in tables {
            let replaces = is_ours && others.table != table.id();
            if let Some((device, role)) = self.conflict(others, devices, replaces) {
                dm::error!(
                    crate::log::METADATA,
                    "Device {} is in use by clone {}, as its {} device",
                    device,
                    self.owner,
                    role
                );
                return Err(EBUSY);
            }
        }
        let same = is_ours && self.device == devices.metadata.number();
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

/// The metadata for a table with these devices: what other tables of its mapped device have open, or
/// else opened or formatted now. Sleeps.
///
/// Fails with `EBUSY` if another mapped device is in the way, or another line of the table, with
/// `EINVAL` if it is for another geometry, or as [`Metadata::open`].
pub(crate) fn open(
    registry: &Arc<OpenMetadata>,
    devices: &Devices,
    table: &Table,
    geometry: Geometry,
) -> Result<MetadataRef> {
    let others = Others {
        table: table.id(),
        dest: devices.dest.number(),
        source: devices.source.number(),
    };
    registry.open(
        |open, tables| open.fits(tables, devices, table, &geometry),
        others,
        || {
            Ok(Open {
                device: devices.metadata.number(),
                owner: table.device_number(),
                metadata: Metadata::open(devices.metadata.reopen()?, geometry)?,
            })
        },
    )
}
