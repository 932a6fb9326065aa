// SPDX-License-Identifier: GPL-2.0

//! Messages to an `interpose` device: all short combinations of right and wrong words.

use pure::{
    interpose::{
        message::Message,
        state::Step, //
    },
    words, //
};

const WORDS: &[&str] = &[
    "attach", "ATTACH", "switch", "detach", "nofreeze", "NoFreeze", "254:1", "attac", "detach ", "",
];

/// What a message means by the documentation: the step, the device and whether to freeze.
fn meaning<'a>(words: &[&'a str]) -> Option<(Step, Option<&'a str>, bool)> {
    let (first, rest) = words.split_first()?;
    let step = match first.to_ascii_lowercase().as_str() {
        "attach" => Step::Attach,
        "switch" => Step::Switch,
        "detach" => Step::Detach,
        _ => return None,
    };
    let (device, options) = match step {
        Step::Detach => (None, rest),
        _ => {
            let (device, options) = rest.split_first()?;
            (Some(*device), options)
        }
    };
    match options {
        [] => Some((step, device, true)),
        [word] if word.eq_ignore_ascii_case("nofreeze") => Some((step, device, false)),
        _ => None,
    }
}

#[test]
fn messages_mean_what_is_documented() {
    let mut lines: Vec<Vec<&str>> = vec![vec![]];
    for length in 0..4 {
        let longer: Vec<_> = lines
            .iter()
            .filter(|line| line.len() == length)
            .flat_map(|line| {
                WORDS
                    .iter()
                    .map(|word| [line.as_slice(), &[*word]].concat())
            })
            .collect();
        lines.extend(longer);
    }
    let mut understood = 0;
    for line in &lines {
        words::read(line, |args| match (Message::parse(args), meaning(line)) {
            (Ok(read), Some((step, device, freeze))) => {
                assert_eq!(read.step, step, "{line:?}");
                let word = read.top.map(|top| top.as_c_str().to_str().unwrap());
                assert_eq!(word, device, "{line:?}");
                assert_eq!(read.freeze, freeze, "{line:?}");
                understood += 1;
            }
            (Err(refused), None) => assert!(!refused.to_string().is_empty()),
            (Ok(_), None) => panic!("{line:?} is understood"),
            (Err(refused), Some(_)) => panic!("{line:?} is refused: {refused}"),
        });
    }
    assert!(understood > 50 && lines.len() > 10_000);
}

#[test]
fn refusals_name_the_word() {
    for (line, said) in [
        (&["attach"][..], "device: missing"),
        (
            &["attach", "x", "freeze"],
            "option `freeze': expected nofreeze",
        ),
        (
            &["detach", "nofreeze", "now"],
            "option `now': expected no more words",
        ),
        (
            &["grow"],
            "message `grow': expected attach DEVICE, switch DEVICE or detach",
        ),
        (&[], "message: missing"),
    ] {
        words::read(line, |args| {
            let refused = Message::parse(args).map(|_| ()).unwrap_err();
            assert_eq!(refused.to_string(), said);
        });
    }
}
