// SPDX-License-Identifier: GPL-2.0

//! The index against a plain map from sectors to positions.

use proptest::{
    collection::vec,
    prelude::*, //
};
use pure::lc::index::{
    parts,
    shard_of,
    Shard,
    SHARDS, //
};
use std::collections::BTreeMap;

const SECTORS: u64 = 256;

#[derive(Clone, Debug)]
enum Change {
    /// A run is published; `late` runs wait until `late` others were.
    Insert {
        sector: u64,
        sectors: u32,
        late: usize,
    },
    /// A run is written back.
    Remove {
        number: usize,
    },
    Discard {
        sector: u64,
        sectors: u32,
    },
}

fn change() -> impl Strategy<Value = Change> {
    let run = (0..SECTORS - 40, 1..40u32);
    prop_oneof![
        6 => (run.clone(), 0..4usize)
            .prop_map(|((sector, sectors), late)| Change::Insert { sector, sectors, late }),
        2 => (0..100usize).prop_map(|number| Change::Remove { number }),
        1 => run.prop_map(|(sector, sectors)| Change::Discard { sector, sectors }),
    ]
}

struct Index {
    shards: Vec<Shard>,
    /// Which position each sector has.
    model: BTreeMap<u64, u64>,
    runs: Vec<(u64, u32, u64)>,
    next: u64,
}

impl Index {
    fn new() -> Self {
        Index {
            shards: (0..SHARDS).map(|_| Shard::new(1000).unwrap()).collect(),
            model: BTreeMap::new(),
            runs: Vec::new(),
            next: 1 << 20,
        }
    }

    fn place(&mut self, sectors: u32) -> u64 {
        let position = self.next;
        self.next += u64::from(sectors) + 1;
        position
    }

    fn publish(&mut self, (sector, sectors, position): (u64, u32, u64)) {
        for part in parts(sector, sectors) {
            let shard = &mut self.shards[shard_of(part.block)];
            assert!(shard.reserve());
            shard.insert(&part, position, u64::MAX);
        }
        for number in 0..u64::from(sectors) {
            let newest = self.model.entry(sector + number).or_default();
            *newest = position.saturating_add(number).max(*newest);
        }
        self.runs.push((sector, sectors, position));
    }

    fn check(&self) {
        for sector in 0..SECTORS {
            let part = parts(sector, 1).next().unwrap();
            let look = self.shards[shard_of(part.block)].look(&part);
            assert_eq!(
                look.position,
                self.model.get(&sector).copied(),
                "sector {sector}"
            );
        }
        // A longer look says the same.
        for block in 0..SECTORS / 8 {
            let mut sector = block * 8;
            while sector < block * 8 + 8 {
                let part = parts(sector, (block * 8 + 8 - sector) as u32)
                    .next()
                    .unwrap();
                let look = self.shards[shard_of(part.block)].look(&part);
                assert!(look.sectors > 0);
                for number in 0..u64::from(look.sectors) {
                    let expected = self.model.get(&(sector + number)).copied();
                    assert_eq!(look.position.map(|position| position + number), expected);
                }
                sector += u64::from(look.sectors);
            }
        }
    }
}

proptest! {
    #[test]
    fn index_is_as_modelled(changes in vec(change(), 1..120)) {
        let mut index = Index::new();
        let mut waiting: Vec<(usize, (u64, u32, u64))> = Vec::new();
        for change in changes {
            for (late, _) in &mut waiting {
                *late = late.saturating_sub(1);
            }
            while let Some(at) = waiting.iter().position(|(late, _)| *late == 0) {
                let (_, run) = waiting.remove(at);
                index.publish(run);
            }
            match change {
                Change::Insert { sector, sectors, late } => {
                    let run = (sector, sectors, index.place(sectors));
                    waiting.push((late, run));
                }
                Change::Remove { number } if !index.runs.is_empty() => {
                    let number = number % index.runs.len();
                    let (sector, sectors, position) = index.runs.swap_remove(number);
                    for part in parts(sector, sectors) {
                        let shard = &mut index.shards[shard_of(part.block)];
                        let live = shard.live(&part, position);
                        for bit in 0..8u64 {
                            let sector = part.block * 8 + bit;
                            let at = position + part.offset + bit - u64::from(part.first());
                            let is_live = part.mask >> bit & 1 == 1
                                && index.model.get(&sector) == Some(&at);
                            assert_eq!(live >> bit & 1 == 1, is_live);
                            if is_live {
                                index.model.remove(&sector);
                            }
                        }
                        shard.remove(&part, position);
                    }
                }
                Change::Remove { .. } => {}
                Change::Discard { sector, sectors } => {
                    let position = index.place(0);
                    for part in parts(sector, sectors) {
                        index.shards[shard_of(part.block)].forget(&part, position);
                    }
                    for sector in sector..sector + u64::from(sectors) {
                        if index.model.get(&sector).is_some_and(|&at| at < position) {
                            index.model.remove(&sector);
                        }
                    }
                }
            }
            index.check();
        }
    }
}

#[test]
fn reservations_are_kept() {
    let mut shard = Shard::new(64).unwrap();
    let blocks: Vec<u64> = (0..)
        .filter(|&block| shard_of(block) == 0)
        .take(100)
        .collect();
    for (number, &block) in blocks.iter().enumerate() {
        assert_eq!(shard.reserve(), number < 64);
        if number < 64 {
            let part = parts(block * 8, 8).next().unwrap();
            shard.insert(&part, 1000 + number as u64 * 8, u64::MAX);
        }
    }
    assert_eq!(shard.usage(), (64, 64));
    // What takes the place of another takes no entry, and what is removed gives one back.
    let part = parts(blocks[0] * 8, 8).next().unwrap();
    shard.remove(&part, 1000);
    assert!(shard.reserve());
    shard.unreserve();
    assert!(shard.reserve());
    assert!(!shard.reserve());
    shard.insert(&part, 9000, u64::MAX);
    assert_eq!(shard.look(&part).position, Some(9000));
}
