// SPDX-License-Identifier: GPL-2.0

//! A bio that a target has taken over in `map`.
//!
//! It is the target's to hold, on any thread, for as long as it likes; device-mapper waits for it
//! before the table goes. Holding ends by submitting it or by ending it. Dropping it ends it with
//! an I/O error: a bio is never lost.
//!
//! ```ignore
//! while let Some(bio) = self.waiting.lock().pop() {
//!     let sector = bio.sector();
//!     match self.find(sector) {
//!         Ok(there) => bio.submit(&self.dev, there),
//!         Err(errno) => bio.end(errno),
//!     }
//! }
//! ```

use crate::{
    bindings,
    bio::{
        Bio,
        Status, //
    },
    bio_list::Owned,
    block_device::{
        Bdev,
        Sector, //
    },
    per_bio::Slot,
    target::Target, //
};
use core::{
    marker::PhantomData,
    mem::ManuallyDrop,
    ops::Deref, //
};
use kernel::prelude::*;

/// A bio that is the target's.
///
/// # Invariants
///
/// `bio` is a clone that device-mapper made for a target of type `T`, which answered `SUBMITTED`
/// for it and has neither submitted nor ended it since; its slot is initialised. Device-mapper
/// keeps the target's table until the clone has ended.
pub struct OwnedBio<T: Target> {
    bio: *mut bindings::bio,
    _target: PhantomData<fn(T)>,
}

// SAFETY: A bio may be submitted and ended on any thread; the per-bio data is `Send`.
unsafe impl<T: Target> Send for OwnedBio<T> {}

impl<T: Target> Deref for OwnedBio<T> {
    type Target = Bio;

    fn deref(&self) -> &Bio {
        // SAFETY: By the type invariants, the bio is valid and ours.
        unsafe { Bio::from_raw(self.bio) }
    }
}

impl<T: Target> OwnedBio<T> {
    /// # Safety
    ///
    /// `bio` must fulfil the type invariants, and pass to the returned value.
    pub(crate) unsafe fn from_raw(bio: *mut bindings::bio) -> Self {
        // INVARIANT: The caller's promise.
        OwnedBio {
            bio,
            _target: PhantomData,
        }
    }

    pub(crate) fn into_raw(self) -> *mut bindings::bio {
        ManuallyDrop::new(self).bio
    }

    /// The first sector on the mapped device, which tracing shows.
    pub(crate) fn mapped_sector(&self) -> Sector {
        // SAFETY: By the type invariants, the bio is a clone for `T`.
        let slot = unsafe { Slot::<T>::of(self.bio) };
        // SAFETY: By the type invariants, the slot is initialised.
        unsafe { (*slot).from }
    }

    /// The target's data of this bio.
    pub fn per_bio(&mut self) -> &mut T::PerBio {
        // SAFETY: By the type invariants, the bio is a clone for `T`.
        let slot = unsafe { Slot::<T>::of(self.bio) };
        // SAFETY: By the type invariants, the slot is initialised; `self` is borrowed mutably.
        unsafe { &mut (*slot).data }
    }

    /// Narrows the bio to `sectors` from `offset` sectors after its start. The rest of it counts
    /// as done. Fails with `EINVAL` if that is empty or more than the bio has.
    pub fn trim(&mut self, offset: u32, sectors: u32) -> Result {
        let end = offset.checked_add(sectors).ok_or(EINVAL)?;
        if sectors == 0 || end > self.sectors() {
            return Err(EINVAL);
        }
        // SAFETY: The bio is ours, and the part lies within it.
        unsafe { bindings::bio_trim(self.bio, offset.into(), sectors.into()) };
        Ok(())
    }

    /// Sends the first `sectors` of a read or a write to `sector` of `dev`; the bio keeps the rest,
    /// and ends when both are done. Sleeps; not within `map`, where what it waits for may be queued
    /// behind the bio of that call.
    ///
    /// Fails with `EINVAL` if that is not fewer than the bio has, or none, and with `EOPNOTSUPP`
    /// for other operations and for writes that must not be torn. The bio is as it was then.
    pub fn send_part(&mut self, sectors: u32, dev: &Bdev, sector: Sector) -> Result {
        // SAFETY: By the type invariants, the bio is a clone for `T`.
        let slot = unsafe { Slot::<T>::of(self.bio) };
        // SAFETY: By the type invariants, the slot is initialised; `self` is borrowed mutably.
        let from = unsafe { &mut (*slot).from };
        // SAFETY: The clone is ours. A submission under way would be that of `map`.
        unsafe { Bio::send_part(self, sectors, dev, sector, from, bindings::GFP_NOIO) }
    }

    /// Sends the bio to `sector` of `dev`. May wait for a free request of that device.
    pub fn submit(self, dev: &Bdev, sector: Sector) {
        let from = self.mapped_sector();
        let bio = ManuallyDrop::new(self);
        // SAFETY: The clone is ours to submit, once, and not used again.
        unsafe { bio.send(dev, sector, from) }
    }

    /// Ends the bio. Any context. The target's `end_io` is not called for it.
    pub fn end(self, status: impl Into<Status>) {
        end(self, status.into());
    }
}

impl<T: Target> Drop for OwnedBio<T> {
    fn drop(&mut self) {
        // SAFETY: The bio passes from this value, which is not used again.
        end(unsafe { OwnedBio::<T>::from_raw(self.bio) }, Status::IOERR);
    }
}

fn end<T: Target>(bio: OwnedBio<T>, status: Status) {
    // A part that has failed, or fails meanwhile, says so there.
    if status != Status::OK || !bio.has_parts() {
        bio.set_status(status);
    }
    let bio = bio.into_raw();
    // SAFETY: The clone is one for `T`.
    let slot = unsafe { Slot::<T>::of(bio) };
    // SAFETY: Its slot is initialised, and nobody else has the bio.
    unsafe { (*slot).ended = true };
    // SAFETY: The bio is ours to end, once; the layer's `end_io` drops the slot.
    unsafe { bindings::bio_endio(bio) }
}

// SAFETY: The pointer is to the one bio that the value owns, and its invariants hold for a pointer
// just as long as it is not used otherwise.
unsafe impl<T: Target> Owned for OwnedBio<T> {
    fn into_raw(self) -> *mut bindings::bio {
        self.into_raw()
    }

    unsafe fn from_raw(bio: *mut bindings::bio) -> Self {
        // SAFETY: The caller's promise.
        unsafe { Self::from_raw(bio) }
    }
}

/// A bio that a device has done, kept back by the target: it only remains to end it.
///
/// Dropping it ends it with the status that the device gave it.
///
/// # Invariants
///
/// As for [`OwnedBio`], except that the bio was submitted and has come back through `end_io`.
pub struct DoneBio<T: Target> {
    bio: *mut bindings::bio,
    _target: PhantomData<fn(T)>,
}

// SAFETY: As for `OwnedBio`.
unsafe impl<T: Target> Send for DoneBio<T> {}

impl<T: Target> Deref for DoneBio<T> {
    type Target = Bio;

    fn deref(&self) -> &Bio {
        // SAFETY: By the type invariants, the bio is valid and ours.
        unsafe { Bio::from_raw(self.bio) }
    }
}

impl<T: Target> DoneBio<T> {
    /// # Safety
    ///
    /// `bio` must fulfil the type invariants, and pass to the returned value.
    pub(crate) unsafe fn from_raw(bio: *mut bindings::bio) -> Self {
        // INVARIANT: The caller's promise.
        DoneBio {
            bio,
            _target: PhantomData,
        }
    }

    fn into_raw(self) -> *mut bindings::bio {
        ManuallyDrop::new(self).bio
    }

    /// The target's data of this bio.
    pub fn per_bio(&mut self) -> &mut T::PerBio {
        // SAFETY: By the type invariants, the bio is a clone for `T`.
        let slot = unsafe { Slot::<T>::of(self.bio) };
        // SAFETY: By the type invariants, the slot is initialised; `self` is borrowed mutably.
        unsafe { &mut (*slot).data }
    }

    /// Ends the bio. Any context. The target's `end_io` is not called again.
    pub fn end(self, status: impl Into<Status>) {
        // SAFETY: A bio that is done may be ended like one that was never submitted.
        let bio = unsafe { OwnedBio::<T>::from_raw(self.into_raw()) };
        end(bio, status.into());
    }
}

impl<T: Target> Drop for DoneBio<T> {
    fn drop(&mut self) {
        let status = self.status();
        // SAFETY: The bio passes from this value, which is not used again.
        end(unsafe { OwnedBio::<T>::from_raw(self.bio) }, status);
    }
}

// SAFETY: As for `OwnedBio`.
unsafe impl<T: Target> Owned for DoneBio<T> {
    fn into_raw(self) -> *mut bindings::bio {
        self.into_raw()
    }

    unsafe fn from_raw(bio: *mut bindings::bio) -> Self {
        // SAFETY: The caller's promise.
        unsafe { Self::from_raw(bio) }
    }
}
