// SPDX-License-Identifier: GPL-2.0

//! Maps from ids, in one piece of memory: the kernel tells all ascending, and mostly gives ids without gaps.

use std::ops::RangeInclusive;

/// A map from ids, which is used as a `BTreeMap` is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdMap<V>(Vec<(u32, V)>);

impl<V> Default for IdMap<V> {
    fn default() -> Self {
        IdMap(Vec::new())
    }
}

impl<V> IdMap<V> {
    /// The empty map.
    pub fn new() -> Self {
        Self::default()
    }

    /// The empty map, with room for so many.
    pub fn with_capacity(count: usize) -> Self {
        IdMap(Vec::with_capacity(count))
    }

    /// Where an id is, or would be.
    fn position(&self, id: u32) -> Result<usize, usize> {
        let index = id as usize;
        match self.0.get(index) {
            Some((found, _)) if *found == id => Ok(index),
            _ => self.0.binary_search_by_key(&id, |(known, _)| *known),
        }
    }

    /// Adds what has an id above all others at little cost; anything else at the cost of what is above it.
    #[inline]
    pub fn insert(&mut self, id: u32, value: V) {
        if self.0.last().is_none_or(|(last, _)| *last < id) {
            self.0.push((id, value));
            return;
        }
        match self.position(id) {
            Ok(at) => self.0[at].1 = value,
            Err(at) => self.0.insert(at, (id, value)),
        }
    }

    /// What has this id.
    pub fn get(&self, id: &u32) -> Option<&V> {
        let at = self.position(*id).ok()?;
        self.0.get(at).map(|(_, value)| value)
    }

    /// What has this id.
    pub fn get_mut(&mut self, id: &u32) -> Option<&mut V> {
        let at = self.position(*id).ok()?;
        self.0.get_mut(at).map(|(_, value)| value)
    }

    /// Whether anything has this id.
    pub fn contains_key(&self, id: &u32) -> bool {
        self.position(*id).is_ok()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (&u32, &V)> {
        self.into_iter()
    }

    /// The ids, ascending.
    pub fn keys(&self) -> impl Iterator<Item = &u32> {
        self.0.iter().map(|(id, _)| id)
    }

    /// What there is, by ascending ids.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }

    /// What there is, by ascending ids.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.0.iter_mut().map(|(_, value)| value)
    }

    /// Those of these ids, ascending.
    pub fn range(&self, ids: RangeInclusive<u32>) -> impl Iterator<Item = (&u32, &V)> {
        let first = self.position(*ids.start()).unwrap_or_else(|at| at);
        self.0[first..]
            .iter()
            .take_while(move |(id, _)| id <= ids.end())
            .map(|(id, value)| (id, value))
    }

    /// Those of these ids, ascending.
    pub fn range_mut(&mut self, ids: RangeInclusive<u32>) -> impl Iterator<Item = (&u32, &mut V)> {
        let first = self.position(*ids.start()).unwrap_or_else(|at| at);
        self.0[first..]
            .iter_mut()
            .take_while(move |(id, _)| id <= ids.end())
            .map(|(id, value)| (&*id, value))
    }

    /// Leaves only what is wanted.
    pub fn retain(&mut self, mut wanted: impl FnMut(&u32, &mut V) -> bool) {
        self.0.retain_mut(|(id, value)| wanted(id, value));
    }
}

impl<'a, V> IntoIterator for &'a IdMap<V> {
    type Item = (&'a u32, &'a V);
    type IntoIter = std::iter::Map<std::slice::Iter<'a, (u32, V)>, fn(&'a (u32, V)) -> Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter().map(|(id, value)| (id, value))
    }
}

#[cfg(test)]
impl<V> std::ops::Index<&u32> for IdMap<V> {
    type Output = V;

    fn index(&self, id: &u32) -> &V {
        self.get(id).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn it_is_as_the_map_of_the_standard_library(
            entries in proptest::collection::vec((0u32..40, 0u8..9), 0..40), first in 0u32..45, len in 0u32..45,
        ) {
            let (mut map, mut known) = (IdMap::new(), BTreeMap::new());
            for (id, value) in entries {
                map.insert(id, value);
                known.insert(id, value);
            }
            prop_assert!(map.iter().eq(&known));
            prop_assert!(map.range(first..=first + len).eq(known.range(first..=first + len)));
            prop_assert!((0..45).all(|id| map.get(&id) == known.get(&id) && map.contains_key(&id) == known.contains_key(&id)));
            map.retain(|id, value| *id > 9 && *value > 3);
            known.retain(|id, value| *id > 9 && *value > 3);
            prop_assert!(map.iter().eq(&known) && map.len() == known.len());
            prop_assert_eq!(map.get_mut(&20), known.get_mut(&20));
        }
    }
}
