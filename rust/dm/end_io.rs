// SPDX-License-Identifier: GPL-2.0

//! A bio that a device has done, in the target's `end_io`.
//!
//! `end_io` runs wherever the device completes its requests, mostly in interrupt context: it must
//! not sleep, and takes locks that are [`IrqLock`](crate::irq_lock::IrqLock)s.
//!
//! ```ignore
//! fn end_io<'a>(&self, mut bio: EndBio<'a, Self>) -> Ended<'a> {
//!     if !bio.per_bio().needs_commit {
//!         return bio.done();
//!     }
//!     let (ended, bio) = bio.keep();  // to be ended when the commit is durable
//!     self.after_commit.lock().push(bio);
//!     ended
//! }
//! ```

use crate::{
    bindings::{
        self,
        helpers, //
    },
    bio::{
        Bio,
        Op,
        Status, //
    },
    block_device::SECTOR_SHIFT,
    owned_bio::{
        DoneBio,
        OwnedBio, //
    },
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

/// What `end_io` decided. Made only by consuming its [`EndBio`].
#[must_use]
pub struct Ended<'a> {
    pub(crate) verdict: Verdict,
    _brand: PhantomData<fn(&'a ()) -> &'a ()>,
}

pub(crate) enum Verdict {
    /// Device-mapper ends the bio as the device did it.
    Done,
    /// Device-mapper ends the bio with this status.
    DoneWith(Status),
    /// The bio is queued again.
    Requeue,
    /// The target keeps it.
    Kept,
}

impl Verdict {
    pub(crate) fn to_raw(&self) -> c_int {
        (match self {
            Verdict::Done | Verdict::DoneWith(_) => bindings::DM_ENDIO_DONE,
            Verdict::Requeue => bindings::DM_ENDIO_REQUEUE,
            Verdict::Kept => bindings::DM_ENDIO_INCOMPLETE,
        }) as c_int
    }
}

/// A bio in `end_io`.
///
/// # Invariants
///
/// `bio` is a clone for `T` that a device has done and nobody else holds; `slot` is its slot, and
/// initialised.
pub struct EndBio<'a, T: Target> {
    bio: *mut bindings::bio,
    slot: *mut Slot<T>,
    _brand: PhantomData<fn(&'a ()) -> &'a ()>,
    _target: PhantomData<*mut T>,
}

impl<T: Target> Deref for EndBio<'_, T> {
    type Target = Bio;

    fn deref(&self) -> &Bio {
        // SAFETY: By the type invariants, the bio is valid and ours.
        unsafe { Bio::from_raw(self.bio) }
    }
}

impl<'a, T: Target> EndBio<'a, T> {
    /// # Safety
    ///
    /// `bio` must fulfil the type invariants, and `'a` must be a lifetime of this call alone.
    #[inline]
    pub(crate) unsafe fn from_raw(bio: *mut bindings::bio, slot: *mut Slot<T>) -> Self {
        // INVARIANT: The caller's promise.
        EndBio {
            bio,
            slot,
            _brand: PhantomData,
            _target: PhantomData,
        }
    }

    /// How the device did it. It is the bio's own status: device-mapper hands that to `end_io`.
    pub fn outcome(&self) -> Status {
        // SAFETY: By the type invariants, the bio is valid and ours.
        Status::from_raw(unsafe { (*self.bio).bi_status })
    }

    /// The target's data of this bio.
    pub fn per_bio(&mut self) -> &mut T::PerBio {
        // SAFETY: By the type invariants, the slot is initialised; `self` is borrowed mutably.
        unsafe { &mut (*self.slot).data }
    }

    /// The [checksum](crate::crc::crc32c) of `sectors` sectors of its data, from `skip` sectors after
    /// the start on. Fails with `EINVAL` unless the bio has data that was
    /// [kept](crate::map::MapBio::keep_data) in `map`, so much of it.
    pub fn crc32c(&self, skip: u32, sectors: u32) -> Result<u32> {
        // SAFETY: By the type invariants, the slot is initialised.
        let mut began = unsafe { (*self.slot).began }.ok_or(EINVAL)?;
        let end = skip.checked_add(sectors).ok_or(EINVAL)?;
        // A discard has sectors, and no pages.
        if !matches!(self.op(), Op::Read | Op::Write) || end > began.bi_size >> SECTOR_SHIFT {
            return Err(EINVAL);
        }
        let (skip, bytes) = (skip << SECTOR_SHIFT, sectors << SECTOR_SHIFT);
        // SAFETY: The clone's own iterator was where it is said to have been, and its list of pages
        // stays as it is until the clone is freed; there is so much data from there on.
        Ok(unsafe { helpers::bio_crc32c(self.bio, &mut began, skip, bytes) })
    }

    /// Lets the bio end as the device did it.
    pub fn done(self) -> Ended<'a> {
        Ended {
            verdict: Verdict::Done,
            _brand: PhantomData,
        }
    }

    /// Lets the bio end with another status.
    pub fn done_with(self, status: Status) -> Ended<'a> {
        Ended {
            verdict: Verdict::DoneWith(status),
            _brand: PhantomData,
        }
    }

    /// Takes the bio back to send it once more, as it was when its data was
    /// [kept](crate::map::MapBio::keep_data); gives it back if that was not done. Its `end_io` is
    /// called again.
    pub fn again(self) -> core::result::Result<(Ended<'a>, OwnedBio<T>), Self> {
        // SAFETY: By the type invariants, the slot is initialised.
        let Some(began) = (unsafe { (*self.slot).began }) else {
            return Err(self);
        };
        // SAFETY: The bio is done and ours, and its iterator was where it is said to have been.
        unsafe { helpers::bio_rewind(self.bio, &began) };
        // SAFETY: The clone is as it was in `map`, its slot is initialised, and the verdict says that
        // it is the target's.
        let bio = unsafe { OwnedBio::from_raw(self.bio) };
        let verdict = Ended {
            verdict: Verdict::Kept,
            _brand: PhantomData,
        };
        Ok((verdict, bio))
    }

    /// Gives the bio back to be mapped again.
    pub fn requeue(self) -> Ended<'a> {
        Ended {
            verdict: Verdict::Requeue,
            _brand: PhantomData,
        }
    }

    /// Keeps the bio back; it ends when the target ends it.
    pub fn keep(self) -> (Ended<'a>, DoneBio<T>) {
        // SAFETY: The bio is done, and the verdict says that it is the target's to end.
        let done = unsafe { DoneBio::from_raw(self.bio) };
        let verdict = Ended {
            verdict: Verdict::Kept,
            _brand: PhantomData,
        };
        (verdict, done)
    }
}
