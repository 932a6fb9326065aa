// SPDX-License-Identifier: GPL-2.0

//! Sizes, as they are written and as they are read.

/// The letters of units, each a thousand (or 1024) of the one before.
const LETTERS: [char; 7] = ['b', 'k', 'm', 'g', 't', 'p', 'e'];

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
        .position(|known| letter.eq_ignore_ascii_case(known))?;
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

    /// A size of so many bytes.
    pub fn show(&self, size: f64) -> String {
        match *self {
            _ if size == 0.0 => "0".into(),
            Units::Whole(unit) => format!("{:.0}", (size / unit).trunc()),
            Units::Fixed(unit) => format!("{:.2}", size / unit),
            Units::Human { decimal, mark } => {
                let step = step(decimal);
                let fits = |power: &i32| size >= step.powi(*power);
                let power = (1..7).rev().find(fits).unwrap_or(0);
                let letter = LETTERS[power as usize];
                let letter = if decimal {
                    letter.to_ascii_uppercase()
                } else {
                    letter
                };
                if power == 0 {
                    return format!("{size:.0}{letter}");
                }
                let value = size / step.powi(power);
                let shown = format!("{value:.2}");
                let up = mark && shown.parse::<f64>().is_ok_and(|shown| shown > value);
                format!("{}{shown}{letter}", if up { "<" } else { "" })
            }
        }
    }
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
            assert_eq!(Units::parse(units).unwrap().show(size), shown, "{units}");
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
