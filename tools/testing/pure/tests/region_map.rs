// SPDX-License-Identifier: GPL-2.0

//! The map of hydrated regions, against a vector of booleans.

use core::ops::Range;
use proptest::prelude::*;
use pure::clone::{
    region_map::{
        valid_mask,
        word_count,
        RegionMap,
        WORD_REGIONS, //
    },
    uncommitted::{
        By,
        Uncommitted, //
    }, //
};
use std::sync::Barrier;

/// Which regions of a map are hydrated. Runs are long and short, and all or nothing often.
fn states() -> impl Strategy<Value = Vec<bool>> {
    let runs = prop_oneof![
        Just(vec![]),
        Just(vec![(0, 400)]),
        prop::collection::vec((0usize..320, 0usize..5), 0..40),
        prop::collection::vec((0usize..320, 0usize..150), 0..4),
    ];
    (1usize..320, runs).prop_map(|(regions, runs)| {
        let mut states = vec![false; regions];
        for (start, len) in runs {
            states
                .iter_mut()
                .skip(start)
                .take(len)
                .for_each(|state| *state = true);
        }
        states
    })
}

/// A map in these states.
fn map_of(states: &[bool]) -> RegionMap {
    let map = RegionMap::new(states.len() as u64).unwrap();
    let mut uncommitted = Uncommitted::new(map.regions()).unwrap();
    for (region, _) in (0..).zip(states).filter(|(_, &state)| state) {
        uncommitted.mark(&map, region..region + 1, By::User);
    }
    map
}

/// Any number, mostly one of a region or of one shortly past the last.
fn region() -> impl Strategy<Value = u64> {
    prop_oneof![9 => 0u64..400, 1 => any::<u64>()]
}

/// The states of those regions of `range` that there are.
fn existing(states: &[bool], range: &Range<u64>) -> Vec<bool> {
    (0u64..)
        .zip(states)
        .filter_map(|(region, &state)| range.contains(&region).then_some(state))
        .collect()
}

proptest! {
    #[test]
    fn a_region_is_what_it_was_marked(states in states(), region in region()) {
        let expected = usize::try_from(region).ok().and_then(|index| states.get(index));
        let map = map_of(&states);
        prop_assert_eq!(map.is_hydrated(region), expected.copied().unwrap_or(false));
    }

    #[test]
    fn words_hold_the_first_region_in_the_lowest_bit(states in states()) {
        let map = map_of(&states);
        prop_assert_eq!(map.regions(), states.len() as u64);
        prop_assert_eq!(map.words(), states.len().div_ceil(WORD_REGIONS as usize));
        for (index, chunk) in states.chunks(WORD_REGIONS as usize).enumerate() {
            let bits = chunk.iter().rev().fold(0, |bits, &bit| bits << 1 | u64::from(bit));
            prop_assert_eq!(map.word(index), bits);
        }
        prop_assert_eq!(map.word(map.words()), 0);
    }

    #[test]
    fn a_run_ends_where_the_state_changes(
        states in states(),
        start in region(),
        end in region(),
    ) {
        let map = map_of(&states);
        let inside = existing(&states, &(start..end));
        let (hydrated, len) = map.run(start..end);
        prop_assert_eq!(hydrated, map.is_hydrated(start));
        let expected = inside.iter().take_while(|&&state| state == hydrated).count();
        prop_assert_eq!(len, expected as u64);
    }

    #[test]
    fn the_next_unhydrated_region_is_the_first_one(
        states in states(),
        start in region(),
        end in region(),
    ) {
        let map = map_of(&states);
        let inside = existing(&states, &(start..end));
        let expected = inside.iter().position(|hydrated| !hydrated);
        let expected = expected.map(|skipped| start + skipped as u64);
        prop_assert_eq!(map.next_unhydrated(start..end), expected);
    }

    #[test]
    fn unhydrated_regions_are_counted(states in states(), start in region(), end in region()) {
        let map = map_of(&states);
        let inside = existing(&states, &(start..end));
        let expected = inside.iter().filter(|&&hydrated| !hydrated).count();
        prop_assert_eq!(map.unhydrated(start..end), expected as u64);
    }

    /// When the memory is gone, all is as if every region had been marked.
    #[test]
    fn a_retired_map_is_all_hydrated(
        states in states(),
        start in region(),
        end in region(),
    ) {
        let map = map_of(&states);
        let full = map_of(&vec![true; states.len()]);
        map.retire();
        prop_assert_eq!(map.run(start..end), full.run(start..end));
        prop_assert_eq!(map.next_unhydrated(start..end), None);
        prop_assert_eq!(map.unhydrated(start..end), 0);
        prop_assert_eq!(map.is_hydrated(start), full.is_hydrated(start));
        for word in 0..=map.words() {
            prop_assert_eq!(map.word(word), full.word(word));
        }
        prop_assert!(!map.is_uncommitted(0..map.regions()));
    }

    #[test]
    fn valid_bits_are_those_of_regions(regions in region(), word in 0usize..8) {
        for bit in 0..WORD_REGIONS {
            let valid = valid_mask(word, regions) >> bit & 1 != 0;
            prop_assert_eq!(valid, word as u64 * WORD_REGIONS + bit < regions);
        }
        prop_assert_eq!(valid_mask(usize::MAX, regions), 0);
    }

    #[test]
    fn the_last_word_holds_the_last_region(regions in any::<u64>()) {
        let words = word_count(regions) as u128;
        let size = u128::from(WORD_REGIONS);
        prop_assert!(words * size >= regions.into());
        prop_assert!(words == 0 || (words - 1) * size < regions.into());
    }
}

/// Readers take no lock: what they are told of regions that become hydrated meanwhile holds for one at least.
#[test]
fn a_run_is_never_empty_while_its_regions_become_hydrated() {
    for _ in 0..200 {
        let map = RegionMap::new(4096).unwrap();
        let mut uncommitted = Uncommitted::new(map.regions()).unwrap();
        // On one processor the writer would be done before the reader begins.
        let both = Barrier::new(2);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut region = 0;
                both.wait();
                while region < map.regions() {
                    // It waits for the other to come by.
                    while let (false, run) = map.run(region..region + 1) {
                        assert_eq!(run, 1);
                    }
                    region += 1;
                }
            });
            both.wait();
            for region in 0..map.regions() {
                uncommitted.mark(&map, region..region + 1, By::User);
            }
            reader.join().unwrap();
        });
    }
}
