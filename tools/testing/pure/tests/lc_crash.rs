// SPDX-License-Identifier: GPL-2.0

//! Power cuts: at any request, with anything that was not flushed lost, torn or reordered, while
//! the cache is used, written back, shut down, or recovered from the cut before.

mod lc_machine;

use lc_machine::*;
use rand::{
    rngs::StdRng,
    Rng,
    SeedableRng, //
};

fn power_cuts(seed: u64, cuts: usize, header_sectors: u32, break_superseded: bool) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut expected = Expected::default();
    let mut disks = disks();
    let mut tag = 0;
    for number in 0..cuts {
        // A cut may hit the start as well.
        disks.power.left = random.random_bool(0.3).then(|| random.random_range(0..4));
        let mut machine = match Machine::start(disks, header_sectors).map_err(|error| *error) {
            Ok(machine) => machine,
            Err((NoStart::PowerCut, left)) => {
                disks = cut(left, &mut random);
                continue;
            }
            Err((error, _)) => panic!("seed {seed}, cut {number}: {error:?}"),
        };
        machine.disks.power.left = None;
        machine.break_superseded = break_superseded;
        expected.check_after_cut(&machine);
        if random.random_ratio(1, 10) {
            for _ in 0..20 {
                step(&mut machine, &mut expected, &mut random, &mut tag).unwrap();
            }
            disks = machine.stop();
            expected.flushed();
            continue;
        }
        machine.disks.power.left = Some(random.random_range(0..120));
        while step(&mut machine, &mut expected, &mut random, &mut tag).is_ok() {
            if random.random_ratio(1, 200) {
                expected.check_running(&machine);
            }
        }
        disks = machine.cut(&mut random);
    }
}

#[test]
fn a_thousand_power_cuts() {
    for seed in 0..10 {
        power_cuts(seed, 100, 1, false);
    }
}

#[test]
fn a_thousand_power_cuts_with_blocks_of_4096_bytes() {
    for seed in 100..110 {
        power_cuts(seed, 100, 8, false);
    }
}

/// A byte of the log changes while the cache is shut down: the cache is refused, or sectors are lost,
/// or nothing that counts was hit. Nobody ever reads what he did not write.
#[test]
fn a_thousand_damaged_bytes() {
    let mut random = StdRng::seed_from_u64(7);
    let mut expected = Expected::default();
    let mut disks = disks();
    let (mut tag, mut refused, mut lost) = (0, 0, 0);
    for number in 0..1000 {
        let mut machine = match Machine::start(disks, 1) {
            Ok(machine) => machine,
            Err(error) => panic!("round {number}: {:?}", error.0),
        };
        expected.check_after_cut(&machine);
        for _ in 0..10 {
            step(&mut machine, &mut expected, &mut random, &mut tag).unwrap();
        }
        let (superblock, end) = (machine.superblock, machine.log.end());
        disks = machine.stop();
        expected.flushed();
        let tail = superblock.tail.position;
        if tail == end {
            continue;
        }
        let sector = superblock.space.sector(random.random_range(tail..end)) as usize;
        let at = sector * SECTOR + random.random_range(0..SECTOR);
        let bit = 1 << random.random_range(0..8);
        disks.cache.durable[at] ^= bit;
        match Machine::start(disks, 1).map_err(|error| *error) {
            Ok(mut machine) => {
                lost += expected.accept_lost(&machine);
                expected.check_after_cut(&machine);
                // What is written is there again.
                for sector in 0..BACKING_SECTORS {
                    if machine.is_lost(sector) {
                        tag += 1;
                        expected.wrote(sector, 1, tag);
                        machine.write(sector, 1, tag).unwrap();
                    }
                }
                disks = machine.stop();
                expected.flushed();
            }
            Err((NoStart::Damaged(_), left)) => {
                refused += 1;
                disks = left;
                disks.cache.durable[at] ^= bit;
            }
            Err((error, _)) => panic!("round {number}: {error:?}"),
        }
    }
    assert!(refused > 5 && lost > 1000, "{refused} refused, {lost} lost");
}

/// The tests of power cuts can see what they look for: rule W1 left out.
#[test]
#[should_panic(expected = "expected")]
fn the_loss_of_a_superseded_copy_is_seen() {
    for seed in 0..20 {
        power_cuts(seed, 100, 1, true);
    }
}
