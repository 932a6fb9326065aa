// SPDX-License-Identifier: GPL-2.0

//! The division of a target into regions, against what the words mean.

use core::ops::Range;
use proptest::prelude::*;
use pure::clone::geometry::{
    Geometry,
    GeometryError,
    MAX_REGIONS,
    MAX_REGION_SECTORS,
    MIN_REGION_SECTORS, //
};

/// Targets that are small enough for each sector to be looked at.
fn small() -> impl Strategy<Value = Geometry> {
    (1u64..600, 3u32..7).prop_map(|(sectors, shift)| Geometry::new(sectors, 1 << shift).unwrap())
}

/// Any target that there can be, the longest ones often.
fn any_geometry() -> impl Strategy<Value = Geometry> {
    (3u32..=21).prop_flat_map(|shift| {
        let longest = MAX_REGIONS << shift;
        prop_oneof![1..=longest, longest - 5000..=longest]
            .prop_map(move |sectors| Geometry::new(sectors, 1 << shift).unwrap())
    })
}

/// Any number, those near the ends of `u64` and near `edge` often.
fn around(edge: u64) -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        0..5000u64,
        edge.saturating_sub(5000)..=edge.saturating_add(5000),
        u64::MAX - 5000..=u64::MAX,
    ]
}

/// The sectors of one region by definition, in numbers that do not overflow.
fn sectors_of(geometry: &Geometry, region: u64) -> Range<u128> {
    let end = u128::from(geometry.target_sectors());
    let size = u128::from(geometry.region_sectors());
    let start = u128::from(region) * size;
    start.min(end)..(start + size).min(end)
}

fn touches(geometry: &Geometry, sectors: &Range<u64>, region: u64) -> bool {
    let own = sectors_of(geometry, region);
    own.start.max(sectors.start.into()) < own.end.min(sectors.end.into())
}

fn covers(geometry: &Geometry, sectors: &Range<u64>, region: u64) -> bool {
    let own = sectors_of(geometry, region);
    !own.is_empty() && u128::from(sectors.start) <= own.start && own.end <= sectors.end.into()
}

#[test]
fn only_powers_of_two_within_the_limits_are_region_sizes() {
    for sectors in 0..=MAX_REGION_SECTORS + 3 {
        let expected = if !(MIN_REGION_SECTORS..=MAX_REGION_SECTORS).contains(&sectors) {
            Err(GeometryError::RegionSize)
        } else if sectors.count_ones() != 1 {
            Err(GeometryError::NotPowerOfTwo)
        } else {
            Ok(sectors)
        };
        let made = Geometry::new(1 << 21, sectors).map(|geometry| geometry.region_sectors());
        assert_eq!(made, expected, "region of {sectors} sectors");
    }
    assert_eq!(Geometry::new(1, u32::MAX), Err(GeometryError::RegionSize));
}

#[test]
fn there_are_one_to_the_most_regions() {
    for shift in 3..=21 {
        let regions = |sectors| Geometry::new(sectors, 1 << shift).map(|made| made.regions());
        let longest = MAX_REGIONS << shift;
        assert_eq!(regions(0), Err(GeometryError::RegionCount));
        assert_eq!(regions(1), Ok(1));
        assert_eq!(regions(1 << shift), Ok(1));
        assert_eq!(regions((1 << shift) + 1), Ok(2));
        assert_eq!(regions(longest), Ok(MAX_REGIONS));
        assert_eq!(regions(longest + 1), Err(GeometryError::RegionCount));
        assert_eq!(regions(u64::MAX), Err(GeometryError::RegionCount));
    }
}

#[test]
fn the_short_last_region_is_covered_to_the_end_of_the_target() {
    let geometry = Geometry::new(20, 8).unwrap();
    assert_eq!(geometry.sectors(2..3), 16..20);
    assert_eq!(geometry.covered(16..20), 2..3);
    assert_eq!(geometry.covered(16..99), 2..3);
    assert!(geometry.covered(16..19).is_empty());
    assert!(geometry.covered(17..20).is_empty());
    assert_eq!(geometry.covered(0..20), 0..3);
    assert_eq!(geometry.covered(1..20), 1..3);
}

proptest! {
    #[test]
    fn each_sector_is_in_the_region_that_has_it(geometry in small()) {
        for sector in 0..geometry.target_sectors() {
            let region = geometry.region_of(sector);
            prop_assert!(sectors_of(&geometry, region).contains(&sector.into()));
        }
        let last = geometry.region_of(geometry.target_sectors() - 1);
        prop_assert_eq!(geometry.regions(), last + 1);
    }

    #[test]
    fn touched_and_covered_regions_are_those_by_definition(
        geometry in small(),
        start in 0u64..700,
        end in 0u64..700,
    ) {
        let sectors = start..end;
        let by_definition = |holds: fn(&Geometry, &Range<u64>, u64) -> bool| -> Vec<u64> {
            (0..200).filter(|&region| holds(&geometry, &sectors, region)).collect()
        };
        let touched: Vec<u64> = geometry.touched(sectors.clone()).collect();
        prop_assert_eq!(touched, by_definition(touches));
        let covered: Vec<u64> = geometry.covered(sectors.clone()).collect();
        prop_assert_eq!(covered, by_definition(covers));
    }

    #[test]
    fn only_unwanted_regions_at_the_ends_that_are_not_covered_are_cut_off(
        geometry in small(),
        start in 0u64..700,
        end in 0u64..700,
        wanted in proptest::bits::u64::ANY,
    ) {
        let keep = |region: u64| wanted >> (region % 64) & 1 != 0;
        let covered = geometry.covered(start..end);
        let expected: Vec<u64> = (start..end.min(geometry.target_sectors()))
            .filter(|&sector| {
                let region = geometry.region_of(sector);
                covered.contains(&region) || keep(region)
            })
            .collect();
        let trimmed: Vec<u64> = geometry.trimmed(start..end, keep).collect();
        prop_assert_eq!(trimmed, expected);
    }

    #[test]
    fn sectors_of_regions_are_those_of_each(
        geometry in small(),
        start in 0u64..200,
        len in 0u64..200,
    ) {
        let expected: Vec<u64> = (start..start + len)
            .flat_map(|region| sectors_of(&geometry, region))
            .map(|sector| sector as u64)
            .collect();
        let sectors: Vec<u64> = geometry.sectors(start..start + len).collect();
        prop_assert_eq!(sectors, expected);
    }

    /// Nothing overflows, and the results are right at both of their ends.
    #[test]
    fn extremes_are_right(
        (geometry, start, end) in any_geometry().prop_flat_map(|geometry| {
            let edge = geometry.target_sectors();
            (Just(geometry), around(edge), around(edge))
        }),
    ) {
        let sectors = start..end;

        let touched = geometry.touched(sectors.clone());
        let covered = geometry.covered(sectors.clone());
        for (regions, holds) in [
            (&touched, touches as fn(&Geometry, &Range<u64>, u64) -> bool),
            (&covered, covers),
        ] {
            // A length can be taken of it without a check.
            prop_assert!(regions.start <= regions.end);
            if regions.is_empty() {
                continue;
            }
            prop_assert!(regions.end <= geometry.regions());
            prop_assert!(holds(&geometry, &sectors, regions.start));
            prop_assert!(holds(&geometry, &sectors, regions.end - 1));
            prop_assert!(!holds(&geometry, &sectors, regions.end));
            if let Some(before) = regions.start.checked_sub(1) {
                prop_assert!(!holds(&geometry, &sectors, before));
            }
        }
        prop_assert_eq!(touched.is_empty(), start >= end.min(geometry.target_sectors()));
        prop_assert!(covered.is_empty() || !touched.is_empty());

        let bound = |region| sectors_of(&geometry, region).start;
        let range = geometry.sectors(sectors.clone());
        prop_assert_eq!(u128::from(range.start), bound(start));
        prop_assert_eq!(u128::from(range.end), bound(end));
        prop_assert_eq!(geometry.region_of(start), start / u64::from(geometry.region_sectors()));
    }
}
