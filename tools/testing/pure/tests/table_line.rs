// SPDX-License-Identifier: GPL-2.0

//! Table lines of a clone: a hundred thousand of them, read by the target and by the documentation.

mod grammar;

use grammar::{
    assert_names_the_word,
    for_lines_near,
    number, //
};
use pure::{
    clone::{
        geometry::Geometry,
        table_line::{
            parse_geometry,
            Options, //
        },
    },
    words, //
};
use rand::{
    rngs::StdRng,
    seq::IndexedRandom,
    Rng, //
};

const KEYWORDS: &[&str] = &[
    "no_hydration",
    "no_discard_passdown",
    "hydration_threshold",
    "hydration_batch_size",
];

/// What a line asks for, and how many of its words say so.
type Meaning = (Geometry, Options, usize);

/// What a line means by the documentation; None if it has to be refused.
fn meaning(words: &[Vec<u8>], sectors: u64, block_sectors: u32) -> Option<Meaning> {
    let mut rest = words.iter();
    let size = number(rest.next()?, u64::MAX)?;
    if !(8..=2_097_152).contains(&size) || size.count_ones() != 1 || size < block_sectors.into() {
        return None;
    }
    if !(1..=1 << 31).contains(&sectors.div_ceil(size)) {
        return None;
    }
    let mut options = Options {
        hydration: true,
        discard_passdown: true,
        hydration_threshold: None,
        hydration_batch_size: None,
    };
    if let Some(count) = rest.next() {
        for _ in 0..number(count, 2)? {
            match lower(rest.next()?).as_str() {
                "no_hydration" => options.hydration = false,
                "no_discard_passdown" => options.discard_passdown = false,
                _ => return None,
            }
        }
    }
    if let Some(count) = rest.next() {
        let count = number(count, 4)?;
        if count % 2 == 1 || count as usize > rest.len() {
            return None;
        }
        for _ in 0..count / 2 {
            let key = lower(rest.next()?);
            let value = number(rest.next()?, u32::MAX.into())? as u32;
            match key.as_str() {
                "hydration_threshold" => options.hydration_threshold = Some(value),
                "hydration_batch_size" => options.hydration_batch_size = Some(value),
                _ => return None,
            }
        }
    }
    let geometry = Geometry::new(sectors, size as u32).unwrap();
    Some((geometry, options, words.len() - rest.len()))
}

fn lower(word: &[u8]) -> String {
    String::from_utf8_lossy(word).to_ascii_lowercase()
}

/// What the target makes of a line: its meaning, or the log line and the sentence that refuse it.
fn read(words: &[Vec<u8>], sectors: u64, block_sectors: u32) -> Result<Meaning, (String, String)> {
    words::read(words, |args| {
        let geometry = parse_geometry(args, sectors, block_sectors);
        let read = geometry.and_then(|geometry| Ok((geometry, Options::parse(args)?)));
        match read {
            Ok((geometry, options)) => Ok((geometry, options, words.len() - args.len())),
            Err(refused) => Err((
                refused.error.to_string(),
                refused.message.to_str().unwrap().to_owned(),
            )),
        }
    })
}

/// A line that is right, before something happens to it.
fn right_line(rng: &mut StdRng) -> Vec<Vec<u8>> {
    let mut line = vec![(1u32 << rng.random_range(3..=21)).to_string()];
    let groups = rng.random_range(0..3);
    if groups > 0 {
        let count = rng.random_range(0..3);
        line.push(count.to_string());
        line.extend((0..count).map(|_| KEYWORDS[..2].choose(rng).unwrap().to_string()));
    }
    if groups > 1 {
        let pairs = rng.random_range(0..3);
        line.push((pairs * 2).to_string());
        for _ in 0..pairs {
            line.push(KEYWORDS[2..].choose(rng).unwrap().to_string());
            line.push(rng.random::<u32>().to_string());
        }
    }
    line.into_iter().map(String::into_bytes).collect()
}

#[test]
fn means_what_the_documentation_says() {
    let (mut accepted, mut refused) = (0, 0);
    for_lines_near(right_line, KEYWORDS, |rng, line| {
        let sectors = match rng.random_range(0..8) {
            0 => rng.random(),
            1 => 1 << rng.random_range(0..64),
            2 => rng.random_range(0..5000),
            _ => 1 << 20,
        };
        let block_sectors = 1 << rng.random_range(0..6);
        let expected = meaning(&line, sectors, block_sectors);
        match read(&line, sectors, block_sectors) {
            Ok(read) => {
                assert_eq!(Some(read), expected);
                // What the status then shows asks for the same again; for what was left to the
                // target it shows the 1 of the kernel's own module.
                let shown = format!("{} {}", read.0.region_sectors(), read.1);
                let shown: Vec<_> = shown
                    .split(' ')
                    .map(|word| word.as_bytes().to_vec())
                    .collect();
                let options = Options {
                    hydration_threshold: read.1.hydration_threshold.or(Some(1)),
                    hydration_batch_size: read.1.hydration_batch_size.or(Some(1)),
                    ..read.1
                };
                let again = Some((read.0, options, shown.len()));
                assert_eq!(meaning(&shown, sectors, block_sectors), again);
                accepted += 1;
            }
            Err((text, sentence)) => {
                assert_eq!(expected, None, "{text}");
                assert_names_the_word(&text, &line);
                assert!(SENTENCES.contains(&sentence.as_str()), "{sentence}");
                refused += 1;
            }
        }
    });
    assert!(
        accepted > 10_000 && refused > 10_000,
        "{accepted} accepted, {refused} refused"
    );
}

/// The sentences for the log.
const SENTENCES: &[&str] = &[
    "Invalid region size",
    "Region size is not a power of 2",
    "Region size is not a multiple of device logical block size",
    "Too many regions. Consider increasing the region size",
    "Invalid number of feature arguments",
    "Invalid feature argument",
    "Invalid number of core arguments",
    "Number of core arguments must be even",
    "Invalid value for argument `hydration_threshold'",
    "Invalid value for argument `hydration_batch_size'",
    "Invalid core argument",
];

#[test]
fn refuses_for_every_reason() {
    let long = 8 * (1u64 << 31) + 1;
    let cases: [(&str, u64, u32, &str); 11] = [
        ("7", 99, 1, SENTENCES[0]),
        ("12", 99, 1, SENTENCES[1]),
        ("8", 99, 16, SENTENCES[2]),
        ("8", long, 1, SENTENCES[3]),
        ("8 3", 99, 1, SENTENCES[4]),
        ("8 1 hydration", 99, 1, SENTENCES[5]),
        ("8 0 2 x", 99, 1, SENTENCES[6]),
        ("8 0 1 x", 99, 1, SENTENCES[7]),
        ("8 0 2 hydration_threshold 4294967296", 99, 1, SENTENCES[8]),
        ("8 0 2 hydration_batch_size x", 99, 1, SENTENCES[9]),
        ("8 0 2 threshold 1", 99, 1, SENTENCES[10]),
    ];
    for (line, sectors, block_sectors, sentence) in cases {
        let words: Vec<_> = line
            .split(' ')
            .map(|word| word.as_bytes().to_vec())
            .collect();
        let (text, said) = read(&words, sectors, block_sectors).unwrap_err();
        assert_eq!(said, sentence, "{line}");
        assert_names_the_word(&text, &words);
    }
}
