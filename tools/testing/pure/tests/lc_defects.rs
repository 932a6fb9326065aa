// SPDX-License-Identifier: GPL-2.0

//! What went wrong in caches of this kind before, each by itself: on the format and on recovery.

mod lc_machine;

use lc_machine::*;
use pure::lc::{
    format::{
        find,
        Damage,
        Found,
        Refusal,
        SUPERBLOCK_BYTES, //
    },
    recovery, //
};

const CACHE_SECTORS: u64 = 2048 + 33 * 1032;
const LOG: usize = 2048;

fn machine() -> Machine {
    start(Disks {
        cache: Disk::new(CACHE_SECTORS),
        backing: Disk::new(4096),
        power: Power { left: None },
    })
}

fn start(disks: Disks) -> Machine {
    match Machine::start(disks, 1) {
        Ok(machine) => machine,
        Err(error) => panic!("{:?}", error.0),
    }
}

/// The tag that a sector has.
fn tag(machine: &Machine, sector: u64) -> Option<u64> {
    tag_of(sector, &machine.read(sector))
}

/// The power goes; all that was sent to the cache device lands, and nothing of what was not.
fn crash(mut machine: Machine) -> Disks {
    for (sector, bytes) in std::mem::take(&mut machine.disks.cache.pending) {
        let at = sector as usize * SECTOR;
        machine.disks.cache.durable[at..at + bytes.len()].copy_from_slice(&bytes);
    }
    machine.disks
}

fn flip(disks: &mut Disks, sector: usize, byte: usize) {
    disks.cache.durable[sector * SECTOR + byte] ^= 0x40;
}

#[test]
fn a_torn_record_behind_the_end_costs_nothing() {
    let mut machine = machine();
    for number in 0..22 {
        machine.write(number * 8, 8, number + 1).unwrap();
        machine.flush().unwrap();
    }
    let mut disks = crash(machine);
    for byte in [0, 4, 100, 511] {
        flip(&mut disks, LOG + 22 * 9, byte);
    }
    let machine = start(disks);
    assert!((0..22).all(|number| tag(&machine, number * 8) == Some(number + 1)));
}

/// The record that would have been written there is lost; what an earlier lap left has to stay dead.
#[test]
fn b_record_of_an_earlier_lap_does_not_come_back() {
    let mut machine = machine();
    machine.write(0, 8, 1).unwrap();
    machine.flush().unwrap();
    // Round the log, and over the first record.
    for number in 0..40 {
        machine.write(1024, 1024, 100 + number).unwrap();
        machine.flush().unwrap();
        machine.write_back().unwrap();
    }
    machine.write(0, 8, 2).unwrap();
    machine.flush().unwrap();
    let before = machine.disks.cache.durable.clone();
    machine.write(512, 8, 3).unwrap();
    machine.write_log().unwrap();
    machine.write(520, 8, 4).unwrap();
    machine.write_log().unwrap();
    // The first of the two does not land, the second does.
    let lost = machine.disks.cache.pending.remove(0);
    let at = lost.0 as usize * SECTOR;
    let mut disks = crash(machine);
    disks.cache.durable[at..at + lost.1.len()].copy_from_slice(&before[at..at + lost.1.len()]);
    let machine = start(disks);
    assert_eq!(tag(&machine, 0), Some(2));
    assert_eq!(tag(&machine, 512), Some(0));
    assert_eq!(tag(&machine, 520), Some(0));
}

#[test]
fn c_dead_session_does_not_come_back() {
    let mut machine = machine();
    machine.write(0, 8, 1).unwrap();
    machine.flush().unwrap();
    for (sector, tag) in [(8, 2), (0, 3)] {
        machine.write(sector, 8, tag).unwrap();
        machine.write_log().unwrap();
    }
    let mut disks = crash(machine);
    // Record 2 is torn; 3 is whole, and dead with it.
    flip(&mut disks, LOG + 9 + 3, 0);
    let mut machine = start(disks);
    assert_eq!(tag(&machine, 0), Some(1));
    // Record 2 of the next session has the same length.
    machine.write(0, 8, 4).unwrap();
    machine.flush().unwrap();
    let machine = start(crash(machine));
    assert_eq!(tag(&machine, 0), Some(4));
    assert_eq!(machine.due.id, 3);
}

#[test]
fn d_superseded_copy_is_given_up_only_for_a_durable_one() {
    let mut machine = machine();
    machine.write(0, 1, 1).unwrap();
    machine.flush().unwrap();
    machine.write(0, 1, 2).unwrap();
    machine.write_back().unwrap();
    // What is in memory only, and in the volatile cache, is lost.
    machine.disks.cache.pending.clear();
    let machine = start(machine.disks);
    assert!(
        matches!(tag(&machine, 0), Some(1 | 2)),
        "{:?}",
        tag(&machine, 0)
    );
}

#[test]
fn f_flush_of_nothing_writes_nothing() {
    let mut machine = machine();
    machine.write(0, 8, 1).unwrap();
    machine.flush().unwrap();
    let before = machine.disks.cache.sectors_written;
    for _ in 0..20 {
        machine.flush().unwrap();
    }
    assert_eq!(machine.disks.cache.sectors_written, before);
    for number in 0..20 {
        machine.write(number * 8, 8, 2).unwrap();
        machine.flush().unwrap();
    }
    assert_eq!(machine.disks.cache.sectors_written, before + 20 * 9);
}

/// No byte of a header can be changed so that reading it does harm, or goes unnoticed.
#[test]
fn i_any_damage_to_headers_is_noticed() {
    let mut machine = machine();
    for number in 0..4 {
        machine.write(number * 8, 8, number + 1).unwrap();
        machine.flush().unwrap();
    }
    let mut disks = crash(machine);
    for record in 0..3 {
        for byte in 0..SECTOR {
            for bits in [1, 0x80, 0xff] {
                let at = (LOG + record * 9) * SECTOR + byte;
                disks.cache.durable[at] ^= bits;
                let Err(error) = Machine::start(disks, 1) else {
                    panic!("byte {byte} of record {record} is not noticed");
                };
                let (error, left) = *error;
                assert_eq!(error, NoStart::Damaged(record as u64 + 1), "byte {byte}");
                disks = left;
                disks.cache.durable[at] ^= bits;
            }
        }
    }
}

#[test]
fn j_damaged_superblock_is_not_a_blank_device() {
    let mut machine = machine();
    machine.write(0, 8, 1).unwrap();
    machine.flush().unwrap();
    let disks = crash(machine);
    for byte in 0..SECTOR {
        let mut copies = disks.cache.durable[..2 * SUPERBLOCK_BYTES].to_vec();
        copies[byte] ^= 0xff;
        // One copy is enough.
        let (one, other) = copies.split_at(SUPERBLOCK_BYTES);
        assert!(matches!(find([one, other]), Found::Cache(_)), "byte {byte}");
        copies[SUPERBLOCK_BYTES + byte] ^= 0xff;
        let (one, other) = copies.split_at(SUPERBLOCK_BYTES);
        assert!(
            matches!(find([one, other]), Found::Refused(Refusal::Damaged(_))),
            "byte {byte}"
        );
    }
}

#[test]
fn l_shrunk_device_is_refused() {
    let mut machine = machine();
    machine.write(0, 8, 1).unwrap();
    machine.flush().unwrap();
    let mut disks = crash(machine);
    let less = disks.cache.durable.len() - 3 * 1032 * SECTOR;
    disks.cache.durable.truncate(less);
    assert_eq!(
        Machine::start(disks, 1).err().map(|error| error.0),
        Some(NoStart::Refused)
    );
}

/// A check names what is damaged, and nothing else; all of a record that was superseded included.
#[test]
fn check_finds_each_flipped_bit() {
    let mut machine = machine();
    for number in 0..4 {
        machine.write(number * 8, 8, number + 1).unwrap();
        machine.write(100 + number, 1, number + 1).unwrap();
        machine.write_log().unwrap();
    }
    machine.flush().unwrap();
    let check = |machine: &mut Machine| {
        let (superblock, end) = (machine.superblock, machine.written);
        let mut window = vec![0; 2 * 1032 * SECTOR];
        let mut damaged = Vec::new();
        let found = recovery::check(
            &mut machine.disks,
            &superblock,
            &mut window,
            end,
            |id, extent| {
                damaged.push((id, extent.sector));
            },
        );
        (found, damaged)
    };
    let (found, damaged) = check(&mut machine);
    assert_eq!(
        found.unwrap().to_string(),
        "4 records, 36 sectors, 0 damaged"
    );
    assert_eq!(damaged, []);
    // A record has a header, 8 sectors, and 1 sector.
    flip(&mut machine.disks, LOG + 10 + 3, 17);
    flip(&mut machine.disks, LOG + 30 + 9, 511);
    let (found, damaged) = check(&mut machine);
    assert_eq!(found.unwrap().damaged, 2);
    assert_eq!(damaged, [(2, 8), (4, 103)]);
    flip(&mut machine.disks, LOG + 20, 300);
    let (found, _) = check(&mut machine);
    assert_eq!(found, Err(recovery::Error::Damaged(3)));
}

#[test]
fn other_content_is_told_apart() {
    let blank = [0; SUPERBLOCK_BYTES];
    let mut other = blank;
    other[1000] = 1;
    assert_eq!(find([&blank, &blank]), Found::Blank);
    assert_eq!(find([&blank, &other]), Found::Refused(Refusal::Foreign));
    other[0] = 9;
    assert_eq!(find([&other, &blank]), Found::Refused(Refusal::Foreign));
    assert_eq!(find([&blank, &other]), Found::Refused(Refusal::Foreign));
    other[..4].copy_from_slice(b"tsBW");
    assert_eq!(find([&other, &blank]), Found::Refused(Refusal::Writeboost));
    other = blank;
    other[8..16].copy_from_slice(b"dm-lc-rs");
    assert_eq!(
        find([&other, &other]),
        Found::Refused(Refusal::Damaged(Damage::Checksum))
    );
}
