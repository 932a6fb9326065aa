// SPDX-License-Identifier: GPL-2.0

//! A run of sectors on a block device, as copies and direct I/O name it.

use crate::{
    bindings,
    block_device::{
        Bdev,
        Sector, //
    }, //
};

/// `sectors` sectors of a device from `sector` on.
///
/// Whether they lie within the device is checked when they are used: I/O beyond the end fails
/// with `EIO`.
#[derive(Clone, Copy)]
pub struct Extent<'a> {
    /// The device.
    pub dev: &'a Bdev,
    /// The first sector.
    pub sector: Sector,
    /// The length in sectors; nothing is transferred for 0.
    pub sectors: Sector,
}

impl Extent<'_> {
    /// The C description of the extent, which does not keep the device open.
    pub(crate) fn to_region(self) -> bindings::dm_io_region {
        bindings::dm_io_region {
            bdev: self.dev.as_ptr(),
            sector: self.sector,
            count: self.sectors,
        }
    }
}
