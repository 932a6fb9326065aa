// SPDX-License-Identifier: GPL-2.0

//! A bio, seen by reference: what every holder of one may ask.
//!
//! Who may do what with a bio is said by the types that hold it: in `map` a
//! [`MapBio`](crate::map::MapBio), after `map` an [`OwnedBio`](crate::owned_bio::OwnedBio), at its
//! end an [`EndBio`](crate::end_io::EndBio). Each of them dereferences to [`Bio`].
//!
//! ```ignore
//! // A write of data that must be durable when it is acknowledged.
//! if bio.op() == Op::Write && bio.is_fua() {
//!     let sectors: Range<Sector> = bio.range();
//! }
//! ```

use crate::{
    bindings,
    block_device::{
        Sector,
        SECTOR_SHIFT, //
    }, //
};
use core::ops::Range;
use kernel::{
    prelude::*,
    types::Opaque, //
};

/// What a bio asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// Read sectors.
    Read,
    /// Write sectors; empty when it only carries a flush.
    Write,
    /// Flush the volatile cache.
    Flush,
    /// The sectors' content is no longer needed.
    Discard,
    /// As a discard, and no copy may remain.
    SecureErase,
    /// Write zeroes without carrying them.
    WriteZeroes,
    /// An operation of zoned devices or of drivers.
    Other(u8),
}

/// How a bio ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Status(bindings::blk_status_t);

impl Status {
    /// Success.
    pub const OK: Status = Status(bindings::BLK_STS_OK as bindings::blk_status_t);
    /// An I/O error of no particular kind.
    pub const IOERR: Status = Status(bindings::BLK_STS_IOERR);
    /// The device does not do that.
    pub const NOTSUPP: Status = Status(bindings::BLK_STS_NOTSUPP);
    /// It would have had to wait, which its submitter did not want.
    pub const AGAIN: Status = Status(bindings::BLK_STS_AGAIN);
    /// No space is left.
    pub const NOSPC: Status = Status(bindings::BLK_STS_NOSPC);

    #[inline]
    pub(crate) fn from_raw(status: bindings::blk_status_t) -> Self {
        Status(status)
    }

    #[inline]
    pub(crate) fn to_raw(self) -> bindings::blk_status_t {
        self.0
    }

    /// The status as a result, with the errno that user space would see.
    pub fn to_result(self) -> Result {
        // SAFETY: A pure function on a number.
        kernel::error::to_result(unsafe { bindings::blk_status_to_errno(self.0) })
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        // SAFETY: A pure function on a number.
        Status(unsafe { bindings::errno_to_blk_status(error.to_errno()) })
    }
}

impl From<Result> for Status {
    fn from(result: Result) -> Self {
        result.map_or_else(Status::from, |()| Status::OK)
    }
}

/// What `bi_flags` says of the device that the bio is for, and nothing of another.
pub(crate) const OF_ITS_DEVICE: u16 =
    1 << bindings::BIO_REMAPPED | 1 << bindings::BIO_BPS_THROTTLED;

/// A bio, by reference. Every method is legal in any context.
///
/// # Invariants
///
/// A reference to a `Bio` is a reference to a `bio` that its holder alone may change.
#[repr(transparent)]
pub struct Bio(Opaque<bindings::bio>);

impl Bio {
    /// # Safety
    ///
    /// `bio` must be valid, and changed by nobody but through the returned reference's holder,
    /// for `'a`.
    #[inline]
    pub(crate) unsafe fn from_raw<'a>(bio: *mut bindings::bio) -> &'a Self {
        // SAFETY: `Bio` is transparent; validity is the caller's promise.
        unsafe { &*bio.cast() }
    }

    #[inline]
    pub(crate) fn as_ptr(&self) -> *mut bindings::bio {
        self.0.get()
    }

    #[inline]
    pub(crate) fn opf(&self) -> bindings::blk_opf_t {
        // SAFETY: By the type invariants, the bio is valid.
        unsafe { (*self.as_ptr()).bi_opf }
    }

    /// The operation.
    #[inline]
    pub fn op(&self) -> Op {
        const OP_BITS: u32 = 8;
        let op = self.opf() & ((1 << OP_BITS) - 1);
        match op {
            bindings::req_op_REQ_OP_READ => Op::Read,
            bindings::req_op_REQ_OP_WRITE => Op::Write,
            bindings::req_op_REQ_OP_FLUSH => Op::Flush,
            bindings::req_op_REQ_OP_DISCARD => Op::Discard,
            bindings::req_op_REQ_OP_SECURE_ERASE => Op::SecureErase,
            bindings::req_op_REQ_OP_WRITE_ZEROES => Op::WriteZeroes,
            other => Op::Other(other as u8),
        }
    }

    /// The first sector. In `map` and for a bio that was taken there, it counts from the start of
    /// the target; once the bio has been sent to a device, from the start of that device.
    #[inline]
    pub fn sector(&self) -> Sector {
        // SAFETY: By the type invariants, the bio is valid.
        unsafe { (*self.as_ptr()).bi_iter.bi_sector }
    }

    /// The length in sectors that remains to be done. 0 for a flush, and once the bio is done.
    #[inline]
    pub fn sectors(&self) -> u32 {
        // SAFETY: By the type invariants, the bio is valid.
        (unsafe { (*self.as_ptr()).bi_iter.bi_size }) >> SECTOR_SHIFT
    }

    /// The sectors from [`sector`](Self::sector) on.
    #[inline]
    pub fn range(&self) -> Range<Sector> {
        let start = self.sector();
        start..start.saturating_add(self.sectors().into())
    }

    /// Whether this is a flush: an empty bio that asks for the volatile cache to be written out.
    /// Device-mapper splits flushes from data, so a bio with data never is one.
    #[inline]
    pub fn is_flush(&self) -> bool {
        self.opf() & bindings::REQ_PREFLUSH != 0
    }

    /// Whether the write has to be durable when it completes.
    #[inline]
    pub fn is_fua(&self) -> bool {
        self.opf() & bindings::REQ_FUA != 0
    }

    /// Whether the bio moves data to the device.
    #[inline]
    pub fn is_write(&self) -> bool {
        // Operations that transfer towards the device have odd numbers.
        self.opf() & 1 != 0
    }

    /// Whether the submitter would rather have the bio fail than wait.
    #[inline]
    pub fn is_nowait(&self) -> bool {
        self.opf() & bindings::REQ_NOWAIT != 0
    }

    /// How the bio has ended so far.
    #[inline]
    pub fn status(&self) -> Status {
        // SAFETY: By the type invariants, the bio is valid.
        Status(unsafe { (*self.as_ptr()).bi_status })
    }

    #[inline]
    pub(crate) fn set_status(&self, status: Status) {
        // SAFETY: By the type invariants, the bio is valid and its holder's to change.
        unsafe { (*self.as_ptr()).bi_status = status.0 }
    }

    /// Whether parts of it were sent. It must not be freed before they are done, which
    /// device-mapper does for some verdicts; one of them that fails says so in its status.
    pub(crate) fn has_parts(&self) -> bool {
        // SAFETY: By the type invariants, the bio is valid.
        let flags = unsafe { (*self.as_ptr()).bi_flags };
        u32::from(flags) & (1 << bindings::BIO_CHAIN) != 0
    }

    /// Whether the bio may be divided after its first `sectors`: `EINVAL` if that is not fewer than
    /// it has, or none, and `EOPNOTSUPP` if it is no read or write, or must not be torn.
    pub(crate) fn check_part(&self, sectors: u32) -> Result {
        if !matches!(self.op(), Op::Read | Op::Write) || self.opf() & bindings::REQ_ATOMIC != 0 {
            return Err(crate::compat::eopnotsupp());
        }
        if sectors == 0 || sectors >= self.sectors() {
            return Err(EINVAL);
        }
        Ok(())
    }

    /// Sends the first `sectors` to `sector` of `dev`; the bio keeps the rest, and ends when both
    /// are done. `from`, where it was on the mapped device, goes on with it.
    ///
    /// Fails as [`check_part`](Self::check_part), and with `ENOMEM`; then the bio is as it was.
    ///
    /// # Safety
    ///
    /// The bio must be a clone of device-mapper's that is its holder's to submit, and the device
    /// open until it has ended. With a `gfp` that waits, no submission may be under way.
    pub(crate) unsafe fn send_part(
        &self,
        sectors: u32,
        dev: &crate::block_device::Bdev,
        sector: Sector,
        from: &mut Sector,
        gfp: bindings::gfp_t,
    ) -> Result {
        self.check_part(sectors)?;
        // SAFETY: By the caller's promise the clone is its holder's; it carries data, and is longer
        // than the part.
        let result = unsafe {
            bindings::helpers::bio_send_part(
                self.as_ptr(),
                sectors,
                dev.as_ptr(),
                sector,
                *from,
                gfp,
            )
        };
        kernel::error::to_result(result)?;
        *from = from.wrapping_add(sectors.into());
        Ok(())
    }

    /// Makes it a bio for `sector` of `dev`, which device-mapper is to submit: that charges it to
    /// whoever sent what it is a clone of.
    ///
    /// # Safety
    ///
    /// The bio must be a clone of device-mapper's that is its holder's, and that is charged to
    /// nobody yet, or to somebody of the same queue.
    #[inline]
    pub(crate) unsafe fn point_at(&self, dev: &crate::block_device::Bdev, sector: Sector) {
        // SAFETY: The caller promises a bio that is its holder's to change.
        let bio = unsafe { &mut *self.as_ptr() };
        bio.bi_flags &= !OF_ITS_DEVICE;
        bio.bi_bdev = dev.as_ptr();
        bio.bi_iter.bi_sector = sector;
    }

    /// Sends the bio to `sector` of `dev`. `from` is where it was on the mapped device, which
    /// tracing shows. It is charged to whoever calls this.
    ///
    /// # Safety
    ///
    /// The bio must be a clone of device-mapper's that is its holder's to submit, and pass to the
    /// device.
    #[inline]
    pub(crate) unsafe fn send(
        &self,
        dev: &crate::block_device::Bdev,
        sector: Sector,
        from: Sector,
    ) {
        // SAFETY: Both are valid, and by the caller's promise the bio may be submitted.
        unsafe { bindings::helpers::bio_send(self.as_ptr(), dev.as_ptr(), sector, from) }
    }
}
