// SPDX-License-Identifier: GPL-2.0

//! Groups of regions that cover a file.
//!
//! What must hold is that the regions together cover the file, not that each is one of its extents: so a file
//! that grows gets a region for what is new, and loses no counts.

use rangemap::RangeSet;

use crate::aux::sanitized;
use crate::cost;
use crate::device::Step;
use crate::message;
use crate::projection;
use crate::projection::Plan;
use crate::projection::Space;
use crate::projection::Word;
use crate::projection::REGIONS;
use crate::ranges::Ranges;
use crate::Device;
use crate::Error;
use crate::Group;
use crate::IdSet;
use crate::Region;
use crate::RegionSpec;
use crate::Result;
use crate::Snapshot;
use crate::Transport;

/// What the regions of one projected file may take of the kernel's memory, in bytes: new ones have half of what is
/// left of it.
const MEMORY: u64 = 64 << 20;

/// A file's new regions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileMap {
    /// Their group, if one was wanted.
    pub group: Option<u32>,
    /// Their ids.
    pub regions: Vec<u32>,
}

/// What an update has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// The group by its id from now on; none, if the file has no place on the device any more.
    pub group: Option<u32>,
    /// How many regions stayed.
    pub kept: usize,
    /// How many are new.
    pub created: usize,
    /// How many are gone.
    pub removed: usize,
}

/// Regions for places on the device, like a given one.
fn specs(places: &[(u64, u64)], like: &RegionSpec) -> Vec<RegionSpec> {
    let spec = |(start, len): &(u64, u64)| RegionSpec {
        range: Some((*start, *len)),
        ..like.clone()
    };
    places.iter().map(spec).collect()
}

/// The word of the first region of a group.
fn described(group: Group, user: &[u8]) -> Vec<u8> {
    let word = crate::aux::Aux {
        group: Some(crate::aux::Descriptor {
            alias: group.alias,
            members: group.members,
        }),
        user: user.to_vec(),
    };
    word.format()
}

/// How many regions a group has, if they all are of one program, and cover these places exactly and once.
fn unchanged(
    snapshot: &Snapshot,
    group: &Group,
    leader: &Region,
    places: &[(u64, u64)],
) -> Option<usize> {
    let members: Vec<&Region> = group.members.regions(&snapshot.regions).collect();
    let ends = members
        .iter()
        .map(|region| (region.start, region.start.saturating_add(region.len)));
    let (covered, twice) = Ranges::counted(ends);
    let ours = members
        .iter()
        .all(|region| region.program == leader.program);
    (ours && twice == 0 && !members.is_empty() && covered == Ranges::of_places(places))
        .then_some(members.len())
}

impl<T: Transport> Device<'_, T> {
    /// Makes a region for each of these places, and a group of them unless `alias` is none. `like` has what
    /// else they are to be.
    pub fn map_file(
        &self,
        places: &[(u64, u64)],
        like: &RegionSpec,
        alias: Option<&[u8]>,
        progress: impl FnMut(usize),
    ) -> Result<FileMap> {
        if places.is_empty() {
            return Err(Error::File("it has no allocated extents.".into()));
        }
        let regions = self.create_all(&specs(places, like), progress)?;
        match alias {
            None => Ok(FileMap {
                group: None,
                regions,
            }),
            Some(alias) => self.group_new(regions, alias, like),
        }
    }

    /// Makes the regions of a plan, and a group of them that says of which file it is.
    pub fn project_file(
        &self,
        plan: &Plan,
        like: &RegionSpec,
        alias: &[u8],
        word: &Word,
    ) -> Result<FileMap> {
        let like = RegionSpec {
            step: Step::Sectors(plan.step),
            aux: Vec::new(),
            ..like.clone()
        };
        let regions = self.create_all(&specs(&plan.regions, &like), |_| ())?;
        let leader = RegionSpec {
            aux: word.format(),
            ..like
        };
        self.group_new(regions, alias, &leader)
    }

    /// Makes a group of regions that were just made, or removes them. `first` is how the first was made, but for what
    /// else is to stand in its word.
    pub fn group_new(
        &self,
        regions: Vec<u32>,
        alias: &[u8],
        first: &RegionSpec,
    ) -> Result<FileMap> {
        let members: IdSet = regions.iter().copied().collect();
        let group = Group {
            alias: sanitized(alias),
            members,
        };
        let leader = group.members.first().unwrap_or_default();
        match self.set_aux(leader, &described(group, &first.aux), self.row_of(first)) {
            Ok(()) => Ok(FileMap {
                group: Some(leader),
                regions,
            }),
            Err(error) => Err(self.roll_back(&regions, error)),
        }
    }

    /// Changes a group so that it covers these places, and nothing else.
    ///
    /// New regions are made first, then the group is described anew, then what is stale goes: at no moment is
    /// there a descriptor of what does not exist, or no group. If a region cannot be made, the group stays as it
    /// was. Members that belong to another program by now are left alone, and out of the group.
    ///
    /// `word` is the file as it is seen now, which a projected group is to say from now on.
    pub fn update_file(
        &self,
        snapshot: &Snapshot,
        id: u32,
        places: &[(u64, u64)],
        word: Option<&Word>,
        progress: impl FnMut(usize),
    ) -> Result<Update> {
        let group = snapshot.group(id)?;
        let leader = snapshot.region(id)?;
        let like = RegionSpec {
            range: None,
            step: Step::Areas(1),
            precise: leader.precise,
            bounds: leader.bounds.clone(),
            aux: leader.user.clone(),
        };
        if Word::parse(&leader.user).is_some() {
            let user = word.map_or_else(|| leader.user.clone(), Word::format);
            return self.update_projection(snapshot, id, places, &user, &like);
        }
        if let Some(kept) = unchanged(snapshot, group, leader, places) {
            return Ok(Update {
                group: Some(id),
                kept,
                ..Update::default()
            });
        }
        let wanted: RangeSet<u64> = places
            .iter()
            .filter(|(_, len)| *len > 0)
            .map(|(start, len)| *start..start.saturating_add(*len))
            .collect();

        let mut covered = RangeSet::new();
        let (mut kept, mut stale) = (IdSet::new(), IdSet::new());
        for region in group.members.regions(&snapshot.regions) {
            if region.program != leader.program {
                continue;
            }
            let range = region.start..region.start.saturating_add(region.len);
            let inside = wanted.gaps(&range).next().is_none();
            if inside && !covered.overlaps(&range) {
                covered.insert(range);
                kept.insert(region.id);
            } else {
                stale.insert(region.id);
            }
        }
        let missing: Vec<(u64, u64)> = wanted
            .iter()
            .flat_map(|range| {
                covered
                    .gaps(range)
                    .map(|gap| (gap.start, gap.end - gap.start))
                    .collect::<Vec<_>>()
            })
            .collect();
        if wanted.is_empty() {
            // Without a region there is nothing that could be a group.
            self.delete_all(snapshot, &stale, progress)?;
            return Ok(Update {
                removed: stale.len() as usize,
                ..Update::default()
            });
        }
        let mut update = Update {
            group: Some(id),
            kept: kept.len() as usize,
            created: missing.len(),
            removed: stale.len() as usize,
        };
        if missing.is_empty() && stale.is_empty() && kept == group.members {
            return Ok(update);
        }
        let maker = Device::new(self.transport, self.devno, &leader.program);
        let mut created = maker.create_all(&specs(&missing, &like), progress)?;
        let mut described = Group {
            alias: group.alias.clone(),
            members: kept.iter().chain(created.iter().copied()).collect(),
        };
        let first = described.members.first().unwrap_or(id);
        // What is new is like the leader.
        let row = |id: u32| snapshot.regions.get(&id).unwrap_or(leader).row();
        let word = snapshot.word(id, Some(&described));
        if let Err(error) = maker.set_aux(first, &word, row(first)) {
            return Err(maker.roll_back(&created, error));
        }
        if first < id {
            // The old leader stays a member, which leads no more.
            if !stale.contains(id) {
                maker.set_aux(id, &snapshot.word(id, None), leader.row())?;
            }
            update.group = Some(first);
        }
        // The old leader first: its descriptor names what will be gone.
        let order = stale
            .contains(id)
            .then_some(id)
            .into_iter()
            .chain(stale.iter().filter(|stale| *stale != id));
        for region in order {
            maker.transport_delete(region)?;
        }
        if stale.contains(id) && first > id {
            update.group = Some(first);
            if let Some(leader) = maker.lead_again(
                snapshot,
                id,
                first,
                &mut described,
                &kept,
                &mut created,
                &like,
            )? {
                update.group = Some(leader);
            }
        }
        Ok(update)
    }

    /// Makes regions for what a file has outside of those that lie over it. These stay, as they count nothing of
    /// others for the file, and it may come back; but if they are many, those go in which it has nothing any more.
    /// `user` is what is to stand in the word of the first.
    fn update_projection(
        &self,
        snapshot: &Snapshot,
        id: u32,
        places: &[(u64, u64)],
        user: &[u8],
        like: &RegionSpec,
    ) -> Result<Update> {
        let (group, leader) = (snapshot.group(id)?, snapshot.region(id)?);
        let shares = projection::shares(group.own(snapshot), &Ranges::of_places(places));
        // The group is known by the id of its first region.
        let crowded = shares.len() >= REGIONS / 2;
        let (kept, stale): (Vec<_>, Vec<_>) = shares
            .into_iter()
            .partition(|(region, share)| !crowded || !share.is_empty() || region.id == id);
        let kept: Vec<&Region> = kept.into_iter().map(|(region, _)| region).collect();
        let maker = Device::new(self.transport, self.devno, &leader.program);
        let Some(plan) = self.plan_beside(&kept, places, like)? else {
            if user != leader.user {
                maker.set_aux(id, &described(group.clone(), user), leader.row())?;
            }
            return Ok(Update {
                group: Some(id),
                kept: kept.len() + stale.len(),
                ..Update::default()
            });
        };
        let like = RegionSpec {
            step: Step::Sectors(plan.step),
            aux: Vec::new(),
            ..like.clone()
        };
        let created = maker.create_all(&specs(&plan.regions, &like), |_| ())?;
        let group = Group {
            alias: group.alias.clone(),
            members: kept
                .iter()
                .map(|region| region.id)
                .chain(created.iter().copied())
                .collect(),
        };
        let first = group.members.first().unwrap_or(id);
        let row = snapshot.regions.get(&first).unwrap_or(leader).row();
        if let Err(error) = maker.set_aux(first, &described(group, user), row) {
            return Err(maker.roll_back(&created, error));
        }
        if first != id {
            maker.set_aux(id, b"-", leader.row())?;
        }
        for (region, _) in &stale {
            maker.transport_delete(region.id)?;
        }
        Ok(Update {
            group: Some(first),
            kept: kept.len(),
            created: created.len(),
            removed: stale.len(),
        })
    }

    /// The regions that lie over a file at these places, with what memory one file may have; none if it has none.
    pub fn plan(&self, places: &[(u64, u64)], like: &RegionSpec) -> Result<Option<Plan>> {
        self.plan_beside(&[], places, like)
    }

    /// The regions for what a file has outside of those that it keeps.
    fn plan_beside(
        &self,
        kept: &[&Region],
        places: &[(u64, u64)],
        like: &RegionSpec,
    ) -> Result<Option<Plan>> {
        let taken: Ranges = kept
            .iter()
            .map(|region| (region.start, region.start.saturating_add(region.len)))
            .collect();
        if Ranges::of_places(places).without(&taken).is_empty() {
            return Ok(None);
        }
        let targets = self.transport.targets(self.devno, 1)?;
        let ends = targets
            .iter()
            .map(|target| target.start.saturating_add(target.len));
        let cpus = cost::possible_cpus();
        let used = kept.iter().fold(0u64, |sum, region| {
            sum.saturating_add(cost::region_memory(region, cpus))
        });
        let space = Space {
            sectors: ends.max().unwrap_or(0),
            regions: kept.len(),
            taken,
            areas: (MEMORY.saturating_sub(used) / 2) / cost::area(like, cpus).max(1),
        };
        Ok(projection::plan(places, &space))
    }

    /// Gives a group its old id back, which was that of a region that had to go: the shortest of its regions is
    /// made once more, and gets the id if nobody else was faster.
    #[allow(clippy::too_many_arguments)]
    fn lead_again(
        &self,
        snapshot: &Snapshot,
        id: u32,
        first: u32,
        group: &mut Group,
        kept: &IdSet,
        created: &mut [u32],
        like: &RegionSpec,
    ) -> Result<Option<u32>> {
        // What was made a moment ago has no counts to lose; else one region's are lost.
        let now = self.list()?;
        let moved = created.last().copied().or_else(|| {
            kept.among(&snapshot.regions)
                .min_by_key(|id| snapshot.regions.get(id).map(|region| region.len))
        });
        // Somebody may have deleted it, and another program have its id by now.
        let region = moved
            .and_then(|moved| now.regions.get(&moved))
            .filter(|region| *region.program == *self.program);
        let Some(region) = region else {
            return Ok(None);
        };
        let spec = specs(&[(region.start, region.len)], like);
        let Ok(again) = self.create_all(&spec, |_| ()) else {
            return Ok(None);
        };
        let Some(new) = again.first().copied() else {
            return Ok(None);
        };
        if new != id {
            self.transport_delete(new)?;
            return Ok(None);
        }
        group.members.remove(region.id);
        group.members.insert(new);
        let word = snapshot.word(id, Some(group));
        if self.set_aux(new, &word, self.row_of(like)).is_err() {
            // The group is what it was without it.
            self.transport_delete(new)?;
            return Ok(None);
        }
        if first != region.id {
            let row = snapshot.regions.get(&first).map(Region::row);
            let row = row.unwrap_or_else(|| self.row_of(like));
            match self.set_aux(first, &snapshot.word(first, None), row) {
                // Somebody has deleted it, and what it said of the group.
                Ok(()) | Err(Error::NoRegion(_)) => {}
                // It leads the group still, with all its regions but the new one.
                Err(_) => {
                    self.transport_delete(new)?;
                    return Ok(None);
                }
            }
        }
        self.transport_delete(region.id)?;
        Ok(Some(new))
    }

    /// Deletes a region that may be gone already.
    fn transport_delete(&self, id: u32) -> Result<()> {
        match self.transport.message(self.devno, &message::delete(id), 64) {
            Err(error) if !error.is_missing() => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
