// SPDX-License-Identifier: GPL-2.0

//! Where data gets its place in the log.

mod lc_machine;

use lc_machine::*;

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
