// SPDX-License-Identifier: GPL-2.0

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use proptest::prelude::*;
use rustix::io::Errno;

use super::*;
use crate::fake::Fake;
use crate::Devno;

const D: Devno = Devno { major: 0, minor: 0 };

fn device(fake: &Fake) -> Device<'_, Fake> {
    Device::new(fake, D, b"dmstats")
}

fn map(fake: &Fake, places: &[(u64, u64)]) -> FileMap {
    device(fake)
        .map_file(places, &RegionSpec::whole(), Some(b"file"), |_| ())
        .unwrap()
}

fn update(fake: &Fake, id: u32, places: &[(u64, u64)]) -> Update {
    let device = device(fake);
    device
        .update_file(&device.list().unwrap(), id, places, None, |_| ())
        .unwrap()
}

/// The places of a group, and how many reads each had.
fn counted(fake: &Fake, id: u32) -> Vec<(u64, u64, u64)> {
    let device = device(fake);
    let snapshot = device.list().unwrap();
    assert_eq!(snapshot.problems, []);
    let sample = device.sample(&snapshot, false, |_| true).unwrap();
    let members = &snapshot.groups[&id].members;
    let mut found: Vec<_> = members
        .iter()
        .map(|id| {
            (
                snapshot.regions[&id].start,
                snapshot.regions[&id].len,
                sample.regions[&id].total.counters.reads,
            )
        })
        .collect();
    found.sort_unstable();
    found
}

fn foreign(fake: &Fake, count: usize) {
    let other = Device::new(fake, D, b"other");
    other
        .create_all(&vec![RegionSpec::whole(); count], |_| ())
        .unwrap();
}

#[test]
fn a45_a_file_is_a_group_under_its_alias_or_no_group() {
    let fake = Fake::new(10_000);
    assert_eq!(
        map(&fake, &[(0, 8), (16, 8)]),
        FileMap {
            group: Some(0),
            regions: vec![0, 1]
        }
    );
    let bare = device(&fake)
        .map_file(&[(32, 8)], &RegionSpec::whole(), None, |_| ())
        .unwrap();
    assert_eq!(
        bare,
        FileMap {
            group: None,
            regions: vec![2]
        }
    );
    let snapshot = device(&fake).list().unwrap();
    assert_eq!(
        (&*snapshot.groups[&0].name(), snapshot.regions[&2].group),
        (&b"file"[..], None)
    );
}

#[test]
fn b1_foreign_ids_below_do_no_harm() {
    let fake = Fake::new(10_000);
    foreign(&fake, 3000);
    let made = map(&fake, &[(0, 8), (16, 8), (32, 8)]);
    assert_eq!(made.group, Some(3000));
    assert_eq!(counted(&fake, 3000).len(), 3);
}

#[test]
fn a28_a29_a30_a31_a34_a_failed_map_removes_what_it_made_and_nothing_else() {
    let fake = Fake::new(10_000);
    foreign(&fake, 100);
    let before = device(&fake).list().unwrap();
    fake.take_log();
    fake.fail("@stats_create", 246, Errno::NOMEM);
    let places: Vec<(u64, u64)> = (0..309).map(|index| (index * 16, 8)).collect();
    let error = device(&fake)
        .map_file(&places, &RegionSpec::whole(), Some(b"f"), |_| ())
        .unwrap_err();
    // A31: it says which; the limit and what is in use are told with it.
    assert!(
        error
            .to_string()
            .starts_with("Failed to create region 247 of 309 at 3936: The kernel's limit"),
        "{error}"
    );
    let log = fake.take_log();
    // A30: as many deletes as creates, and a list only to say who has the memory.
    assert_eq!(
        log.iter()
            .filter(|line| line.starts_with("@stats_delete"))
            .count(),
        246
    );
    assert_eq!(log.len(), 2 * 246 + 1);
    assert_eq!(device(&fake).list().unwrap(), before);
}

#[test]
fn a_group_that_cannot_be_described_leaves_no_regions() {
    let fake = Fake::new(10_000);
    fake.fail("@stats_set_aux", 0, Errno::NOMEM);
    assert!(device(&fake)
        .map_file(&[(0, 8), (16, 8)], &RegionSpec::whole(), Some(b"f"), |_| ())
        .is_err());
    assert!(device(&fake).list().unwrap().regions.is_empty());
}

#[test]
fn a15_an_update_keeps_what_it_can_with_its_counts() {
    let fake = Fake::new(10_000);
    map(&fake, &[(0, 8), (16, 8), (32, 8)]);
    fake.account(D, false, 0, 40, 1);
    let changed = update(&fake, 0, &[(0, 8), (32, 8)]);
    assert_eq!(
        changed,
        Update {
            group: Some(0),
            kept: 2,
            created: 0,
            removed: 1
        }
    );
    assert_eq!(counted(&fake, 0), [(0, 8, 1), (32, 8, 1)]);
}

#[test]
fn an_update_of_nothing_is_a_list_and_no_more() {
    let fake = Fake::new(10_000);
    map(&fake, &[(0, 8), (16, 8)]);
    fake.take_log();
    assert_eq!(update(&fake, 0, &[(0, 8), (16, 8)]).kept, 2);
    assert_eq!(fake.take_log(), ["@stats_list"]);
}

#[test]
fn f17_a_file_that_grows_loses_no_counts() {
    let fake = Fake::new(10_000);
    map(&fake, &[(0, 8), (16, 8)]);
    fake.account(D, false, 0, 24, 1);
    let changed = update(&fake, 0, &[(0, 8), (16, 24)]);
    assert_eq!(
        changed,
        Update {
            group: Some(0),
            kept: 2,
            created: 1,
            removed: 0
        }
    );
    assert_eq!(counted(&fake, 0), [(0, 8, 1), (16, 8, 1), (24, 16, 0)]);
}

#[test]
fn a17_b2_the_leaders_extent_goes_and_the_group_keeps_its_id() {
    let fake = Fake::new(10_000);
    map(&fake, &[(0, 8), (16, 4), (32, 8)]);
    let changed = update(&fake, 0, &[(16, 4), (32, 8)]);
    assert_eq!(changed.group, Some(0));
    assert_eq!(
        counted(&fake, 0)
            .iter()
            .map(|(start, ..)| *start)
            .collect::<Vec<_>>(),
        [16, 32]
    );
    assert_eq!(device(&fake).list().unwrap().regions.len(), 2);
    // With something new to make, no counts are lost at all.
    fake.account(D, false, 0, 40, 1);
    update(&fake, 0, &[(32, 8), (64, 8), (80, 8)]);
    assert_eq!(counted(&fake, 0), [(32, 8, 1), (64, 8, 0), (80, 8, 0)]);
}

#[test]
fn a21_a_group_can_grow_a_hundredfold_among_foreign_ids() {
    let fake = Fake::new(1 << 20);
    foreign(&fake, 3);
    map(&fake, &[(0, 8), (16, 8), (32, 8), (48, 8), (64, 8)]);
    foreign(&fake, 2);
    let places: Vec<(u64, u64)> = (0..500).map(|index| (index * 16, 8)).collect();
    assert_eq!(update(&fake, 3, &places).created, 495);
    assert_eq!(counted(&fake, 3).len(), 500);
    let snapshot = device(&fake).list().unwrap();
    assert_eq!(snapshot.groups[&3].members.to_string(), "3-7,10-504");
}

/// A file that lies under a group.
fn project(fake: &Fake, places: &[(u64, u64)]) -> Word {
    let word = Word {
        mode: crate::follow::Mode::Path,
        handle: crate::ffi::Handle::parse("1.00").unwrap(),
        path: "/srv/f".into(),
    };
    let device = device(fake);
    let plan = device.plan(places, &RegionSpec::whole()).unwrap().unwrap();
    device
        .project_file(&plan, &RegionSpec::whole(), b"f", &word)
        .unwrap();
    word
}

#[test]
fn a_projected_file_may_be_anywhere_in_its_regions_and_gets_more_beyond() {
    let fake = Fake::new(1 << 20);
    foreign(&fake, 1);
    let word = project(&fake, &[(0, 8), (16, 8)]);
    fake.take_log();
    // A list, and no more, wherever in its regions it goes; a file without a place keeps them.
    for places in [&[(32, 800), (4096, 8)][..], &[]] {
        assert_eq!(
            (update(&fake, 1, places).group, fake.take_log().len()),
            (Some(1), 1)
        );
    }
    fake.account(D, false, 600_000, 8, 1);
    let changed = update(&fake, 1, &[(0, 8), (600_000, 64)]);
    assert_eq!((changed.kept, changed.created, changed.removed), (1, 1, 0));
    let snapshot = device(&fake).list().unwrap();
    assert!(snapshot.projected(1) == Some(word));
    let wanted: RangeSet<u64> = [0..8, 600_000..600_064].into_iter().collect();
    let covered = snapshot.groups[&1].covered(&snapshot);
    assert!(wanted
        .iter()
        .all(|range| covered.gaps(range).next().is_none()));
    // Its counts are those of its places.
    fake.account(D, true, 600_000, 8, 1);
    fake.account(D, true, 500_000, 8, 1);
    let mut sample = device(&fake).sample(&snapshot, false, |_| true).unwrap();
    sample.project(&snapshot, 1, &[(0, 8), (600_000, 64)]);
    assert_eq!(
        (sample.groups[&1].counters.write_sectors, sample.errors[&1]),
        (8, 0.0)
    );
}

/// What a projected group has counted of a file at these places, in sectors, and the error of that.
fn attributed(fake: &Fake, id: u32, places: &[(u64, u64)]) -> (u64, f64) {
    let device = device(fake);
    let snapshot = device.list().unwrap();
    let mut sample = device.sample(&snapshot, false, |_| true).unwrap();
    sample.project(&snapshot, id, places);
    (sample.groups[&id].counters.sectors(), sample.errors[&id])
}

/// Where the regions of a group begin.
fn starts(fake: &Fake, id: u32) -> Vec<u64> {
    counted(fake, id).iter().map(|place| place.0).collect()
}

/// As many sectors as a region has at least, if there is memory for it.
const ROOM: u64 = 1 << 18;

#[test]
fn a_projected_file_that_grows_and_grows_has_eight_regions_and_loses_no_counts() {
    let fake = Fake::new(64 * ROOM);
    let mut places = vec![(0, 4096)];
    project(&fake, &places);
    let (mut read, mut most) = (0, 0);
    for growth in 1..40 {
        for (start, len) in &places {
            fake.account(D, false, *start, *len, 1);
            read += len;
        }
        // Always where no region is yet, until one is everywhere.
        places.push(((growth * 25 % 64) * ROOM, 4096));
        update(&fake, 0, &places);
        let regions = starts(&fake, 0);
        most = most.max(regions.len());
        assert!(regions.len() <= REGIONS, "{regions:?}");
        assert_eq!(attributed(&fake, 0, &places), (read, 0.0), "{regions:?}");
    }
    assert_eq!(most, REGIONS);
    // The last lies over all, so that there is nothing to be done any more.
    fake.take_log();
    update(&fake, 0, &[(0, 64 * ROOM)]);
    assert_eq!(fake.take_log(), ["@stats_list"]);
}

#[test]
fn a_projected_file_that_moves_on_gives_back_regions_but_the_first() {
    let fake = Fake::new(64 * ROOM);
    project(&fake, &[(0, 8)]);
    for place in [8, 16, 24, 32, 40] {
        let changed = update(&fake, 0, &[(place * ROOM, 8)]);
        assert_eq!((changed.group, changed.created), (Some(0), 1));
    }
    assert_eq!(starts(&fake, 0), [0, 32 * ROOM, 40 * ROOM]);
    // They are not members any more before they go.
    fake.take_log();
    update(&fake, 0, &[(40 * ROOM, 8), (48 * ROOM, 8)]);
    update(&fake, 0, &[(56 * ROOM, 8)]);
    let log = fake.take_log();
    let kinds: Vec<&str> = log
        .iter()
        .filter_map(|line| line.split(' ').next())
        .collect();
    let (list, make, describe, delete) = (
        "@stats_list",
        "@stats_create",
        "@stats_set_aux",
        "@stats_delete",
    );
    assert_eq!(
        kinds,
        [list, make, describe, list, make, describe, delete, delete, delete]
    );
}

#[test]
fn another_programs_region_is_none_of_a_projected_file() {
    let fake = Fake::new(64 * ROOM);
    let places = [(0, 8), (8 * ROOM, 8)];
    project(&fake, &places);
    // Somebody deletes a region, and its id is taken.
    fake.message(D, b"@stats_delete 1", 0).unwrap();
    foreign(&fake, 1);
    fake.account(D, false, 0, 64 * ROOM, 1);
    assert_eq!(attributed(&fake, 0, &places), (8, 0.0));
    let changed = update(&fake, 0, &places);
    assert_eq!((changed.kept, changed.created, changed.removed), (1, 1, 0));
    fake.account(D, false, 0, 64 * ROOM, 1);
    assert_eq!(attributed(&fake, 0, &places), (24, 0.0));
    let snapshot = device(&fake).list().unwrap();
    assert_eq!(snapshot.groups[&0].members.to_string(), "0,2");
    assert_eq!(*snapshot.regions[&1].program, *b"other");
}

#[test]
fn a_projection_that_cannot_be_changed_stays_as_it_was() {
    let fake = Fake::new(64 * ROOM);
    project(&fake, &[(0, 8)]);
    let before = device(&fake).list().unwrap();
    for (word, nth) in [("@stats_create", 1), ("@stats_set_aux", 0)] {
        fake.fail(word, nth, Errno::NOMEM);
        assert!(device(&fake)
            .update_file(&before, 0, &[(8 * ROOM, 8), (32 * ROOM, 8)], None, |_| ())
            .is_err());
        fake.fail("nothing", 0, Errno::NOMEM);
        assert_eq!(device(&fake).list().unwrap(), before);
    }
}

#[test]
fn all_regions_of_a_projected_file_have_a_bounded_part_of_memory() {
    // A tenth of the device would take it all, in blocks.
    let fake = Fake::new(1 << 24);
    let mut places = vec![(4096, 8)];
    project(&fake, &places);
    for growth in 1..200u64 {
        places.push(((growth * 100_003 % (1 << 21)) * 8, 8));
        update(&fake, 0, &places);
        let snapshot = device(&fake).list().unwrap();
        let cpus = cost::possible_cpus();
        let regions = snapshot.regions.values();
        let bytes: u64 = regions
            .map(|region| cost::region_memory(region, cpus))
            .sum();
        // What is allotted is of areas only.
        assert!(bytes <= MEMORY + REGIONS as u64 * cost::REGION_BYTES);
    }
    assert_eq!(starts(&fake, 0).len(), REGIONS);
}

#[test]
fn a_projected_group_whose_id_changes_still_says_which_file_it_is() {
    let fake = Fake::new(1 << 20);
    foreign(&fake, 1);
    let word = project(&fake, &[(0, 8)]);
    fake.message(D, b"@stats_delete 0", 0).unwrap();
    assert_eq!(update(&fake, 1, &[(600_000, 8)]).group, Some(0));
    let snapshot = device(&fake).list().unwrap();
    assert!(snapshot.projected(0) == Some(word) && snapshot.projected(1).is_none());
    assert_eq!((snapshot.problems, snapshot.groups.len()), (vec![], 1));
}

#[test]
fn a_projected_group_says_which_file_it_is_now() {
    let fake = Fake::new(1 << 20);
    let first = project(&fake, &[(0, 8)]);
    let update = |places: &[(u64, u64)], word: &Word| {
        let device = device(&fake);
        let before = device.list().unwrap();
        fake.take_log();
        let done = device.update_file(&before, 0, places, Some(word), |_| ());
        assert_eq!(done.unwrap().group, Some(0));
        let log = fake.take_log();
        assert!(device.list().unwrap().projected(0).as_ref() == Some(word));
        log.len()
    };
    let moved = Word {
        handle: crate::ffi::Handle::parse("1.01").unwrap(),
        ..first.clone()
    };
    // It is told where there is nothing else to be done, and only if it is news.
    assert_eq!(update(&[(0, 8)], &first), 0);
    assert_eq!(update(&[(8, 8)], &moved), 1);
    assert_eq!(update(&[(600_000, 8)], &first), 2);
}

#[test]
fn b3_a_group_whose_id_is_not_0_can_change_its_leader() {
    let fake = Fake::new(10_000);
    foreign(&fake, 1);
    map(&fake, &[(0, 8)]);
    assert_eq!(update(&fake, 1, &[(800, 136)]).group, Some(1));
    assert_eq!(counted(&fake, 1), [(800, 136, 0)]);
    assert_eq!(
        *device(&fake).list().unwrap().regions[&0].program,
        *b"other"
    );
}

/// A kernel in which others do something as soon as it has been told this.
struct Rival<'a>(&'a Fake, &'static str, fn(&Fake));

impl Transport for Rival<'_> {
    fn devices(&self) -> Result<Vec<(Devno, Vec<u8>)>> {
        self.0.devices()
    }

    fn info(&self, find: &crate::Find) -> Result<crate::DeviceInfo> {
        self.0.info(find)
    }

    fn targets(&self, devno: Devno, expect: u32) -> Result<Vec<crate::Target>> {
        self.0.targets(devno, expect)
    }

    fn message(&self, devno: Devno, text: &[u8], expect: usize) -> Result<Vec<u8>> {
        let reply = self.0.message(devno, text, expect)?;
        if text.starts_with(self.1.as_bytes()) {
            self.2(self.0);
        }
        Ok(reply)
    }

    fn memory(&self) -> Option<crate::Memory> {
        self.0.memory()
    }
}

#[test]
fn a8_if_another_program_takes_the_id_the_group_has_a_new_one_and_loses_nothing() {
    let fake = Fake::new(10_000);
    map(&fake, &[(0, 8), (16, 8)]);
    fake.account(D, false, 0, 24, 1);
    let rival = Rival(&fake, "@stats_delete 0", |fake| foreign(fake, 1));
    let device = Device::new(&rival, D, b"dmstats");
    let changed = device
        .update_file(&device.list().unwrap(), 0, &[(16, 8)], None, |_| ())
        .unwrap();
    assert_eq!(changed.group, Some(1));
    assert_eq!(counted(&fake, 1), [(16, 8, 1)]);
    let after = device.list().unwrap();
    assert_eq!(
        (after.regions.len(), &after.regions[&0].program[..]),
        (2, &b"other"[..])
    );
}

#[test]
fn a8_a_region_that_is_another_programs_by_now_is_not_moved() {
    let fake = Fake::new(10_000);
    map(&fake, &[(0, 8), (16, 8)]);
    // Region 2, the new one, is deleted, and its id is taken, before the old leader's is free.
    let rival = Rival(&fake, "@stats_set_aux 1 ", |fake| {
        fake.message(D, b"@stats_delete 2", 0).unwrap();
        foreign(fake, 1);
    });
    let device = Device::new(&rival, D, b"dmstats");
    let changed = device
        .update_file(
            &device.list().unwrap(),
            0,
            &[(16, 8), (64, 8)],
            None,
            |_| (),
        )
        .unwrap();
    assert_eq!(changed.group, Some(1));
    let after = device.list().unwrap();
    assert_eq!(*after.regions[&2].program, *b"other");
    assert_eq!(after.regions.len(), 2);
}

#[test]
fn b6_a_file_without_a_place_has_no_group_and_that_is_no_error() {
    let fake = Fake::new(10_000);
    foreign(&fake, 2);
    map(&fake, &[(0, 8), (16, 8)]);
    assert_eq!(
        update(&fake, 2, &[]),
        Update {
            group: None,
            kept: 0,
            created: 0,
            removed: 2
        }
    );
    assert_eq!(device(&fake).list().unwrap().regions.len(), 2);
}

#[test]
fn f13_a_member_that_somebody_deleted_is_made_again() {
    let fake = Fake::new(10_000);
    map(&fake, &[(0, 8), (16, 8)]);
    fake.message(D, b"@stats_delete 1", 0).unwrap();
    update(&fake, 0, &[(0, 8), (16, 8)]);
    assert_eq!(counted(&fake, 0), [(0, 8, 0), (16, 8, 0)]);
}

#[test]
fn a_member_that_is_another_programs_by_now_is_left_alone() {
    let fake = Fake::new(10_000);
    map(&fake, &[(0, 8), (16, 8)]);
    fake.message(D, b"@stats_delete 1", 0).unwrap();
    foreign(&fake, 1);
    update(&fake, 0, &[(0, 8)]);
    let snapshot = device(&fake).list().unwrap();
    assert_eq!(
        (
            snapshot.groups[&0].members.to_string(),
            &snapshot.regions[&1].program[..]
        ),
        ("0".into(), &b"other"[..])
    );
}

#[test]
fn an_update_that_fails_leaves_the_group_as_it_was() {
    let fake = Fake::new(10_000);
    map(&fake, &[(0, 8), (16, 8)]);
    let before = device(&fake).list().unwrap();
    for (word, nth) in [("@stats_create", 1), ("@stats_set_aux", 0)] {
        fake.fail(word, nth, Errno::NOMEM);
        assert!(device(&fake)
            .update_file(&before, 0, &[(0, 8), (100, 8), (200, 8)], None, |_| ())
            .is_err());
        fake.fail("nothing", 0, Errno::NOMEM);
        assert_eq!(device(&fake).list().unwrap(), before);
    }
}

#[test]
fn a_group_that_cannot_have_its_id_back_leaves_no_region_behind() {
    let fake = Fake::new(10_000);
    map(&fake, &[(0, 8)]);
    fake.fail("@stats_set_aux 0", 0, Errno::NOMEM);
    assert_eq!(update(&fake, 0, &[(64, 8)]).group, Some(1));
    assert_eq!(counted(&fake, 1), [(64, 8, 0)]);
    assert_eq!(device(&fake).list().unwrap().regions.len(), 1);
}

#[test]
fn a_group_whose_leader_for_a_moment_cannot_be_told_so_stays_with_that() {
    let fake = Fake::new(10_000);
    map(&fake, &[(0, 8), (16, 8), (32, 8)]);
    fake.fail("@stats_set_aux 1 -", 0, Errno::NOMEM);
    let now = [(16, 8), (32, 8), (64, 8)];
    assert_eq!(update(&fake, 0, &now).group, Some(1));
    fake.fail("nothing", 0, Errno::NOMEM);
    assert_eq!(counted(&fake, 1), now.map(|(start, len)| (start, len, 0)));
    let left = device(&fake).list().unwrap();
    assert_eq!((left.regions.len(), left.groups.len()), (3, 1));
}

#[test]
fn a_group_whose_leader_for_a_moment_somebody_deletes_has_its_id_back() {
    let fake = Fake::new(10_000);
    map(&fake, &[(0, 8), (16, 8), (32, 8)]);
    let rival = Rival(&fake, "@stats_set_aux 0 ", |fake| {
        drop(fake.message(D, b"@stats_delete 1", 0));
    });
    let device = Device::new(&rival, D, b"dmstats");
    let places = [(16, 8), (32, 8), (64, 8)];
    let changed = device.update_file(&device.list().unwrap(), 0, &places, None, |_| ());
    assert_eq!(changed.unwrap().group, Some(0));
    // What was deleted is made again at the next update, and no region is in no group.
    update(&fake, 0, &places);
    let left = device.list().unwrap();
    assert_eq!(left.groups[&0].members, left.ids());
    assert_eq!(
        counted(&fake, 0),
        places.map(|(start, len)| (start, len, 0))
    );
}

#[test]
fn a14_there_must_be_such_a_group() {
    let fake = Fake::new(10_000);
    let device = device(&fake);
    let error = device
        .update_file(&device.list().unwrap(), 5, &[(0, 8)], None, |_| ())
        .unwrap_err();
    assert_eq!(error.to_string(), "Group ID 5 does not exist");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever the file does, and whoever else takes and frees ids: after each update the group covers just the
    /// file, no region is counted twice, and no region of another program has changed.
    #[test]
    fn a9_updates_follow_any_file_among_other_programs(
        steps in proptest::collection::vec((proptest::collection::btree_set(0u64..24, 1..12), 0usize..3, 0u32..20), 1..10),
    ) {
        let fake = Fake::new(10_000);
        let places = |blocks: &std::collections::BTreeSet<u64>| {
            let set: RangeSet<u64> = blocks.iter().map(|block| block * 8..block * 8 + 8).collect();
            set.iter().map(|range| (range.start, range.end - range.start)).collect::<Vec<_>>()
        };
        let mut group = map(&fake, &places(&steps[0].0)).group.unwrap();
        for (blocks, more, gone) in steps {
            foreign(&fake, more);
            let other = Device::new(&fake, D, b"other");
            let snapshot = other.list().unwrap();
            if snapshot.regions.get(&gone).is_some_and(|region| *region.program == *b"other") {
                other.delete(&snapshot, gone).unwrap();
            }
            let before = other.list().unwrap().of_program(b"other");
            let places = places(&blocks);
            group = update(&fake, group, &places).group.unwrap();

            let after = device(&fake).list().unwrap();
            prop_assert_eq!(&after.problems, &Vec::new());
            prop_assert_eq!(after.clone().of_program(b"other").regions, before.regions);
            let ours = after.of_program(b"dmstats");
            prop_assert_eq!(ours.regions.len() as u64, ours.groups[&group].members.len());
            let mut set = RangeSet::new();
            for region in ours.regions.values() {
                let range = region.start..region.start + region.len;
                prop_assert!(!set.overlaps(&range));
                set.insert(range);
            }
            let covered: Vec<(u64, u64)> = set.iter().map(|range| (range.start, range.end - range.start)).collect();
            prop_assert_eq!(covered, places);
        }
    }
}

/// A block, which is an area, of which the device of the test below has so many.
const BLOCK: u64 = 1 << 13;
const BLOCKS: u64 = 1024;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// However a projected file changes, and whoever takes and frees ids meanwhile: it has few regions, and its counts
    /// are what was read and written of its blocks since the oldest region of each was made. Of a block that it has
    /// had before, that is the one that it was.
    #[test]
    fn projections_count_each_block_once_and_from_its_first_region_on(
        steps in proptest::collection::vec(
            (
                // Runs of blocks that come, the part of the others that go, who is where ids are taken and freed.
                proptest::collection::vec((0..BLOCKS, 1u64..9), 0..5), 0u64..4, 0usize..2, 0u32..12,
                proptest::collection::vec((any::<bool>(), 0..BLOCKS, 1u64..20), 0..20),
            ),
            1..24,
        ),
    ) {
        let fake = Fake::new(BLOCKS * BLOCK);
        foreign(&fake, 1);
        let mut file: BTreeSet<u64> = [501].into();
        let runs = |file: &BTreeSet<u64>| {
            Ranges::of_places(&file.iter().map(|at| (at * BLOCK, BLOCK)).collect::<Vec<_>>()).places()
        };
        project(&fake, &runs(&file));
        let mut group = 1;
        // The moments at which blocks were read or written, and at which regions were made.
        let mut counted: Vec<Vec<usize>> = vec![Vec::new(); BLOCKS as usize];
        let mut made: BTreeMap<u32, usize> = [(1, 0)].into();
        let mut since: BTreeMap<u64, usize> = [(501, 0)].into();
        for (now, (come, part, more, gone, requests)) in (1..).zip(steps) {
            foreign(&fake, more);
            let other = Device::new(&fake, D, b"other");
            let before = other.list().unwrap();
            if before.regions.get(&gone).is_some_and(|region| *region.program == *b"other") {
                other.delete(&before, gone).unwrap();
            }
            file.retain(|block| part == 0 || (block / 7 + now as u64) % 4 >= part);
            for (block, len) in come {
                // Blocks apart from each other, so that all areas will be as small.
                file.extend((block | 1..(block + 2 * len).min(BLOCKS)).step_by(2));
            }
            let places = runs(&file);
            let before = device(&fake).list().unwrap();
            let missing = !Ranges::of_places(&places).without(&before.groups[&group].covered(&before)
                .iter().map(|range| (range.start, range.end)).collect()).is_empty();
            fake.take_log();
            group = update(&fake, group, &places).group.unwrap();
            prop_assert_eq!(fake.take_log().len() > 1, missing);

            let after = device(&fake).list().unwrap();
            prop_assert_eq!(&after.problems, &Vec::new());
            prop_assert_eq!(after.clone().of_program(b"other").regions, before.of_program(b"other").regions);
            let ours = after.of_program(b"dmstats");
            prop_assert!(ours.regions.len() <= REGIONS);
            prop_assert_eq!(ours.regions.len() as u64, ours.groups[&group].members.len());
            made.retain(|id, _| ours.regions.contains_key(id));
            for id in ours.regions.keys() {
                made.entry(*id).or_insert(now);
            }
            let oldest = |block: &u64| {
                let over = ours.regions.values().filter(|region| (region.start..region.start + region.len).contains(&(block * BLOCK)));
                over.map(|region| made[&region.id]).min()
            };
            let mut all = 0;
            let mut from = BTreeMap::new();
            for block in &file {
                let Some(start) = oldest(block) else {
                    return Err(TestCaseError::fail(format!("block {block} is not covered")));
                };
                prop_assert!(since.get(block).is_none_or(|since| *since == start));
                from.insert(*block, start);
                all += counted[*block as usize].iter().filter(|at| **at >= start).count() as u64 * BLOCK;
            }
            since = from;
            prop_assert_eq!(attributed(&fake, group, &places), (all, 0.0));
            for (write, block, len) in requests {
                let end = (block + len).min(BLOCKS);
                fake.account(D, write, block * BLOCK, (end - block) * BLOCK, 1);
                (block..end).for_each(|block| counted[block as usize].push(now));
            }
        }
    }
}
