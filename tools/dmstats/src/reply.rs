// SPDX-License-Identifier: GPL-2.0

//! The kernel's answers. Much in them was written by other programs, so that nothing is taken for granted.

use memchr::memchr;

use crate::sample::Counters;

/// A row of `@stats_list`, as the kernel has it: times are in its own unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListRow<'a> {
    /// The region's id.
    pub id: u32,
    /// Its first sector.
    pub start: u64,
    /// Its sectors.
    pub len: u64,
    /// The sectors of an area.
    pub step: u64,
    /// The program that made it, `-` if none was named.
    pub program: &'a [u8],
    /// The program's word.
    pub aux: &'a [u8],
    /// Whether times are nanoseconds, not milliseconds.
    pub precise: bool,
    /// The bounds of its histogram; none without one.
    pub bounds: Vec<u64>,
}

/// A new region has so many areas at most (the kernel's `DM_STAT_MAX_ENTRIES`). Older kernels have no such
/// limit, and a word that was written with a line end has rows of its own, which may tell anything.
pub const MAX_AREAS: u64 = 8_388_608;

/// So many digits are always a number of 64 bits.
const SAFE_DIGITS: usize = 19;

/// A number in decimal at the beginning, and what comes after it.
#[inline(always)]
fn leading(text: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    let mut len = 0;
    while let Some(digit @ 0..=9) = text.get(len).map(|byte| byte.wrapping_sub(b'0')) {
        // Whether there are too many is looked at below, not for each digit: an answer has a million of them.
        value = value.wrapping_mul(10).wrapping_add(digit.into());
        len += 1;
    }
    match len {
        0 => None,
        1..=SAFE_DIGITS => Some((value, &text[len..])),
        _ => long(&text[..len]).map(|value| (value, &text[len..])),
    }
}

#[cold]
fn long(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// A number in decimal, and nothing else.
pub fn number(text: &[u8]) -> Option<u64> {
    let (value, rest) = leading(text)?;
    rest.is_empty().then_some(value)
}

fn cut(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let position = memchr(at, text)?;
    Some((&text[..position], &text[position + 1..]))
}

/// Two numbers with a `+` between them, and what comes after them.
fn range(text: &[u8]) -> Option<(u64, u64, &[u8])> {
    let (start, rest) = leading(text)?;
    let (len, rest) = leading(rest.strip_prefix(b"+")?)?;
    Some((start, len, rest))
}

fn numbers(text: &[u8], separator: u8) -> Option<Vec<u64>> {
    text.split(|byte| *byte == separator).map(number).collect()
}

impl<'a> ListRow<'a> {
    /// Reads a row.
    ///
    /// Neither the program's name nor its word are escaped, and both may have spaces. What the kernel adds
    /// is at the end, so rows are read from there; `program` is a name that is tried first.
    #[inline]
    pub fn parse(line: &'a [u8], program: Option<&[u8]>) -> Option<Self> {
        let (id, rest) = leading(line)?;
        let (start, len, rest) = range(rest.strip_prefix(b": ")?)?;
        let (step, rest) = leading(rest.strip_prefix(b" ")?)?;
        let rest = rest.strip_prefix(b" ")?;
        let id = u32::try_from(id).ok()?;
        let end = start.checked_add(len);
        if id > crate::ids::MAX_ID || len == 0 || end.is_none() || step == 0 {
            return None;
        }

        let (rest, bounds) = bounds(rest);
        let (rest, precise) = match rest.strip_suffix(b" precise_timestamps") {
            Some(rest) => (rest, true),
            None => (rest, false),
        };
        let known =
            program.and_then(|known| Some((known, rest.strip_prefix(known)?.strip_prefix(b" ")?)));
        let (program, aux) = match known {
            Some((known, aux)) => (&rest[..known.len()], aux),
            None => cut(rest, b' ')?,
        };
        Some(ListRow {
            id,
            start,
            len,
            step,
            program,
            aux,
            precise,
            bounds,
        })
    }
}

/// Takes a histogram off the end of a row.
fn bounds(row: &[u8]) -> (&[u8], Vec<u64>) {
    // Most rows have none, and end with a word that is no number.
    if !row.last().is_some_and(u8::is_ascii_digit) {
        return (row, Vec::new());
    }
    let found = row.iter().rposition(|byte| *byte == b' ').and_then(|at| {
        let list = row[at..].strip_prefix(b" histogram:")?;
        Some((&row[..at], numbers(list, b',')?))
    });
    found
        .filter(|(_, bounds)| rising(bounds))
        .unwrap_or((row, Vec::new()))
}

/// Whether a word ends with what the kernel writes at the end of a row, or is that.
pub fn ends_as_the_kernels(word: &[u8]) -> bool {
    let row = [&b" "[..], word].concat();
    !bounds(&row).1.is_empty() || row.ends_with(b" precise_timestamps")
}

/// Whether bounds are such as the kernel takes.
pub fn rising(bounds: &[u64]) -> bool {
    bounds.first() != Some(&0) && bounds.windows(2).all(|pair| pair[0] < pair[1])
}

/// A row of `@stats_print`: an area.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrintRow {
    /// Its first sector.
    pub start: u64,
    /// Its sectors, were the region not to end within it.
    pub step: u64,
    /// Its counters, with times in the region's own unit.
    pub counters: Counters,
    /// The counts of its histogram.
    pub bins: Vec<u64>,
}

impl PrintRow {
    /// Reads a row.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let (start, step, mut rest) = range(line)?;
        let mut values = [0u64; 13];
        for (index, value) in values.iter_mut().enumerate() {
            let word = rest.strip_prefix(b" ")?;
            // The number in flight is a difference of two, and may pass below zero.
            (*value, rest) = match word.strip_prefix(b"-") {
                Some(below) if index == Counters::IN_PROGRESS => {
                    leading(below).map(|(_, rest)| (0, rest))?
                }
                _ => leading(word)?,
            };
        }
        let bins = match rest.strip_prefix(b" ") {
            Some(list) => numbers(list, b':')?,
            None if rest.is_empty() => Vec::new(),
            None => return None,
        };
        Some(PrintRow {
            start,
            step,
            counters: Counters::from_row(values),
            bins,
        })
    }
}

/// The lines of an answer, without their ends.
pub fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let all = (!rest.is_empty()).then_some(rest)?;
        let (line, after) = cut(all, b'\n').unwrap_or((all, &[]));
        rest = after;
        Some(line)
    })
    .filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn list_rows_are_read_from_the_right() {
        let row = ListRow::parse(
            b"7: 8+1000 300 dmstats DMS_GROUP=\"a b\":7#- precise_timestamps histogram:1,20",
            None,
        );
        let row = row.unwrap();
        assert_eq!((row.id, row.start, row.len, row.step), (7, 8, 1000, 300));
        assert_eq!(
            (row.program, row.aux),
            (&b"dmstats"[..], &b"DMS_GROUP=\"a b\":7#-"[..])
        );
        assert_eq!((row.precise, row.bounds), (true, vec![1, 20]));

        let row = ListRow::parse(
            b"0: 0+8 8 my program has a histogram:2,1",
            Some(b"my program"),
        )
        .unwrap();
        assert_eq!(
            (row.program, row.aux, row.precise),
            (&b"my program"[..], &b"has a histogram:2,1"[..], false)
        );
        // Older kernels have regions of more areas than others.
        assert!(ListRow::parse(b"0: 0+8388609 1 a -", None).is_some());
        assert!(ListRow::parse(b"5: 0+1152921504606846976 1 a -", None).is_some());
        let row = ListRow::parse(b"0: 0+8 8 caf\xe9 \xff", None).unwrap();
        assert_eq!((row.program, row.aux), (&b"caf\xe9"[..], &b"\xff"[..]));
    }

    #[test]
    fn rows_that_the_kernel_cannot_have_written_are_refused() {
        for line in [
            "",
            "0",
            "0:",
            "0: 0+8",
            "0: 0+8 8",
            "0: 0+8 8 dmstats",
            "x: 0+8 8 a -",
            "0: 0+8 0 a -",
            "0: 0+0 8 a -",
            "0: 0-8 8 a -",
            "-1: 0+8 8 a -",
            "2147483648: 0+8 8 a -",
            "0: 18446744073709551615+1 8 a -",
            "0:0+8 8 a -",
        ] {
            assert_eq!(ListRow::parse(line.as_bytes(), None), None, "{line}");
        }
    }

    #[test]
    fn print_rows_have_thirteen_counters_and_bins() {
        let row = PrintRow::parse(b"8+100 1 2 3 4 5 6 7 8 9 10 11 12 13 5:0:1").unwrap();
        assert_eq!((row.start, row.step, row.bins), (8, 100, vec![5, 0, 1]));
        assert_eq!(
            (
                row.counters.reads,
                row.counters.in_progress,
                row.counters.write_ticks
            ),
            (1, 9, 13)
        );
        assert_eq!(
            PrintRow::parse(b"8+1 1 2 3 4 5 6 7 8 -2 10 11 12 13")
                .unwrap()
                .counters
                .in_progress,
            0
        );
        for line in [
            "8+100 1 2 3 4 5 6 7 8 9 10 11 12 13 ",
            "8+100 1 2 3 4 5 6 7 8 9 10 11 12 13 1:",
            "8+100 1 2 3 4 5 6 7 8 9 10 11 12",
            "8+100 -1 2 3 4 5 6 7 8 9 10 11 12 13",
        ] {
            assert_eq!(PrintRow::parse(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn numbers_end_where_64_bits_do() {
        assert_eq!(number(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(number(b"00000000000000000000018"), Some(18));
        for text in [
            "18446744073709551616",
            "99999999999999999999",
            "",
            "+1",
            "1+",
        ] {
            assert_eq!(number(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn what_the_kernel_writes_is_read(
            id in 0..=crate::ids::MAX_ID, start in 0u64..1 << 60, len in 1u64..1 << 60, step in 1u64..1 << 60,
            program in "[!-~]{1,8}", aux in "[!-~]{1,12}", precise: bool,
            gaps in proptest::collection::vec(1u64..100, 0..4),
        ) {
            let step = step.max(len.div_ceil(MAX_AREAS));
            let bounds: Vec<u64> = gaps.iter().scan(0, |sum, gap| { *sum += gap; Some(*sum) }).collect();
            let mut line = format!("{id}: {start}+{len} {step} {program} {aux}");
            if precise { line += " precise_timestamps"; }
            if !bounds.is_empty() {
                let words: Vec<String> = bounds.iter().map(u64::to_string).collect();
                line += &format!(" histogram:{}", words.join(","));
            }
            let row = ListRow::parse(line.as_bytes(), None).unwrap();
            prop_assert_eq!((row.id, row.start, row.len, row.step), (id, start, len, step));
            prop_assert_eq!((row.program, row.aux), (program.as_bytes(), aux.as_bytes()));
            prop_assert_eq!((row.precise, row.bounds), (precise, bounds));
        }

        #[test]
        fn no_row_is_too_strange(
            line in "[0-9]{0,3}:? ?[0-9]{0,21}[+]?[0-9]{0,21} ?[0-9]{0,3} ?[a: ]{0,9}( precise_timestamps| histogram:[0-9,]{0,9}){0,3}",
        ) {
            let _ = ListRow::parse(line.as_bytes(), Some(b"a"));
            let _ = PrintRow::parse(line.as_bytes());
        }
    }

    /// A cheap generator, so that very many inputs take little time: rows of the kernel with bytes changed,
    /// removed and doubled.
    #[test]
    fn a_million_damaged_answers_are_survived() {
        let seeds: [&[u8]; 5] = [
            b"7: 8+1000 300 dmstats DMS_GROUP=\"a\":7,9-12#- precise_timestamps histogram:1,20",
            b"0: 0+8 8 - DMS_GROUP=img:0-3#",
            b"8+100 1 2 3 4 5 6 7 8 9 10 11 12 13 5:0:1",
            b"DMS_GROUP=\"a\":0-3,7#user",
            b"0-3,7,9-2147483647",
        ];
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 16) as usize % below
        };
        let alphabet = b"0123456789:+- ,#\"=DMS_GROUP\\\xff\x00ahistogram";
        let mut line = Vec::new();
        for round in 0..1_000_000 {
            line.clear();
            line.extend(seeds[round % seeds.len()]);
            for _ in 0..=random(3) {
                let at = random(line.len());
                match random(4) {
                    0 => line[at] = alphabet[random(alphabet.len())],
                    1 => line.insert(at, alphabet[random(alphabet.len())]),
                    2 if line.len() > 1 => drop(line.remove(at)),
                    _ => line.truncate(at + 1),
                }
            }
            match round % seeds.len() {
                0 | 1 => {
                    if let Some(row) = ListRow::parse(&line, Some(b"dmstats")) {
                        assert!(
                            row.step > 0
                                && row.start.checked_add(row.len).is_some()
                                && rising(&row.bounds)
                        );
                        let _ = crate::aux::Aux::parse(row.aux);
                    }
                }
                2 => drop(PrintRow::parse(&line)),
                3 => drop(crate::aux::Aux::parse(&line)),
                _ => drop(crate::IdSet::parse(&line)),
            }
        }
    }
}
