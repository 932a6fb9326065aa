// SPDX-License-Identifier: GPL-2.0

//! The messages to the kernel. It takes them apart at white space, which for it includes the byte a0 of any
//! UTF-8 text; a backslash keeps a byte.

use crate::device::RegionSpec;
use crate::device::Step;
use crate::reply;
use crate::Error;
use crate::Result;

/// A row of the list must be shorter for other programs to be able to read the device's list at all.
pub(crate) const LONGEST_ROW: usize = 4095;
/// What else may be in a row: numbers, the words of the kernel.
const ROW_OVERHEAD: usize = 128;

/// A word as it has to be written for the kernel to read this one.
pub fn quoted(word: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(word.len());
    for byte in word {
        if matches!(byte, 0x09..=0x0d | b' ' | 0xa0 | b'\\') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out
}

/// A word that can be stored: it is not empty, has no line end, which would end its row in the list, and no
/// zero, which would end the message.
pub fn check_word(what: &str, word: &[u8]) -> Result<()> {
    let bad = word.iter().find(|byte| matches!(byte, b'\n' | 0));
    match bad {
        Some(_) => Err(Error::Invalid(format!(
            "The {what} must not have a line end or a zero byte in it"
        ))),
        None => Ok(()),
    }
}

/// The kernel's word for a histogram of these bounds, with the space before it; nothing if there are none.
fn histogram(bounds: &[u64], precise: bool) -> String {
    if bounds.is_empty() {
        return String::new();
    }
    let unit = if precise { 1 } else { 1_000_000 };
    let words: Vec<String> = bounds
        .iter()
        .map(|bound| (bound / unit).to_string())
        .collect();
    format!(" histogram:{}", words.join(","))
}

/// How long a region's row is at most, but for its word.
pub(crate) fn row(program: &[u8], bounds: &[u64], precise: bool) -> usize {
    program.len() + ROW_OVERHEAD + histogram(bounds, precise).len()
}

/// `@stats_create`.
pub fn create(spec: &RegionSpec, program: &[u8]) -> Result<Vec<u8>> {
    check_word("program ID", program)?;
    check_word("user data", &spec.aux)?;
    if program.contains(&b' ') {
        return Err(Error::Invalid(
            "The program ID must not have a space in it: its regions could not be listed".into(),
        ));
    }
    if reply::ends_as_the_kernels(&spec.aux) {
        return Err(Error::Invalid(
            "The user data must not end with precise_timestamps or with a histogram: it would be taken for the region's"
                .into(),
        ));
    }
    let mut text = b"@stats_create ".to_vec();
    match spec.range {
        None => text.push(b'-'),
        Some((start, len)) => {
            digits(start, &mut text);
            text.push(b'+');
            digits(len, &mut text);
        }
    }
    match spec.step {
        Step::Areas(areas) => text.extend(format!(" /{areas}").bytes()),
        Step::Sectors(step) => text.extend(format!(" {step}").bytes()),
    }
    let precise = spec.precise || crate::bounds::need_precise(&spec.bounds);
    // The count is there even if it is 0: else a program called "1" would be taken for it.
    text.extend(format!(" {}", u8::from(precise) + u8::from(!spec.bounds.is_empty())).bytes());
    if precise {
        text.extend(b" precise_timestamps");
    }
    text.extend(histogram(&spec.bounds, precise).bytes());
    if row(program, &spec.bounds, precise) + spec.aux.len() > LONGEST_ROW {
        return Err(Error::Invalid(
            "The user data and the bounds are longer than other programs can read".into(),
        ));
    }
    text.push(b' ');
    text.extend(if program.is_empty() {
        b"-".to_vec()
    } else {
        quoted(program)
    });
    text.push(b' ');
    text.extend(if spec.aux.is_empty() {
        b"-".to_vec()
    } else {
        quoted(&spec.aux)
    });
    Ok(text)
}

/// `@stats_set_aux`.
pub fn set_aux(id: u32, word: &[u8]) -> Vec<u8> {
    let mut text = format!("@stats_set_aux {id} ").into_bytes();
    text.extend(quoted(word));
    text
}

/// `@stats_delete`.
pub fn delete(id: u32) -> Vec<u8> {
    about(b"@stats_delete ", id)
}

/// `@stats_clear`.
pub fn clear(id: u32) -> Vec<u8> {
    about(b"@stats_clear ", id)
}

/// `@stats_print` or `@stats_print_clear`.
pub fn print(id: u32, clear: bool) -> Vec<u8> {
    about(
        if clear {
            b"@stats_print_clear "
        } else {
            b"@stats_print "
        },
        id,
    )
}

/// A message about one region, of which there may be very many.
fn about(command: &[u8], id: u32) -> Vec<u8> {
    let mut text = Vec::with_capacity(32);
    text.extend_from_slice(command);
    digits(id.into(), &mut text);
    text
}

/// Writes a number in decimal. The standard library takes four times as long, and there may be a million numbers.
pub fn digits(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// The kernel's way to take a message apart, for the fake kernel and to prove [`quoted`].
pub fn split(text: &[u8]) -> Vec<Vec<u8>> {
    let space = |byte: u8| matches!(byte, 0x09..=0x0d | b' ' | 0xa0);
    let mut words = Vec::new();
    let mut bytes = text.iter().copied().peekable();
    loop {
        while bytes.next_if(|byte| space(*byte)).is_some() {}
        if bytes.peek().is_none() {
            return words;
        }
        let mut word = Vec::new();
        while let Some(byte) = bytes.next_if(|byte| !space(*byte)) {
            match bytes.peek() {
                Some(kept) if byte == b'\\' => {
                    word.push(*kept);
                    bytes.next();
                }
                _ => word.push(byte),
            }
        }
        words.push(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_numeric_program_is_not_taken_for_the_count_of_options() {
        let spec = RegionSpec::whole();
        assert_eq!(create(&spec, b"5").unwrap(), b"@stats_create - /1 0 5 -");
    }

    #[test]
    fn fine_bounds_make_a_region_precise() {
        let fine = RegionSpec {
            bounds: vec![10_000, 1_000_000],
            ..RegionSpec::whole()
        };
        assert_eq!(
            create(&fine, b"a").unwrap(),
            b"@stats_create - /1 2 precise_timestamps histogram:10000,1000000 a -"
        );
        let coarse = RegionSpec {
            bounds: vec![10_000_000],
            range: Some((8, 16)),
            step: Step::Sectors(4),
            ..fine
        };
        assert_eq!(
            create(&coarse, b"a").unwrap(),
            b"@stats_create 8+16 4 1 histogram:10 a -"
        );
    }

    #[test]
    fn what_would_make_the_list_unreadable_is_refused() {
        let spec = RegionSpec {
            aux: b"a\nb".to_vec(),
            ..RegionSpec::whole()
        };
        assert!(create(&spec, b"a").is_err());
        assert!(create(&RegionSpec::whole(), b"a b").is_err());
        assert!(create(&RegionSpec::whole(), b"a\0b").is_err());
    }

    #[test]
    fn user_data_is_never_taken_for_words_of_the_kernel() {
        let with = |aux: &str, bounds: u64| {
            let spec = RegionSpec {
                aux: aux.into(),
                bounds: (1..=bounds).map(|bound| bound * 1_000_000).collect(),
                ..RegionSpec::whole()
            };
            create(&spec, b"a")
        };
        for aux in [
            "precise_timestamps",
            "x precise_timestamps",
            "histogram:1,2",
            "x histogram:1",
        ] {
            let said = with(aux, 0).unwrap_err().to_string();
            assert!(said.contains("must not end with"), "{aux}: {said}");
        }
        for aux in [
            "",
            "1",
            "xprecise_timestamps",
            "precise_timestamps x",
            "histogram:2,1",
        ] {
            assert!(with(aux, 0).is_ok(), "{aux}");
        }
        // Nor is there a row that is too long for other programs.
        let longest = LONGEST_ROW - ROW_OVERHEAD - 1;
        assert!(with(&"x".repeat(longest), 0).is_ok());
        assert!(with(&"x".repeat(longest), 1).is_err());
        assert!(with("", 800).is_ok() && with("", 2000).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn digits_are_those_of_the_standard_library(bits: u64, shift in 0u32..64) {
            let number = bits >> shift;
            let mut text = b"id ".to_vec();
            digits(number, &mut text);
            prop_assert_eq!(text, format!("id {number}").into_bytes());
        }

        #[test]
        fn any_word_survives_the_kernels_splitting(word in proptest::collection::vec(1u8..=255, 1..24)) {
            let mut text = b"@stats_set_aux 0 ".to_vec();
            text.extend(quoted(&word));
            prop_assert_eq!(split(&text), vec![b"@stats_set_aux".to_vec(), b"0".to_vec(), word]);
        }
    }
}
