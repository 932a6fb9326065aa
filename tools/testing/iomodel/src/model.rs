// SPDX-License-Identifier: GPL-2.0

//! What every sector of the tested area must hold.

use std::io::{self, Read, Write};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::stamp::{describe, Stamp, SECTOR};

/// What one sector must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Discarded and not written since: anything.
    Anything,
    /// The same as the reference file at this place.
    Reference,
    /// A stamp with this tag.
    Tag(u64),
}

const ANYTHING: u64 = u64::MAX;
const REFERENCE: u64 = u64::MAX - 1;
/// The highest tag that a write can have.
pub const LAST_TAG: u64 = u64::MAX - 2;

/// The model: a number for each sector. Threads share it; who changes or checks a range has it locked
/// (see [`crate::range_lock`]), so the order of single accesses does not matter.
pub struct Model {
    sectors: Vec<AtomicU64>,
}

/// A sector that does not hold what it must.
#[derive(Debug, PartialEq, Eq)]
pub struct Mismatch {
    pub sector: u64,
    pub expected: String,
    pub got: String,
}

impl Model {
    /// A model of an area in which all sectors are alike.
    pub fn new(sectors: u64, initial: Expected) -> Self {
        let number = encode(initial);
        Model {
            sectors: (0..sectors).map(|_| AtomicU64::new(number)).collect(),
        }
    }

    /// The size of the area.
    pub fn sectors(&self) -> u64 {
        self.sectors.len() as u64
    }

    /// What a sector must hold.
    pub fn expected(&self, sector: u64) -> Expected {
        match self.sectors[sector as usize].load(Ordering::Relaxed) {
            ANYTHING => Expected::Anything,
            REFERENCE => Expected::Reference,
            tag => Expected::Tag(tag),
        }
    }

    /// From now on these sectors must hold this.
    pub fn set(&self, range: Range<u64>, expected: Expected) {
        let number = encode(expected);
        for sector in &self.sectors[range.start as usize..range.end as usize] {
            sector.store(number, Ordering::Relaxed);
        }
    }

    /// Compares bytes that were read from `first` on. `reference` are the reference file's bytes at this
    /// place; it is asked for only where a sector must equal it.
    pub fn check(
        &self,
        first: u64,
        bytes: &[u8],
        reference: impl FnOnce() -> io::Result<Vec<u8>>,
    ) -> io::Result<Result<(), Mismatch>> {
        let mut ask = Some(reference);
        let mut original = Vec::new();
        for (place, got) in bytes.chunks_exact(SECTOR).enumerate() {
            let sector = first + place as u64;
            let mismatch = |expected: String| Mismatch {
                sector,
                expected,
                got: describe(got),
            };
            match self.expected(sector) {
                Expected::Anything => {}
                Expected::Reference => {
                    if let Some(reference) = ask.take() {
                        original = reference()?;
                    }
                    let wanted = &original[place * SECTOR..(place + 1) * SECTOR];
                    if got != wanted {
                        return Ok(Err(mismatch(format!(
                            "the reference: {}",
                            describe(wanted)
                        ))));
                    }
                }
                Expected::Tag(tag) => {
                    let stamp = Stamp { sector, tag };
                    if !stamp.fits(got) {
                        return Ok(Err(mismatch(stamp.to_string())));
                    }
                }
            }
        }
        Ok(Ok(()))
    }

    /// The highest tag that any sector must hold.
    pub fn highest_tag(&self) -> u64 {
        let tags = self
            .sectors
            .iter()
            .map(|sector| sector.load(Ordering::Relaxed));
        tags.filter(|&tag| tag <= LAST_TAG).max().unwrap_or(0)
    }

    /// Writes the model, for a later run to go on with.
    pub fn save(&self, mut to: impl Write) -> io::Result<()> {
        for sector in &self.sectors {
            to.write_all(&sector.load(Ordering::Relaxed).to_le_bytes())?;
        }
        to.flush()
    }

    /// Reads a model that [`Model::save`] wrote.
    pub fn load(mut from: impl Read) -> io::Result<Self> {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes)?;
        let number = |word: &[u8]| u64::from_le_bytes(word.try_into().expect("8 bytes"));
        Ok(Model {
            sectors: bytes
                .chunks_exact(8)
                .map(|word| AtomicU64::new(number(word)))
                .collect(),
        })
    }
}

fn encode(expected: Expected) -> u64 {
    match expected {
        Expected::Anything => ANYTHING,
        Expected::Reference => REFERENCE,
        Expected::Tag(tag) => {
            assert!(tag <= LAST_TAG, "tag {tag} is too high");
            tag
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(first: u64, tags: &[u64]) -> Vec<u8> {
        let mut bytes = vec![0; tags.len() * SECTOR];
        for ((sector, &tag), chunk) in (first..).zip(tags).zip(bytes.chunks_exact_mut(SECTOR)) {
            Stamp { sector, tag }.fill(chunk);
        }
        bytes
    }

    fn no_reference() -> io::Result<Vec<u8>> {
        panic!("the reference is not needed")
    }

    #[test]
    fn a_write_replaces_the_source() {
        let model = Model::new(8, Expected::Tag(1));
        model.set(2..4, Expected::Tag(9));
        let right = content(1, &[1, 9, 9, 1]);
        assert_eq!(model.check(1, &right, no_reference).unwrap(), Ok(()));
        let lost = content(1, &[1, 9, 1, 1]);
        let mismatch = model.check(1, &lost, no_reference).unwrap().unwrap_err();
        assert_eq!(mismatch.sector, 3);
        assert_eq!(mismatch.expected, "sector 3 of tag 9");
        assert_eq!(mismatch.got, "sector 3 of tag 1");
    }

    #[test]
    fn content_of_another_place_is_wrong() {
        let model = Model::new(8, Expected::Tag(1));
        let shifted = content(3, &[1]);
        assert!(model.check(2, &shifted, no_reference).unwrap().is_err());
    }

    #[test]
    fn discarded_sectors_hold_anything_until_written() {
        let model = Model::new(4, Expected::Tag(1));
        model.set(1..3, Expected::Anything);
        let mut bytes = content(0, &[1, 1, 1, 1]);
        bytes[SECTOR..3 * SECTOR].fill(0xaa);
        assert_eq!(model.check(0, &bytes, no_reference).unwrap(), Ok(()));
        model.set(1..2, Expected::Tag(3));
        let mismatch = model.check(0, &bytes, no_reference).unwrap().unwrap_err();
        assert_eq!(mismatch.sector, 1);
    }

    #[test]
    fn a_reference_is_compared_where_nothing_was_written() {
        let model = Model::new(2, Expected::Reference);
        model.set(0..1, Expected::Tag(5));
        let mut bytes = content(0, &[5]);
        bytes.extend([7; SECTOR]);
        let same = || Ok(vec![7; 2 * SECTOR]);
        assert_eq!(model.check(0, &bytes, same).unwrap(), Ok(()));
        let other = || Ok(vec![8; 2 * SECTOR]);
        assert_eq!(
            model.check(0, &bytes, other).unwrap().unwrap_err().sector,
            1
        );
    }

    #[test]
    fn is_the_same_after_save_and_load() {
        let model = Model::new(3, Expected::Reference);
        model.set(1..2, Expected::Anything);
        model.set(2..3, Expected::Tag(12));
        let mut file = Vec::new();
        model.save(&mut file).unwrap();
        let again = Model::load(file.as_slice()).unwrap();
        assert_eq!(again.sectors(), 3);
        assert_eq!(again.expected(0), Expected::Reference);
        assert_eq!(again.expected(1), Expected::Anything);
        assert_eq!(again.expected(2), Expected::Tag(12));
        assert_eq!(again.highest_tag(), 12);
    }
}
