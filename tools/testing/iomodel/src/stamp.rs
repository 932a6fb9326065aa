// SPDX-License-Identifier: GPL-2.0

//! The content of a sector: every one tells where it belongs and which write it is from.

use std::fmt;

/// The unit of all content.
pub const SECTOR: usize = 512;

/// What a sector is said to hold: its number in the tested area, and the tag of the write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub sector: u64,
    pub tag: u64,
}

impl Stamp {
    /// Fills one sector: number, tag, then words that are mixed from both and their place.
    pub fn fill(self, bytes: &mut [u8]) {
        for (place, word) in bytes.chunks_exact_mut(8).enumerate() {
            word.copy_from_slice(&self.word(place).to_le_bytes());
        }
    }

    /// Whether these bytes are this stamp, all of them.
    pub fn fits(self, bytes: &[u8]) -> bool {
        bytes
            .chunks_exact(8)
            .enumerate()
            .all(|(place, word)| word == self.word(place).to_le_bytes())
    }

    /// The stamp that one sector's bytes are, if they are one.
    pub fn read(bytes: &[u8]) -> Option<Stamp> {
        let word = |place: usize| {
            u64::from_le_bytes(bytes[place * 8..place * 8 + 8].try_into().expect("8 bytes"))
        };
        let stamp = Stamp {
            sector: word(0),
            tag: word(1),
        };
        stamp.fits(bytes).then_some(stamp)
    }

    fn word(self, place: usize) -> u64 {
        match place {
            0 => self.sector,
            1 => self.tag,
            _ => mix(self.sector ^ mix(self.tag ^ mix(place as u64))),
        }
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sector {} of tag {}", self.sector, self.tag)
    }
}

/// Tells in words what a sector holds.
pub fn describe(bytes: &[u8]) -> String {
    if let Some(stamp) = Stamp::read(bytes) {
        return stamp.to_string();
    }
    if bytes.iter().all(|&byte| byte == 0) {
        return "zeroes".into();
    }
    let start: Vec<String> = bytes[..24]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("no stamp: {} ...", start.join(" "))
}

/// Spreads a number over 64 bits (the finaliser of SplitMix64).
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_filled() {
        let stamp = Stamp { sector: 77, tag: 5 };
        let mut bytes = [0; SECTOR];
        stamp.fill(&mut bytes);
        assert_eq!(Stamp::read(&bytes), Some(stamp));
        assert!(!Stamp { sector: 77, tag: 6 }.fits(&bytes));
    }

    #[test]
    fn every_byte_counts() {
        let mut bytes = [0; SECTOR];
        Stamp { sector: 1, tag: 1 }.fill(&mut bytes);
        for place in 0..SECTOR {
            bytes[place] ^= 1;
            assert_ne!(Stamp::read(&bytes), Some(Stamp { sector: 1, tag: 1 }));
            bytes[place] ^= 1;
        }
    }

    #[test]
    fn zeroes_are_no_stamp() {
        assert_eq!(Stamp::read(&[0; SECTOR]), None);
        assert_eq!(describe(&[0; SECTOR]), "zeroes");
    }
}
