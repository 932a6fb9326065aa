// SPDX-License-Identifier: GPL-2.0

//! The list of what the background could not copy, with a sweep and devices that fail at will.

use core::ops::Range;
use proptest::{
    collection,
    prelude::*, //
};
use pure::clone::failures::{
    Failures,
    Verdict,
    FIRST_DELAY,
    LONGEST_DELAY,
    LONGEST_REST,
    MOST,
    STREAK, //
};
use std::collections::BTreeSet;

/// A clone of some regions, the list, and a sweep that copies as the module's does.
struct Clone {
    regions: u64,
    hydrated: Vec<bool>,
    bad: BTreeSet<u64>,
    list: Failures,
    now: u64,
    next: u64,
    copies: u64,
}

impl Clone {
    fn new(regions: u64, bad: BTreeSet<u64>) -> Self {
        Clone {
            regions,
            hydrated: vec![false; regions as usize],
            bad,
            list: Failures::new().unwrap(),
            now: 0,
            next: 0,
            copies: 0,
        }
    }

    /// The first run of `within` that is to be copied and not in the list.
    fn idle(&self, within: Range<u64>, most: u64) -> Option<Range<u64>> {
        let mut start = within.start;
        while start < within.end {
            if self.hydrated[start as usize] {
                start += 1;
            } else if let Some(item) = self.list.first_of(start..start + 1) {
                start = item.end;
            } else {
                let longest = start..within.end.min(start + most);
                let end = self.unhydrated_until(longest.clone());
                let item = self.list.first_of(longest);
                return Some(start..item.map_or(end, |item| end.min(item.start)));
            }
        }
        None
    }

    /// Where the regions that are not hydrated end, of those from the first on.
    fn unhydrated_until(&self, regions: Range<u64>) -> u64 {
        let end = regions.end;
        regions
            .clone()
            .find(|r| self.hydrated[*r as usize])
            .unwrap_or(end)
    }

    fn is_complete(&self) -> bool {
        self.hydrated.iter().all(|hydrated| *hydrated)
    }

    fn choose(&mut self, most: u64) -> Option<Range<u64>> {
        let hydrated = &self.hydrated;
        let unhydrated = |mut range: Range<u64>| range.find(|r| !hydrated[*r as usize]);
        if let Some(picked) = self.list.pick(self.now, most, unhydrated) {
            return Some(picked.start..self.unhydrated_until(picked));
        }
        let (next, regions) = (self.next, self.regions);
        let found = self
            .idle(next..regions, most)
            .or_else(|| self.idle(0..next, most))?;
        self.next = found.end;
        Some(found)
    }

    /// Copies once. False: there is nothing to copy now.
    fn step(&mut self, most: u64) -> bool {
        let Some(regions) = self.choose(most) else {
            return false;
        };
        self.copies += 1;
        let unhydrated = self.unhydrated_until(regions.clone());
        assert_eq!(unhydrated, regions.end, "copied twice");
        assert!(!regions.is_empty() && regions.end - regions.start <= most);
        if regions.clone().any(|r| self.bad.contains(&r)) {
            self.list.failed(regions, self.now);
            if let Some(rest) = self.list.rest() {
                assert!(rest <= LONGEST_REST);
                self.now += rest;
            }
        } else {
            self.list.succeeded();
            self.list.arrived(regions.clone(), self.now);
            regions.for_each(|r| self.hydrated[r as usize] = true);
        }
        true
    }

    /// Copies, and waits when there is nothing to do, until a time.
    fn run_until(&mut self, end: u64, most: u64) {
        while self.now < end {
            if !self.step(most) {
                match self.list.next_due() {
                    Some(due) => self.now = due.max(self.now + 1).min(end),
                    None => return,
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Whatever fails, the rest is hydrated; nothing is copied that is hydrated; and when the
    /// devices recover, all is, within the longest of the times.
    #[test]
    fn the_rest_is_hydrated_and_all_of_it_in_the_end(
        regions in 1..400u64,
        bad in collection::btree_set(0..400u64, 0..120),
        most in 1..64u64,
    ) {
        let bad: BTreeSet<u64> = bad.into_iter().filter(|r| *r < regions).collect();
        let mut clone = Clone::new(regions, bad.clone());
        clone.run_until(600_000, most);
        for region in 0..regions {
            prop_assert_eq!(clone.hydrated[region as usize], !bad.contains(&region), "{}", region);
        }
        prop_assert_eq!(clone.list.failed_regions(), bad.len() as u64);
        clone.bad.clear();
        let recovered = clone.now;
        clone.run_until(recovered + LONGEST_DELAY + LONGEST_REST + 1, most);
        prop_assert!(clone.is_complete());
        prop_assert!(clone.list.is_empty());
        prop_assert_eq!(clone.list.failed_regions(), 0);
    }

    /// More trouble than the list has room for, in places that never touch: nothing is forgotten,
    /// and nothing else is kept from being hydrated for ever.
    #[test]
    fn there_is_never_too_much(step in 2..9u64, most in 1..40u64) {
        let regions = step * MOST as u64 * 3;
        let bad: BTreeSet<u64> = (0..regions).step_by(step as usize).collect();
        let mut clone = Clone::new(regions, bad.clone());
        clone.run_until(1_000_000, most);
        clone.bad.clear();
        let recovered = clone.now;
        clone.run_until(recovered + LONGEST_DELAY + LONGEST_REST + 1, most);
        prop_assert!(clone.is_complete());
        prop_assert!(clone.list.is_empty());
    }

    /// Any order of calls keeps the list in order and finite.
    #[test]
    fn any_calls_in_any_order(calls in collection::vec((0..5u8, 0..2000u64, 1..50u64, 0..3000u64), 0..600)) {
        let mut list = Failures::new().unwrap();
        let mut now = 0;
        for (what, start, len, later) in calls {
            now += later;
            match what {
                0 => { list.failed(start..start + len, now); }
                1 => { list.arrived(start..start + len, now); }
                2 => list.released(start..start + len, len % 2 == 0),
                3 => {
                    if let Some(picked) = list.pick(now, len, |range| Some(range.start)) {
                        prop_assert!(!picked.is_empty());
                        prop_assert!(picked.end - picked.start <= len);
                        prop_assert!(list.first_of(picked).is_some());
                    }
                }
                _ => { list.succeeded(); }
            }
            let mut end = 0;
            let mut items = 0;
            while let Some(item) = list.first_of(end..u64::MAX) {
                prop_assert!(!item.is_empty() && item.start >= end);
                end = item.end;
                items += 1;
            }
            prop_assert!(items <= MOST);
            prop_assert_eq!(items == 0, list.is_empty());
        }
    }
}

#[test]
fn one_region_is_found_and_backed_off_from() {
    let mut list = Failures::new().unwrap();
    let mut times = Vec::new();
    assert_eq!(list.failed(0..256, 0), Verdict::Narrowed);
    let mut copies = 0;
    let mut now = 0;
    while times.len() < 12 {
        let Some(picked) = list.pick(now, 256, |range| Some(range.start)) else {
            now = list.next_due().unwrap();
            continue;
        };
        copies += 1;
        if !picked.contains(&77) {
            list.arrived(picked, now);
        } else if let Verdict::Failed { again } = list.failed(picked.clone(), now) {
            assert_eq!(picked, 77..78);
            times.push(again);
        }
    }
    // Narrowed in 16 copies: each time one half was good.
    assert_eq!(copies, 16 + times.len() as u64 - 1);
    assert_eq!(
        times[..4],
        [
            FIRST_DELAY,
            2 * FIRST_DELAY,
            4 * FIRST_DELAY,
            8 * FIRST_DELAY
        ]
    );
    assert_eq!(times.last(), Some(&LONGEST_DELAY));
    assert_eq!(list.failed_regions(), 1);
    assert_eq!(list.errors(), 9 + 11);
    assert_eq!(list.retries(), 11);
    assert!(list.arrived(77..78, now));
    assert!(list.is_empty());
}

#[test]
fn a_dead_device_is_left_alone() {
    let regions = 100_000;
    let mut clone = Clone::new(regions, (0..regions).collect());
    let hour = 3_600_000;
    clone.run_until(hour, 256);
    // At most so many copies for each rest, and soon no more than a few a minute.
    assert!(
        clone.copies <= u64::from(STREAK) * (hour / LONGEST_REST + 10),
        "{}",
        clone.copies
    );
    assert!(clone.copies > 60, "given up");
    clone.bad.clear();
    let (recovered, before) = (clone.now, clone.copies);
    clone.run_until(recovered + LONGEST_DELAY + LONGEST_REST, 256);
    assert!(clone.is_complete());
    // In long copies, though all of it had failed.
    assert!(
        clone.copies - before < regions / 100,
        "{}",
        clone.copies - before
    );
}
