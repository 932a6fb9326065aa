// SPDX-License-Identifier: GPL-2.0

//! The index against a plain map from sectors to positions.

use proptest::{
    collection::vec,
    prelude::*, //
};
use pure::lc::index::{
    parts,
    shard_of,
    Part,
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

/// A checksum by which a part is known again.
fn crc_of(part: &Part, position: u64) -> u32 {
    part.sectors() << 16 | (position + part.offset) as u32 & 0xffff
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
            shard.insert(&part, position, crc_of(&part, position), u64::MAX);
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
                if look.position.is_some() {
                    // The checksum is that of the part as it was written, and its place is known.
                    let stored = look.stored();
                    let whole =
                        look.position == Some(stored.position) && look.sectors == stored.sectors;
                    assert_eq!(look.crc(), whole.then_some(stored.crc));
                    assert_eq!(stored.crc as u64 & 0xffff, stored.position & 0xffff);
                    assert_eq!(stored.crc >> 16, stored.sectors);
                }
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
                        assert!(live.mask == 0 || live.crc == crc_of(&part, position));
                        let live = live.mask;
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
            shard.insert(&part, 1000 + number as u64 * 8, 0, u64::MAX);
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
    shard.insert(&part, 9000, 0, u64::MAX);
    assert_eq!(shard.look(&part).position, Some(9000));
}

/// What is lost is known until it is written or discarded, sector by sector.
#[test]
fn lost_sectors() {
    let mut shard = Shard::new(64).unwrap();
    let part = |sector, sectors| parts(sector, sectors).next().unwrap();
    let put = |shard: &mut Shard, sector, sectors, position| {
        assert!(shard.reserve());
        shard.insert(&part(sector, sectors), position, 7, u64::MAX);
    };
    put(&mut shard, 0, 8, 1000);
    put(&mut shard, 2, 1, 2000);
    shard.lose(&part(0, 8), 1000);
    assert_eq!(shard.lost(&part(0, 8)), 0b1111_1011);
    assert!(shard.look(&part(0, 8)).is_lost());
    assert_eq!(shard.look(&part(2, 6)).position, Some(2000));
    assert_eq!(shard.live(&part(0, 8), 1000).mask, 0);
    put(&mut shard, 0, 2, 3000);
    shard.forget(&part(3, 1), 4000);
    assert_eq!(shard.lost(&part(0, 8)), 0b1111_0000);
    // After a restart: whatever else is known is newer.
    let mut shard = Shard::new(64).unwrap();
    put(&mut shard, 4, 1, 5000);
    assert!(shard.reserve());
    shard.insert_lost(&part(3, 5));
    assert_eq!(shard.lost(&part(0, 8)), 0b1110_1000);
}
