// SPDX-License-Identifier: GPL-2.0

//! Copies of what is read: never older than what they cover, whatever comes in between, and gone
//! after a power cut.

mod lc_machine;

use lc_machine::*;
use pure::lc::{
    admission::{
        Admission,
        Wanted,
        MAX_CELLS, //
    },
    recovery, //
};
use rand::{
    rngs::StdRng,
    Rng,
    SeedableRng, //
};

/// A copy on its way, perhaps read already.
struct Coming {
    sector: u64,
    sectors: u32,
    bytes: Option<Vec<u8>>,
}

/// What promotes, as its work item does: one copy at a time.
#[derive(Default)]
struct Promoter {
    coming: Option<Coming>,
    arrived: u64,
}

impl Promoter {
    /// A part of a copy's way.
    fn step(&mut self, machine: &mut Machine, random: &mut StdRng) {
        match &mut self.coming {
            None => {
                let sector = random.random_range(0..BACKING_SECTORS / 8 - 16) * 8;
                let sectors = machine.expect(sector, random.random_range(1..16) * 8);
                self.coming = (sectors != 0).then_some(Coming {
                    sector,
                    sectors,
                    bytes: None,
                });
            }
            Some(coming) if coming.bytes.is_none() => {
                let mut bytes = vec![0; coming.sectors as usize * SECTOR];
                machine.disks.backing.read(coming.sector, &mut bytes);
                coming.bytes = Some(bytes);
            }
            Some(coming) => {
                machine.arrive(coming.sector, coming.bytes.as_deref().unwrap_or(&[]));
                self.coming = None;
                self.arrived += 1;
            }
        }
    }

    fn some_steps(&mut self, machine: &mut Machine, random: &mut StdRng) {
        for _ in 0..random.random_range(0..4) {
            self.step(machine, random);
        }
    }
}

/// A write past the log, if nothing there is newer; copies are under way all the time.
fn write_around(
    machine: &mut Machine,
    expected: &mut Expected,
    promoter: &mut Promoter,
    random: &mut StdRng,
    tag: &mut u64,
) -> Result<(), PowerCut> {
    let sectors = random.random_range(1..40);
    let sector = random.random_range(0..BACKING_SECTORS - u64::from(sectors));
    if !machine.begin_around(sector, sectors) {
        return Ok(());
    }
    *tag += 1;
    expected.wrote(sector, sectors, *tag);
    promoter.some_steps(machine, random);
    if random.random_bool(0.2) {
        machine.write_back()?;
    }
    machine.land_around(sector, sectors, *tag)?;
    promoter.some_steps(machine, random);
    machine.end_around(sector, sectors);
    Ok(())
}

/// Copies, writes and discards of all kinds, and power cuts. Returns how many copies there were.
fn power_cuts(seed: u64, ordered: bool, break_copies: bool) -> u64 {
    let mut random = StdRng::seed_from_u64(seed);
    let mut expected = Expected::default();
    let mut disks = disks();
    let (mut tag, mut arrived) = (0, 0);
    for number in 0..40 {
        let mut machine = match Machine::start(disks, 1) {
            Ok(machine) => machine,
            Err(error) => panic!("seed {seed}, cut {number}: {:?}", error.0),
        };
        machine.break_copies = break_copies;
        // What an ordered batch writes back later may be what was discarded since.
        machine.no_discards = ordered;
        expected.check_after_cut(&machine);
        if ordered && !machine.superblock.ordered {
            machine.order().unwrap();
        }
        let mut promoter = Promoter::default();
        machine.disks.power.left = Some(random.random_range(0..300));
        loop {
            promoter.some_steps(&mut machine, &mut random);
            // A write around an ordered log is not allowed.
            let result = if random.random_bool(0.3) && !ordered {
                write_around(
                    &mut machine,
                    &mut expected,
                    &mut promoter,
                    &mut random,
                    &mut tag,
                )
            } else {
                step(&mut machine, &mut expected, &mut random, &mut tag)
            };
            if result.is_err() {
                break;
            }
            if random.random_ratio(1, 25) {
                expected.check_running(&machine);
            }
        }
        arrived += promoter.arrived;
        disks = machine.cut(&mut random);
        disks.power.left = None;
    }
    arrived
}

#[test]
fn nothing_older_is_read_for_a_copy() {
    let arrived: u64 = (0..8).map(|seed| power_cuts(seed, false, false)).sum();
    assert!(arrived > 300, "{arrived}");
}

#[test]
fn nor_with_an_ordered_log() {
    let arrived: u64 = (0..4).map(|seed| power_cuts(seed, true, false)).sum();
    assert!(arrived > 20, "{arrived}");
}

/// The test can see what it looks for.
#[test]
#[should_panic(expected = "sector")]
fn copy_of_what_is_written_around_is_noticed() {
    for seed in 0..20 {
        power_cuts(seed, false, true);
    }
}

/// What is promoted takes no part in anything but reads: it is not written back, does not count when
/// the log is read, and is not lost when it is damaged.
#[test]
fn copy_is_nothing_but_a_copy() {
    let mut machine = Machine::start(disks(), 1).map_err(|error| error.0).unwrap();
    assert_eq!(machine.expect(0, 64), 64);
    machine.arrive(0, &content(0, 64, 5));
    machine.write(800, 8, 6).unwrap();
    machine.flush().unwrap();
    assert_eq!(tag_of(0, &machine.read(0)), Some(5));
    // One bit of it is another: nobody is told that the record was whole.
    let at = (2048 + 1 + 3) * SECTOR;
    machine.disks.cache.durable[at] ^= 1;
    let writes = machine.disks.backing.requests;
    while machine.log.used() > 0 {
        machine.write_back().unwrap();
    }
    // The write, and a flush.
    assert_eq!(machine.disks.backing.requests, writes + 2);
    assert_eq!(machine.superblock.lost.sectors(), 0);
    assert_eq!(tag_of(100, &machine.read(100)), Some(0));

    assert_eq!(machine.expect(1600, 8), 8);
    machine.arrive(1600, &content(1600, 8, 7));
    machine.write(808, 8, 8).unwrap();
    machine.flush().unwrap();
    let (superblock, mut window) = (machine.superblock, vec![0; 2 * 1032 * SECTOR]);
    let mut found = Vec::new();
    recovery::walk(
        &mut machine.disks,
        &superblock,
        &mut window,
        |extent, _, _| found.push(extent.sector),
    )
    .unwrap();
    assert_eq!(found, [808]);
}

/// A copy that arrives after a write of its blocks is none of them: not even when the log has gone round so
/// far that the write has given way, and what came behind it in the log has not.
#[test]
fn copy_does_not_outlive_a_write_that_came_before_it() {
    let mut machine = Machine::start(disks(), 1).map_err(|error| error.0).unwrap();
    assert_eq!(machine.expect(0, 64), 64);
    let mut bytes = vec![0; 64 * SECTOR];
    machine.disks.backing.read(0, &mut bytes);
    // A block, and a part of another.
    machine.write(8, 8, 1).unwrap();
    machine.write(35, 3, 1).unwrap();
    let written = machine.log.end();
    let sectors = machine.superblock.space.sectors();
    let mut tag = 1;
    let mut fill = |machine: &mut Machine| {
        tag += 1;
        machine.write(1000 + tag % 10 * 100, 100, tag).unwrap();
        for sector in 0..64 {
            let expected = u64::from(matches!(sector, 8..16 | 35..38));
            assert_eq!(
                tag_of(sector, &machine.read(sector)),
                Some(expected),
                "sector {sector}"
            );
        }
    };
    while machine.log.end() < written + sectors / 2 {
        fill(&mut machine);
    }
    machine.flush().unwrap();
    while machine.log.used() > 0 {
        machine.write_back().unwrap();
    }
    machine.arrive(0, &bytes);
    let arrived = machine.log.end();
    let mut is_between = 0;
    while machine.log.start_position() <= arrived {
        fill(&mut machine);
        is_between += u32::from((written..arrived - 64).contains(&machine.log.start_position()));
    }
    assert!(is_between > 10, "{is_between}");
}

/// Writes have the last quarter of the log, and half of the buffers, for themselves.
#[test]
fn copies_leave_room_for_writes() {
    let mut machine = Machine::start(disks(), 1).map_err(|error| error.0).unwrap();
    let sectors = machine.superblock.space.sectors();
    let mut refused = 0;
    for number in 0..2000 {
        let sector = number % 400 * 8;
        if machine.expect(sector, 8) == 8 {
            machine.arrive(sector, &content(sector, 8, 1));
            machine.begin_around(sector, 8);
        }
        if machine
            .log
            .append_promoted(0, 8)
            .map(|place| machine.log.complete(&place, 0))
            .is_none()
        {
            refused += 1;
            machine.write_log().unwrap();
        }
        assert!(machine.log.used() <= sectors * 3 / 4 + 1032);
    }
    assert!(refused > 0);
    assert!(machine.log.last_change() == 0);
}

#[test]
fn long_runs_are_not_admitted() {
    let mut admission = Admission::new().unwrap();
    // 16 blocks of four each, and others in between.
    for number in 0..16u64 {
        assert_eq!(
            admission.is_long(number * 32, 32, 40),
            number >= 10,
            "{number}"
        );
        assert!(!admission.is_long(1 << 30 | number * 1000, 8, 40));
    }
    // Large at once.
    assert!(!admission.is_long(1 << 40, 320, 40));
    assert!(admission.is_long(1 << 41, 321, 40));
    // Half a run is as good as one, and what was not continued for long is forgotten.
    for number in 0..16 {
        assert!(!admission.is_long(1 << 42 | number * 100, 8, 40));
    }
    assert!(!admission.is_long(16 * 32, 32, 40));
}

#[test]
fn so_many_wait_for_being_copied() {
    let mut admission = Admission::new().unwrap();
    let wanted = |sector| Wanted { sector, sectors: 8 };
    for lap in 0..3 {
        for number in 0..10u64 {
            assert_eq!(admission.want(wanted(lap * 100 + number), 4), number == 0);
        }
        let got: Vec<_> = std::iter::from_fn(|| admission.take()).collect();
        assert_eq!(got, [0, 1, 2, 3].map(|number| wanted(lap * 100 + number)));
    }
    for number in 0..u64::from(MAX_CELLS) + 5 {
        admission.want(wanted(number), MAX_CELLS);
    }
    let got = std::iter::from_fn(|| admission.take()).count();
    assert_eq!(got, MAX_CELLS as usize);
}
