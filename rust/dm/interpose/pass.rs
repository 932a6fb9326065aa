// SPDX-License-Identifier: GPL-2.0

//! The way from a target to the original, past the hooks.
//!
//! A bio that is sent like this is marked in two ways. *Remapped* is the kernel's own mark for a
//! bio whose sector counts from the start of the disk; the entry hook lets it through, and what the
//! original's driver splits or clones from it inherits the mark. *Passed* is ours: the second hook
//! would take a bio that is only remapped for one that was under way to a partition before it had a
//! top.

use super::hook::{
    PASSED,
    REMAPPED, //
};
use crate::{
    bindings::helpers,
    bio::{
        Bio,
        Status, //
    },
    block_device::{
        Bdev,
        Sector, //
    },
    map::{
        MapBio,
        Mapped, //
    },
    owned_bio::OwnedBio,
    target::Target, //
};

/// Where on its disk a bio for `device` belongs. None if the device ends before the bio does: for a
/// bio that is marked as remapped the kernel does not look.
fn place(bio: &Bio, device: &Bdev) -> Option<Sector> {
    let range = bio.range();
    if range.is_empty() {
        return Some(0);
    }
    if range.end > device.sectors() {
        return None;
    }
    range
        .start
        .checked_add(device.partition_start().unwrap_or(0))
}

impl<'a, T: Target> MapBio<'a, T> {
    /// Sends the bio on to the same sector of `device`, which is an original, past its hooks. It
    /// ends with an I/O error if the device ends before it.
    #[inline]
    pub fn pass(self, device: &Bdev) -> Mapped<'a> {
        let Some(sector) = place(&self, device) else {
            return self.end(Status::IOERR);
        };
        let from = self.mapped_sector();
        // SAFETY: The clone is ours to submit, which the verdict says; its place on the disk was
        // just found, and the flags say so.
        unsafe {
            helpers::bio_send_remapped(
                self.as_ptr(),
                device.as_ptr(),
                sector,
                from,
                REMAPPED | PASSED,
            )
        };
        self.submitted()
    }
}

impl<T: Target> OwnedBio<T> {
    /// As [`MapBio::pass`]. May wait for a free request of the device.
    pub fn pass(self, device: &Bdev) {
        let Some(sector) = place(&self, device) else {
            return self.end(Status::IOERR);
        };
        let from = self.mapped_sector();
        // SAFETY: The clone is ours to submit, and gone with `into_raw`; its place on the disk was
        // just found, and the flags say so.
        unsafe {
            helpers::bio_send_remapped(
                self.into_raw(),
                device.as_ptr(),
                sector,
                from,
                REMAPPED | PASSED,
            )
        };
    }
}
