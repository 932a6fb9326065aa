// SPDX-License-Identifier: GPL-2.0

//! The backing device alone, with an ordered log: at any moment, and after any power cut, it has all that was there at
//! some flush, and perhaps some of what was written until the next one.

mod lc_machine;

use lc_machine::*;
use rand::{
    rngs::StdRng,
    Rng,
    SeedableRng, //
};
use std::collections::BTreeMap;

/// A write of a sector: the backing device may have it if it is between these two flushes.
#[derive(Clone, Copy)]
struct Version {
    tag: u64,
    /// How many flushes there were before it.
    from: u64,
    /// And before the next write of the sector; none yet.
    to: Option<u64>,
}

/// What a sector has held, in order.
#[derive(Default)]
struct History {
    versions: Vec<Version>,
    /// How many of them were there when it was last discarded.
    discarded: usize,
    /// What it held before is not known.
    fuzzy: bool,
}

impl History {
    /// The last version with this tag.
    fn find(&self, tag: u64) -> Option<usize> {
        self.versions.iter().rposition(|version| version.tag == tag)
    }
}

/// What was written when, counted in flushes.
#[derive(Default)]
struct Order {
    flushes: u64,
    sectors: BTreeMap<u64, History>,
}

impl Oracle for Order {
    fn wrote(&mut self, sector: u64, sectors: u32, tag: u64) {
        for sector in sector..sector + u64::from(sectors) {
            let history = self.sectors.entry(sector).or_insert_with(|| History {
                versions: vec![Version {
                    tag: 0,
                    from: 0,
                    to: None,
                }],
                ..Default::default()
            });
            if let Some(last) = history.versions.last_mut() {
                last.to.get_or_insert(self.flushes);
            }
            let (from, to) = (self.flushes, None);
            history.versions.push(Version { tag, from, to });
        }
    }

    fn discarded(&mut self, sector: u64, sectors: u32) {
        let range = sector..sector + u64::from(sectors);
        for (_, history) in self.sectors.range_mut(range) {
            history.discarded = history.versions.len();
        }
    }

    fn flushed(&mut self) {
        self.flushes += 1;
    }

    fn wrote_back(&self, machine: &Machine) {
        self.check(&machine.disks);
    }
}

impl Order {
    /// There is a flush to which all sectors of the backing device fit.
    fn check(&self, disks: &Disks) {
        let (mut lowest, mut highest) = ((0, 0), (u64::MAX, 0));
        for (&sector, history) in &self.sectors {
            let mut bytes = vec![0; SECTOR];
            disks.backing.read(sector, &mut bytes);
            let tag = tag_of(sector, &bytes).expect("rubbish");
            let (from, to) = match (history.find(tag), history.versions.first()) {
                (Some(found), _) => {
                    let Version { from, to, .. } = history.versions[found];
                    (from, to)
                }
                (None, first) if history.fuzzy => (0, first.map(|first| first.from)),
                _ => panic!("sector {sector} has {tag}"),
            };
            lowest = lowest.max((from, sector));
            highest = highest.min((to.unwrap_or(u64::MAX), sector));
        }
        assert!(
            lowest.0 <= highest.0,
            "expected one flush: sector {} is of flush {} or later, sector {} of {} or earlier",
            lowest.1,
            lowest.0,
            highest.1,
            highest.0
        );
    }

    /// The cache was started after a cut: writes may be lost that were not flushed.
    fn cut(&mut self, machine: &Machine) {
        for (&sector, history) in &mut self.sectors {
            let tag = tag_of(sector, &machine.read(sector)).expect("rubbish");
            let found = history.find(tag);
            let Some(found) = found.filter(|&found| found >= history.discarded) else {
                assert!(
                    history.fuzzy || history.discarded > 0,
                    "sector {sector} has {tag}"
                );
                history.versions.clear();
                history.fuzzy = true;
                history.discarded = 0;
                continue;
            };
            history.versions[found].to = None;
            // The backing device may have had it for a while.
            for lost in &mut history.versions[found + 1..] {
                lost.to = Some(lost.from);
            }
        }
        self.flushes += 1;
    }
}

fn power_cuts(seed: u64, ordered: bool) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut order = Order::default();
    let mut disks = disks();
    let mut tag = 0;
    let mut batches = 0;
    for number in 0..100 {
        let mut machine = match Machine::start(disks, 1).map_err(|error| *error) {
            Ok(machine) => machine,
            Err((error, _)) => panic!("seed {seed}, cut {number}: {error:?}"),
        };
        if ordered && !machine.superblock.ordered {
            machine.order().unwrap();
        }
        // Without an order the backing device has of a discarded sector what no flush explains.
        machine.no_discards = !ordered;
        order.cut(&machine);
        let tail = machine.superblock.tail.id;
        machine.disks.power.left = Some(random.random_range(0..200));
        while step(&mut machine, &mut order, &mut random, &mut tag).is_ok() {}
        batches += machine.superblock.tail.id - tail;
        disks = machine.cut(&mut random);
        disks.power.left = None;
        order.check(&disks);
    }
    assert!(batches > 100, "{batches}");
}

#[test]
fn five_hundred_power_cuts() {
    for seed in 0..5 {
        power_cuts(seed, true);
    }
}

/// The test can see what it looks for.
#[test]
#[should_panic(expected = "expected one flush")]
fn a_log_that_is_not_ordered_is_noticed() {
    for seed in 0..10 {
        power_cuts(seed, false);
    }
}
