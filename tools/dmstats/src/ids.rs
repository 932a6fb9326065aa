// SPDX-License-Identifier: GPL-2.0

//! Sets of region ids, as ranges: their size is that of their text, whatever the ids in it are.

use std::fmt;

use rangemap::RangeInclusiveSet;

use crate::idmap::IdMap;
use crate::message::digits;
use crate::Region;

/// The highest id that the kernel gives (its `INT_MAX`).
pub const MAX_ID: u32 = i32::MAX as u32;

/// A set of region ids.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct IdSet(RangeInclusiveSet<u32>);

impl IdSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// All ids up to this one.
    pub fn up_to(last: u32) -> Self {
        let mut set = Self::new();
        set.0.insert(0..=last);
        set
    }

    /// Adds an id.
    pub fn insert(&mut self, id: u32) {
        self.0.insert(id..=id);
    }

    /// Removes an id.
    pub fn remove(&mut self, id: u32) {
        self.0.remove(id..=id);
    }

    /// Whether the id is in the set.
    pub fn contains(&self, id: u32) -> bool {
        self.0.contains(&id)
    }

    /// The lowest id.
    pub fn first(&self) -> Option<u32> {
        self.0.first().map(|range| *range.start())
    }

    /// Whether there is no id in the set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many ids are in the set.
    pub fn len(&self) -> u64 {
        self.0
            .iter()
            .map(|range| u64::from(range.end() - range.start()) + 1)
            .sum()
    }

    /// The ids, ascending. There may be very many: see [`Self::len`].
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = u32> + '_ {
        self.0.iter().flat_map(Clone::clone)
    }

    /// The ranges, ascending, never adjacent.
    pub fn ranges(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.0.iter().map(|range| (*range.start(), *range.end()))
    }

    /// The regions of these ids, found without going through ids that are not known.
    pub fn regions<'s, 'k: 's>(
        &'s self,
        known: &'k IdMap<Region>,
    ) -> impl Iterator<Item = &'k Region> + 's {
        self.ranges()
            .flat_map(|(first, last)| known.range(first..=last).map(|(_, region)| region))
    }

    /// The ids of such.
    pub fn among<'a>(&'a self, known: &'a IdMap<Region>) -> impl Iterator<Item = u32> + 'a {
        self.regions(known).map(|region| region.id)
    }

    /// The lowest id that is not in `known`.
    pub fn first_not_among(&self, known: &IdMap<Region>) -> Option<u32> {
        self.ranges().find_map(|(first, last)| {
            let mut present = known.range(first..=last).map(|(id, _)| *id);
            (first..=last).find(|id| present.next() != Some(*id))
        })
    }

    /// Writes it as a list such as `0-3,7`.
    pub fn write(&self, out: &mut Vec<u8>) {
        for (index, (first, last)) in self.ranges().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            digits(first.into(), out);
            if first != last {
                out.push(b'-');
                digits(last.into(), out);
            }
        }
    }

    /// Reads a list such as `0-3,7`. Items may come in any order and more than once; ranges may not run
    /// backwards. `None` for what is no list.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut set = Self::new();
        for item in text.split(|byte| *byte == b',') {
            let mut ends = item.splitn(2, |byte| *byte == b'-');
            let first = number(ends.next()?)?;
            let last = ends.next().map_or(Some(first), number)?;
            if last < first {
                return None;
            }
            set.0.insert(first..=last);
        }
        Some(set)
    }
}

fn number(text: &[u8]) -> Option<u32> {
    crate::reply::number(text)
        .and_then(|number| u32::try_from(number).ok())
        .filter(|id| *id <= MAX_ID)
}

impl FromIterator<u32> for IdSet {
    fn from_iter<I: IntoIterator<Item = u32>>(ids: I) -> Self {
        let mut set = Self::new();
        set.extend(ids);
        set
    }
}

impl Extend<u32> for IdSet {
    fn extend<I: IntoIterator<Item = u32>>(&mut self, ids: I) {
        // Ids mostly come in a row, and the set takes a row as easily as one.
        let mut row: Option<(u32, u32)> = None;
        for id in ids {
            row = match row {
                Some((first, last)) if last.checked_add(1) == Some(id) => Some((first, id)),
                ended => {
                    self.0.extend(ended.map(|(first, last)| first..=last));
                    Some((id, id))
                }
            };
        }
        self.0.extend(row.map(|(first, last)| first..=last));
    }
}

impl fmt::Display for IdSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::new();
        self.write(&mut text);
        f.write_str(&String::from_utf8_lossy(&text))
    }
}

impl fmt::Debug for IdSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_list_is_written_in_its_shortest_form() {
        for (text, shortest) in [
            ("0", "0"),
            ("3,1,2", "1-3"),
            ("0,0", "0"),
            ("5-9,0-4,20", "0-9,20"),
        ] {
            assert_eq!(IdSet::parse(text.as_bytes()).unwrap().to_string(), shortest);
        }
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for text in [
            "",
            ",",
            "1,",
            "1-",
            "-1",
            "1-0",
            "a",
            "1 2",
            "1--2",
            "2147483648",
            "99999999999999999999",
            "+1",
        ] {
            assert_eq!(IdSet::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_huge_range_costs_nothing() {
        let set = IdSet::parse(b"0-2147483647").unwrap();
        assert_eq!(
            (set.len(), set.first(), set.contains(MAX_ID)),
            (1 << 31, Some(0), true)
        );
        assert_eq!(set.among(&Default::default()).count(), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn what_is_written_is_read_back(ids in proptest::collection::vec(0u32..200, 1..40)) {
            let set: IdSet = ids.iter().copied().collect();
            prop_assert_eq!(IdSet::parse(set.to_string().as_bytes()), Some(set.clone()));
            let mut sorted = ids.clone();
            sorted.sort_unstable();
            sorted.dedup();
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), sorted);
        }
    }
}
