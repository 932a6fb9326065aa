// SPDX-License-Identifier: GPL-2.0

//! The regions and groups of a device at one moment, as a list tells them.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use memchr::memchr_iter;
use rangemap::RangeSet;

use crate::aux::Aux;
use crate::idmap::IdMap;
use crate::message;
use crate::projection::Word;
use crate::reply;
use crate::reply::ListRow;
use crate::Error;
use crate::IdSet;
use crate::Result;

/// A region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its id.
    pub id: u32,
    /// Its first sector.
    pub start: u64,
    /// Its sectors.
    pub len: u64,
    /// The sectors of each area but the last, which may have less.
    pub step: u64,
    /// The program that made it; empty if none was named. Regions in a row mostly share it.
    pub program: Arc<[u8]>,
    /// The program's own data, without the group; may be empty.
    pub user: Vec<u8>,
    /// Whether it counts in nanoseconds, not milliseconds.
    pub precise: bool,
    /// The bounds of its histogram in nanoseconds; none without one.
    pub bounds: Vec<u64>,
    /// The group that it is in.
    pub group: Option<u32>,
}

impl Region {
    /// How many areas it has.
    pub fn areas(&self) -> u64 {
        self.len.div_ceil(self.step)
    }

    /// The first sector of an area.
    pub fn area_start(&self, area: u64) -> u64 {
        self.start.saturating_add(area.saturating_mul(self.step))
    }

    /// The sectors of an area; the last ends where the region does.
    pub fn area_len(&self, area: u64) -> u64 {
        self.step
            .min((self.start + self.len).saturating_sub(self.area_start(area)))
    }

    /// Whether it is as another one in all but its id and its first sector.
    pub fn is_like(&self, other: &Region) -> bool {
        (self.len, self.step, self.precise, self.group)
            == (other.len, other.step, other.precise, other.group)
            && self.program == other.program
            && self.user == other.user
            && self.bounds == other.bounds
    }

    /// How long its row in the list is at most, but for its word.
    pub(crate) fn row(&self) -> usize {
        message::row(&self.program, &self.bounds, self.precise)
    }

    /// How many bins its histogram has.
    pub fn bins(&self) -> usize {
        crate::bounds::bins(&self.bounds)
    }
}

/// A group of regions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name, which may be empty.
    pub alias: Vec<u8>,
    /// Its regions; all of them exist.
    pub members: IdSet,
}

impl Group {
    /// Its regions that are of its first's program: another may have taken the id of one that was deleted.
    pub fn own<'a>(&'a self, snapshot: &'a Snapshot) -> impl Iterator<Item = &'a Region> {
        let mut regions = self.members.regions(&snapshot.regions).peekable();
        let program = regions.peek().map(|leader| Arc::clone(&leader.program));
        regions.filter(move |region| program.as_ref() == Some(&region.program))
    }

    /// The sectors that its own regions cover.
    pub fn covered(&self, snapshot: &Snapshot) -> RangeSet<u64> {
        self.own(snapshot)
            .map(|region| region.start..region.start.saturating_add(region.len))
            .collect()
    }

    /// What it is called: its alias, or its members.
    pub fn name(&self) -> Cow<'_, [u8]> {
        if self.alias.is_empty() {
            let mut members = Vec::new();
            self.members.write(&mut members);
            Cow::Owned(members)
        } else {
            Cow::Borrowed(&self.alias)
        }
    }
}

/// What is wrong with what other programs have left with the regions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The word of this region has a group's tag, but no group.
    BadGroup(u32),
    /// The word of this region has a group whose first member is another.
    WrongLeader(u32),
    /// The group of this id names a region that does not exist, and maybe more.
    MissingMember(u32, u32),
    /// The group of this id names a region that is in another group.
    SharedMember(u32, u32),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::BadGroup(region) => write!(
                f,
                "Found malformed group descriptor in region {region} aux_data."
            ),
            Problem::WrongLeader(region) => write!(
                f,
                "Found invalid group descriptor in region {region} aux_data."
            ),
            Problem::MissingMember(group, region) => {
                write!(
                    f,
                    "Group descriptor {group} contains non-existent region_id {region}."
                )
            }
            Problem::SharedMember(group, region) => {
                write!(
                    f,
                    "Group descriptor {group} contains region_id {region} of another group."
                )
            }
        }
    }
}

/// All of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The regions by id.
    pub regions: IdMap<Region>,
    /// The groups by id, which is that of their first region.
    pub groups: IdMap<Group>,
    /// What was found wrong, and left out.
    pub problems: Vec<Problem>,
}

impl Snapshot {
    /// Reads the answer to `@stats_list`; `program` is a name that regions may have.
    pub fn parse(text: &[u8], program: Option<&[u8]>) -> Result<Self> {
        let mut snapshot = Snapshot {
            regions: IdMap::with_capacity(memchr_iter(b'\n', text).count()),
            ..Self::default()
        };
        let mut described = Vec::new();
        let mut maker: Arc<[u8]> = Arc::default();
        for line in reply::lines(text) {
            let row = ListRow::parse(line, program).ok_or_else(|| Error::Reply {
                what: "@stats_list",
                line: line.escape_ascii().to_string(),
            })?;
            let aux = Aux::parse(row.aux).unwrap_or_else(|(_, user)| {
                snapshot.problems.push(Problem::BadGroup(row.id));
                Aux { group: None, user }
            });
            if let Some(group) = aux.group {
                described.push((row.id, group));
            }
            let name = if row.program == b"-" {
                b""
            } else {
                row.program
            };
            if *maker != *name {
                maker = name.into();
            }
            let unit = if row.precise { 1 } else { 1_000_000 };
            let mut bounds = row.bounds;
            for bound in &mut bounds {
                *bound = bound.saturating_mul(unit);
            }
            snapshot.regions.insert(
                row.id,
                Region {
                    id: row.id,
                    start: row.start,
                    len: row.len,
                    step: row.step,
                    program: Arc::clone(&maker),
                    user: aux.user,
                    precise: row.precise,
                    bounds,
                    group: None,
                },
            );
        }
        described
            .into_iter()
            .for_each(|(leader, group)| snapshot.add_group(leader, group));
        Ok(snapshot)
    }

    fn add_group(&mut self, leader: u32, described: crate::aux::Descriptor) {
        if described.members.first() != Some(leader) {
            self.problems.push(Problem::WrongLeader(leader));
            return;
        }
        if let Some(missing) = described.members.first_not_among(&self.regions) {
            self.problems.push(Problem::MissingMember(leader, missing));
        }
        let problems = &mut self.problems;
        let mut free = IdSet::new();
        for (first, last) in described.members.ranges() {
            let members = self.regions.range_mut(first..=last);
            free.extend(members.filter_map(|(id, region)| {
                if region.group.is_some() {
                    problems.push(Problem::SharedMember(leader, *id));
                    return None;
                }
                region.group = Some(leader);
                Some(*id)
            }));
        }
        if free.first() == Some(leader) {
            let group = Group {
                alias: described.alias,
                members: free,
            };
            self.groups.insert(leader, group);
        } else {
            // Its leader is in a group before it, so that it has no one to speak for it.
            free.iter().for_each(|id| {
                if let Some(region) = self.regions.get_mut(&id) {
                    region.group = None;
                }
            });
        }
    }

    /// The ids of its regions.
    pub fn ids(&self) -> IdSet {
        self.regions.keys().copied().collect()
    }

    /// A region by its id.
    pub fn region(&self, id: u32) -> Result<&Region> {
        self.regions.get(&id).ok_or(Error::NoRegion(id))
    }

    /// A group by its id.
    pub fn group(&self, id: u32) -> Result<&Group> {
        self.groups.get(&id).ok_or(Error::NoGroup(id))
    }

    /// The file of a group that lies over it, and is to be projected.
    pub fn projected(&self, id: u32) -> Option<Word> {
        let leader = self.regions.get(&id)?;
        self.groups.get(&id)?;
        Word::parse(&leader.user)
    }

    /// The bounds that the histograms of all members have.
    pub fn group_bounds(&self, group: &Group) -> Option<&[u64]> {
        let mut all = group
            .members
            .regions(&self.regions)
            .map(|region| &region.bounds);
        let first = all.next().filter(|bounds| !bounds.is_empty())?;
        all.all(|bounds| bounds == first).then_some(first)
    }

    /// What the region's word must be: its user data, and its group if it leads one.
    pub fn word(&self, id: u32, group: Option<&Group>) -> Vec<u8> {
        let aux = Aux {
            group: group.map(|group| crate::aux::Descriptor {
                alias: group.alias.clone(),
                members: group.members.clone(),
            }),
            user: self
                .regions
                .get(&id)
                .map(|region| region.user.clone())
                .unwrap_or_default(),
        };
        aux.format()
    }

    /// Without the regions of other programs, and without their groups.
    pub fn of_program(mut self, program: &[u8]) -> Self {
        if self
            .regions
            .values()
            .all(|region| *region.program == *program)
        {
            return self;
        }
        self.regions.retain(|_, region| *region.program == *program);
        self.groups.retain(|leader, group| {
            let members: IdSet = group.members.among(&self.regions).collect();
            group.members = members;
            self.regions.contains_key(leader)
        });
        for region in self.regions.values_mut() {
            region.group = region.group.filter(|group| self.groups.contains_key(group));
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list(words: &[(u32, &str)]) -> Snapshot {
        let rows: Vec<String> = words
            .iter()
            .map(|(id, word)| format!("{id}: 0+8 8 dmstats {word}\n"))
            .collect();
        Snapshot::parse(rows.concat().as_bytes(), None).unwrap()
    }

    fn said(snapshot: &Snapshot) -> Vec<String> {
        snapshot.problems.iter().map(Problem::to_string).collect()
    }

    #[test]
    fn a24_members_that_do_not_exist_are_told_and_left_out() {
        let snapshot = list(&[(0, "DMS_GROUP=\"img\":0-3#-"), (1, "-"), (3, "-")]);
        assert_eq!(
            said(&snapshot),
            ["Group descriptor 0 contains non-existent region_id 2."]
        );
        assert_eq!(snapshot.groups[&0].members.to_string(), "0-1,3");
    }

    #[test]
    fn b4_an_id_far_above_all_regions_costs_nothing() {
        let snapshot = list(&[(0, "DMS_GROUP=\"img\":0-40000000,2147483647#-"), (1, "-")]);
        assert_eq!(
            said(&snapshot),
            ["Group descriptor 0 contains non-existent region_id 2."]
        );
        assert_eq!(snapshot.groups[&0].members.to_string(), "0-1");
    }

    #[test]
    fn a25_a_group_must_begin_with_its_leader() {
        let snapshot = list(&[(0, "DMS_GROUP=img:2#"), (2, "-")]);
        assert_eq!(
            said(&snapshot),
            ["Found invalid group descriptor in region 0 aux_data."]
        );
        assert!(snapshot.groups.is_empty() && snapshot.regions[&0].group.is_none());
    }

    #[test]
    fn a_region_is_in_the_first_group_that_names_it() {
        let snapshot = list(&[
            (0, "DMS_GROUP=:0-2#-"),
            (1, "DMS_GROUP=:1,3#-"),
            (2, "-"),
            (3, "-"),
        ]);
        assert_eq!(snapshot.groups.keys().collect::<Vec<_>>(), [&0]);
        assert_eq!(
            said(&snapshot),
            ["Group descriptor 1 contains region_id 1 of another group."]
        );
        assert_eq!(snapshot.regions[&3].group, None);
    }

    #[test]
    fn the_last_area_ends_with_its_region() {
        let region = Region {
            start: 10,
            len: 1000,
            step: 300,
            ..list(&[(0, "-")]).regions[&0].clone()
        };
        assert_eq!(
            (
                region.areas(),
                region.area_start(3),
                region.area_len(3),
                region.area_len(0)
            ),
            (4, 910, 100, 300)
        );
    }

    #[test]
    fn what_is_no_list_is_an_error() {
        assert!(matches!(
            Snapshot::parse(b"0: 0+8\n", None),
            Err(Error::Reply { .. })
        ));
    }

    #[test]
    fn another_programs_regions_can_be_left_out() {
        let text = b"0: 0+8 8 a DMS_GROUP=:0-1#-\n1: 0+8 8 b -\n2: 0+8 8 b DMS_GROUP=\"x\":2#-\n";
        let snapshot = Snapshot::parse(text, None).unwrap();
        let (a, b) = (snapshot.clone().of_program(b"a"), snapshot.of_program(b"b"));
        assert_eq!(
            (a.regions.len(), a.groups[&0].members.to_string()),
            (1, "0".into())
        );
        assert_eq!((b.regions.len(), b.groups.keys().next()), (2, Some(&2)));
        assert_eq!(b.regions[&1].group, None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        /// Whatever is in the words: each group's members exist, know it, and begin with its id.
        #[test]
        fn groups_are_sound(words in proptest::collection::vec("(-|DMS_GROUP=(\"a\")?:[0-9](-[0-9])?(,[0-9]{1,2}){0,3}#-)", 1..9)) {
            let rows: Vec<(u32, &str)> = words.iter().enumerate().map(|(id, word)| (id as u32, word.as_str())).collect();
            let snapshot = list(&rows);
            for (id, group) in &snapshot.groups {
                prop_assert_eq!(group.members.first(), Some(*id));
                prop_assert!(group.members.iter().all(|member| snapshot.regions[&member].group == Some(*id)));
            }
            let grouped = snapshot.regions.values().filter(|region| region.group.is_some()).count() as u64;
            prop_assert_eq!(grouped, snapshot.groups.values().map(|group| group.members.len()).sum::<u64>());
        }
    }
}
