// SPDX-License-Identifier: GPL-2.0

//! The checksum of a run of sectors, made of those of the blocks that it touches. Pure.
//!
//! So one pass over the data gives both: that of the run, which is in the header of its record, and
//! that of each block's part, which is in the index.

use super::{
    index::parts,
    platform::crc32c, //
};

/// A checksum in the making.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Sum(Option<u32>);

impl Sum {
    /// Adds the checksum of the next part.
    #[inline]
    pub fn add(&mut self, crc: u32) {
        self.0 = Some(match self.0 {
            None => crc,
            Some(before) => {
                let both = u64::from(crc) << 32 | u64::from(before);
                crc32c(&both.to_le_bytes())
            }
        });
    }

    /// The checksum: that of the only part, or of all of them; 0 if there are none.
    #[inline]
    pub fn value(&self) -> u32 {
        self.0.unwrap_or(0)
    }
}

/// The checksum of a run whose first sector is `sector` and whose data is `data`.
pub fn checksum(sector: u64, data: &[u8]) -> u32 {
    let mut sum = Sum::default();
    for part in parts(sector, (data.len() >> 9) as u32) {
        sum.add(crc32c(part.of(data)));
    }
    sum.value()
}
