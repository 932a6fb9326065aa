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

/// A rule that is broken: for a test of the test.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Break {
    Nothing,
    Superseded,
    Around,
}

fn power_cuts(seed: u64, cuts: usize, header_sectors: u32, broken: Break) {
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
        machine.break_superseded = broken == Break::Superseded;
        machine.break_around = broken == Break::Around;
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
        power_cuts(seed, 100, 1, Break::Nothing);
    }
}

#[test]
fn a_thousand_power_cuts_with_blocks_of_4096_bytes() {
    for seed in 100..110 {
        power_cuts(seed, 100, 8, Break::Nothing);
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
        power_cuts(seed, 100, 1, Break::Superseded);
    }
}

/// And what the log still has is gone around, since the backing device has it too.
#[test]
#[should_panic(expected = "expected")]
fn a_write_around_what_a_recovery_finds_is_seen() {
    for seed in 20..40 {
        power_cuts(seed, 100, 1, Break::Around);
    }
}

/// Of two neighbours that are far from each other in the log the younger one goes along with the older one, and
/// not again.
#[test]
fn neighbours_are_written_back_together() {
    let mut machine = Machine::start(disks(), 1).map_err(|error| error.0).unwrap();
    let mut tag = 0;
    let mut write = |machine: &mut Machine, block: u64| {
        tag += 1;
        machine.write(block * 8, 8, tag).unwrap();
    };
    machine.window_sectors = 1032;
    // Every third block, and later those in front of them and behind them.
    for offset in [1, 0, 2] {
        for block in (0..120).map(|number| 3 * number + offset) {
            write(&mut machine, block);
        }
    }
    machine.flush().unwrap();
    let before = machine.disks.backing.requests;
    machine.write_back().unwrap();
    // One run, and a flush.
    assert_eq!(machine.disks.backing.requests - before, 2);
    assert!(machine.aside >= 200, "{} went along", machine.aside);
    while machine.log.used() != 0 {
        machine.write_back().unwrap();
    }
    assert_eq!(machine.disks.backing.sectors_written, 3 * 120 * 8);
    for block in 0..360 {
        let written = if block % 3 == 1 {
            block / 3
        } else {
            120 + block / 3 + block % 3 / 2 * 120
        };
        let got = tag_of(block * 8, &machine.read(block * 8));
        assert_eq!(got, Some(written + 1), "block {block}");
    }
}

/// What goes along may be newer than all that the batch began with: it does not supersede itself.
#[test]
fn what_comes_while_a_batch_is_collected_goes_along_or_stays() {
    let mut machine = Machine::start(disks(), 1).map_err(|error| error.0).unwrap();
    machine.write(80, 8, 1).unwrap();
    machine.flush().unwrap();
    machine.when_looking_aside = Some((80, 16, 2));
    machine.write_back().unwrap();
    assert_eq!(machine.aside, 1);
    while machine.log.used() != 0 {
        machine.write_back().unwrap();
    }
    for sector in 80..96 {
        let mut bytes = vec![0; SECTOR];
        machine.disks.backing.read(sector, &mut bytes);
        assert_eq!(tag_of(sector, &bytes), Some(2), "sector {sector}");
    }
}

/// What users write again while a batch is written is passed over when its turn comes.
#[test]
fn what_was_overwritten_meanwhile_is_not_written_back() {
    let mut machine = Machine::start(disks(), 1).map_err(|error| error.0).unwrap();
    for block in 0..100 {
        machine.write(2 * block * 8, 8, 1).unwrap();
    }
    machine.flush().unwrap();
    // The first twenty, before their turn.
    machine.meanwhile = vec![Some(2); 20];
    assert_eq!(machine.write_back().unwrap(), Some(80 * 8));
    assert_eq!(machine.came.len(), 20);
    for block in 0..100 {
        let newest = if block < 20 { 2 } else { 1 };
        let got = tag_of(2 * block * 8, &machine.read(2 * block * 8));
        assert_eq!(got, Some(newest), "block {block}");
    }
    while machine.log.used() != 0 {
        machine.write_back().unwrap();
    }
    assert_eq!(machine.disks.backing.sectors_written, 100 * 8);
}
