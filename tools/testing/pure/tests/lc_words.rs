// SPDX-License-Identifier: GPL-2.0

//! Table lines and messages of lc.

use proptest::{
    collection::vec,
    prelude::*,
    sample::{
        select,
        subsequence, //
    }, //
};
use pure::{
    lc::{
        message::Message,
        table_line::{
            Mode,
            Options,
            Settings, //
        }, //
    },
    words::read, //
};

fn options(words: &[&str]) -> Result<Options, String> {
    read(words, |args| {
        Options::parse(args).map_err(|error| error.to_string())
    })
}

fn settings() -> impl Strategy<Value = Settings> {
    (
        select(Mode::ALL.to_vec()),
        any::<bool>(),
        0..=100u32,
        0..=100u32,
        0..=3600u32,
    )
        .prop_map(|(mode, allow_migrate, one, other, interval)| Settings {
            mode,
            allow_migrate,
            high_watermark: one.max(other),
            low_watermark: one.min(other),
            flush_current_buffer_interval: interval,
        })
}

#[test]
fn nothing_means_the_defaults() {
    assert_eq!(options(&[]), Ok(Options::default()));
    assert_eq!(options(&["0"]), Ok(Options::default()));
}

#[test]
fn format_is_asked_for_but_never_shown() {
    let options = options(&["2", "format", "1"]).unwrap();
    assert!(options.format);
    let mut shown = String::new();
    options.settings.write_table(&mut shown).unwrap();
    assert_eq!(shown, "0");
}

#[test]
fn wrong_words_are_named() {
    for (words, says) in [
        (
            vec!["1", "mode"],
            "number of arguments `1': expected an even number",
        ),
        (
            vec!["2", "mode"],
            "number of arguments `2': only 1 words follow",
        ),
        (
            vec!["14"],
            "number of arguments `14': expected a number from 0 to 12",
        ),
        (
            vec!["2", "mode", "fast"],
            "mode `fast': expected writeback, writearound or cleaner",
        ),
        (
            vec!["2", "high_watermark", "101"],
            "high_watermark `101': expected a number from 0 to 100",
        ),
        (
            vec!["2", "allow_migrate", "2"],
            "allow_migrate `2': expected a number from 0 to 1",
        ),
        (
            vec!["4", "format", "1", "format", "0"],
            "key `format': expected each key once",
        ),
        (
            vec!["0", "more"],
            "word `more': expected no word after the arguments that were counted",
        ),
    ] {
        assert_eq!(options(&words).unwrap_err(), says);
    }
}

#[test]
fn watermarks_may_come_in_either_order() {
    let words = ["4", "low_watermark", "70", "high_watermark", "80"];
    assert_eq!(options(&words).unwrap().settings.low_watermark, 70);
    assert!(options(&["2", "low_watermark", "51"]).is_err());
}

#[test]
fn messages() {
    let accepted = |words: &[&str]| read(words, |args| Message::parse(args).is_ok());
    for words in [
        vec!["flush"],
        vec!["flush_current_buffer"],
        vec!["clear_stat"],
        vec!["stats"],
        vec!["mode", "cleaner"],
    ] {
        assert!(accepted(&words), "{words:?}");
        assert!(!accepted(&[&words[..], &["more"]].concat()), "{words:?}");
    }
    assert!(!accepted(&["mode"]) && !accepted(&["format", "1"]) && !accepted(&["jump"]));
}

proptest! {
    #[test]
    fn what_is_shown_makes_the_same_again(settings in settings()) {
        let mut shown = String::new();
        settings.write_table(&mut shown).unwrap();
        let words: Vec<&str> = shown.split(' ').collect();
        prop_assert_eq!(options(&words), Ok(Options { settings, format: false }));
        let mut status = String::new();
        settings.write_status(&mut status).unwrap();
        prop_assert_eq!(status.split_whitespace().count(), Settings::STATUS_WORDS);
    }

    #[test]
    fn any_words_are_read_or_refused(
        known in subsequence(vec!["2", "4", "mode", "writeback", "high_watermark", "50", "format"], 0..7),
        other in vec("[a-z0-9_]{0,20}", 0..4),
    ) {
        let words: Vec<&str> = known.into_iter().chain(other.iter().map(String::as_str)).collect();
        let _ = options(&words);
        read(&words, |args| { let _ = Message::parse(args).map_err(|error| error.to_string()); });
    }
}
