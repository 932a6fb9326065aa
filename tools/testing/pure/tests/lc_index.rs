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
    Usage,
    SHARDS, //
};
use std::collections::{
    BTreeMap,
    BTreeSet, //
};

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
    Settle {
        number: usize,
    },
    Discard {
        sector: u64,
        sectors: u32,
    },
    /// What was placed before this run is given up, and some is swept.
    GiveUp {
        number: usize,
    },
    /// Clean copies in front of this run are forgotten, and those of what was read.
    ForgetClean {
        sector: u64,
        sectors: u32,
        number: usize,
    },
    /// Blocks are going to be copied from the backing device, if nothing else is on its way.
    Expect {
        block: u64,
        blocks: u32,
    },
    /// They have come, or do not come.
    Arrive {
        comes: bool,
    },
}

fn change() -> impl Strategy<Value = Change> {
    let run = (0..SECTORS - 40, 1..40u32);
    prop_oneof![
        6 => (run.clone(), 0..4usize)
            .prop_map(|((sector, sectors), late)| Change::Insert { sector, sectors, late }),
        4 => (0..100usize).prop_map(|number| Change::Settle { number }),
        1 => (0..100usize).prop_map(|number| Change::GiveUp { number }),
        1 => run.clone().prop_map(|(sector, sectors)| Change::Discard { sector, sectors }),
        1 => (run, 0..20usize).prop_map(|((sector, sectors), number)| Change::ForgetClean {
            sector,
            sectors,
            number,
        }),
        3 => (0..SECTORS / 8 - 4, 1..4u32)
            .prop_map(|(block, blocks)| Change::Expect { block, blocks }),
        3 => prop::bool::weighted(0.8).prop_map(|comes| Change::Arrive { comes }),
    ]
}

/// A checksum by which a part is known again.
fn crc_of(part: &Part, position: u64) -> u32 {
    part.sectors() << 16 | (position + part.offset) as u32 & 0xffff
}

struct Index {
    shards: Vec<Shard>,
    /// Which position each sector has, and whether it is clean.
    model: BTreeMap<u64, (u64, bool)>,
    runs: Vec<(u64, u32, u64)>,
    next: u64,
    /// What is before is given up.
    start: u64,
    /// What is being copied, and which of its sectors are still wanted.
    coming: Option<(u64, u32)>,
    wanted: BTreeSet<u64>,
    /// What has come, and was not written since.
    promoted: BTreeSet<u64>,
}

impl Index {
    fn new() -> Self {
        Index {
            shards: (0..SHARDS).map(|_| Shard::new(1000).unwrap()).collect(),
            model: BTreeMap::new(),
            runs: Vec::new(),
            next: 1 << 20,
            start: 0,
            coming: None,
            wanted: BTreeSet::new(),
            promoted: BTreeSet::new(),
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
            self.wanted.remove(&(sector + number));
            let newest = self.model.entry(sector + number).or_default();
            // A copy of what is on the backing device is older, wherever it is.
            if newest.1 || newest.0 < position + number {
                *newest = (position + number, false);
                self.promoted.remove(&(sector + number));
            }
        }
        self.model
            .retain(|_, (position, _)| *position >= self.start);
        self.runs.push((sector, sectors, position));
    }

    fn expect(&mut self, block: u64, blocks: u32) {
        let sectors = (block * 8..(block + u64::from(blocks)) * 8).collect::<Vec<_>>();
        for part in parts(block * 8, blocks * 8) {
            let known = (part.block * 8..part.block * 8 + 8)
                .any(|sector| self.model.contains_key(&sector) || self.wanted.contains(&sector));
            assert_eq!(self.shards[shard_of(part.block)].expect(&part), !known);
            if !known {
                self.wanted.extend(part.block * 8..part.block * 8 + 8);
            }
        }
        self.coming = sectors.first().map(|&sector| (sector, blocks * 8));
    }

    fn arrive(&mut self, comes: bool) {
        let Some((sector, sectors)) = self.coming.take() else {
            return;
        };
        let position = self.place(sectors);
        for part in parts(sector, sectors) {
            let shard = &mut self.shards[shard_of(part.block)];
            if comes {
                shard.arrive(&part, position, crc_of(&part, position));
            } else {
                shard.cancel(&part);
            }
        }
        for sector_wanted in std::mem::take(&mut self.wanted) {
            if comes {
                let at = position + (sector_wanted - sector);
                self.model.insert(sector_wanted, (at, true));
                self.promoted.insert(sector_wanted);
            }
        }
    }

    fn check(&self) {
        for sector in 0..SECTORS {
            let part = parts(sector, 1).next().unwrap();
            let look = self.shards[shard_of(part.block)].look(&part);
            assert_eq!(
                look.position,
                self.model.get(&sector).map(|&(position, _)| position),
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
                    let got = look
                        .position
                        .map(|position| (position + number, look.clean));
                    assert_eq!(got, expected);
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
                Change::Settle { number } if !index.runs.is_empty() => {
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
                            let newest = index.model.get_mut(&sector);
                            let newest = newest.filter(|(newest, _)| *newest == at);
                            let is_mine = part.mask >> bit & 1 == 1;
                            assert_eq!(live >> bit & 1 == 1, is_mine && newest.is_some());
                            if let (true, Some((_, clean))) = (is_mine, newest) {
                                *clean = true;
                            }
                        }
                        shard.settle(&part, position);
                    }
                }
                Change::Settle { .. } => {}
                Change::GiveUp { number } => {
                    let at = index.runs.get(number).map_or(0, |run| run.2);
                    index.start = index.start.max(at);
                    for shard in &mut index.shards {
                        shard.give_up(at);
                        shard.sweep(number);
                    }
                    let start = index.start;
                    index.model.retain(|_, (position, _)| *position >= start);
                }
                Change::ForgetClean { sector, sectors, number } => {
                    let tail = index.runs.get(number).map_or(u64::MAX, |run| run.2);
                    for part in parts(sector, sectors) {
                        let of_part = (0..8u64).filter(|bit| part.mask >> bit & 1 == 1);
                        let mut rest = 0;
                        for sector in of_part.map(|bit| part.block * 8 + bit) {
                            match index.model.get(&sector) {
                                Some((at, true)) if *at < tail || index.promoted.contains(&sector) => {
                                    index.model.remove(&sector);
                                }
                                Some(_) => rest += 1,
                                None => {}
                            }
                            index.wanted.remove(&sector);
                        }
                        let shard = &mut index.shards[shard_of(part.block)];
                        assert_eq!(shard.forget_clean(&part, tail), rest == 0);
                    }
                }
                Change::Discard { sector, sectors } => {
                    let position = index.place(0);
                    for part in parts(sector, sectors) {
                        index.shards[shard_of(part.block)].forget(&part, position);
                    }
                    for sector in sector..sector + u64::from(sectors) {
                        if index.model.get(&sector).is_some_and(|&(at, clean)| clean || at < position) {
                            index.model.remove(&sector);
                        }
                        index.wanted.remove(&sector);
                    }
                }
                Change::Expect { block, blocks } => {
                    if index.coming.is_none() {
                        index.expect(block, blocks);
                    }
                }
                Change::Arrive { comes } => index.arrive(comes),
            }
            index.check();
        }
        // In the end every entry can be used again.
        index.arrive(false);
        let end = index.next;
        for shard in &mut index.shards {
            let before = shard.usage();
            assert!(before.clean <= before.used);
            shard.give_up(end);
            assert_eq!(shard.sweep(usize::MAX), before.used);
            assert_eq!(shard.usage(), Usage { used: 0, clean: 0, ..before });
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
    assert_eq!((shard.usage().used, shard.usage().capacity), (64, 64));
    // What takes the place of another takes no entry, and what is forgotten gives one back.
    let part = parts(blocks[0] * 8, 8).next().unwrap();
    shard.settle(&part, 1000);
    assert!(!shard.forget_clean(&part, 1000));
    assert!(shard.forget_clean(&part, 2000));
    assert!(shard.reserve());
    shard.unreserve(1);
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
    assert_eq!(shard.whole(0), None);
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
