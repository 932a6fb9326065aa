// SPDX-License-Identifier: GPL-2.0

use rustix::io::Errno;

use super::*;
use crate::fake::Fake;

const D: Devno = Devno { major: 0, minor: 0 };

fn device(fake: &Fake) -> Device<'_, Fake> {
    Device::new(fake, D, b"dmstats")
}

fn make(fake: &Fake, count: usize) -> Snapshot {
    device(fake)
        .create_all(&vec![RegionSpec::whole(); count], |_| ())
        .unwrap();
    device(fake).list().unwrap()
}

fn ids(text: &str) -> IdSet {
    IdSet::parse(text.as_bytes()).unwrap()
}

#[test]
fn a19_a_failed_list_leaves_nothing_of_the_one_before() {
    let fake = Fake::new(100);
    make(&fake, 3);
    fake.fail("@stats_list", 0, Errno::NOMEM);
    assert!(device(&fake).list().is_err());
}

#[test]
fn a36_what_was_not_listed_and_what_is_not_understood_are_two_errors() {
    let fake = Fake::new(100);
    let snapshot = make(&fake, 1);
    // Nothing but a list makes a snapshot, so that an unlisted region cannot be asked for; one that has gone is
    // told as such.
    device(&fake).delete(&snapshot, 0).unwrap();
    assert!(matches!(device(&fake).clear(0), Err(Error::NoRegion(0))));
    assert!(matches!(
        Snapshot::parse(b"?\n", None),
        Err(Error::Reply { .. })
    ));
}

#[test]
fn the_kernel_has_room_for_the_counters_of_all_areas_at_once() {
    let fake = Fake::new(200_000);
    let fine = RegionSpec {
        step: Step::Sectors(2),
        ..RegionSpec::whole()
    };
    device(&fake).create(&fine).unwrap();
    fake.account(D, true, 0, 200_000, 5_000_000);
    let snapshot = device(&fake).list().unwrap();
    let sample = device(&fake).sample(&snapshot, false, |_| true).unwrap();
    assert_eq!(
        (sample.regions[&0].areas.len(), fake.unexpected()),
        (100_000, 0)
    );
}

#[test]
fn a12_no_regions_are_no_error() {
    let fake = Fake::new(100);
    let snapshot = device(&fake).list().unwrap();
    assert!(
        snapshot.regions.is_empty() && snapshot.groups.is_empty() && snapshot.problems.is_empty()
    );
    assert_eq!(
        device(&fake).sample(&snapshot, false, |_| true).unwrap(),
        Sample::default()
    );
}

#[test]
fn a38_a_group_is_told_of_a_member_that_goes_before_it_is_gone() {
    let fake = Fake::new(100);
    let snapshot = make(&fake, 4);
    device(&fake).group(&snapshot, &ids("0-3"), b"g").unwrap();
    let snapshot = device(&fake).list().unwrap();
    fake.take_log();
    device(&fake)
        .delete_all(&snapshot, &ids("1,3"), |_| ())
        .unwrap();
    let log = fake.take_log();
    assert_eq!(
        log,
        [
            "@stats_set_aux 0 DMS_GROUP=\"g\":0,2#-",
            "@stats_delete 1",
            "@stats_delete 3"
        ]
    );
}

#[test]
fn what_somebody_else_has_deleted_meanwhile_is_no_error() {
    let fake = Fake::new(100);
    let snapshot = make(&fake, 5);
    device(&fake).group(&snapshot, &ids("0-2"), b"g").unwrap();
    let snapshot = device(&fake).list().unwrap();
    for id in [0, 3] {
        fake.message(D, &message::delete(id), 0).unwrap();
    }
    device(&fake)
        .delete_all(&snapshot, &ids("1-4"), |_| ())
        .unwrap();
    assert!(device(&fake).list().unwrap().regions.is_empty());
}

#[test]
fn a39_a_leader_that_goes_ends_its_group_and_the_others_stay() {
    let fake = Fake::new(100);
    let snapshot = make(&fake, 4);
    device(&fake).group(&snapshot, &ids("0-2"), b"g").unwrap();
    device(&fake)
        .delete(&device(&fake).list().unwrap(), 0)
        .unwrap();
    let after = device(&fake).list().unwrap();
    assert_eq!(
        (
            after.regions.len(),
            after.groups.len(),
            after.problems.len()
        ),
        (3, 0, 0)
    );
}

#[test]
fn a_group_goes_with_all_its_regions_and_is_never_broken() {
    let fake = Fake::new(100);
    let snapshot = make(&fake, 6);
    device(&fake).group(&snapshot, &ids("1,3-5"), b"g").unwrap();
    let snapshot = device(&fake).list().unwrap();
    // Wherever it stops, there is no descriptor of what does not exist.
    for stop in 0..4 {
        fake.fail("@stats_delete", stop, Errno::NOMEM);
        assert!(device(&fake).delete_group(&snapshot, 1, |_| ()).is_err());
        fake.fail("nothing", 0, Errno::NOMEM);
        assert_eq!(device(&fake).list().unwrap().problems, []);
        let left = device(&fake).list().unwrap();
        left.regions
            .keys()
            .for_each(|id| fake.message(D, &message::delete(*id), 0).map(drop).unwrap());
        make(&fake, 6);
        device(&fake)
            .group(&device(&fake).list().unwrap(), &ids("1,3-5"), b"g")
            .unwrap();
    }
    device(&fake).delete_group(&snapshot, 1, |_| ()).unwrap();
    assert_eq!(
        device(&fake)
            .list()
            .unwrap()
            .regions
            .keys()
            .collect::<Vec<_>>(),
        [&0, &2]
    );
}

#[test]
fn groups_take_existing_free_regions_only() {
    let fake = Fake::new(100);
    let snapshot = make(&fake, 3);
    device(&fake).group(&snapshot, &ids("0-1"), b"").unwrap();
    let snapshot = device(&fake).list().unwrap();
    let refused = |text: &str| {
        device(&fake)
            .group(&snapshot, &ids(text), b"")
            .unwrap_err()
            .to_string()
    };
    assert_eq!(refused("1-2"), "Region ID 1 already a member of group ID 0");
    assert_eq!(refused("2-2147483647"), "Region ID 3 does not exist");
    assert_eq!(
        device(&fake).ungroup(&snapshot, 7).unwrap_err().to_string(),
        "Group ID 7 does not exist"
    );
    device(&fake).ungroup(&snapshot, 0).unwrap();
    assert!(device(&fake).list().unwrap().groups.is_empty());
}

#[test]
fn user_data_outlives_a_group() {
    let fake = Fake::new(100);
    let spec = RegionSpec {
        aux: b"a b\xa0".to_vec(),
        ..RegionSpec::whole()
    };
    device(&fake).create(&spec).unwrap();
    device(&fake)
        .group(&device(&fake).list().unwrap(), &ids("0"), b"voil\xc3\xa0")
        .unwrap();
    let grouped = device(&fake).list().unwrap();
    assert_eq!(
        (&grouped.groups[&0].alias[..], &grouped.regions[&0].user[..]),
        (&b"voil\xc3\xa0"[..], &b"a b\xa0"[..])
    );
    device(&fake).ungroup(&grouped, 0).unwrap();
    assert_eq!(device(&fake).list().unwrap().regions[&0].user, b"a b\xa0");
}

#[test]
fn a_descriptor_that_would_hide_the_device_from_others_is_refused() {
    let fake = Fake::new(100);
    let snapshot = make(&fake, 3000);
    let scattered: IdSet = (0..1500).map(|index| index * 2).collect();
    assert!(matches!(
        device(&fake).group(&snapshot, &scattered, b""),
        Err(Error::DescriptorTooLong(_))
    ));
    assert!(device(&fake).group(&snapshot, &ids("0-2999"), b"").is_ok());
}

#[test]
fn bounds_and_the_program_of_its_leader_take_room_from_a_descriptor() {
    let scattered: IdSet = (0..500).map(|index| index * 2).collect();
    for (bounds, program, fits) in [(0, 1, true), (300, 1, false), (0, 2500, false)] {
        let fake = Fake::new(100);
        let other = Device::new(&fake, D, &vec![b'x'; program]);
        let spec = RegionSpec {
            bounds: (1..=bounds).map(|bound| bound * 1_000_001).collect(),
            ..RegionSpec::whole()
        };
        other.create(&spec).unwrap();
        let snapshot = make(&fake, 999);
        let made = device(&fake).group(&snapshot, &scattered, b"");
        assert_eq!(made.is_ok(), fits, "{made:?}");
        assert_eq!(
            device(&fake).list().unwrap().groups.len(),
            usize::from(fits)
        );
    }
}

#[test]
fn a33_many_deletes_need_one_list_and_the_helper_leaves_no_trace() {
    let fake = Fake::new(100);
    let snapshot = make(&fake, 2000);
    fake.take_log();
    device(&fake)
        .delete_all(&snapshot, &ids("0-1999"), |_| ())
        .unwrap();
    let log = fake.take_log();
    assert_eq!(log.len(), 2002);
    assert!(!log.iter().any(|line| line.starts_with("@stats_list")));
    assert_eq!(
        log[1],
        "@stats_create 0+1 /1 1 precise_timestamps dmstats -"
    );
    assert!(device(&fake).list().unwrap().regions.is_empty());
}

#[test]
fn a35_deletes_are_as_many_as_there_are_regions() {
    let requests = |count: usize| {
        let fake = Fake::new(10_000);
        fake.set_limit(u64::MAX);
        let snapshot = make(&fake, count);
        fake.take_log();
        let all: IdSet = snapshot.regions.keys().copied().collect();
        device(&fake).delete_all(&snapshot, &all, |_| ()).unwrap();
        fake.take_log().len()
    };
    assert_eq!((requests(1000), requests(4000)), (1002, 4002));
}

#[test]
fn a18_there_is_no_group_that_is_not_listed() {
    let fake = Fake::new(10_000);
    let snapshot = make(&fake, 2);
    fake.take_log();
    assert_eq!(snapshot.regions[&0].group, None);
    assert!(snapshot.group(crate::ids::MAX_ID).is_err() && snapshot.projected(0).is_none());
    assert!(fake.take_log().is_empty());
}

#[test]
fn a43_sums_are_those_of_their_sample() {
    let fake = Fake::new(10_000);
    let snapshot = make(&fake, 2);
    let device = device(&fake);
    device.group(&snapshot, &ids("0-1"), b"g").unwrap();
    let snapshot = device.list().unwrap();
    let reads = || {
        device.sample(&snapshot, false, |_| true).unwrap().groups[&0]
            .counters
            .reads
    };
    let before = device.sample(&snapshot, false, |_| true).unwrap();
    fake.account(D, false, 0, 8, 1);
    assert_eq!((before.groups[&0].counters.reads, reads()), (0, 2));
}

#[test]
fn the_helper_is_not_used_over_another_programs_region() {
    let fake = Fake::new(100);
    Device::new(&fake, D, b"other")
        .create(&RegionSpec::whole())
        .unwrap();
    let snapshot = make(&fake, 1000);
    fake.take_log();
    device(&fake)
        .delete_all(&snapshot, &ids("1-1000"), |_| ())
        .unwrap();
    assert_eq!(fake.take_log().len(), 1000);
    assert_eq!(device(&fake).list().unwrap().regions.len(), 1);
}

#[test]
fn deletes_go_on_without_the_helper_if_there_is_no_memory() {
    let fake = Fake::new(100);
    let snapshot = make(&fake, 1000);
    fake.fail("@stats_create", 0, Errno::NOMEM);
    device(&fake)
        .delete_all(&snapshot, &ids("0-999"), |_| ())
        .unwrap();
    assert!(device(&fake).list().unwrap().regions.is_empty());
}

#[test]
fn a32_the_kernels_limit_is_told_with_what_is_in_use() {
    let fake = Fake::new(100);
    fake.set_limit(200_000);
    make(&fake, 3);
    let text = device(&fake)
        .create(&RegionSpec::whole())
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("197664 of 200000 bytes were in use"),
        "{text}"
    );
}

#[test]
fn the_kernels_limits_are_answers_not_panics() {
    let fake = Fake::new(u64::MAX >> 10);
    let cell = RegionSpec {
        step: Step::Sectors(1),
        ..RegionSpec::whole()
    };
    let zero = RegionSpec {
        step: Step::Sectors(0),
        ..RegionSpec::whole()
    };
    let wild = RegionSpec {
        range: Some((u64::MAX, 8)),
        ..RegionSpec::whole()
    };
    let errors: Vec<_> = [cell, zero, wild]
        .iter()
        .map(|spec| errno(&device(&fake).create(spec).unwrap_err()))
        .collect();
    assert_eq!(
        errors,
        [
            Some(Errno::OVERFLOW),
            Some(Errno::INVAL),
            Some(Errno::INVAL)
        ]
    );
}

#[test]
fn a42_histograms_of_a_region_and_a_group_are_the_sums_of_their_areas() {
    let fake = Fake::new(1000);
    let spec = RegionSpec {
        step: Step::Areas(4),
        bounds: vec![10_000_000, 20_000_000],
        ..RegionSpec::whole()
    };
    device(&fake)
        .create_all(&[spec.clone(), spec], |_| ())
        .unwrap();
    device(&fake)
        .group(&device(&fake).list().unwrap(), &ids("0-1"), b"")
        .unwrap();
    fake.account(D, false, 0, 8, 1);
    fake.account(D, true, 600, 8, 15_000_000);
    let snapshot = device(&fake).list().unwrap();
    let sample = device(&fake).sample(&snapshot, false, |_| true).unwrap();
    let region = &sample.regions[&0];
    assert_eq!(
        region
            .areas
            .iter()
            .map(|area| &area.bins[..])
            .collect::<Vec<_>>(),
        [[1, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 0]]
    );
    assert_eq!(
        (&region.total.bins[..], &sample.groups[&0].bins[..]),
        (&[1, 1, 0][..], &[2, 2, 0][..])
    );
    assert_eq!(
        (
            region.total.counters.write_time,
            sample.groups[&0].counters.writes
        ),
        (15_000_000, 2)
    );
    // A43: another sample has its own sums.
    fake.account(D, false, 0, 8, 1);
    assert_eq!(
        device(&fake)
            .sample(&snapshot, false, |_| true)
            .unwrap()
            .regions[&0]
            .total
            .bins,
        [2, 1, 0]
    );
}

#[test]
fn b5_a_group_of_regions_with_other_bounds_has_no_histogram() {
    let fake = Fake::new(1000);
    let spec = RegionSpec {
        bounds: vec![10_000_000],
        ..RegionSpec::whole()
    };
    device(&fake)
        .create_all(&[spec, RegionSpec::whole()], |_| ())
        .unwrap();
    device(&fake)
        .group(&device(&fake).list().unwrap(), &ids("0-1"), b"")
        .unwrap();
    fake.account(D, false, 0, 8, 1);
    let snapshot = device(&fake).list().unwrap();
    let sample = device(&fake).sample(&snapshot, true, |_| true).unwrap();
    assert_eq!(
        (
            sample.groups[&0].bins.len(),
            sample.groups[&0].counters.reads
        ),
        (0, 2)
    );
}

#[test]
fn samples_without_clearing_leave_the_counts_to_others() {
    let fake = Fake::new(1000);
    let snapshot = make(&fake, 1);
    fake.account(D, false, 0, 8, 1);
    let first = device(&fake).sample(&snapshot, false, |_| true).unwrap();
    fake.account(D, false, 0, 8, 1);
    let second = device(&fake).sample(&snapshot, false, |_| true).unwrap();
    assert_eq!(
        second.since(&snapshot, &first).regions[&0]
            .total
            .counters
            .reads,
        1
    );
    assert_eq!(
        device(&fake)
            .sample(&snapshot, true, |_| true)
            .unwrap()
            .regions[&0]
            .total
            .counters
            .reads,
        2
    );
    assert_eq!(
        device(&fake)
            .sample(&snapshot, false, |_| true)
            .unwrap()
            .regions[&0]
            .total
            .counters
            .reads,
        0
    );
}

#[test]
fn a_region_that_has_the_id_of_another_by_now_is_counted_from_its_beginning() {
    let fake = Fake::new(1000);
    let at = |start| RegionSpec {
        range: Some((start, 8)),
        ..RegionSpec::whole()
    };
    let device = device(&fake);
    let sample = || {
        let snapshot = device.list().unwrap();
        let sample = device.sample(&snapshot, false, |_| true).unwrap();
        (snapshot, sample)
    };
    device.create(&at(0)).unwrap();
    fake.account(D, false, 0, 8, 1);
    let (snapshot, first) = sample();
    device.delete(&snapshot, 0).unwrap();
    assert_eq!(device.create(&at(8)).unwrap(), 0);
    for _ in 0..3 {
        fake.account(D, false, 8, 8, 1);
    }
    let (snapshot, second) = sample();
    let since = second.since(&snapshot, &first);
    assert_eq!(since.regions[&0].total.counters.reads, 3);
}

#[test]
fn only_what_is_wanted_is_cleared() {
    let fake = Fake::new(1000);
    let snapshot = make(&fake, 3);
    fake.account(D, false, 0, 8, 1);
    fake.take_log();
    let device = device(&fake);
    let sample = device.sample(&snapshot, true, |region| region.id == 1);
    let sample = sample.unwrap();
    assert_eq!(fake.take_log(), ["@stats_print_clear 1"]);
    assert_eq!(sample.regions.keys().collect::<Vec<_>>(), [&1]);
}

#[test]
fn what_was_cleared_is_given_back_whatever_could_not_be_read() {
    let fake = Fake::new(1000);
    let snapshot = make(&fake, 3);
    fake.account(D, false, 0, 8, 1);
    fake.fail("@stats_print_clear 1", 0, rustix::io::Errno::NOMEM);
    let (sample, done) = device(&fake).sample_some(&snapshot, true, |_| true);
    assert!(done.is_err());
    assert_eq!(sample.regions.keys().collect::<Vec<_>>(), [&0, &2]);
    let mut read = sample.regions.values();
    assert!(read.all(|region| region.total.counters.reads == 1));
}

#[test]
fn of_a_device_that_has_gone_nothing_more_is_asked() {
    let fake = Fake::new(1000);
    let snapshot = make(&fake, 3);
    fake.remove(D);
    fake.take_log();
    let (sample, done) = device(&fake).sample_some(&snapshot, true, |_| true);
    assert!(matches!(done, Err(Error::NoDevice(_))) && sample.regions.is_empty());
    assert_eq!(fake.take_log().len(), 1);
}

#[test]
fn a_region_that_went_or_changed_since_the_list_is_left_out() {
    let fake = Fake::new(1000);
    let snapshot = make(&fake, 3);
    let areas = RegionSpec {
        step: Step::Areas(3),
        ..RegionSpec::whole()
    };
    let bins = RegionSpec {
        bounds: vec![10_000_000],
        ..RegionSpec::whole()
    };
    for (id, spec) in [(0, areas), (2, bins)] {
        fake.message(D, &message::delete(id), 0).unwrap();
        assert_eq!(device(&fake).create(&spec).unwrap(), id);
    }
    fake.message(D, b"@stats_delete 1", 0).unwrap();
    assert!(device(&fake)
        .sample(&snapshot, false, |_| true)
        .unwrap()
        .regions
        .is_empty());
}
