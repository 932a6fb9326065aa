// SPDX-License-Identifier: GPL-2.0

//! The limits of a mapped device's queue, which a target adjusts in `io_hints`.
//!
//! ```ignore
//! fn io_hints(&self, limits: &mut Limits) {
//!     limits.set_io_min(self.block_bytes);
//!     limits.set_io_opt(self.stripe_bytes);
//! }
//! ```

use crate::{
    bindings,
    block_device::{
        Bdev,
        SECTOR_SHIFT, //
    }, //
};

macro_rules! limits {
    ($($(#[$doc:meta])* $field:ident: $set:ident, $unit:literal;)+) => {$(
        $(#[$doc])*
        #[doc = concat!("In ", $unit, ".")]
        pub fn $field(&self) -> u32 {
            self.0.$field
        }

        #[doc = concat!("Sets [`", stringify!($field), "`](Self::", stringify!($field), "), in ",
            $unit, ".")]
        pub fn $set(&mut self, value: u32) {
            self.0.$field = value;
        }
    )+};
}

/// The limits that device-mapper has stacked from the devices of the table.
#[repr(transparent)]
pub struct Limits(bindings::queue_limits);

impl Limits {
    /// # Safety
    ///
    /// `limits` must be valid, and used by nobody else, for `'a`.
    pub(crate) unsafe fn from_raw<'a>(limits: *mut bindings::queue_limits) -> &'a mut Self {
        // SAFETY: `Limits` is transparent; validity is the caller's promise.
        unsafe { &mut *limits.cast() }
    }

    limits! {
        /// The smallest I/O that does not cost more than it moves.
        io_min: set_io_min, "bytes";
        /// The best size of I/O.
        io_opt: set_io_opt, "bytes";
        /// The unit in which discards free space.
        discard_granularity: set_discard_granularity, "bytes";
        /// Where the first such unit starts.
        discard_alignment: set_discard_alignment, "bytes";
        /// The longest discard that the device takes.
        max_hw_discard_sectors: set_max_hw_discard_sectors, "sectors";
    }

    /// Takes over how `dev` wants its discards.
    pub fn copy_discard_limits(&mut self, dev: &Bdev) {
        // SAFETY: The limits live as long as the device; reading plain numbers that may change
        // meanwhile is what every stacking driver does.
        let from = unsafe { &*dev.limits() };
        self.0.max_discard_sectors = from.max_discard_sectors;
        self.0.max_hw_discard_sectors = from.max_hw_discard_sectors;
        self.0.discard_granularity = from.discard_granularity;
        self.0.discard_alignment = from.discard_alignment;
        self.0.max_discard_segments = from.max_discard_segments;
    }

    /// The longest that [`set_max_hw_discard_sectors`](Self::set_max_hw_discard_sectors) can say,
    /// in sectors.
    pub const MAX_DISCARD_SECTORS: u32 = u32::MAX >> SECTOR_SHIFT;
}
