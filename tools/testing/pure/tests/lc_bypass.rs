// SPDX-License-Identifier: GPL-2.0

//! A cache device that fails and is bypassed, and comes back: what was written past it is not
//! overwritten by what it has.

mod lc_machine;

use lc_machine::*;
use rand::{
    rngs::StdRng,
    Rng,
    SeedableRng, //
};

/// The cache is used, fails at some request, is bypassed if that is allowed, and returns. Returns
/// how often it was bypassed, and how many writes were refused then.
fn failures(seed: u64, allow_all: bool) -> (u64, u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut expected = Expected::default();
    let mut disks = disks();
    let (mut tag, mut bypassed, mut refused) = (0, 0, 0);
    for number in 0..60 {
        let mut machine = match Machine::start(disks, 1) {
            Ok(machine) => machine,
            Err(error) => panic!("seed {seed}, failure {number}: {:?}", error.0),
        };
        expected.check_after_cut(&machine);
        for _ in 0..random.random_range(1..60) {
            step(&mut machine, &mut expected, &mut random, &mut tag).unwrap();
        }
        if random.random_bool(0.7) {
            machine.flush().unwrap();
            expected.flushed();
        }
        // A batch does not come to its end; some of what it was about to write lands, perhaps.
        machine.disks.power.left = Some(random.random_range(0..8));
        let _ = machine.write_back();
        machine.disks.power.left = None;
        if machine.log.last_change() <= machine.durable_position || allow_all {
            bypassed += 1;
            for _ in 0..random.random_range(0..40) {
                let sectors = random.random_range(1..20);
                let sector = random.random_range(0..BACKING_SECTORS - u64::from(sectors));
                if !machine.begin_around(sector, sectors) {
                    refused += 1;
                    continue;
                }
                tag += 1;
                expected.wrote(sector, sectors, tag);
                machine.land_around(sector, sectors, tag).unwrap();
                machine.end_around(sector, sectors);
            }
            machine.flush_past_the_cache();
            expected.flushed();
            expected.check_running(&machine);
        }
        disks = machine.cut(&mut random);
    }
    (bypassed, refused)
}

#[test]
fn nothing_older_comes_back() {
    let (mut bypassed, mut refused) = (0, 0);
    for seed in 0..10 {
        let (once, writes) = failures(seed, false);
        bypassed += once;
        refused += writes;
    }
    assert!(bypassed > 100 && refused > 1000, "{bypassed}, {refused}");
}

/// The test can see what it looks for: bypassed though something in the log is not durable.
#[test]
#[should_panic(expected = "sector")]
fn what_is_not_durable_is_noticed() {
    for seed in 0..10 {
        failures(seed, true);
    }
}
