// SPDX-License-Identifier: GPL-2.0

//! Sizes, as they are written and as they are read.

use dmstats::message::digits;

/// The letters of units, each a thousand (or 1024) of the one before.
const LETTERS: &[u8; 7] = b"bkmgtpe";

/// Whole numbers below it are exact as floating-point ones.
const EXACT: i64 = 1 << 53;

/// How sizes are shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Units {
    /// In the largest unit that gives 1 or more: powers of 1000 or of 1024; with a mark if it was rounded up.
    Human { decimal: bool, mark: bool },
    /// In units of so many bytes; whole numbers only.
    Whole(f64),
    /// In units of so many bytes.
    Fixed(f64),
}

fn step(decimal: bool) -> f64 {
    if decimal {
        1000.0
    } else {
        1024.0
    }
}

/// The bytes of a unit; capital letters are powers of 1000.
fn bytes(letter: char) -> Option<f64> {
    if letter.eq_ignore_ascii_case(&'s') {
        return Some(512.0);
    }
    let power = LETTERS
        .iter()
        .position(|known| letter.eq_ignore_ascii_case(&char::from(*known)))?;
    Some(step(letter.is_ascii_uppercase()).powi(power as i32))
}

impl Units {
    /// Reads `h`, `k`, `3M` and their like.
    pub fn parse(text: &str) -> Option<Self> {
        let letter = text.chars().last()?;
        let number = &text[..text.len() - letter.len_utf8()];
        let decimal = letter.is_ascii_uppercase();
        match (letter.to_ascii_lowercase(), number) {
            ('h', "") => Some(Units::Human {
                decimal,
                mark: false,
            }),
            ('r', "") => Some(Units::Human {
                decimal,
                mark: true,
            }),
            ('b' | 's', "") => bytes(letter).map(Units::Whole),
            (_, "") => bytes(letter).map(Units::Fixed),
            _ => {
                let factor: f64 = number
                    .parse()
                    .ok()
                    .filter(|factor: &f64| factor.is_finite() && *factor > 0.0)?;
                bytes(letter).map(|unit| Units::Fixed(unit * factor))
            }
        }
    }

    /// Writes a size of so many bytes.
    pub fn show(&self, size: f64, out: &mut Vec<u8>) {
        let whole_size = size as i64;
        match *self {
            _ if size == 0.0 => out.push(b'0'),
            Units::Whole(unit) => whole((size / unit).trunc(), out),
            Units::Fixed(unit) => two_decimals(size / unit, out),
            Units::Human {
                decimal: false,
                mark: false,
            } if (1..EXACT).contains(&whole_size) && whole_size as f64 == size => {
                binary(whole_size.unsigned_abs(), out)
            }
            Units::Human { decimal, mark } => {
                let step = step(decimal);
                let (mut power, mut unit) = (0, 1.0);
                while power < LETTERS.len() - 1 && size >= unit * step {
                    power += 1;
                    unit *= step;
                }
                let value = size / unit;
                let start = out.len();
                if power == 0 {
                    whole(value, out);
                } else {
                    two_decimals(value, out);
                    let up = |shown: &[u8]| {
                        let shown = std::str::from_utf8(shown).map(str::parse::<f64>);
                        matches!(shown, Ok(Ok(shown)) if shown > value)
                    };
                    if mark && up(&out[start..]) {
                        out.insert(start, b'<');
                    }
                }
                let letter = LETTERS[power];
                out.push(if decimal {
                    letter.to_ascii_uppercase()
                } else {
                    letter
                });
            }
        }
    }
}

/// Writes so many bytes, one or more but fewer than [`EXACT`], in the largest power of 1024 that gives 1 or more. A
/// list has thousands of such sizes, and floating-point numbers would take twice as long.
fn binary(size: u64, out: &mut Vec<u8>) {
    let power = size.ilog2() / 10;
    if power == 0 {
        digits(size, out);
    } else {
        let shift = 10 * power;
        let product = size * 100;
        let (below, rest) = (product >> shift, product & ((1 << shift) - 1));
        let half = 1 << (shift - 1);
        let up = rest > half || (rest == half && below % 2 == 1);
        hundredths(below + u64::from(up), out);
    }
    out.push(LETTERS[power as usize]);
}

/// Writes a number without decimals, as `{:.0}` has it.
fn whole(value: f64, out: &mut Vec<u8>) {
    let integer = value as u32;
    if f64::from(integer) == value && value.is_sign_positive() {
        digits(integer.into(), out);
    } else {
        out.extend(format!("{value:.0}").bytes());
    }
}

/// Writes a number with two decimals, as `{:.2}` has it, which takes thousands of instructions.
pub fn two_decimals(value: f64, out: &mut Vec<u8>) {
    if value.to_bits() == 0 {
        out.extend_from_slice(b"0.00");
    // Of larger ones the hundredths are not exact.
    } else if value.is_sign_positive() && value < 1e9 {
        hundredths(nearest_hundredths(value), out);
    } else {
        out.extend(format!("{value:.2}").bytes());
    }
}

/// Writes so many hundredths.
fn hundredths(number: u64, out: &mut Vec<u8>) {
    let digit = |number: u64| b'0' + (number % 10) as u8;
    digits(number / 100, out);
    out.extend_from_slice(&[b'.', digit(number / 10), digit(number)]);
}

/// The hundredths of a number, of which there are not too many to be exact; a half goes to the even one.
fn nearest_hundredths(value: f64) -> u64 {
    let product = value * 100.0;
    let below = product as u64;
    let rest = product - below as f64;
    // The product is rounded itself, but only at just a half what it lacks makes a difference.
    let lacks = || value.mul_add(100.0, -product);
    let half_up = || lacks() > 0.0 || (lacks() == 0.0 && below % 2 == 1);
    below + u64::from(rest > 0.5 || (rest == 0.5 && half_up()))
}

/// Reads a size in sectors: a number without a unit is such; what is no whole sector is cut off.
pub fn sectors(text: &str) -> Option<u64> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let mut letters = suffix.chars();
    match (letters.next(), letters.next()) {
        (None, _) => Some(number),
        (Some('s' | 'S'), None) => Some(number),
        (Some(letter), None) => {
            let unit = bytes(letter)? as u64;
            let all = u128::from(number) * u128::from(unit) / 512;
            u64::try_from(all).ok()
        }
        _ => None,
    }
}

/// Reads a size in bytes for a selection: a number without a unit is mebibytes.
pub fn selected(text: &str) -> Option<f64> {
    let at = text
        .find(|c: char| c.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(at);
    let number: f64 = number.parse().ok()?;
    let mut letters = suffix.chars();
    match (letters.next(), letters.next()) {
        (None, _) => Some(number * 1024.0 * 1024.0),
        (Some(letter), None) => bytes(letter).map(|unit| number * unit),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(write: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = b"before ".to_vec();
        write(&mut out);
        String::from_utf8(out).unwrap().split_off(7)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn two_decimals_are_those_of_the_standard_library(
            bits: u64, hundredths in 0u64..1 << 40, thousandths in 0u64..1 << 40, sectors: u64, power in 0i32..7,
        ) {
            for value in [
                f64::from_bits(bits), hundredths as f64 / 100.0, thousandths as f64 / 1000.0,
                sectors as f64 * 512.0 / 1024f64.powi(power), sectors as f64 / 1000f64.powi(power),
            ] {
                prop_assert_eq!(written(|out| two_decimals(value, out)), format!("{value:.2}"));
                prop_assert_eq!(written(|out| whole(value, out)), format!("{value:.0}"));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        /// With the mark, which says only what was rounded up, a size takes the way of all numbers.
        #[test]
        fn whole_sizes_are_shown_as_others_are(
            bits: u64, shift in 11u32..64, halves in 0u64..1 << 20, power in 0u32..4,
        ) {
            for size in [bits >> shift, halves << (10 * power) >> 4, (halves << (10 * power)) / 200] {
                let show = |mark| {
                    let units = Units::Human { decimal: false, mark };
                    written(|out| units.show(size as f64, out))
                };
                let marked = show(true);
                prop_assert_eq!(show(false), marked.trim_start_matches('<'));
            }
        }
    }

    #[test]
    fn sizes_are_shown_in_all_units() {
        for (units, size, shown) in [
            ("h", 67_108_864.0, "64.00m"),
            ("H", 67_108_864.0, "67.11M"),
            ("h", 512.0, "512b"),
            ("h", 1_048_064.0, "1023.50k"),
            ("R", 1_536.0, "<1.54K"),
            ("R", 512_000.0, "512.00K"),
            ("s", 512_000.0, "1000"),
            ("b", 512.0, "512"),
            ("k", 512.0, "0.50"),
            ("3M", 67_108_864.0, "22.37"),
            ("1.5k", 1536.0, "1.00"),
            ("h", 0.0, "0"),
        ] {
            let units = Units::parse(units).unwrap();
            assert_eq!(written(|out| units.show(size, out)), shown, "{units:?}");
        }
        for units in ["", "x", "0k", "-1k", "kk", "3h", "é"] {
            assert_eq!(Units::parse(units), None, "{units}");
        }
    }

    #[test]
    fn sizes_are_read_in_sectors_and_nonsense_is_refused() {
        for (text, sectors_read) in [
            ("8", 8),
            ("300s", 300),
            ("4k", 8),
            ("4K", 7),
            ("1024b", 2),
            ("1g", 2_097_152),
        ] {
            assert_eq!(sectors(text), Some(sectors_read), "{text}");
        }
        for text in [
            "",
            "x",
            "4x",
            "-1",
            "1.5k",
            "4kk",
            "99999999999999999999",
            "18446744073709551615e",
        ] {
            assert_eq!(sectors(text), None, "{text}");
        }
    }
}
