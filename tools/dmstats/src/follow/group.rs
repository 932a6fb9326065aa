// SPDX-License-Identifier: GPL-2.0

//! The group of a file that is followed: made to fit the file again and again, and found again if its id changes.

use std::cmp::Reverse;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use rangemap::RangeSet;

use crate::aux::sanitized;
use crate::ffi::Handle;
use crate::lock;
use crate::projection::Word;
use crate::projection::MANY_EXTENTS;
use crate::Device;
use crate::Devno;
use crate::Error;
use crate::Group;
use crate::IdSet;
use crate::RegionSpec;
use crate::Result;
use crate::Snapshot;
use crate::Step;
use crate::Transport;

/// What became of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is what it was.
    Same,
    /// It fits the file now; so many regions were made and removed.
    Fitted(usize, usize),
    /// Somebody gave it another id, under which it is not changed before its lock is taken.
    Moved,
    /// Somebody removed it.
    Removed,
    /// Somebody else changes groups of the device, and has not ended.
    Busy,
}

/// The group of a file.
pub struct Followed {
    /// The device.
    pub devno: Devno,
    /// Its id; none while the file has no place on the device, so that there is no group.
    pub id: Option<u32>,
    program: Vec<u8>,
    /// Its name, as it is written down.
    alias: Vec<u8>,
    like: RegionSpec,
    /// Where the file was when the group was last made to fit; before that, where the group was.
    places: Option<Vec<(u64, u64)>>,
    /// Which file it was then.
    file: Option<Handle>,
    /// Whether it still does, as far as is known.
    fits: bool,
    /// Its regions when it was last seen.
    members: IdSet,
    /// All regions that there were then: a group of these that has none of its own is another one.
    seen: Rc<IdSet>,
}

fn ranges(places: &[(u64, u64)]) -> RangeSet<u64> {
    let ranges = places.iter().filter(|(_, len)| *len > 0);
    ranges
        .map(|(start, len)| *start..start.saturating_add(*len))
        .collect()
}

/// Whether a group has some of these places.
fn overlap(group: &Group, snapshot: &Snapshot, places: &RangeSet<u64>) -> bool {
    let covered = group.covered(snapshot);
    covered.iter().any(|range| places.overlaps(range))
}

impl Followed {
    /// A group that exists.
    pub fn new<T: Transport>(kernel: &T, devno: Devno, id: u32) -> Result<Self> {
        let snapshot = Device::new(kernel, devno, b"").list()?;
        Self::of(&snapshot, devno, id)
    }

    /// A group of a snapshot. What it has there is what it is known by until it is made to fit.
    pub fn of(snapshot: &Snapshot, devno: Devno, id: u32) -> Result<Self> {
        let (group, leader) = (snapshot.group(id)?, snapshot.region(id)?);
        let covered = group.covered(snapshot);
        let places = covered
            .iter()
            .map(|range| (range.start, range.end - range.start));
        Ok(Followed {
            devno,
            id: Some(id),
            program: leader.program.to_vec(),
            alias: sanitized(&group.alias),
            like: RegionSpec {
                range: None,
                step: Step::Areas(1),
                precise: leader.precise,
                bounds: leader.bounds.clone(),
                aux: leader.user.clone(),
            },
            places: Some(places.collect()),
            file: snapshot.projected(id).map(|word| word.handle),
            fits: false,
            members: group.members.clone(),
            seen: Rc::new(snapshot.ids()),
        })
    }

    /// A group that is made at the first fit.
    pub fn none(devno: Devno, program: &[u8], alias: &[u8], like: RegionSpec) -> Self {
        Followed {
            devno,
            id: None,
            program: program.to_vec(),
            alias: sanitized(alias),
            like,
            places: None,
            file: None,
            fits: false,
            members: IdSet::new(),
            seen: Rc::default(),
        }
    }

    /// Whether a group of a snapshot may be that of a file at these places. Its name may be another: that of what a
    /// link has led to before.
    pub fn is_of_file(
        snapshot: &Snapshot,
        id: u32,
        program: &[u8],
        word: &Word,
        places: &[(u64, u64)],
    ) -> bool {
        let (Ok(group), Ok(leader)) = (snapshot.group(id), snapshot.region(id)) else {
            return false;
        };
        // One that is projected lies over much beside its file, but says which that is.
        let another = snapshot
            .projected(id)
            .is_some_and(|known| known.path != word.path && known.handle != word.handle);
        *leader.program == *program && !another && overlap(group, snapshot, &ranges(places))
    }

    /// Whether the group fits a file at these places, as far as is known.
    pub fn fits(&self, places: &[(u64, u64)]) -> bool {
        self.fits && self.places.as_deref() == Some(places)
    }

    /// It is another file by now: the next fit says so to those who read the group, wherever that file is.
    pub fn has_another_file(&mut self) {
        self.fits = false;
    }

    /// Whether nobody is known to have changed the group since it was made to fit.
    pub fn fits_still(&self) -> bool {
        self.fits
    }

    fn device<'k, T: Transport>(&self, kernel: &'k T) -> Device<'k, T> {
        Device::new(kernel, self.devno, &self.program)
    }

    /// Whether a group that has the file's name, or some of where the file was (`has_some`), is the file's. Ids are
    /// given again, and a file in another folder may have the same name. `now` is the file if it can be seen.
    fn is_same(
        &self,
        snapshot: &Snapshot,
        id: u32,
        has_some: bool,
        now: Option<(&[(u64, u64)], &Word)>,
    ) -> bool {
        // One that is projected lies over much beside its file, but says which that is.
        if let Some(word) = snapshot.projected(id) {
            return self.file.as_ref() == Some(&word.handle)
                || now.is_some_and(|(_, now)| now.handle == word.handle);
        }
        let group = snapshot.group(id).ok();
        let has_some_now =
            |places| group.is_some_and(|group| overlap(group, snapshot, &ranges(places)));
        has_some || now.is_some_and(|(places, _)| has_some_now(places))
    }

    /// The group's id in a snapshot. Somebody else may have changed where it is, as its file may have gone elsewhere:
    /// then it has its name still. Or he may have given it another id: then it is the group of the same name that has
    /// some of the file, and of these the one with most of its regions: the file may have other groups. One
    /// of those has none of its regions, and none that were made since it was seen. `is_same` says of each
    /// what [`Self::is_same`] does, as far as the file is known.
    fn find(&self, snapshot: &Snapshot, is_same: impl Fn(u32, bool) -> bool) -> Option<u32> {
        let known = self.places.as_deref().map(ranges);
        let is_named = |group: &Group| sanitized(&group.alias) == self.alias;
        let has_some = |group: &Group| {
            let known = known.as_ref();
            known.is_some_and(|known| overlap(group, snapshot, known))
        };
        // What has no name may be anybody's, unless the file has no place by which to know it either.
        let name_tells = !self.alias.is_empty() || known.as_ref().is_some_and(RangeSet::is_empty);
        let is_ours = |id: &u32| {
            let leader = snapshot.regions.get(id);
            leader.is_some_and(|leader| *leader.program == *self.program)
        };
        let id = self.id?;
        let same = snapshot.groups.get(&id).filter(|_| is_ours(&id));
        if same.is_some_and(|group| {
            let has_some = has_some(group);
            (has_some || (name_tells && is_named(group))) && is_same(id, has_some)
        }) {
            return Some(id);
        }
        let has_some_of_it = |group: &Group| {
            let mut members = group.members.iter();
            members.any(|id| self.members.contains(id) || !self.seen.contains(id))
        };
        let others = snapshot.groups.iter().filter(|(id, group)| {
            is_named(group)
                && is_ours(id)
                && has_some_of_it(group)
                && has_some(group)
                && is_same(**id, true)
        });
        let likeness = |(id, group): &(&u32, &Group)| {
            let members = self.members.among(&snapshot.regions);
            let same = members.filter(|id| group.members.contains(*id)).count();
            let sectors: u64 = group
                .covered(snapshot)
                .iter()
                .flat_map(|range| {
                    let of_file = known.iter().flat_map(move |known| known.overlapping(range));
                    of_file.map(|part| part.end.min(range.end) - part.start.max(range.start))
                })
                .sum();
            (same, sectors, Reverse(**id))
        };
        others.max_by_key(likeness).map(|(id, _)| *id)
    }

    /// Tells which regions there were when all groups of the device were last looked for.
    pub fn saw(&mut self, regions: &Rc<IdSet>) {
        self.seen = Rc::clone(regions);
    }

    /// Looks for the group after somebody changed something. If it is no more what it was made, the next fit makes it
    /// that again, or finds that it is another file's: that needs a look at the file.
    pub fn recognise(&mut self, snapshot: &Snapshot) -> Fate {
        if self.id.is_none() {
            return Fate::Same;
        }
        let Some(id) = self.find(snapshot, |_, _| true) else {
            return Fate::Removed;
        };
        self.id = Some(id);
        let group = snapshot.groups.get(&id);
        self.members = group.map_or_else(IdSet::new, |group| group.members.clone());
        self.fits &= self.places.as_deref().is_some_and(|places| {
            group.is_some_and(|group| {
                let (covered, wanted) = (group.covered(snapshot), ranges(places));
                if let Some(word) = snapshot.projected(id) {
                    let has_all = |range| covered.gaps(range).next().is_none();
                    self.file.as_ref() == Some(&word.handle) && wanted.iter().all(has_all)
                } else {
                    covered == wanted
                }
            })
        });
        Fate::Same
    }

    /// Makes the group fit a file at these places. New regions are made before the group is described anew, and
    /// stale ones go last. An error leaves the group as it was. `word` is what is written down of the file if it is
    /// projected, and `patience` how long others who change groups may keep it from that.
    pub fn fit<T: Transport>(
        &mut self,
        kernel: &T,
        places: &[(u64, u64)],
        word: &Word,
        locks: &Path,
        patience: Duration,
    ) -> Result<Fate> {
        let Some(_changes) = lock::changes_within(locks, self.devno, patience)? else {
            return Ok(Fate::Busy);
        };
        let device = self.device(kernel);
        let (id, created, removed) = match self.id {
            None if places.is_empty() => (None, 0, 0),
            None => {
                let plan = match places.len() > MANY_EXTENTS {
                    true => device.plan(places, &self.like)?,
                    false => None,
                };
                let map = match plan {
                    Some(plan) => device.project_file(&plan, &self.like, &self.alias, word)?,
                    None => device.map_file(places, &self.like, Some(&self.alias), |_| ())?,
                };
                self.members = map.regions.iter().copied().collect();
                // The kernel gives the lowest ids that are free: those below were taken.
                let last = map.regions.iter().max().copied();
                self.seen = Rc::new(last.map_or_else(IdSet::new, IdSet::up_to));
                (map.group, map.regions.len(), 0)
            }
            Some(_) => {
                let snapshot = device.list()?;
                let now = Some((places, word));
                let is_same = |id, has_some| self.is_same(&snapshot, id, has_some, now);
                let Some(id) = self.find(&snapshot, is_same) else {
                    return Ok(Fate::Removed);
                };
                if self.id != Some(id) {
                    self.id = Some(id);
                    return Ok(Fate::Moved);
                }
                // Those that stay are known; of those that are made the list tells that follows each change.
                self.members = snapshot.group(id)?.members.clone();
                self.seen = Rc::new(snapshot.ids());
                let update = device.update_file(&snapshot, id, places, Some(word), |_| ())?;
                (update.group, update.created, update.removed)
            }
        };
        self.id = id;
        self.places = Some(places.to_vec());
        self.file = Some(word.handle.clone());
        self.fits = true;
        Ok(Fate::Fitted(created, removed))
    }

    /// Deletes the group, if there is one. `patience` is how long others may keep it from that.
    pub fn delete<T: Transport>(
        &mut self,
        kernel: &T,
        locks: &Path,
        patience: Duration,
    ) -> Result<()> {
        if self.id.is_none() {
            return Ok(());
        }
        let Some(_changes) = lock::changes_within(locks, self.devno, patience)? else {
            return Err(Error::Busy(self.devno));
        };
        let device = self.device(kernel);
        let snapshot = device.list()?;
        // What looks like it but has none of its regions may be somebody else's, who wants to keep it.
        let has_its = |id| {
            let mut members = self.members.among(&snapshot.regions);
            let group = snapshot.groups.get(&id);
            self.id == Some(id)
                || members.any(|id| group.is_some_and(|group| group.members.contains(id)))
        };
        let is_same = |id, has_some| has_its(id) && self.is_same(&snapshot, id, has_some, None);
        let Some(id) = self.find(&snapshot, is_same) else {
            // If somebody has moved it, nothing tells it from that of another file of its name; but a file does that is
            // written down.
            let may_be = |id, _| has_its(id) && snapshot.projected(id).is_none();
            return match self.find(&snapshot, may_be) {
                Some(id) => Err(Error::Unsure(id)),
                None => Ok(()),
            };
        };
        let _lock = match self.id {
            Some(known) if known == id => None,
            _ => match lock::following(locks, self.devno, id, None) {
                // It is the group of somebody else who follows the same file.
                Err(Error::Followed { .. }) => return Ok(()),
                other => Some(other?),
            },
        };
        // Another program may have the id of a member that somebody has deleted: that is not the file's.
        let own = snapshot.group(id)?.own(&snapshot);
        let own: IdSet = own.map(|region| region.id).collect();
        device.delete_all(&snapshot, &own, |_| ())
    }
}

#[cfg(test)]
mod tests;
