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
            Knob,
            Mode,
            Options,
            Settings,
            WriteSettings, //
        }, //
    },
    words::read, //
};

fn options(words: &[&str]) -> Result<Options, String> {
    read(words, |args| {
        Options::parse(args).map_err(|error| error.to_string())
    })
}

/// A setting and a value that it may have.
const VALUES: [(&str, std::ops::RangeInclusive<u32>); 17] = [
    ("allow_migrate", 0..=1),
    ("force_migrate", 0..=1),
    ("migrate_threshold", 0..=100),
    ("update_interval", 1..=60),
    ("nr_max_batched_migration", 1..=16),
    ("high_watermark", 45..=100),
    ("low_watermark", 0..=45),
    ("barrier_deadline_ms", 0..=1000),
    ("flush_current_buffer_interval", 0..=3600),
    ("commit_super_block_interval", 0..=3600),
    ("verify_reads", 0..=1),
    // Not with bypass_on_error.
    ("prefix_consistent", 0..=0),
    ("read_cache_threshold", 0..=127),
    ("nr_read_cache_cells", 1..=2048),
    ("bypass_on_error", 0..=1),
    ("sequential_cutoff", 0..=1 << 20),
    ("max_age_ms", 0..=86_400_000),
];

/// What dm-writeboost calls some of them.
const ALIASES: [(&str, &str); 4] = [
    ("writeback_threshold", "migrate_threshold"),
    ("nr_max_batched_writeback", "nr_max_batched_migration"),
    ("update_sb_record_interval", "commit_super_block_interval"),
    ("sync_data_interval", "flush_current_buffer_interval"),
];

/// Words of a table line, of all settings in any order.
fn words() -> impl Strategy<Value = Vec<String>> {
    let numbers: Vec<_> = VALUES
        .into_iter()
        .map(|(key, range)| range.prop_map(move |value| [key.to_string(), value.to_string()]))
        .collect();
    (numbers, select(Mode::ALL.to_vec()))
        .prop_map(|(mut pairs, mode)| {
            if mode != Mode::Writeback {
                pairs.retain(|[key, _]| key != "prefix_consistent");
            }
            pairs.push(["mode".to_string(), mode.name().to_string()]);
            pairs
        })
        .prop_shuffle()
        .prop_map(|pairs| {
            let count = (2 * pairs.len()).to_string();
            std::iter::once(count)
                .chain(pairs.into_iter().flatten())
                .collect()
        })
}

fn strs(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
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
            vec!["40"],
            "number of arguments `40': expected a number from 0 to 38",
        ),
        (
            vec!["2", "mode", "fast"],
            "mode `fast': expected writeback, writethrough, writearound, passthrough or cleaner",
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
            vec!["2", "nr_max_batched_migration", "17"],
            "nr_max_batched_migration `17': expected a number from 1 to 16",
        ),
        (
            vec!["2", "update_interval", "0"],
            "update_interval `0': expected a number from 1 to 60",
        ),
        (
            vec!["2", "barrier_deadline_ms", "1001"],
            "barrier_deadline_ms `1001': expected a number from 0 to 1000",
        ),
        (
            vec!["2", "writeback_threshold", "101"],
            "writeback_threshold `101': expected a number from 0 to 100",
        ),
        (
            vec!["2", "read_cache_threshold", "128"],
            "read_cache_threshold `128': expected a number from 0 to 127",
        ),
        (
            vec!["2", "nr_read_cache_cells", "0"],
            "nr_read_cache_cells `0': expected a number from 1 to 2048",
        ),
        (
            vec!["4", "prefix_consistent", "1", "bypass_on_error", "1"],
            "number of arguments `4': expected bypass_on_error 0 with prefix_consistent 1",
        ),
        (
            vec!["2", "max_age_ms", "86400001"],
            "max_age_ms `86400001': expected a number from 0 to 86400000",
        ),
        (
            vec!["2", "sequential_cutoff", "1048577"],
            "sequential_cutoff `1048577': expected a number from 0 to 1048576",
        ),
        (
            vec!["4", "sequential_cutoff", "64", "prefix_consistent", "1"],
            "number of arguments `4': expected sequential_cutoff 0 with prefix_consistent 1",
        ),
        (
            vec!["4", "format", "1", "format", "0"],
            "key `format': expected each key once",
        ),
        (
            vec!["4", "migrate_threshold", "1", "writeback_threshold", "1"],
            "key `writeback_threshold': expected each key once",
        ),
        (
            vec!["4", "prefix_consistent", "1", "mode", "cleaner"],
            "number of arguments `4': expected the mode writeback with prefix_consistent 1",
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
    assert_eq!(
        options(&words).unwrap().settings.get(Knob::LowWatermark),
        70
    );
    assert!(options(&["2", "low_watermark", "51"]).is_err());
}

/// In one word: any mode, with any cutoff.
#[test]
fn what_writes_need_to_know() {
    for mode in Mode::ALL {
        for cutoff in [0u32, 1, 64, 1 << 20] {
            let words = [
                "mode",
                mode.name(),
                "sequential_cutoff",
                &cutoff.to_string(),
            ];
            let settings = options(&[&["4"], &words[..]].concat()).unwrap().settings;
            let known = WriteSettings::from_word(WriteSettings::of(&settings).word());
            for other in Mode::ALL {
                assert_eq!(known.has(other), other == mode);
            }
            assert_eq!(known.are_plain(), mode == Mode::Writeback && cutoff == 0);
            assert!(!known.is_long(u64::from(cutoff) * 2));
            assert_eq!(known.is_long(u64::from(cutoff) * 2 + 1), cutoff != 0);
        }
    }
}

#[test]
fn names_of_dm_writeboost() {
    for (alias, name) in ALIASES {
        assert_eq!(options(&["2", alias, "9"]), options(&["2", name, "9"]));
    }
    let around = options(&["2", "write_around_mode", "1"]).unwrap();
    assert_eq!(around.settings.mode, Mode::Writearound);
    let back = options(&["2", "write_around_mode", "0"]).unwrap();
    assert_eq!(back, Options::default());
    let message = |word| {
        read(&[word], |args| {
            Message::parse(args, &Settings::default()).ok()
        })
    };
    assert_eq!(message("drop_caches"), message("flush"));
}

#[test]
fn messages() {
    let before = Settings::default();
    let parsed = |words: &[&str]| read(words, |args| Message::parse(args, &before).ok());
    for words in [
        vec!["flush"],
        vec!["flush_current_buffer"],
        vec!["commit_super_block"],
        vec!["check"],
        vec!["clear_stat"],
        vec!["stats"],
        vec!["cleaner"],
        vec!["mode", "cleaner"],
        vec!["sync_data_interval", "7"],
    ] {
        assert!(parsed(&words).is_some(), "{words:?}");
        assert!(
            parsed(&[&words[..], &["more"]].concat()).is_none(),
            "{words:?}"
        );
    }
    assert_eq!(parsed(&["cleaner"]), parsed(&["mode", "cleaner"]));
    let ordered = options(&["2", "prefix_consistent", "1"]).unwrap().settings;
    for words in [
        &["cleaner"][..],
        &["mode", "writearound"],
        &["sequential_cutoff", "64"],
    ] {
        assert!(read(words, |args| Message::parse(args, &ordered).is_err()));
    }
    for words in [
        vec!["mode"],
        vec!["format", "1"],
        vec!["jump"],
        vec!["high_watermark", "9"],
    ] {
        assert!(parsed(&words).is_none(), "{words:?}");
    }
}

proptest! {
    #[test]
    fn what_is_shown_makes_the_same_again(words in words()) {
        let made = options(&strs(&words)).unwrap();
        for pair in words[1..].chunks(2) {
            let name = &pair[0];
            let number = VALUES.iter().position(|(key, _)| key == name);
            match number {
                Some(number) => prop_assert_eq!(
                    made.settings.get(Knob::ALL[number]).to_string(),
                    pair[1].clone()
                ),
                None => prop_assert_eq!(made.settings.mode.name(), &pair[1]),
            }
        }
        let mut shown = String::new();
        made.settings.write_table(&mut shown).unwrap();
        let again: Vec<&str> = shown.split(' ').collect();
        prop_assert_eq!(options(&again), Ok(made));
        let mut status = String::new();
        made.settings.write_status(&mut status).unwrap();
        prop_assert_eq!(status.split_whitespace().count(), Settings::STATUS_WORDS);
    }

    #[test]
    fn any_words_are_read_or_refused(
        known in subsequence(vec!["2", "4", "mode", "writeback", "high_watermark", "50", "format"], 0..7),
        other in vec("[a-z0-9_]{0,20}", 0..4),
    ) {
        let words: Vec<&str> = known.into_iter().chain(other.iter().map(String::as_str)).collect();
        let _ = options(&words);
        read(&words, |args| {
            let _ = Message::parse(args, &Settings::default()).map_err(|error| error.to_string());
        });
    }
}
