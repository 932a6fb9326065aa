// SPDX-License-Identifier: GPL-2.0

//! The bounds of a histogram's bins, in nanoseconds: bin `i` counts what took at least bound `i - 1`, and less
//! than bound `i`.

use crate::reply::rising;
use crate::Error;
use crate::Result;

const MS: u64 = 1_000_000;

const UNITS: [(&str, u64); 4] = [("ns", 1), ("us", 1_000), ("ms", MS), ("s", 1_000_000_000)];

/// Reads bounds such as `10us,1ms,2s`. A number without a unit takes that of the bound before it, or ns.
pub fn parse(text: &str) -> Result<Vec<u64>> {
    let invalid = |why: String| Error::Invalid(format!("{why} in histogram bounds '{text}'"));
    let mut unit = 1;
    let mut bounds = Vec::new();
    for word in text.split(',').map(str::trim) {
        let digits = word
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(word.len());
        let (number, suffix) = word.split_at(digits);
        let number: u64 = number
            .parse()
            .map_err(|_| invalid(format!("'{word}' is not a time")))?;
        if !suffix.is_empty() {
            let found = UNITS.iter().find(|(name, _)| *name == suffix);
            unit = found
                .ok_or_else(|| invalid(format!("'{suffix}' is not a unit (ns, us, ms, s)")))?
                .1;
        }
        bounds.push(
            number
                .checked_mul(unit)
                .ok_or_else(|| invalid(format!("'{word}' is too long")))?,
        );
    }
    if bounds.first() == Some(&0) {
        return Err(invalid("the first bound must be above zero".into()));
    }
    if !rising(&bounds) {
        return Err(invalid(
            "each bound must be higher than the one before it".into(),
        ));
    }
    Ok(bounds)
}

/// How many bins a histogram with these bounds has; without bounds there is none.
pub fn bins(bounds: &[u64]) -> usize {
    match bounds.len() {
        0 => 0,
        bounds => bounds + 1,
    }
}

/// Whether these bounds need a region that counts in nanoseconds.
pub fn need_precise(bounds: &[u64]) -> bool {
    bounds.iter().any(|bound| bound % MS != 0)
}

/// A time in the largest unit that it is a whole number of.
pub fn time(ns: u64) -> String {
    let fits = |(_, unit): &&(&str, u64)| ns % unit == 0;
    let (name, unit) = UNITS.iter().rev().find(fits).unwrap_or(&UNITS[0]);
    format!("{}{name}", ns / unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bounds_have_units_and_keep_the_last_one() {
        assert_eq!(parse("10us,1ms,2s").unwrap(), [10_000, MS, 2_000 * MS]);
        assert_eq!(parse("1ms,20,30").unwrap(), [MS, 20 * MS, 30 * MS]);
        assert_eq!(parse("100,1us").unwrap(), [100, 1_000]);
    }

    #[test]
    fn bounds_that_the_kernel_would_refuse_are_refused_with_the_reason() {
        for (text, why) in [
            ("0", "above zero"),
            ("0,1", "above zero"),
            ("3,2", "higher than"),
            ("1ms,1000us", "higher than"),
            ("1ms,", "'' is not a time"),
            ("", "'' is not a time"),
            ("foo", "'foo' is not a time"),
            ("1h", "'h' is not a unit"),
            ("18446744073709551615s", "too long"),
            ("99999999999999999999", "is not a time"),
        ] {
            assert!(parse(text).unwrap_err().to_string().contains(why), "{text}");
        }
    }

    #[test]
    fn times_are_shown_in_the_largest_exact_unit() {
        for (ns, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_000, "1us"),
            (1_500, "1500ns"),
            (2_000 * MS, "2s"),
        ] {
            assert_eq!(time(ns), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(gaps in proptest::collection::vec(1u64..10_000_000_000, 1..8)) {
            let bounds: Vec<u64> = gaps.iter().scan(0, |sum, gap| { *sum += gap; Some(*sum) }).collect();
            let words: Vec<String> = bounds.iter().map(|bound| time(*bound)).collect();
            prop_assert_eq!(parse(&words.join(",")).unwrap(), bounds);
        }

        #[test]
        fn no_text_is_too_strange(text in "[0-9munsx, ]{0,24}") {
            let _ = parse(&text);
        }
    }
}
