// SPDX-License-Identifier: GPL-2.0

//! Lines of words for the tests of what reads them: right ones, nearly right ones, and rubbish.

use rand::{
    rngs::StdRng,
    seq::IndexedRandom,
    Rng,
    SeedableRng, //
};

/// How many lines a test reads.
const LINES: u64 = 100_000;

/// Calls `test` with many lines, each a right one to which little or much has happened.
pub fn for_lines_near(
    right: impl Fn(&mut StdRng) -> Vec<Vec<u8>>,
    keywords: &[&str],
    mut test: impl FnMut(&mut StdRng, Vec<Vec<u8>>),
) {
    for seed in 0..LINES {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut line = right(&mut rng);
        for _ in 0..rng.random_range(0..4) {
            change(&mut rng, &mut line, keywords);
        }
        test(&mut rng, line);
    }
}

/// The number that a word is by the documentation: decimal, from 0 to `most`.
pub fn number(word: &[u8], most: u64) -> Option<u64> {
    let number = std::str::from_utf8(word).ok()?.parse().ok()?;
    (number <= most).then_some(number)
}

/// Fails unless a refusal says, in plain characters, which word is wrong and what would be right.
pub fn assert_names_the_word(text: &str, words: &[Vec<u8>]) {
    assert!(
        text.bytes().all(|byte| (b' '..=b'~').contains(&byte)),
        "{text:?}"
    );
    if text.ends_with(": missing") || text.ends_with(": only one word may follow") {
        return;
    }
    let named = |word: &Vec<u8>| text.contains(&format!("`{}'", word.escape_ascii()));
    assert!(words.iter().any(named), "no word of the line is in: {text}");
    let told = [": expected ", " words follow", "Unsupported message "];
    assert!(
        told.iter().any(|part| text.contains(part)),
        "what would be right? {text}"
    );
}

/// A word becomes another, goes away, is there twice, or is new.
fn change(rng: &mut StdRng, line: &mut Vec<Vec<u8>>, keywords: &[&str]) {
    let place = rng.random_range(0..=line.len());
    if place == line.len() {
        line.push(word(rng, keywords));
        return;
    }
    match rng.random_range(0..5) {
        0 => line[place] = word(rng, keywords),
        1 => drop(line.remove(place)),
        2 => line.insert(place, line[place].clone()),
        3 => line.insert(place, word(rng, keywords)),
        _ => {
            // A letter of it becomes another one, or of the other case.
            let letters = line[place].len();
            if letters > 0 {
                let letter = &mut line[place][rng.random_range(0..letters)];
                *letter = if rng.random() {
                    *letter ^ 0x20
                } else {
                    rng.random()
                };
                line[place].retain(|&byte| byte != 0);
            }
        }
    }
}

/// A keyword, a number of any size, what is almost one of them, or any bytes but NUL.
fn word(rng: &mut StdRng, keywords: &[&str]) -> Vec<u8> {
    match rng.random_range(0..12) {
        0..3 => keywords
            .choose(rng)
            .expect("there are some")
            .as_bytes()
            .to_vec(),
        3..6 => rng.random_range(0..6).to_string().into_bytes(),
        6 => (1u128 << rng.random_range(0..70)).to_string().into_bytes(),
        7 => ((1u128 << rng.random_range(0..70)) - 1)
            .to_string()
            .into_bytes(),
        8 => {
            let (before, after) = (["", "+", "-", " ", "0", "0x"], ["", "", "k", ".", " "]);
            let number: u64 = rng.random();
            let [before, after] = [before.choose(rng), after.choose(rng)].map(Option::unwrap);
            format!("{before}{number}{after}").into_bytes()
        }
        9 => vec![rng.random_range(1..=255); rng.random_range(1..5000)],
        10 => (0..rng.random_range(0..4))
            .flat_map(|_| rng.random::<char>().to_string().into_bytes())
            .filter(|&byte| byte != 0)
            .collect(),
        _ => (0..rng.random_range(0..12))
            .map(|_| rng.random_range(1..=255))
            .collect(),
    }
}
