// SPDX-License-Identifier: GPL-2.0

//! Where a target's per-bio data lives: in front of each bio that device-mapper hands it.
//!
//! The memory comes uninitialised and goes without a destructor, so the layer writes it before
//! `map` and drops it when device-mapper is about to free it. Beside the target's data stands what
//! the layer itself has to remember.

use crate::{
    bindings,
    block_device::Sector,
    target::Target, //
};

/// What precedes each bio of a target.
pub(crate) struct Slot<T: Target> {
    pub(crate) data: T::PerBio,
    /// The first sector on the mapped device.
    pub(crate) from: Sector,
    /// The target ended the bio itself: its `end_io` has nothing to say to it.
    pub(crate) ended: bool,
    /// Where the data of the bio began, if its target wants to look at it when it is done.
    pub(crate) began: Option<bindings::bvec_iter>,
}

impl<T: Target> Slot<T> {
    /// The bytes that device-mapper reserves in front of each bio.
    pub(crate) const SIZE: usize = {
        // The slot is found by subtracting its size from an 8-aligned address.
        assert!(
            align_of::<Self>() <= 8,
            "per-bio data may be aligned to 8 bytes at most"
        );
        size_of::<Self>().next_multiple_of(8)
    };

    /// # Safety
    ///
    /// `bio` must be a clone that device-mapper made for a target of type `T`.
    pub(crate) unsafe fn of(bio: *mut bindings::bio) -> *mut Self {
        // SAFETY: `SIZE` bytes were reserved in front of every clone of such a target.
        unsafe { bindings::dm_per_bio_data(bio, Self::SIZE) }.cast()
    }

    /// Writes a fresh slot for a bio whose first sector still counts from the start of the mapped
    /// device; returns it.
    ///
    /// # Safety
    ///
    /// As for [`of`](Self::of); the slot must not be initialised.
    #[inline]
    pub(crate) unsafe fn init(bio: *mut bindings::bio) -> *mut Self {
        // SAFETY: The caller's promise.
        let slot = unsafe { Self::of(bio) };
        // SAFETY: The clone is valid and ours.
        let from = unsafe { (*bio).bi_iter.bi_sector };
        // SAFETY: The memory is reserved for this, aligned and unused.
        unsafe {
            slot.write(Slot {
                data: T::PerBio::default(),
                from,
                ended: false,
                began: None,
            })
        }
        slot
    }
}
