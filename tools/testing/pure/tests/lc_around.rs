// SPDX-License-Identifier: GPL-2.0

//! Writes around the log, and others of the same sectors at the same time that are in it.

mod lc_machine;

use lc_machine::*;

fn on_backing(machine: &Machine, sector: u64) -> Option<u64> {
    let mut bytes = vec![0; SECTOR];
    machine.disks.backing.read(sector, &mut bytes);
    tag_of(sector, &bytes)
}

/// Nobody knows which of the two is the later one, but what is read stays the same: also when the log's was
/// written back before its turn, and the other came to the backing device after that.
#[test]
fn what_is_read_of_two_at_the_same_time_stays() {
    for parts in 1..4 {
        let mut machine = Machine::start(disks(), 1).map_err(|error| error.0).unwrap();
        machine.window_sectors = 1032;
        machine.write(0, 8, 1).unwrap();
        machine.write(2000, 1500, 2).unwrap();
        let sectors = 8 * parts;
        assert!(machine.begin_around(8, sectors));
        machine.write(8, 8, 3).unwrap();
        machine.flush().unwrap();
        machine.write_back().unwrap();
        // It was taken along with its neighbour.
        assert_eq!((machine.aside, on_backing(&machine, 8)), (1, Some(3)));
        machine.land_around(8, sectors, 4).unwrap();
        machine.end_around(8, sectors);
        let read = |machine: &Machine| {
            let sectors = 8..8 + u64::from(sectors);
            sectors
                .map(|sector| tag_of(sector, &machine.read(sector)))
                .collect::<Vec<_>>()
        };
        let before = read(&machine);
        machine.flush().unwrap();
        while machine.log.used() > 0 {
            machine.write_back().unwrap();
            assert_eq!(read(&machine), before);
        }
        let there: Vec<_> = (8..8 + u64::from(sectors))
            .map(|sector| on_backing(&machine, sector))
            .collect();
        assert_eq!(there, before);
    }
}
