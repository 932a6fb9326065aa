// SPDX-License-Identifier: GPL-2.0

use std::path::PathBuf;

use rustix::io::Errno;

use super::*;
use crate::fake::Fake;

const D: Devno = Devno { major: 0, minor: 0 };

/// A folder for locks, which ends with the test.
struct Locks(PathBuf);

impl Locks {
    fn new(test: &str) -> Self {
        Locks(std::env::temp_dir().join(format!("dmstats-{test}-{}", std::process::id())))
    }
}

impl Drop for Locks {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn word() -> Word {
    Word {
        mode: crate::follow::Mode::Inode,
        handle: crate::ffi::Handle::parse("1.00").unwrap(),
        path: "/srv/f".into(),
    }
}

fn other_word() -> Word {
    Word {
        handle: crate::ffi::Handle::parse("1.01").unwrap(),
        ..word()
    }
}

fn foreign(fake: &Fake) -> u32 {
    Device::new(fake, D, b"other")
        .create(&RegionSpec::whole())
        .unwrap()
}

fn snapshot(fake: &Fake) -> Snapshot {
    let snapshot = Device::new(fake, D, b"dmstats").list().unwrap();
    assert_eq!(snapshot.problems, []);
    snapshot
}

fn places(fake: &Fake, id: u32) -> Vec<(u64, u64)> {
    let snapshot = snapshot(fake);
    let covered = snapshot.groups[&id].covered(&snapshot);
    covered
        .iter()
        .map(|range| (range.start, range.end - range.start))
        .collect()
}

/// Region 0 is another program's, and group 1 is that of a file.
fn mapped(fake: &Fake, at: &[(u64, u64)]) -> Followed {
    foreign(fake);
    let device = Device::new(fake, D, b"dmstats");
    device
        .map_file(at, &RegionSpec::whole(), Some(b"f"), |_| ())
        .unwrap();
    Followed::new(fake, D, 1).unwrap()
}

#[test]
fn a1_a_group_follows_its_file() {
    let (fake, locks) = (Fake::new(10_000), Locks::new("a1"));
    let mut group = mapped(&fake, &[(0, 8)]);
    for at in [
        &[(0, 8)][..],
        &[(0, 16)],
        &[(0, 16), (64, 8)],
        &[(64, 8)],
        &[(800, 64)],
    ] {
        assert!(!group.fits(at));
        assert!(matches!(
            group
                .fit(&fake, at, &word(), &locks.0, Duration::ZERO)
                .unwrap(),
            Fate::Fitted(..)
        ));
        assert!(group.fits(at));
        assert_eq!((group.id, places(&fake, 1)), (Some(1), at.to_vec()));
    }
}

#[test]
fn a4_a_group_that_is_none_is_not_followed() {
    let fake = Fake::new(10_000);
    mapped(&fake, &[(0, 8)]);
    let error = Followed::new(&fake, D, 0).err().unwrap();
    assert_eq!(error.to_string(), "Group ID 0 does not exist");
}

#[test]
fn f7_a_file_that_is_cut_to_nothing_and_grows_again_has_its_group_again() {
    let (fake, locks) = (Fake::new(10_000), Locks::new("f7"));
    let mut group = mapped(&fake, &[(0, 8), (16, 8)]);
    assert_eq!(
        group
            .fit(&fake, &[], &word(), &locks.0, Duration::ZERO)
            .unwrap(),
        Fate::Fitted(0, 2)
    );
    assert_eq!((group.id, snapshot(&fake).groups.len()), (None, 0));
    // There is nothing that could have been removed, and nothing to do.
    assert_eq!(group.recognise(&snapshot(&fake)), Fate::Same);
    assert!(group.fits(&[]));
    assert_eq!(
        group
            .fit(&fake, &[(32, 8)], &word(), &locks.0, Duration::ZERO)
            .unwrap(),
        Fate::Fitted(1, 0)
    );
    assert_eq!((group.id, places(&fake, 1)), (Some(1), vec![(32, 8)]));
    assert_eq!(snapshot(&fake).groups[&1].alias, b"f");
}

#[test]
fn a12_a13_a_group_that_somebody_removed_is_not_made_again() {
    let (fake, locks) = (Fake::new(10_000), Locks::new("a13"));
    let mut group = mapped(&fake, &[(0, 8)]);
    group
        .fit(&fake, &[(0, 8)], &word(), &locks.0, Duration::ZERO)
        .unwrap();
    let device = Device::new(&fake, D, b"dmstats");
    device.delete_group(&snapshot(&fake), 1, |_| ()).unwrap();
    assert_eq!(group.recognise(&snapshot(&fake)), Fate::Removed);
    assert_eq!(
        group
            .fit(&fake, &[(0, 16)], &word(), &locks.0, Duration::ZERO)
            .unwrap(),
        Fate::Removed
    );
    group.delete(&fake, &locks.0, Duration::ZERO).unwrap();
    // Nor is another group taken for it that has its id by now.
    device
        .map_file(&[(4000, 8)], &RegionSpec::whole(), Some(b"g"), |_| ())
        .unwrap();
    assert_eq!(group.recognise(&snapshot(&fake)), Fate::Removed);
    assert_eq!(snapshot(&fake).groups.len(), 1);
}

#[test]
fn a_group_is_known_before_it_has_been_made_to_fit() {
    let (fake, locks) = (Fake::new(10_000), Locks::new("before"));
    let mut group = mapped(&fake, &[(0, 8)]);
    fake.fail("@stats_create", 0, Errno::NOMEM);
    assert!(group
        .fit(&fake, &[(0, 16)], &word(), &locks.0, Duration::ZERO)
        .is_err());
    fake.fail("nothing", 0, Errno::NOMEM);
    assert_eq!(group.recognise(&snapshot(&fake)), Fate::Same);
    // Somebody deletes it, and the group of another file gets its id.
    let device = Device::new(&fake, D, b"dmstats");
    device.delete_group(&snapshot(&fake), 1, |_| ()).unwrap();
    let other = device.map_file(&[(4000, 8)], &RegionSpec::whole(), Some(b"g"), |_| ());
    assert_eq!(other.unwrap().group, Some(1));
    assert_eq!(group.recognise(&snapshot(&fake)), Fate::Removed);
    let fate = group
        .fit(&fake, &[(0, 16)], &word(), &locks.0, Duration::ZERO)
        .unwrap();
    assert_eq!(fate, Fate::Removed);
    group.delete(&fake, &locks.0, Duration::ZERO).unwrap();
    assert_eq!(places(&fake, 1), [(4000, 8)]);
}

#[test]
fn f7_a_projected_file_that_is_cut_to_nothing_keeps_its_group() {
    let (fake, locks) = (Fake::new(10_000), Locks::new("cut"));
    let mut group = Followed::none(D, b"dmstats", b"f", RegionSpec::whole());
    let at: Vec<(u64, u64)> = (0..65).map(|index| (index * 16, 8)).collect();
    for places in [&at[..], &[], &at[..9], &[]] {
        group
            .fit(&fake, places, &word(), &locks.0, Duration::ZERO)
            .unwrap();
        // Its own change is told to it like that of anybody else.
        assert_eq!(group.recognise(&snapshot(&fake)), Fate::Same);
        assert!(group.fits(places));
        assert_eq!(group.id, Some(0));
    }
    group.delete(&fake, &locks.0, Duration::ZERO).unwrap();
    assert_eq!(snapshot(&fake).regions.len(), 0);
}

#[test]
fn a_group_that_somebody_else_moves_with_its_file_is_still_followed() {
    let (fake, locks) = (Fake::new(10_000), Locks::new("moved"));
    let mut group = mapped(&fake, &[(0, 8)]);
    group
        .fit(&fake, &[(0, 8)], &word(), &locks.0, Duration::ZERO)
        .unwrap();
    let device = Device::new(&fake, D, b"dmstats");
    let moved = device.update_file(&snapshot(&fake), 1, &[(4000, 8)], None, |_| ());
    assert_eq!(moved.unwrap().group, Some(1));
    assert_eq!(group.recognise(&snapshot(&fake)), Fate::Same);
    // What it has to do is to look where the file is.
    assert!(!group.fits_still());
    let fate = group
        .fit(&fake, &[(4000, 8)], &word(), &locks.0, Duration::ZERO)
        .unwrap();
    assert_eq!(fate, Fate::Fitted(0, 0));
    group.delete(&fake, &locks.0, Duration::ZERO).unwrap();
    assert_eq!(snapshot(&fake).regions.len(), 1);
}

#[test]
fn a_group_of_another_file_of_that_name_which_has_its_id_by_now_is_left_alone() {
    let (fake, locks) = (Fake::new(10_000), Locks::new("namesake"));
    let mut group = mapped(&fake, &[(0, 8)]);
    group
        .fit(&fake, &[(0, 8)], &word(), &locks.0, Duration::ZERO)
        .unwrap();
    let device = Device::new(&fake, D, b"dmstats");
    device.delete_group(&snapshot(&fake), 1, |_| ()).unwrap();
    let other = device.map_file(&[(4000, 8)], &RegionSpec::whole(), Some(b"f"), |_| ());
    assert_eq!(other.unwrap().group, Some(1));
    // Its file might have gone there.
    assert_eq!(group.recognise(&snapshot(&fake)), Fate::Same);
    assert!(!group.fits_still());
    for at in [&[(0, 16)][..], &[]] {
        let fate = group
            .fit(&fake, at, &word(), &locks.0, Duration::ZERO)
            .unwrap();
        assert_eq!(fate, Fate::Removed);
    }
    // Nor is it certain that it is not the file's, moved by somebody: that is told.
    let deleted = group.delete(&fake, &locks.0, Duration::ZERO);
    assert!(matches!(deleted, Err(Error::Unsure(1))));
    assert_eq!(places(&fake, 1), [(4000, 8)]);
}

#[test]
fn a_projected_group_is_known_by_its_file() {
    let (fake, locks) = (Fake::new(1_000_000), Locks::new("projected"));
    let at: Vec<(u64, u64)> = (0..65).map(|index| (index * 16, 8)).collect();
    let project = |word: &Word| {
        let mut group = Followed::none(D, b"dmstats", b"f", RegionSpec::whole());
        group
            .fit(&fake, &at, word, &locks.0, Duration::ZERO)
            .unwrap();
        assert_eq!(group.id, Some(0));
        group
    };
    let device = Device::new(&fake, D, b"dmstats");
    for last in [&[][..], &at] {
        // It is cut to nothing; then another file takes its path, and is where it has never been.
        let mut group = project(&word());
        group
            .fit(&fake, &[], &word(), &locks.0, Duration::ZERO)
            .unwrap();
        group.has_another_file();
        for at in [&[(900_000, 8)][..], last] {
            let fate = group
                .fit(&fake, at, &other_word(), &locks.0, Duration::ZERO)
                .unwrap();
            assert!(matches!(fate, Fate::Fitted(..)));
        }
        // The group is deleted, and that of a file of its name in another folder gets its id.
        device.delete_group(&snapshot(&fake), 0, |_| ()).unwrap();
        let mut other = project(&word());
        let before = snapshot(&fake);
        assert_eq!(group.recognise(&before), Fate::Same);
        assert!(!group.fits_still());
        let fate = group
            .fit(&fake, &at, &other_word(), &locks.0, Duration::ZERO)
            .unwrap();
        assert_eq!(fate, Fate::Removed);
        group.delete(&fake, &locks.0, Duration::ZERO).unwrap();
        assert_eq!(snapshot(&fake), before);
        other.delete(&fake, &locks.0, Duration::ZERO).unwrap();
        assert_eq!(snapshot(&fake).regions.len(), 0);
    }
}

#[test]
fn a_group_without_a_name_is_known_by_its_places() {
    let (fake, locks) = (Fake::new(10_000), Locks::new("unnamed"));
    let device = Device::new(&fake, D, b"dmstats");
    for (at, fate) in [(0, Fate::Same), (4000, Fate::Removed)] {
        let whole = RegionSpec::whole();
        let made = device.map_file(&[(0, 8)], &whole, Some(b""), |_| ());
        let mut group = Followed::new(&fake, D, made.unwrap().group.unwrap()).unwrap();
        group
            .fit(&fake, &[(0, 8)], &word(), &locks.0, Duration::ZERO)
            .unwrap();
        device.delete_group(&snapshot(&fake), 0, |_| ()).unwrap();
        let other = device.map_file(&[(at, 8)], &whole, Some(b""), |_| ());
        assert_eq!(other.unwrap().group, Some(0));
        assert_eq!(group.recognise(&snapshot(&fake)), fate);
        device.delete_group(&snapshot(&fake), 0, |_| ()).unwrap();
    }
}

#[test]
fn a8_a_group_of_a_name_with_a_colon_is_found_again() {
    let (fake, locks) = (Fake::new(10_000), Locks::new("colon"));
    let mut group = Followed::none(D, b"dmstats", b"a:b", RegionSpec::whole());
    let at = [(0, 8), (16, 8)];
    group
        .fit(&fake, &at, &word(), &locks.0, Duration::ZERO)
        .unwrap();
    let device = Device::new(&fake, D, b"dmstats");
    device.delete(&snapshot(&fake), 0).unwrap();
    foreign(&fake);
    let rest = [1].into_iter().collect();
    device.group(&snapshot(&fake), &rest, b"a:b").unwrap();
    assert_eq!(group.recognise(&snapshot(&fake)), Fate::Same);
    assert_eq!(group.id, Some(1));
}

#[test]
fn a8_a_group_with_another_id_is_found_again() {
    let (fake, locks) = (Fake::new(10_000), Locks::new("a8"));
    let mut group = mapped(&fake, &[(0, 8), (16, 8)]);
    group
        .fit(&fake, &[(0, 8), (16, 8)], &word(), &locks.0, Duration::ZERO)
        .unwrap();
    // Somebody updates it, while another takes the id of its first region.
    let device = Device::new(&fake, D, b"dmstats");
    device.delete(&snapshot(&fake), 1).unwrap();
    assert_eq!(foreign(&fake), 1);
    device
        .group(&snapshot(&fake), &[2].into_iter().collect(), b"f")
        .unwrap();
    assert_eq!(group.recognise(&snapshot(&fake)), Fate::Same);
    assert_eq!(group.id, Some(2));
    // It lacks what the first region had.
    assert!(!group.fits(&[(0, 8), (16, 8)]));
    assert_eq!(
        group
            .fit(&fake, &[(0, 8), (16, 8)], &word(), &locks.0, Duration::ZERO)
            .unwrap(),
        Fate::Fitted(1, 0)
    );
    assert_eq!(places(&fake, 2), [(0, 8), (16, 8)]);
}

#[test]
fn a8_of_several_groups_of_a_file_the_one_with_its_regions_is_found() {
    let (fake, locks) = (Fake::new(10_000), Locks::new("several"));
    let device = Device::new(&fake, D, b"dmstats");
    let at = [(0, 8), (16, 8), (32, 8)];
    let whole = RegionSpec::whole();
    // Of the two others one is found before it, the other has more of the file once it has lost a region.
    let other = |id| {
        let made = device.map_file(&at, &whole, Some(b"f"), |_| ());
        assert_eq!(made.unwrap().group, Some(id));
    };
    other(0);
    let mut group = Followed::none(D, b"dmstats", b"f", whole.clone());
    group
        .fit(&fake, &at, &word(), &locks.0, Duration::ZERO)
        .unwrap();
    other(6);
    assert_eq!(group.id, Some(3));
    device.delete(&snapshot(&fake), 3).unwrap();
    device
        .group(&snapshot(&fake), &[4, 5].into_iter().collect(), b"f")
        .unwrap();
    assert_eq!(group.recognise(&snapshot(&fake)), Fate::Same);
    assert_eq!(group.id, Some(4));
}

#[test]
fn a_group_of_the_file_that_somebody_made_for_himself_is_left_alone() {
    let locks = Locks::new("own");
    let (at, whole) = ([(0, 8), (16, 8)], RegionSpec::whole());
    for made_first in [true, false] {
        let fake = Fake::new(10_000);
        let device = Device::new(&fake, D, b"dmstats");
        let theirs = || device.map_file(&at, &whole, Some(b"f"), |_| ()).unwrap();
        let mut group = Followed::none(D, b"dmstats", b"f", whole.clone());
        let fit = |group: &mut Followed| {
            let fate = group.fit(&fake, &at, &word(), &locks.0, Duration::ZERO);
            assert_eq!(fate.unwrap(), Fate::Fitted(2, 0));
        };
        let other = if made_first {
            let other = theirs();
            fit(&mut group);
            other
        } else {
            fit(&mut group);
            let other = theirs();
            let all = snapshot(&fake);
            assert_eq!(group.recognise(&all), Fate::Same);
            group.saw(&Rc::new(all.ids()));
            other
        };
        let id = group.id.unwrap();
        device.delete_group(&snapshot(&fake), id, |_| ()).unwrap();
        let before = snapshot(&fake);
        assert_eq!(group.recognise(&before), Fate::Removed);
        let fate = group.fit(&fake, &at, &word(), &locks.0, Duration::ZERO);
        assert_eq!(fate.unwrap(), Fate::Removed);
        group.delete(&fake, &locks.0, Duration::ZERO).unwrap();
        assert_eq!(snapshot(&fake), before);
        assert_eq!(
            before.groups.keys().collect::<Vec<_>>(),
            [&other.group.unwrap()]
        );
    }
}

#[test]
fn what_is_like_the_group_but_has_none_of_its_regions_is_not_deleted() {
    let (fake, locks) = (Fake::new(10_000), Locks::new("like"));
    let mut group = mapped(&fake, &[(0, 8)]);
    let at = [(0, 8)];
    group
        .fit(&fake, &at, &word(), &locks.0, Duration::ZERO)
        .unwrap();
    // It may be what it was made again as: it is followed, but not destroyed.
    let device = Device::new(&fake, D, b"dmstats");
    let like = device.map_file(&at, &RegionSpec::whole(), Some(b"f"), |_| ());
    let like = like.unwrap().group.unwrap();
    device.delete_group(&snapshot(&fake), 1, |_| ()).unwrap();
    group.delete(&fake, &locks.0, Duration::ZERO).unwrap();
    assert_eq!(snapshot(&fake).groups.keys().collect::<Vec<_>>(), [&like]);
    assert_eq!(group.recognise(&snapshot(&fake)), Fate::Same);
    assert_eq!(group.id, Some(like));
}

#[test]
fn f13_a_member_that_somebody_deleted_is_noticed() {
    let (fake, locks) = (Fake::new(10_000), Locks::new("f13"));
    let mut group = mapped(&fake, &[(0, 8), (16, 8)]);
    group
        .fit(&fake, &[(0, 8), (16, 8)], &word(), &locks.0, Duration::ZERO)
        .unwrap();
    assert_eq!(group.recognise(&snapshot(&fake)), Fate::Same);
    assert!(group.fits_still());
    fake.message(D, b"@stats_delete 2", 0).unwrap();
    let text = fake.message(D, b"@stats_list", 0).unwrap();
    assert_eq!(
        group.recognise(&Snapshot::parse(&text, None).unwrap()),
        Fate::Same
    );
    assert!(!group.fits_still());
}

#[test]
fn a_fit_that_fails_can_be_tried_again() {
    let (fake, locks) = (Fake::new(10_000), Locks::new("again"));
    let mut group = mapped(&fake, &[(0, 8)]);
    group
        .fit(&fake, &[(0, 8)], &word(), &locks.0, Duration::ZERO)
        .unwrap();
    let before = snapshot(&fake);
    fake.fail("@stats_create", 1, Errno::NOMEM);
    let more = [(0, 8), (32, 8), (64, 8)];
    assert!(group
        .fit(&fake, &more, &word(), &locks.0, Duration::ZERO)
        .is_err());
    assert!(!group.fits(&more));
    assert_eq!(snapshot(&fake), before);
    fake.fail("nothing", 0, Errno::NOMEM);
    assert_eq!(
        group
            .fit(&fake, &more, &word(), &locks.0, Duration::ZERO)
            .unwrap(),
        Fate::Fitted(2, 0)
    );
}

#[test]
fn f12_what_belonged_to_a_file_that_is_gone_is_deleted_and_nothing_else() {
    let (fake, locks) = (Fake::new(10_000), Locks::new("f12"));
    let mut group = mapped(&fake, &[(0, 8), (16, 8)]);
    group.delete(&fake, &locks.0, Duration::ZERO).unwrap();
    assert_eq!(snapshot(&fake).regions.keys().collect::<Vec<_>>(), [&0]);
}

#[test]
fn f12_a_region_of_another_program_that_has_the_id_of_a_member_stays() {
    let (fake, locks) = (Fake::new(10_000), Locks::new("theirs"));
    let mut group = mapped(&fake, &[(0, 8), (16, 8), (32, 8)]);
    // Nobody has told the group of it.
    fake.message(D, b"@stats_delete 2", 0).unwrap();
    assert_eq!(foreign(&fake), 2);
    group.delete(&fake, &locks.0, Duration::ZERO).unwrap();
    let left = snapshot(&fake);
    assert_eq!(left.regions.keys().collect::<Vec<_>>(), [&0, &2]);
    assert_eq!(*left.regions[&2].program, *b"other");
}

#[test]
fn a_group_can_be_made_by_its_follower() {
    let (fake, locks) = (Fake::new(10_000), Locks::new("made"));
    let mut group = Followed::none(D, b"dmstats", b"f", RegionSpec::whole());
    assert_eq!(
        group
            .fit(&fake, &[], &word(), &locks.0, Duration::ZERO)
            .unwrap(),
        Fate::Fitted(0, 0)
    );
    assert_eq!(
        group
            .fit(&fake, &[(8, 8)], &word(), &locks.0, Duration::ZERO)
            .unwrap(),
        Fate::Fitted(1, 0)
    );
    assert_eq!((group.id, places(&fake, 0)), (Some(0), vec![(8, 8)]));
}

#[test]
fn a_file_in_many_pieces_is_projected_by_its_follower() {
    let (fake, locks) = (Fake::new(10_000), Locks::new("many"));
    let mut group = Followed::none(D, b"dmstats", b"f", RegionSpec::whole());
    let at: Vec<(u64, u64)> = (0..65).map(|index| (index * 16, 8)).collect();
    let fate = group
        .fit(&fake, &at, &word(), &locks.0, Duration::ZERO)
        .unwrap();
    assert_eq!(fate, Fate::Fitted(1, 0));
    let made = snapshot(&fake);
    assert!(made.projected(0) == Some(word()) && group.fits(&at));
    assert_eq!(group.recognise(&made), Fate::Same);
    assert!(group.fits_still());
    // Another file takes its name and just its places: readers must know which one it is.
    let other = other_word();
    group.has_another_file();
    assert!(!group.fits(&at));
    let fate = group
        .fit(&fake, &at, &other, &locks.0, Duration::ZERO)
        .unwrap();
    assert_eq!(fate, Fate::Fitted(0, 0));
    assert!(snapshot(&fake).projected(0) == Some(other));
    // One piece less, and each has its region.
    let mut group = Followed::none(D, b"dmstats", b"g", RegionSpec::whole());
    let fate = group
        .fit(&fake, &at[1..], &word(), &locks.0, Duration::ZERO)
        .unwrap();
    assert_eq!(fate, Fate::Fitted(64, 0));
}
