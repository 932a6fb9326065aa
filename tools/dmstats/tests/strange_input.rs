// SPDX-License-Identifier: GPL-2.0

//! What the kernel, other programs and people write, spoilt at random: parsers give an error or something sound.
//!
//! `DMSTATS_INPUTS=1000000 cargo test -p dmstats --test strange_input` tries so many; without it there are fewer.

use dmstats::aux::Aux;
use dmstats::bounds;
use dmstats::ffi::Handle;
use dmstats::message;
use dmstats::projection::Word;
use dmstats::reply::ListRow;
use dmstats::reply::PrintRow;
use dmstats::IdSet;
use dmstats::Snapshot;
use proptest::prelude::*;
use proptest::sample::Index;

const CORPUS: [&str; 11] = [
    "0: 0+8 8 dmstats DMS_GROUP=\"a b\":0-2,7#- histogram:1,20\n1: 8+8 8 dmstats -\n2: 0+1000 300 x y precise_timestamps\n",
    "7: 8+1000 300 dmstats DMS_GROUP=:7,9-40000000#FILE=path,1.0d00000082518cff,/srv/a%20b\n",
    "8+100 1 2 3 4 5 6 7 8 9 10 11 12 13 5:0:1\n",
    "0+8 0 0 0 0 0 0 0 0 -1 0 0 0 18446744073709551615\n",
    "DMS_GROUP=\"img\":0-3,2147483647#user",
    "DMS_GROUP=img:2#",
    "FILE=inode,81.0d00000082518cff,/srv/vm/a%2c.img",
    "0-3,7,9-4999,2147483647",
    "10us,1ms,2500us,2s",
    "@stats_create 0+8 /1 2 precise_timestamps histogram:10,20 dmstats a\\ b",
    "1.0d00000082518cff",
];

fn inputs() -> u32 {
    let told = std::env::var("DMSTATS_INPUTS").ok();
    told.and_then(|text| text.parse().ok()).unwrap_or(20_000)
}

/// Changes a text: at a place a byte is replaced, taken away or added, or some are repeated.
fn spoil(text: &mut Vec<u8>, at: Index, byte: u8, how: u8) {
    if text.is_empty() {
        return text.push(byte);
    }
    let at = at.index(text.len());
    match how {
        0 => text[at] = byte,
        1 => drop(text.remove(at)),
        2 => text.insert(at, byte),
        3 => text.truncate(at),
        4 => text.insert(at, b"0123456789 ,:-+\"#\n\\="[usize::from(byte) % 20]),
        _ => text.extend_from_within(at..),
    }
}

fn read(text: &[u8]) -> Result<(), TestCaseError> {
    for program in [None, Some(&b"dmstats"[..])] {
        let _ = ListRow::parse(text, program);
        let Ok(snapshot) = Snapshot::parse(text, program) else {
            continue;
        };
        for (id, group) in &snapshot.groups {
            prop_assert_eq!(group.members.first(), Some(*id));
            prop_assert!(group.members.iter().all(|member| snapshot
                .region(member)
                .is_ok_and(|region| region.group == Some(*id))));
            let _ = (
                group.covered(&snapshot),
                group.name(),
                snapshot.group_bounds(group),
                snapshot.projected(*id),
            );
        }
        for region in snapshot.regions.values() {
            let areas = region.areas();
            prop_assert!(areas == 0 || region.area_len(areas - 1) <= region.step);
        }
    }
    let _ = PrintRow::parse(text);
    if let Ok(aux) = Aux::parse(text) {
        prop_assert!(Aux::parse(&aux.format()).is_ok());
    }
    if let Some(set) = IdSet::parse(text) {
        prop_assert_eq!(IdSet::parse(set.to_string().as_bytes()), Some(set));
    }
    if let Some(word) = Word::parse(text) {
        prop_assert!(Word::parse(&word.format()) == Some(word));
    }
    let word: Vec<u8> = text.iter().copied().filter(|byte| *byte != 0).collect();
    if !word.is_empty() {
        prop_assert_eq!(message::split(&message::quoted(&word)), vec![word]);
    }
    let text = String::from_utf8_lossy(text);
    let _ = (
        bounds::parse(&text),
        Handle::parse(&text),
        message::split(text.as_bytes()),
    );
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: inputs(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_input_is_too_strange(
        which in 0..CORPUS.len(), spoils in proptest::collection::vec((any::<Index>(), any::<u8>(), 0u8..6), 0..7),
    ) {
        let mut text = CORPUS[which].as_bytes().to_vec();
        spoils.into_iter().for_each(|(at, byte, how)| spoil(&mut text, at, byte, how));
        read(&text)?;
    }
}
