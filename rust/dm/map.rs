// SPDX-License-Identifier: GPL-2.0

//! A bio in `map`, and the verdict on it.
//!
//! `map` is given a [`MapBio`] and owes a [`Mapped`]. The only way to a verdict is to consume the
//! bio, each way does what its verdict says, and the lifetime `'a` is a brand that differs from
//! call to call: a verdict on one bio cannot be given for another, and "remapped" cannot be said
//! of a bio that was not.
//!
//! ```ignore
//! fn map<'a>(&'a self, mut bio: MapBio<'a, Self>) -> Mapped<'a> {
//!     let sector = bio.sector();
//!     if self.is_local(sector) {
//!         return bio.remap(&self.local, sector);
//!     }
//!     bio.per_bio().began = Instant::now();
//!     let (mapped, bio) = bio.take();
//!     self.waiting.lock().push(bio);
//!     mapped
//! }
//! ```

use crate::{
    bindings,
    bio::{
        Bio,
        Status, //
    },
    block_device::{
        Bdev,
        Sector,
        SECTOR_SHIFT, //
    },
    owned_bio::OwnedBio,
    per_bio::Slot,
    target::Target, //
};
use core::{
    marker::PhantomData,
    ops::Deref, //
};
use kernel::{
    ffi::c_int,
    prelude::*, //
};

/// The brand of one call of `map`: invariant in `'a`.
type Brand<'a> = PhantomData<fn(&'a ()) -> &'a ()>;

/// What becomes of a bio. Made only by consuming its [`MapBio`].
#[must_use]
pub struct Mapped<'a> {
    verdict: u32,
    _brand: Brand<'a>,
}

impl Mapped<'_> {
    fn new(verdict: u32) -> Self {
        Mapped {
            verdict,
            _brand: PhantomData,
        }
    }

    pub(crate) fn into_raw(self) -> c_int {
        self.verdict as c_int
    }
}

/// A bio in `map`. It is not [`Send`]: the verdict has to be found before `map` returns.
///
/// # Invariants
///
/// `bio` is the clone that device-mapper is mapping on this thread, and its first sector counts
/// from the start of the target. `slot` is its slot, and initialised.
pub struct MapBio<'a, T: Target> {
    bio: *mut bindings::bio,
    slot: *mut Slot<T>,
    _brand: Brand<'a>,
}

impl<T: Target> Deref for MapBio<'_, T> {
    type Target = Bio;

    fn deref(&self) -> &Bio {
        // SAFETY: By the type invariants, the bio is valid and ours.
        unsafe { Bio::from_raw(self.bio) }
    }
}

impl<'a, T: Target> MapBio<'a, T> {
    /// # Safety
    ///
    /// `bio` must fulfil the type invariants, and `'a` must be a lifetime of this call alone.
    #[inline]
    pub(crate) unsafe fn from_raw(bio: *mut bindings::bio, slot: *mut Slot<T>) -> Self {
        // INVARIANT: The caller's promise.
        MapBio {
            bio,
            slot,
            _brand: PhantomData,
        }
    }

    /// The target's data of this bio, kept until the bio has ended.
    pub fn per_bio(&mut self) -> &mut T::PerBio {
        // SAFETY: By the type invariants, the slot is initialised; `self` is borrowed mutably.
        unsafe { &mut (*self.slot).data }
    }

    /// Has the data of the bio, as much of it as is left now, be there for its `end_io` to look at:
    /// see [`EndBio::crc32c`](crate::end_io::EndBio::crc32c).
    pub fn keep_data(&mut self) {
        // SAFETY: By the type invariants, the bio is valid and the slot initialised.
        unsafe { (*self.slot).began = Some((*self.bio).bi_iter) }
    }

    /// Which of its copies this bio is, for the operations that the target asked to get several
    /// times.
    pub fn copy_number(&self) -> u32 {
        // SAFETY: By the type invariants, the bio is device-mapper's clone.
        unsafe { bindings::dm_bio_get_target_bio_nr(self.bio) }
    }

    /// Takes only the first `sectors` of a read or a write; the rest comes back as another bio.
    ///
    /// Fails with `EINVAL` if that is not fewer than the bio has, or none, with `EOPNOTSUPP`
    /// for other operations and for writes that must not be torn, and with `EBUSY` once parts of
    /// it [were sent](Self::send_part): up to 7.2, device-mapper takes the rest to begin so many
    /// sectors behind where the bio began, not behind those parts.
    pub fn accept_partial(&mut self, sectors: u32) -> Result {
        self.check_part(sectors)?;
        if self.has_parts() {
            return Err(EBUSY);
        }
        // SAFETY: The clone is being mapped, is neither empty, a duplicate (only flushes, discards
        // and their like are), atomic nor a zoned write (targets of this layer are never put on
        // zoned devices), and is longer than what is accepted.
        unsafe { bindings::dm_accept_partial_bio(self.bio, sectors) };
        Ok(())
    }

    /// Sends the first `sectors` of a read or a write to `sector` of `dev`; the bio keeps the rest,
    /// and ends when both are done. Costs half of what [`accept_partial`](Self::accept_partial)
    /// does, which makes a bio of device-mapper's own for each part.
    ///
    /// Fails with `EINVAL` and `EOPNOTSUPP` as that does, and with `ENOMEM` if there is no memory
    /// at the moment: whoever [takes](Self::take) the bio can wait for it. The bio is as it was
    /// then.
    pub fn send_part(&mut self, sectors: u32, dev: &'a Bdev, sector: Sector) -> Result {
        // SAFETY: By the type invariants, the slot is initialised; `self` is borrowed mutably.
        let from = unsafe { &mut (*self.slot).from };
        // SAFETY: The clone is being mapped and thus ours. The device is the target's, and open
        // until its bios have ended.
        unsafe { Bio::send_part(self, sectors, dev, sector, from, bindings::GFP_NOWAIT) }
    }

    /// Sends the bio on to `sector` of `dev`, which is the target's.
    #[inline]
    pub fn remap(self, dev: &'a Bdev, sector: Sector) -> Mapped<'a> {
        // SAFETY: The clone is being mapped; it is charged by device-mapper when it has a verdict.
        unsafe { self.point_at(dev, sector) };
        Mapped::new(bindings::DM_MAPIO_REMAPPED)
    }

    /// Takes the bio over: it is to be submitted or ended later, by whoever holds it.
    pub fn take(self) -> (Mapped<'a>, OwnedBio<T>) {
        // SAFETY: The bio is device-mapper's clone for `T` with an initialised slot, and the
        // verdict says that it is the target's from here on.
        let owned = unsafe { OwnedBio::from_raw(self.bio) };
        (Mapped::new(bindings::DM_MAPIO_SUBMITTED), owned)
    }

    /// Ends the bio here and now. The target's `end_io` is not called for it.
    pub fn end(self, status: impl Into<Status>) -> Mapped<'a> {
        let (verdict, bio) = self.take();
        bio.end(status);
        verdict
    }

    /// Fails the bio with an I/O error. Cheaper than [`end`](Self::end); no `end_io` either.
    pub fn kill(self) -> Mapped<'a> {
        if self.has_parts() {
            return self.end(Status::IOERR);
        }
        // SAFETY: Device-mapper frees the clone without ending it, so the slot goes now.
        unsafe { self.slot.drop_in_place() };
        Mapped::new(bindings::DM_MAPIO_KILL)
    }

    /// Gives the bio back to be mapped again: at once while the device runs, or by the next table
    /// when it is being suspended without flushing. No `end_io`.
    pub fn requeue(self) -> Mapped<'a> {
        if self.has_parts() {
            return self.end(Status::from_raw(bindings::BLK_STS_DM_REQUEUE));
        }
        // SAFETY: Device-mapper frees the clone without ending it, so the slot goes now.
        unsafe { self.slot.drop_in_place() };
        Mapped::new(bindings::DM_MAPIO_REQUEUE)
    }
}

/// Makes the first sector of a bio count from the start of its target.
///
/// # Safety
///
/// `bio` must be a clone for the target that begins at sector `begin` of the device.
#[inline]
pub(crate) unsafe fn make_target_relative(bio: *mut bindings::bio, begin: Sector) {
    // SAFETY: The caller promises a valid bio that is ours.
    let iter = unsafe { &mut (*bio).bi_iter };
    // An empty flush has no position; device-mapper leaves 0 there.
    if iter.bi_size >> SECTOR_SHIFT != 0 {
        iter.bi_sector = iter.bi_sector.wrapping_sub(begin);
    }
}
