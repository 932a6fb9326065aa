// SPDX-License-Identifier: GPL-2.0

//! Sets of sectors that are asked, not changed: a file in ten thousand pieces is sorted once, and gone through once.

/// Ranges, as their first sector and the one after their last: ascending, not empty, never adjacent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// What is in any of these ranges, and the number of sectors that are in several.
    pub fn counted(ranges: impl Iterator<Item = (u64, u64)>) -> (Self, u64) {
        let mut all: Vec<_> = ranges.filter(|(start, end)| start < end).collect();
        all.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::with_capacity(all.len());
        let mut twice = 0u64;
        for (start, end) in all {
            match merged.last_mut() {
                Some((_, last)) if start <= *last => {
                    twice = twice.saturating_add(end.min(*last) - start);
                    *last = end.max(*last);
                }
                _ => merged.push((start, end)),
            }
        }
        (Ranges(merged), twice)
    }

    /// Of places, which are told by their first sector and their sectors.
    pub fn of_places(places: &[(u64, u64)]) -> Self {
        let ends = places
            .iter()
            .map(|(start, len)| (*start, start.saturating_add(*len)));
        ends.collect()
    }

    /// The ranges.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (u64, u64)> + '_ {
        self.0.iter().copied()
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The sector after its last, or 0.
    pub fn end(&self) -> u64 {
        self.0.last().map_or(0, |range| range.1)
    }

    /// What is not in the other.
    pub fn without(&self, other: &Self) -> Self {
        let mut left = Vec::with_capacity(self.0.len());
        for (start, end) in self.iter() {
            let mut at = start;
            for (from, to) in other.within(start, end) {
                if at < from {
                    left.push((at, from));
                }
                at = to;
            }
            if at < end {
                left.push((at, end));
            }
        }
        Ranges(left)
    }

    /// Around a sector that is not in it: the end of what is before, or 0, and the start of what comes after.
    pub fn gap(&self, sector: u64) -> (u64, u64) {
        let after = self.0.partition_point(|range| range.1 <= sector);
        let before = after.checked_sub(1).and_then(|index| self.0.get(index));
        (
            before.map_or(0, |range| range.1),
            self.0.get(after).map_or(u64::MAX, |range| range.0),
        )
    }

    /// First sector and sectors of each.
    pub fn places(&self) -> Vec<(u64, u64)> {
        self.iter()
            .map(|(start, end)| (start, end - start))
            .collect()
    }

    /// The parts that are within a range.
    pub fn within(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let first = self.0.partition_point(|range| range.1 <= start);
        self.0[first..]
            .iter()
            .take_while(move |range| range.0 < end)
            .map(move |range| (range.0.max(start), range.1.min(end)))
    }

    /// How many sectors within a range there are.
    pub fn common(&self, start: u64, end: u64) -> u64 {
        self.within(start, end)
            .map(|(start, end)| end - start)
            .sum()
    }
}

impl FromIterator<(u64, u64)> for Ranges {
    fn from_iter<I: IntoIterator<Item = (u64, u64)>>(ranges: I) -> Self {
        Self::counted(ranges.into_iter()).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn they_are_the_sectors_that_they_were_made_of(
            ranges in proptest::collection::vec((0u64..60, 0u64..9), 0..20), start in 0u64..60, len in 0u64..20,
        ) {
            let (found, twice) = Ranges::counted(ranges.iter().map(|(at, len)| (*at, at + len)));
            let sectors: BTreeSet<u64> = ranges.iter().flat_map(|(at, len)| *at..at + len).collect();
            let all: u64 = ranges.iter().map(|(_, len)| len).sum();
            prop_assert!(twice <= all - sectors.len() as u64 && (twice > 0) == (all > sectors.len() as u64));
            prop_assert_eq!(found.iter().flat_map(|(start, end)| start..end).collect::<BTreeSet<_>>(), sectors.clone());
            prop_assert!(found.0.windows(2).all(|pair| pair[0].1 < pair[1].0));
            let within = sectors.range(start..start + len).count() as u64;
            prop_assert_eq!(found.common(start, start + len), within);
        }

        #[test]
        fn what_is_left_and_the_gaps_are_the_other_sectors(
            ranges in proptest::collection::vec((0u64..60, 0u64..9), 0..20),
            others in proptest::collection::vec((0u64..60, 0u64..9), 0..9),
        ) {
            let sectors = |ranges: &[(u64, u64)]| -> BTreeSet<u64> {
                ranges.iter().flat_map(|(at, len)| *at..at + len).collect()
            };
            let (one, other) = (Ranges::of_places(&ranges), Ranges::of_places(&others));
            let left: BTreeSet<u64> = &sectors(&ranges) - &sectors(&others);
            prop_assert_eq!(one.without(&other).places(), Ranges::of_places(&left.iter().map(|at| (*at, 1)).collect::<Vec<_>>()).places());
            let taken = sectors(&others);
            prop_assert_eq!(other.end(), taken.last().map_or(0, |last| last + 1));
            for sector in (0..70).filter(|sector| !taken.contains(sector)) {
                let (start, end) = other.gap(sector);
                prop_assert!(start <= sector && sector < end && !taken.iter().any(|at| (start..end).contains(at)));
                prop_assert!(start == 0 || taken.contains(&(start - 1)));
                prop_assert!(end == u64::MAX || taken.contains(&end));
            }
        }
    }
}
