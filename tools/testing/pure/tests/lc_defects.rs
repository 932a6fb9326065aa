// SPDX-License-Identifier: GPL-2.0

//! What went wrong in caches of this kind before, each by itself: on the format and on recovery.

mod lc_machine;

use lc_machine::*;
use pure::lc::{
    checksum::checksum,
    format::{
        find,
        BackingId,
        Damage,
        Found,
        Lost,
        Refusal,
        Superblock,
        SUPERBLOCK_BYTES, //
    },
    platform::crc32c,
    recovery, //
};

const LOG: usize = 2048;

fn machine() -> Machine {
    start(disks())
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
            for bits in (0..8).map(|bit| 1 << bit).chain([0xff]) {
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

fn lost(machine: &Machine) -> Vec<u64> {
    (0..300).filter(|&sector| machine.is_lost(sector)).collect()
}

/// A flipped bit is an error for its block: neither silent, nor spread, nor forgotten.
#[test]
fn flipped_bit_is_lost_and_nothing_else() {
    let mut machine = machine();
    machine.write(0, 40, 1).unwrap();
    machine.write(100, 3, 2).unwrap();
    machine.flush().unwrap();
    // One byte in the second of five blocks, and one in a part.
    flip(&mut machine.disks, LOG + 1 + 9, 77);
    flip(&mut machine.disks, LOG + 1 + 41, 5);
    // Superseded before it is written back, so that the rest of the part is damaged alone.
    machine.write(101, 1, 3).unwrap();
    machine.flush().unwrap();
    while machine.log.used() > 0 {
        machine.write_back().unwrap();
    }
    let expected: Vec<u64> = (8..16).chain([100, 102]).collect();
    assert_eq!(lost(&machine), expected);
    assert_eq!(machine.superblock.lost.sectors(), 10);
    assert!((0..8)
        .chain(16..40)
        .all(|sector| tag(&machine, sector) == Some(1)));
    assert_eq!(tag(&machine, 101), Some(3));
    // After a crash as well; what is written or discarded is there again, and stays.
    let mut machine = start(crash(machine));
    assert_eq!(lost(&machine), expected);
    machine.write(12, 2, 4).unwrap();
    machine.discard(100, 1).unwrap();
    machine.flush().unwrap();
    let mut machine = start(crash(machine));
    let expected = [8, 9, 10, 11, 14, 15, 102];
    assert_eq!(lost(&machine), expected);
    while machine.log.used() > 0 {
        machine.write_back().unwrap();
    }
    let machine = start(crash(machine));
    assert_eq!(lost(&machine), expected);
    assert_eq!(machine.superblock.lost.sectors(), 7);
    assert_eq!(tag(&machine, 12), Some(4));
}

/// A start that finds durable data damaged loses that write, and nothing else.
#[test]
fn damage_below_what_was_durable_is_lost_at_start() {
    for known in [true, false] {
        let mut machine = machine();
        for number in 0..4 {
            machine.write(number * 8, 8, number + 1).unwrap();
            machine.flush().unwrap();
        }
        if known {
            // The superblock knows that they are durable, not only what comes later.
            machine.disks.power.left = None;
            machine = start(machine.stop());
        }
        let mut disks = crash(machine);
        flip(&mut disks, LOG + 9 + 4, 200);
        let mut machine = start(disks);
        assert_eq!(lost(&machine), (8..16).collect::<Vec<u64>>());
        for number in [0, 2, 3] {
            assert_eq!(tag(&machine, number * 8), Some(number + 1));
        }
        while machine.log.used() > 0 {
            machine.write_back().unwrap();
        }
        let machine = start(crash(machine));
        assert_eq!(lost(&machine), (8..16).collect::<Vec<u64>>());
    }
}

/// One record that is flushed, and twelve that fill more than can be under way before the next flush.
fn many_before_a_flush() -> Machine {
    let mut machine = machine();
    machine.write(0, 8, 1).unwrap();
    machine.flush().unwrap();
    for number in 0..12 {
        machine.write(8 + number * 100, 1000, 2 + number).unwrap();
        machine.write_log().unwrap();
    }
    machine.flush().unwrap();
    machine
}

/// What is there of these disks when the data of the second record, behind one of 9 sectors, is damaged. With its
/// header damaged nothing starts.
fn start_with_second_damaged(disks: Disks) -> Machine {
    let second = LOG + 9;
    let mut torn = disks.clone();
    flip(&mut torn, second + 4, 200);
    let machine = start(torn);
    assert_eq!(lost(&machine), (8..108).collect::<Vec<u64>>());
    let mut headless = disks;
    flip(&mut headless, second, 200);
    let refused = Machine::start(headless, 1).err().map(|failed| failed.0);
    assert_eq!(refused, Some(NoStart::Damaged(2)));
    machine
}

/// Any number of records may be written between two flushes: what says that the first of them was durable may
/// be far behind it.
#[test]
fn damage_far_before_what_says_that_it_was_durable() {
    let mut machine = many_before_a_flush();
    machine.write(4000, 8, 20).unwrap();
    machine.flush().unwrap();
    let disks = crash(machine);
    let machine = start_with_second_damaged(disks);
    for (sector, wanted) in [(0, 1), (108, 3), (1200, 13), (4000, 20)] {
        assert_eq!(tag(&machine, sector), Some(wanted), "sector {sector}");
    }
}

/// Nor did the first record land that says so: only one behind it.
#[test]
fn damage_far_before_what_says_so_behind_one_that_is_missing() {
    let mut machine = many_before_a_flush();
    machine.write(4000, 8, 20).unwrap();
    machine.write_log().unwrap();
    machine.disks.cache.pending.clear();
    machine.write(4010, 8, 21).unwrap();
    machine.write_log().unwrap();
    let disks = crash(machine);
    let machine = start_with_second_damaged(disks);
    assert_eq!(machine.due.id, 14);
    for (sector, wanted) in [(0, 1), (108, 3), (1200, 13), (4000, 0), (4010, 0)] {
        assert_eq!(tag(&machine, sector), Some(wanted), "sector {sector}");
    }
}

/// A device that counts the sectors that are read.
struct Counted(Disks, u64);

impl recovery::Read for Counted {
    type Error = PowerCut;

    fn read(&mut self, sector: u64, memory: &mut [u8]) -> Result<(), PowerCut> {
        self.1 += (memory.len() / SECTOR) as u64;
        self.0.read(sector, memory)
    }
}

/// All data is damaged, and what says that it was durable is in the data of records, and says it of little at a
/// time: the log is read a few times, not once for each.
#[test]
fn log_made_for_it_is_read_a_few_times() {
    let mut machine = machine();
    // They know nothing.
    machine.durable_id = 0;
    for number in 0..3000 {
        machine.write(number % 500 * 8, 8, 1 + number).unwrap();
        machine.write_log().unwrap();
    }
    let (superblock, end) = (machine.superblock, machine.due.position);
    let mut disks = crash(machine);
    for record in 0..3000 {
        let header = (LOG + record * 9) * SECTOR;
        let data = header + 4 * SECTOR;
        let mut bytes = disks.cache.durable[header..header + SECTOR].to_vec();
        let at = superblock.space.first_position() + record as u64 * 9 + 4;
        let says = record as u64 + 2;
        bytes[24..32].copy_from_slice(&(says + 5000).to_le_bytes());
        bytes[40..48].copy_from_slice(&at.to_le_bytes());
        bytes[48..56].copy_from_slice(&says.to_le_bytes());
        let crc = crc32c(&bytes[4..]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        disks.cache.durable[data..data + SECTOR].copy_from_slice(&bytes);
    }
    let mut device = Counted(disks, 0);
    let mut window = vec![0; 2 * 1032 * SECTOR];
    let mut damaged = 0;
    let due = recovery::walk(&mut device, &superblock, &mut window, |_, _, data| {
        damaged += u64::from(data.is_none());
    });
    assert_eq!((due.map(|due| due.position), damaged), (Ok(end), 3000));
    assert!(
        device.1 < 10 * superblock.space.sectors(),
        "{} sectors are read",
        device.1
    );
}

/// What says that a record was durable lies where a session before has left records, which lead past it.
#[test]
fn what_says_that_a_record_was_durable_is_among_dead_ones() {
    let mut machine = machine();
    machine.write(0, 8, 1).unwrap();
    machine.flush().unwrap();
    for number in 1..12 {
        machine.write(number * 8, 8, 2).unwrap();
        machine.write_log().unwrap();
    }
    let mut disks = crash(machine);
    let second = LOG + 9;
    flip(&mut disks, second + 4, 0);
    let mut machine = start(disks);
    assert_eq!(machine.due.id, 2);
    machine.write(400, 8, 3).unwrap();
    machine.flush().unwrap();
    machine.write(408, 30, 4).unwrap();
    machine.write_log().unwrap();
    // That does not land; what does begins in the fifth of the dead ones.
    machine.disks.cache.pending.clear();
    machine.write(440, 40, 5).unwrap();
    machine.write_log().unwrap();
    let mut disks = crash(machine);
    flip(&mut disks, second, 200);
    let refused = Machine::start(disks, 1).err().map(|failed| failed.0);
    assert_eq!(refused, Some(NoStart::Damaged(2)));
}

/// No record can know of a later one.
#[test]
fn headers_that_say_too_much_do_not_count() {
    let mut machine = machine();
    machine.write(0, 8, 1).unwrap();
    machine.write_log().unwrap();
    let mut disks = crash(machine);
    let at = LOG * SECTOR;
    let header = &mut disks.cache.durable[at..at + SECTOR];
    header[48..56].copy_from_slice(&u64::MAX.to_le_bytes());
    let crc = crc32c(&header[4..]);
    header[..4].copy_from_slice(&crc.to_le_bytes());
    assert_ne!(tag(&start(disks), 0), Some(1));
}

#[test]
fn checksum_of_a_run_is_that_of_its_parts() {
    let data = content(3, 30, 9);
    assert_eq!(
        checksum(8, &data[..8 * SECTOR]),
        crc32c(&data[..8 * SECTOR])
    );
    let whole = checksum(3, &data);
    for byte in (0..data.len()).step_by(97) {
        let mut other = data.clone();
        other[byte] ^= 1;
        assert_ne!(checksum(3, &other), whole, "byte {byte}");
    }
    // Blocks that change places are noticed too.
    let mut other = data.clone();
    other[5 * SECTOR..21 * SECTOR].rotate_left(8 * SECTOR);
    assert_ne!(checksum(3, &other), whole);
}

#[test]
fn lost_runs_are_joined_and_bounded() {
    let mut lost = Lost::NONE;
    assert!(lost.add(8, 8) && lost.add(16, 1) && lost.add(18, 1));
    assert_eq!(lost.runs().collect::<Vec<_>>(), [(8, 9), (18, 1)]);
    for number in 2..49 {
        assert!(lost.add(number * 100, 65535));
    }
    assert!(!lost.add(0, 1));
    assert!(!lost.add(48 * 100 + 65535, 1));
}

/// A superblock's bytes, with other ones at some place, and the checksum that fits.
fn with(superblock: &Superblock, at: usize, bytes: &[u8]) -> [u8; SUPERBLOCK_BYTES] {
    let mut block = [0; SUPERBLOCK_BYTES];
    superblock.encode(&mut block);
    block[at..at + bytes.len()].copy_from_slice(bytes);
    let crc = crc32c(&block[4..SECTOR]).to_le_bytes();
    block[..4].copy_from_slice(&crc);
    block
}

#[test]
fn other_versions_of_the_format() {
    let mut superblock = machine().superblock;
    superblock.backing_id = BackingId::new(3, b"disk");
    for version in 0..5u32 {
        let block = with(&superblock, 4, &version.to_le_bytes());
        let found = find([&block, &block]);
        match version {
            1 | 2 => assert_eq!(found, Found::Cache(superblock), "{version}"),
            _ => assert_eq!(
                found,
                Found::Refused(Refusal::Damaged(Damage::Version(version)))
            ),
        }
    }
    // A tail where no record can begin.
    let position = superblock.space.first_position() + superblock.space.sectors() - 1;
    let block = with(&superblock, 72, &position.to_le_bytes());
    assert_eq!(
        find([&block, &block]),
        Found::Refused(Refusal::Damaged(Damage::Field))
    );
    // More lost runs than there is room for.
    let block = with(&superblock, 108, &50u32.to_le_bytes());
    assert_eq!(
        find([&block, &block]),
        Found::Refused(Refusal::Damaged(Damage::Field))
    );
}

#[test]
fn backing_devices_are_told_apart() {
    let ids = [
        BackingId::new(1, b"LVM-one"),
        BackingId::new(1, b"LVM-two"),
        BackingId::new(2, b"LVM-one"),
        BackingId::UNKNOWN,
    ];
    for (number, id) in ids.into_iter().enumerate() {
        for (other_number, other) in ids.into_iter().enumerate() {
            let expected = matches!((number, other_number), (0, 1) | (1, 0));
            assert_eq!(id.differs(other), expected, "{number} {other_number}");
            let same = number == other_number && number != 3;
            assert_eq!(id.is_surely(other), same, "{number} {other_number}");
        }
        assert_eq!(id.or(ids[0]), if number == 3 { ids[0] } else { id });
    }
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
