// SPDX-License-Identifier: GPL-2.0

//! The way from a target to the original, past the hooks.
//!
//! A bio that is sent like this is marked in two ways. *Remapped* is the kernel's own mark for a
//! bio whose sector counts from the start of the disk; the entry hook lets it through, and what the
//! original's driver splits or clones from it inherits the mark. *Passed* is ours: the second hook
//! would take a bio that is only remapped for one that was under way to a partition before it had a
//! top. Clones do not inherit this one; see [`Original::passed_to`] for what is done about those of
//! a partition.

use super::{
    hook::{
        PASSED,
        REMAPPED, //
    },
    original::Original, //
};
use crate::{
    bindings::helpers,
    bio::{
        Bio,
        Status, //
    },
    block_device::Sector,
    map::{
        MapBio,
        Mapped, //
    },
    owned_bio::OwnedBio,
    target::Target, //
};

/// Where on its disk a bio for `original` belongs. None if the device ends before the bio does: for a
/// bio that is marked as remapped the kernel does not look.
#[inline]
fn place(bio: &Bio, original: &Original) -> Option<Sector> {
    let range = bio.range();
    if range.is_empty() {
        return Some(0);
    }
    if range.end > original.sectors() {
        return None;
    }
    range.start.checked_add(original.start())
}

impl<'a, T: Target> MapBio<'a, T> {
    /// Sends the bio on to the same sector of `original`, past its hooks. It ends with an I/O error
    /// if the device ends before it.
    #[inline]
    pub fn pass(self, original: &'a Original) -> Mapped<'a> {
        let Some(sector) = place(&self, original) else {
            return self.end(Status::IOERR);
        };
        original.counts().passed().add();
        let bio = self.as_ptr();
        let verdict = self.remap(original.passed_to(), sector);
        // SAFETY: The clone is ours until `map` returns the verdict. The sector counts from where
        // the flags say.
        unsafe { (*bio).bi_flags |= REMAPPED | PASSED };
        verdict
    }
}

impl<T: Target> OwnedBio<T> {
    /// As [`MapBio::pass`], except that it is charged to whoever calls this. May wait for a free
    /// request of the device.
    pub fn pass(self, original: &Original) {
        let Some(sector) = place(&self, original) else {
            return self.end(Status::IOERR);
        };
        let from = self.mapped_sector();
        original.counts().passed().add();
        // SAFETY: The clone is ours to submit, and gone with `into_raw`; its place was just found,
        // and the flags say where it counts from.
        unsafe {
            helpers::bio_send_remapped(
                self.into_raw(),
                original.passed_to().as_ptr(),
                sector,
                from,
                REMAPPED | PASSED,
            )
        };
    }
}
