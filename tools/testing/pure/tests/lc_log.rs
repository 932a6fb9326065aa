// SPDX-License-Identifier: GPL-2.0

//! Where data gets its place in the log.

mod lc_machine;

use lc_machine::*;
use pure::lc::{
    format::SUPERBLOCK_SECTORS,
    platform::crc32c, //
};

/// Where the block was put that is written next.
fn write(machine: &mut Machine, block: u64) -> u64 {
    machine.write(block % 512 * 8, 8, block + 1).unwrap();
    machine.log.end() - 8
}

#[test]
fn blocks_are_blocks_of_the_device_as_long_as_buffers_become_full() {
    let mut machine = Machine::start(disks(), 1).map_err(|error| error.0).unwrap();
    let places: Vec<u64> = (0..1000).map(|block| write(&mut machine, block)).collect();
    let is_aligned = |place: &&u64| **place % 8 == 0;
    // Nobody knew that the first buffer would become full.
    assert!(places[..128].iter().filter(is_aligned).count() < 64);
    assert_eq!(places[128..].iter().filter(is_aligned).count(), 1000 - 128);

    // Whoever waits for each block has the smallest header written.
    machine.flush().unwrap();
    for block in 0..20 {
        let before = machine.disks.cache.sectors_written;
        write(&mut machine, block);
        machine.flush().unwrap();
        assert_eq!(machine.disks.cache.sectors_written - before, 9);
    }

    // Headers of all sizes are read again.
    let machine = Machine::start(machine.stop(), 1)
        .map_err(|error| error.0)
        .unwrap();
    for block in 0..488 {
        let last = if block < 20 { block + 1 } else { block + 513 };
        assert_eq!(tag_of(block * 8, &machine.read(block * 8)), Some(last));
    }
}

/// A write that is published after a discard with a later place is told, and takes another place.
#[test]
fn a_write_learns_of_discards_that_came_while_it_was_copied() {
    let mut machine = Machine::start(disks(), 1).map_err(|error| error.0).unwrap();
    let log = &mut machine.log;
    let write = log.append(0, 8).unwrap();
    let other = log.append(8, 8).unwrap();
    log.complete(&other, 0);
    assert!(!log.has_discarded_since(&other));
    let discard = log.append_discard(0, 8).unwrap();
    log.complete(&discard, 0);
    assert!(!log.has_discarded_since(&discard));
    log.complete(&write, 0);
    assert!(log.has_discarded_since(&write));
    let again = log.append(0, 8).unwrap();
    log.complete(&again, 0);
    assert!(again.position >= discard.position);
    assert!(!log.has_discarded_since(&again));
}

/// Writes a number into bytes that have their checksum, from the fifth byte on, in the first four.
fn change(bytes: &mut [u8], at: usize, number: u16) {
    bytes[at..at + 2].copy_from_slice(&number.to_le_bytes());
    let crc = crc32c(&bytes[4..]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
}

/// They have no size in the header of a record.
#[test]
fn caches_of_version_1_are_read_and_become_version_2() {
    let mut machine = Machine::start(disks(), 1).map_err(|error| error.0).unwrap();
    write(&mut machine, 7);
    let record = machine
        .superblock
        .space
        .sector(machine.superblock.tail.position) as usize
        * SECTOR;
    let mut disks = machine.stop();
    let cache = &mut disks.cache.durable;
    for sector in SUPERBLOCK_SECTORS {
        let at = sector as usize * SECTOR;
        assert_eq!(cache[at + 4], 2);
        change(&mut cache[at..at + SECTOR], 4, 1);
    }
    assert_eq!(cache[record + 62], 1);
    change(&mut cache[record..record + SECTOR], 62, 0);

    let machine = Machine::start(disks, 1).map_err(|error| error.0).unwrap();
    assert_eq!(tag_of(7 * 8, &machine.read(7 * 8)), Some(8));
    let mut block = [0; SECTOR];
    machine.disks.cache.read(SUPERBLOCK_SECTORS[0], &mut block);
    assert_eq!(block[4], 2);
}
