// SPDX-License-Identifier: GPL-2.0

//! What commits take and leave, against sets, through commits and crashes in any order.

use core::ops::Range;
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::TestCaseResult, //
};
use pure::clone::{
    block::{
        WORDS_PER_BLOCK,
        WORD_SIZE, //
    },
    region_map::{
        word_count,
        RegionMap,
        WORD_REGIONS, //
    },
    uncommitted::{
        block_count,
        By,
        Uncommitted, //
    }, //
};
use std::collections::{
    BTreeMap,
    BTreeSet, //
};

type Regions = BTreeSet<u64>;

const BLOCK_REGIONS: u64 = WORDS_PER_BLOCK as u64 * WORD_REGIONS;

/// What may happen, at any time.
#[derive(Clone, Debug)]
enum Event {
    /// Regions become hydrated.
    Mark(Range<u64>, By),
    /// A user writes into a region, if it is hydrated.
    Write(u64),
    /// A commit begins.
    Begin,
    /// The commit takes a block.
    Take,
    /// The commit takes what is left, and flushes the destination.
    Flush,
    /// The commit takes and flushes what it has not, and becomes durable.
    End,
    /// The machine stops; the maps are loaded from the disk again.
    Crash,
}

/// A commit under way.
struct Commit {
    /// What was hydrated when it began: this must be in it.
    before: Regions,
    /// The blocks that it writes.
    blocks: BTreeMap<usize, Regions>,
    /// The block to go on from.
    next: usize,
    /// What the flush of the destination has made durable, once there was one.
    durable: Option<Regions>,
}

/// The maps, and beside them all that they stand for.
struct Machine {
    regions: u64,
    map: RegionMap,
    uncommitted: Uncommitted,
    hydrated: Regions,
    /// Regions with data of a user that are not committed, and that some commit began with.
    user: Regions,
    commit: Option<Commit>,
    /// What is hydrated as of the last commit.
    disk: Regions,
}

/// The regions of a block.
fn regions_of(block: usize) -> Range<u64> {
    let first = block as u64 * BLOCK_REGIONS;
    first..first + BLOCK_REGIONS
}

/// The values of a block in which some regions are hydrated.
fn encode(regions: &Regions, block: usize) -> Vec<u8> {
    let mut values = vec![0; WORDS_PER_BLOCK * WORD_SIZE];
    for region in regions.range(regions_of(block)) {
        let bit = region - regions_of(block).start;
        values[bit as usize / 8] |= 1 << (bit % 8);
    }
    values
}

fn decode(values: &[u8], block: usize) -> Regions {
    let bits = (0..values.len() * 8).filter(|bit| values[bit / 8] >> (bit % 8) & 1 != 0);
    bits.map(|bit| regions_of(block).start + bit as u64)
        .collect()
}

impl Machine {
    fn new(regions: u64) -> Self {
        Machine {
            regions,
            map: RegionMap::new(regions).unwrap(),
            uncommitted: Uncommitted::new(regions).unwrap(),
            hydrated: Regions::new(),
            user: Regions::new(),
            commit: None,
            disk: Regions::new(),
        }
    }

    fn step(&mut self, event: Event) -> TestCaseResult {
        match event {
            Event::Mark(regions, by) => self.mark(regions, by)?,
            Event::Write(region) => self.write(region)?,
            Event::Begin => self.begin()?,
            Event::Take => {
                self.take()?;
            }
            Event::Flush => self.flush()?,
            Event::End => self.end()?,
            Event::Crash => self.crash(),
        }
        self.check()
    }

    fn mark(&mut self, regions: Range<u64>, by: By) -> TestCaseResult {
        let new: Vec<u64> = (regions.start..regions.end.min(self.regions))
            .filter(|region| !self.hydrated.contains(region))
            .collect();
        let marked = self.uncommitted.mark(&self.map, regions, by);
        prop_assert_eq!(marked, new.len() as u64);
        if by == By::User {
            self.user.extend(&new);
        }
        self.hydrated.extend(new);
        Ok(())
    }

    fn write(&mut self, region: u64) -> TestCaseResult {
        if !self.hydrated.contains(&region) {
            return Ok(());
        }
        if self.map.is_uncommitted(region..region + 1) {
            self.uncommitted.note_user();
        }
        if !self.disk.contains(&region) {
            self.user.insert(region);
        }
        Ok(())
    }

    fn begin(&mut self) -> TestCaseResult {
        let expected = self.commit.is_none() && self.hydrated != self.disk;
        prop_assert_eq!(self.uncommitted.begin_commit(), expected);
        if expected {
            self.commit = Some(Commit {
                before: self.hydrated.clone(),
                blocks: BTreeMap::new(),
                next: 0,
                durable: None,
            });
        }
        Ok(())
    }

    /// Takes a block. False if there is none left.
    fn take(&mut self) -> Result<bool, TestCaseError> {
        let Some(commit) = self
            .commit
            .as_mut()
            .filter(|commit| commit.durable.is_none())
        else {
            return Ok(false);
        };
        let Some(block) = self.uncommitted.next_dirty(commit.next) else {
            return Ok(false);
        };
        prop_assert!(block >= commit.next);
        let count = word_count(self.regions) - block * WORDS_PER_BLOCK;
        let mut values = vec![0xAA; count.min(WORDS_PER_BLOCK) * WORD_SIZE];
        self.uncommitted.take(&self.map, block, &mut values);
        commit.blocks.insert(block, decode(&values, block));
        commit.next = block + 1;
        Ok(true)
    }

    fn flush(&mut self) -> TestCaseResult {
        while self.take()? {}
        if let Some(commit) = self.commit.as_mut() {
            commit.durable.get_or_insert_with(|| self.hydrated.clone());
        }
        Ok(())
    }

    fn end(&mut self) -> TestCaseResult {
        self.flush()?;
        let Some(commit) = self.commit.take() else {
            return Ok(());
        };
        let durable = commit.durable.unwrap();
        for (block, regions) in commit.blocks {
            prop_assert!(regions.is_subset(&durable), "data that may not be there");
            self.disk
                .retain(|region| !regions_of(block).contains(region));
            self.disk.extend(regions);
        }
        prop_assert!(commit.before.is_subset(&self.disk), "not all was committed");
        self.user.retain(|region| !self.disk.contains(region));

        self.uncommitted.end_commit(true);
        let mut from = 0;
        while let Some(block) = self.uncommitted.settle(&self.map, from) {
            from = block + 1;
        }
        // What has nothing new any more is known to be durable.
        for word in 0..word_count(self.regions) as u64 {
            let regions = word * WORD_REGIONS..(word + 1) * WORD_REGIONS;
            let dirty = regions
                .clone()
                .any(|region| self.hydrated.contains(&region) && !self.disk.contains(&region));
            prop_assert_eq!(self.map.is_uncommitted(regions), dirty);
        }
        Ok(())
    }

    fn crash(&mut self) {
        self.commit = None;
        self.user.clear();
        self.hydrated = self.disk.clone();
        self.map = RegionMap::new(self.regions).unwrap();
        self.uncommitted = Uncommitted::new(self.regions).unwrap();
        for block in 0..block_count(self.regions) {
            let count = (word_count(self.regions) - block * WORDS_PER_BLOCK).min(WORDS_PER_BLOCK);
            let values = encode(&self.disk, block);
            self.uncommitted
                .load(&self.map, block, &values[..count * WORD_SIZE]);
        }
    }

    fn check(&self) -> TestCaseResult {
        let Machine {
            uncommitted, disk, ..
        } = self;
        prop_assert_eq!(uncommitted.hydrated(), self.hydrated.len() as u64);
        prop_assert_eq!(uncommitted.committed(), disk.len() as u64);
        prop_assert_eq!(uncommitted.is_dirty(), self.hydrated != *disk);
        for &region in self.hydrated.difference(disk) {
            prop_assert!(self.map.is_uncommitted(region..region + 1));
        }
        if !self.user.is_empty() {
            prop_assert!(uncommitted.has_user_data(), "a flush would commit nothing");
        }
        Ok(())
    }

    fn check_maps(&self) -> TestCaseResult {
        for index in 0..word_count(self.regions) {
            let first = index as u64 * WORD_REGIONS;
            let regions = self.hydrated.range(first..first + WORD_REGIONS);
            let bits = regions.fold(0, |bits, region| bits | 1 << (region - first));
            prop_assert_eq!(self.map.word(index), bits);
        }
        Ok(())
    }
}

/// Ranges of a map of `regions` regions, also such that reach past its end or that are empty. Half
/// of them are around the end of a block.
fn range(regions: u64) -> impl Strategy<Value = Range<u64>> {
    let near = BLOCK_REGIONS - 100..BLOCK_REGIONS + 100;
    let start = prop_oneof![0..regions, near];
    let len = prop_oneof![0u64..4, 0u64..200];
    (start, len).prop_map(|(start, len)| start..start + len)
}

fn event(regions: u64) -> impl Strategy<Value = Event> {
    let by = prop_oneof![Just(By::User), Just(By::Copy)];
    prop_oneof![
        8 => (range(regions), by).prop_map(|(regions, by)| Event::Mark(regions, by)),
        4 => range(regions).prop_map(|regions| Event::Write(regions.start)),
        4 => Just(Event::Begin),
        3 => Just(Event::Take),
        2 => Just(Event::Flush),
        3 => Just(Event::End),
        1 => Just(Event::Crash),
    ]
}

/// A number of regions, of one block or a few, and what happens to them.
fn history() -> impl Strategy<Value = (u64, Vec<Event>)> {
    prop_oneof![9 => 1u64..200, 1 => 32_500u64..33_500]
        .prop_flat_map(|regions| (Just(regions), vec(event(regions), 1..60)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// A commit has all that was hydrated when it began, and nothing whose data the flush of the
    /// destination might have missed; what it has not is known to be uncommitted.
    #[test]
    fn commits_take_what_was_flushed((regions, events) in history()) {
        let mut machine = Machine::new(regions);
        for event in events {
            machine.step(event)?;
        }
        machine.check_maps()?;
    }

    /// What a crash leaves is the last commit, whole; from there, commits complete the map.
    #[test]
    fn nothing_is_lost_over_commits_and_crashes((regions, events) in history()) {
        let mut machine = Machine::new(regions);
        for event in events {
            machine.step(event)?;
        }
        machine.step(Event::Crash)?;
        machine.check_maps()?;

        let third = regions / 3;
        for part in [0..third, third..2 * third, 2 * third..regions] {
            machine.step(Event::Mark(part, By::Copy))?;
            machine.step(Event::Begin)?;
            machine.step(Event::End)?;
        }
        machine.step(Event::Crash)?;
        machine.check_maps()?;
        prop_assert_eq!(machine.uncommitted.committed(), regions);
        prop_assert_eq!(machine.map.next_unhydrated(0..regions), None);
    }
}

/// A block taken, and what comes later, as an example.
#[test]
fn what_comes_after_a_block_was_taken_waits() {
    let map = RegionMap::new(64).unwrap();
    let mut uncommitted = Uncommitted::new(64).unwrap();
    let mut values = [0; 8];

    uncommitted.mark(&map, 0..1, By::Copy);
    assert!(uncommitted.begin_commit());
    uncommitted.mark(&map, 1..2, By::Copy);
    assert_eq!(uncommitted.next_dirty(0), Some(0));
    uncommitted.take(&map, 0, &mut values);
    assert_eq!(values[0], 0b11, "1 came before the block was taken");
    uncommitted.mark(&map, 2..3, By::Copy);
    uncommitted.end_commit(true);
    assert_eq!(uncommitted.settle(&map, 0), Some(0));
    assert_eq!(uncommitted.settle(&map, 1), None);

    assert_eq!((uncommitted.hydrated(), uncommitted.committed()), (3, 2));
    assert!(map.is_uncommitted(2..3));
    assert!(uncommitted.begin_commit());
    uncommitted.take(&map, 0, &mut values);
    assert_eq!(values[0], 0b111);
    uncommitted.end_commit(true);
    assert!(!uncommitted.is_dirty());
}

#[test]
fn copies_alone_need_no_commit_for_a_flush() {
    let map = RegionMap::new(1000).unwrap();
    let mut uncommitted = Uncommitted::new(1000).unwrap();
    uncommitted.mark(&map, 0..500, By::Copy);
    assert!(uncommitted.is_dirty());
    assert!(!uncommitted.has_user_data());

    // A write far from them, and one among them.
    assert!(!map.is_uncommitted(700..701));
    assert!(map.is_uncommitted(300..301));
    uncommitted.note_user();
    assert!(uncommitted.has_user_data());

    // A flush during the commit waits for it, one after it does not.
    assert!(uncommitted.begin_commit());
    assert!(uncommitted.has_user_data());
    uncommitted.take(&map, 0, &mut [0; 128]);
    uncommitted.end_commit(true);
    assert!(!uncommitted.has_user_data());
}

#[test]
fn after_a_failed_commit_there_is_none_any_more() {
    let map = RegionMap::new(64).unwrap();
    let mut uncommitted = Uncommitted::new(64).unwrap();
    assert!(!uncommitted.begin_commit(), "there is nothing to commit");

    uncommitted.mark(&map, 0..1, By::User);
    assert!(uncommitted.begin_commit());
    uncommitted.take(&map, 0, &mut [0; 8]);
    for region in 1..4 {
        uncommitted.mark(&map, region..region + 1, By::Copy);
        assert!(!uncommitted.begin_commit());
    }
    assert!(uncommitted.is_dirty());
    assert!(uncommitted.has_user_data());
    assert!(map.is_uncommitted(0..1), "a write there is not safe either");
}

/// A commit in parts goes once through all blocks. What a user writes behind it meanwhile is for the next one.
#[test]
fn what_there_was_no_room_for_is_committed_next() {
    for by in [By::Copy, By::User] {
        let map = RegionMap::new(2 * BLOCK_REGIONS).unwrap();
        let mut uncommitted = Uncommitted::new(2 * BLOCK_REGIONS).unwrap();
        uncommitted.mark(&map, 1..2 * BLOCK_REGIONS, By::User);
        let mut values = [0; WORDS_PER_BLOCK * WORD_SIZE];
        assert!(uncommitted.begin_commit());
        assert_eq!(uncommitted.next_dirty(0), Some(0));
        uncommitted.take(&map, 0, &mut values);
        uncommitted.end_commit(false);
        while uncommitted.settle(&map, 0).is_some() {}
        assert!(uncommitted.has_user_data());
        uncommitted.mark(&map, 0..1, by);
        uncommitted.go_on_with_commit();
        assert!(!uncommitted.begin_commit());
        assert_eq!(uncommitted.next_dirty(1), Some(1));
        uncommitted.take(&map, 1, &mut values);
        uncommitted.end_commit(true);
        while uncommitted.settle(&map, 0).is_some() {}
        assert!(uncommitted.is_dirty());
        assert_eq!(uncommitted.has_user_data(), by == By::User);
        assert!(uncommitted.begin_commit());
        assert_eq!(uncommitted.next_dirty(0), Some(0));
        uncommitted.take(&map, 0, &mut values);
        uncommitted.end_commit(true);
        assert!(!uncommitted.is_dirty());
    }
}

/// A call that failed may have begun to load another state of the disk.
#[test]
fn what_is_loaded_again_is_what_the_disk_has_now() {
    let map = RegionMap::new(128).unwrap();
    let mut uncommitted = Uncommitted::new(128).unwrap();
    uncommitted.begin_load();
    uncommitted.load(&map, 0, &[0xFF; 16]);
    uncommitted.begin_load();
    uncommitted.load(&map, 0, &[[0xFF; 8], [0; 8]].concat());
    assert_eq!(uncommitted.hydrated(), 64);
    assert_eq!(map.next_unhydrated(0..128), Some(64));
}

#[test]
fn bits_on_disk_past_the_last_region_are_not_taken_over() {
    let map = RegionMap::new(70).unwrap();
    let mut uncommitted = Uncommitted::new(70).unwrap();
    uncommitted.load(&map, 0, &[0xFF; 32]);
    assert_eq!((uncommitted.hydrated(), uncommitted.committed()), (70, 70));
    assert_eq!(
        (map.word(0), map.word(1), map.word(2)),
        (u64::MAX, 0b11_1111, 0)
    );
    assert!(!uncommitted.is_dirty());
}
