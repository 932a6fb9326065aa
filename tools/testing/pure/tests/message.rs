// SPDX-License-Identifier: GPL-2.0

//! Messages to a clone: a hundred thousand of them, read by the target and by the documentation.

mod grammar;

use grammar::{
    assert_names_the_word,
    for_lines_near,
    number, //
};
use pure::{
    clone::message::Message,
    words, //
};
use rand::{
    rngs::StdRng,
    seq::IndexedRandom,
    Rng, //
};

const KEYWORDS: &[&str] = &[
    "enable_hydration",
    "disable_hydration",
    "hydration_threshold",
    "hydration_batch_size",
    "set_min_share",
    "stats",
];

/// What a message means by the documentation; None if it has to be refused.
fn meaning(words: &[Vec<u8>]) -> Option<Message> {
    let name = String::from_utf8_lossy(words.first()?).to_ascii_lowercase();
    let setting = || match &words[1..] {
        [word] => number(word, u32::MAX.into()).map(|number| number as u32),
        _ => None,
    };
    match name.as_str() {
        "enable_hydration" => Some(Message::Hydration(true)),
        "disable_hydration" => Some(Message::Hydration(false)),
        "hydration_threshold" => setting().map(Message::Threshold),
        "hydration_batch_size" => setting().map(Message::BatchSize),
        "set_min_share" => setting()
            .filter(|percent| (1..=100).contains(percent))
            .map(Message::MinShare),
        "stats" => (words.len() == 1).then_some(Message::Stats),
        _ => None,
    }
}

fn right_message(rng: &mut StdRng) -> Vec<Vec<u8>> {
    let name = KEYWORDS.choose(rng).unwrap();
    let mut words = vec![name.as_bytes().to_vec()];
    match *name {
        "set_min_share" => words.push(rng.random_range(1..=100).to_string().into_bytes()),
        "hydration_threshold" | "hydration_batch_size" => {
            words.push(rng.random::<u32>().to_string().into_bytes());
        }
        _ => {}
    }
    words
}

#[test]
fn means_what_the_documentation_says() {
    let (mut accepted, mut refused) = (0, 0);
    for_lines_near(right_message, KEYWORDS, |_, words| {
        let read = words::read(&words, |args| {
            Message::parse(args).map_err(|refused| refused.to_string())
        });
        match read {
            Ok(read) => {
                assert_eq!(Some(read), meaning(&words));
                accepted += 1;
            }
            Err(text) => {
                assert_eq!(meaning(&words), None, "{text}");
                assert_names_the_word(&text, &words);
                refused += 1;
            }
        }
    });
    assert!(
        accepted > 10_000 && refused > 10_000,
        "{accepted} accepted, {refused} refused"
    );
}
