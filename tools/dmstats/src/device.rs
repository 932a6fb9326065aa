// SPDX-License-Identifier: GPL-2.0

//! What can be done with the statistics of a device.

use crate::aux::sanitized;
use crate::cost;
use crate::idmap::IdMap;
use crate::message;
use crate::message::LONGEST_ROW;
use crate::reply;
use crate::reply::PrintRow;
use crate::sample::Count;
use crate::Devno;
use crate::Error;
use crate::Group;
use crate::IdSet;
use crate::Memory;
use crate::Region;
use crate::RegionSample;
use crate::Result;
use crate::Sample;
use crate::Snapshot;
use crate::Transport;

/// What a row mostly has.
const ROW: usize = 48;
/// Of a list that is longer than this the size is not foretold.
const LONGEST_LIST: usize = 4 << 20;
/// Nor of the counters of a region: these are of 200,000 areas, which is more than a file has.
const LONGEST_PRINT: usize = 16 << 20;
/// From so many on, deletes are made cheap first; see [`Device::delete_all`].
const MANY: usize = 500;

/// How a region is split into areas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Into so many.
    Areas(u32),
    /// Into such of so many sectors.
    Sectors(u64),
}

/// A region to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionSpec {
    /// First sector and length; all of the device without.
    pub range: Option<(u64, u64)>,
    /// Its areas.
    pub step: Step,
    /// Whether to count in nanoseconds. Bounds that need it have it anyway.
    pub precise: bool,
    /// The bounds of its histogram, in nanoseconds; none without one.
    pub bounds: Vec<u64>,
    /// The program's word.
    pub aux: Vec<u8>,
}

impl RegionSpec {
    /// All of a device in one area.
    pub fn whole() -> Self {
        RegionSpec {
            range: None,
            step: Step::Areas(1),
            precise: false,
            bounds: Vec::new(),
            aux: Vec::new(),
        }
    }
}

/// A device, and the program in whose name regions are made.
pub struct Device<'a, T: Transport> {
    pub(crate) transport: &'a T,
    /// The device's number: its name may change.
    pub devno: Devno,
    /// The name that new regions get.
    pub program: Vec<u8>,
}

impl<'a, T: Transport> Device<'a, T> {
    /// A device.
    pub fn new(transport: &'a T, devno: Devno, program: &[u8]) -> Self {
        Device {
            transport,
            devno,
            program: program.to_vec(),
        }
    }

    fn send(&self, text: &[u8], expect: usize) -> Result<Vec<u8>> {
        self.transport.message(self.devno, text, expect)
    }

    /// What there is, of all programs.
    pub fn list(&self) -> Result<Snapshot> {
        let used = self.transport.memory_used();
        Snapshot::parse(&self.list_text(used)?, Some(&self.program))
    }

    /// The kernel's own list of what there is, which has so many bytes of its memory at most.
    pub(crate) fn list_text(&self, used: Option<u64>) -> Result<Vec<u8>> {
        // The kernel begins anew if there is no room for its answer.
        let most = used.map_or(0, |used| used / cost::REGION_BYTES);
        let most = usize::try_from(most).unwrap_or(0).saturating_mul(ROW);
        self.send(b"@stats_list", (16 << 10) + most.min(LONGEST_LIST))
    }

    /// What was counted in those regions of a snapshot that are wanted. With `clear` their counters begin anew, for
    /// everybody.
    ///
    /// A region that has gone since it was listed is left out.
    pub fn sample(
        &self,
        snapshot: &Snapshot,
        clear: bool,
        wanted: impl Fn(&Region) -> bool,
    ) -> Result<Sample> {
        let (sample, done) = self.sample_some(snapshot, clear, wanted);
        done.map(|()| sample)
    }

    /// As [`Self::sample`], but gives back what could be read besides the first error too: if it was cleared, there is
    /// no other way to know it. One region that cannot be read keeps no other from that, but a device that has gone
    /// does.
    pub fn sample_some(
        &self,
        snapshot: &Snapshot,
        clear: bool,
        wanted: impl Fn(&Region) -> bool,
    ) -> (Sample, Result<()>) {
        let mut regions = IdMap::new();
        let mut done = Ok(());
        for region in snapshot.regions.values().filter(|region| wanted(region)) {
            match self.sample_region(region, clear) {
                Ok(sample) => regions.insert(region.id, sample),
                Err(error @ Error::NoDevice(_)) => {
                    done = done.and(Err(error));
                    break;
                }
                Err(error) if error.is_missing() => {}
                Err(error) => done = done.and(Err(error)),
            }
        }
        (Sample::new(snapshot, regions), done)
    }

    fn sample_region(&self, region: &Region, clear: bool) -> Result<RegionSample> {
        let text = self.print(region, clear)?;
        let unit = if region.precise { 1 } else { 1_000_000 };
        let mut areas =
            Vec::with_capacity(usize::try_from(region.areas()).unwrap_or(0).min(text.len()));
        for line in reply::lines(&text) {
            let row = PrintRow::parse(line).ok_or_else(|| Error::Reply {
                what: "@stats_print",
                line: line.escape_ascii().to_string(),
            })?;
            if row.bins.len() != region.bins() {
                // Another region has its id by now.
                return Err(Error::NoRegion(region.id));
            }
            areas.push(Count {
                counters: row.counters.scaled(unit),
                bins: row.bins,
            });
        }
        if areas.len() as u64 != region.areas() {
            return Err(Error::NoRegion(region.id));
        }
        let place = (region.start, region.len);
        Ok(RegionSample::new(place, areas, region.bins()))
    }

    /// The kernel's own rows of a region.
    pub fn print(&self, region: &Region, clear: bool) -> Result<Vec<u8>> {
        // The kernel begins anew if there is no room for its answer, and each row takes it thousands of instructions.
        let row = 80 + 8 * region.bins();
        let expect = usize::try_from(region.areas())
            .unwrap_or(1)
            .saturating_mul(row)
            .clamp(256, LONGEST_PRINT);
        self.send(&message::print(region.id, clear), expect)
            .map_err(|error| missing(error, region.id))
    }

    /// Sets a region's counters to zero, but not the number of requests in flight.
    pub fn clear(&self, id: u32) -> Result<()> {
        self.send(&message::clear(id), 0)
            .map_err(|error| missing(error, id))
            .map(drop)
    }

    /// Makes a region. The kernel waits for all I/O that is under way.
    pub fn create(&self, spec: &RegionSpec) -> Result<u32> {
        self.try_create(spec).map_err(|error| {
            let memory = self.memory_at(&error);
            self.memory_error(error, memory)
        })
    }

    /// Makes a region; an error does not tell who has the memory.
    fn try_create(&self, spec: &RegionSpec) -> Result<u32> {
        let reply = self.send(&message::create(spec, &self.program)?, 64)?;
        let id = reply::number(&reply).and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| Error::Reply {
            what: "@stats_create",
            line: reply.escape_ascii().to_string(),
        })
    }

    /// Makes regions, all or none; tells after each how many there are. If one cannot be made, those before it
    /// are removed by the ids that they were given, without another list.
    pub fn create_all(
        &self,
        specs: &[RegionSpec],
        mut progress: impl FnMut(usize),
    ) -> Result<Vec<u32>> {
        let mut ids = Vec::with_capacity(specs.len());
        for (index, spec) in specs.iter().enumerate() {
            match self.try_create(spec) {
                Ok(id) => ids.push(id),
                Err(cause) => {
                    let memory = self.memory_at(&cause);
                    let left = self.take_back(&ids);
                    // Who has the memory is asked now: what was made here is in nobody's way any more.
                    let error = Error::Create {
                        number: index + 1,
                        count: specs.len(),
                        start: spec.range.map_or(0, |(start, _)| start),
                        cause: Box::new(self.memory_error(cause, memory)),
                    };
                    return Err(rolled_back(error, left));
                }
            }
            progress(index + 1);
        }
        Ok(ids)
    }

    /// Removes what was made before an error, and gives back that error, or one that tells of both.
    pub(crate) fn roll_back(&self, ids: &[u32], cause: Error) -> Error {
        rolled_back(cause, self.take_back(ids))
    }

    /// Removes what was made; how many regions stay, and why, if some do.
    fn take_back(&self, ids: &[u32]) -> Option<(usize, Error)> {
        let mut left = None;
        for id in ids {
            if let Err(error) = self.send(&message::delete(*id), 0) {
                if !error.is_missing() && errno(&error) != Some(rustix::io::Errno::NOENT) {
                    let count = left.map_or(0, |(count, _)| count);
                    left = Some((count + 1, error));
                }
            }
        }
        left
    }

    /// How much of the kernel's memory for statistics is in use, if that is why a request failed.
    fn memory_at(&self, error: &Error) -> Option<Memory> {
        (errno(error) == Some(rustix::io::Errno::NOMEM))
            .then(|| self.transport.memory())
            .flatten()
    }

    /// An error that tells who has the memory, if it is for want of that.
    fn memory_error(&self, error: Error, memory: Option<Memory>) -> Error {
        match errno(&error) {
            Some(rustix::io::Errno::NOMEM) => Error::Memory(memory, cost::holders(self.transport)),
            _ => error,
        }
    }

    /// Deletes a region. If it is in a group, the group is told before; if it leads one, the group ends and
    /// its other regions stay.
    pub fn delete(&self, snapshot: &Snapshot, id: u32) -> Result<()> {
        self.delete_all(snapshot, &IdSet::from_iter([id]), |_| ())
    }

    /// Deletes regions of a snapshot; tells after each how many are gone. Groups that lose some of their
    /// regions are told of all of them at once, before.
    ///
    /// The kernel goes through all regions at each delete, to know whether one is left that counts in
    /// nanoseconds, and stops at the first. So, for many, the region with the lowest id is made such a one for
    /// the time it takes: twenty thousand are deleted in a sixth of the time.
    pub fn delete_all(
        &self,
        snapshot: &Snapshot,
        ids: &IdSet,
        mut progress: impl FnMut(usize),
    ) -> Result<()> {
        if let Some(missing) = ids.first_not_among(&snapshot.regions) {
            return Err(Error::NoRegion(missing));
        }
        for (leader, group) in &snapshot.groups {
            if ids.contains(*leader) {
                continue;
            }
            let mut rest = group.members.clone();
            group
                .members
                .among(&snapshot.regions)
                .filter(|id| ids.contains(*id))
                .for_each(|id| rest.remove(id));
            if rest != group.members {
                let group = Group {
                    alias: group.alias.clone(),
                    members: rest,
                };
                match self.describe(snapshot, *leader, Some(&group)) {
                    // Its group has ended with it.
                    Err(Error::NoRegion(_)) => {}
                    other => other?,
                }
            }
        }
        // A leader goes before its group: then there is never a descriptor of what does not exist.
        let (mut order, others): (Vec<u32>, Vec<u32>) =
            ids.iter().partition(|id| snapshot.groups.contains_key(id));
        order.extend(others);
        let mut helper = None;
        if order.len() >= MANY && (ids.contains(0) || !snapshot.regions.contains_key(&0)) {
            if ids.contains(0) {
                self.delete_one(0)?;
                order.retain(|id| *id != 0);
            }
            helper = self.helper();
        }
        let count = ids.len() as usize - order.len();
        let result = order.iter().enumerate().try_for_each(|(index, id)| {
            self.delete_one(*id)?;
            progress(count + index + 1);
            Ok(())
        });
        let removed = helper.map_or(Ok(()), |id| self.delete_one(id));
        result.and(removed)
    }

    /// A region at the head of the kernel's list that counts in nanoseconds; none if there is no room for it.
    fn helper(&self) -> Option<u32> {
        let spec = RegionSpec {
            range: Some((0, 1)),
            precise: true,
            ..RegionSpec::whole()
        };
        let id = self.create(&spec).ok()?;
        if id == 0 {
            return Some(id);
        }
        // Somebody else was faster. Should this one stay, it is one of ours, and listed as such.
        let _ = self.delete_one(id);
        None
    }

    /// Deletes a region that somebody else may have deleted since it was listed.
    fn delete_one(&self, id: u32) -> Result<()> {
        match self.send(&message::delete(id), 0) {
            Err(error) => match missing(error, id) {
                Error::NoRegion(_) => Ok(()),
                error => Err(error),
            },
            Ok(_) => Ok(()),
        }
    }

    /// Describes a group, or none, in the word of a region of a snapshot.
    fn describe(&self, snapshot: &Snapshot, id: u32, group: Option<&Group>) -> Result<()> {
        let row = snapshot.region(id)?.row();
        self.set_aux(id, &snapshot.word(id, group), row)
    }

    /// How long the row of a region is that is made so, but for its word.
    pub(crate) fn row_of(&self, spec: &RegionSpec) -> usize {
        let precise = spec.precise || crate::bounds::need_precise(&spec.bounds);
        message::row(&self.program, &spec.bounds, precise)
    }

    /// Sets a region's word; the rest of its row is so long.
    pub(crate) fn set_aux(&self, id: u32, word: &[u8], row: usize) -> Result<()> {
        message::check_word("user data", word)?;
        if word.len() + row > LONGEST_ROW {
            return Err(Error::DescriptorTooLong(word.len()));
        }
        self.send(&message::set_aux(id, word), 0)
            .map_err(|error| missing(error, id))
            .map(drop)
    }

    /// Makes a group of regions, which are in none so far; gives back its id.
    pub fn group(&self, snapshot: &Snapshot, members: &IdSet, alias: &[u8]) -> Result<u32> {
        let leader = members
            .first()
            .ok_or_else(|| Error::Invalid("A group needs regions".into()))?;
        for (first, last) in members.ranges() {
            let mut known = snapshot.regions.range(first..=last);
            for id in first..=last {
                let (_, region) = known
                    .next()
                    .filter(|(known, _)| **known == id)
                    .ok_or(Error::NoRegion(id))?;
                if let Some(group) = region.group {
                    return Err(Error::Grouped { region: id, group });
                }
            }
        }
        let group = Group {
            alias: sanitized(alias),
            members: members.clone(),
        };
        self.describe(snapshot, leader, Some(&group))?;
        Ok(leader)
    }

    /// Ends a group; its regions stay.
    pub fn ungroup(&self, snapshot: &Snapshot, id: u32) -> Result<()> {
        snapshot.group(id)?;
        self.describe(snapshot, id, None)
    }

    /// Deletes a group with all of its regions.
    pub fn delete_group(
        &self,
        snapshot: &Snapshot,
        id: u32,
        progress: impl FnMut(usize),
    ) -> Result<()> {
        let members = snapshot.group(id)?.members.clone();
        self.delete_all(snapshot, &members, progress)
    }
}

/// An error after which so many regions could not be taken back, or all of them.
fn rolled_back(cause: Error, left: Option<(usize, Error)>) -> Error {
    match left {
        None => cause,
        Some((left, second)) => Error::Rollback {
            cause: Box::new(cause),
            left,
            second: Box::new(second),
        },
    }
}

fn errno(error: &Error) -> Option<rustix::io::Errno> {
    error.errno().map(rustix::io::Errno::from_raw_os_error)
}

fn missing(error: Error, id: u32) -> Error {
    match errno(&error) {
        Some(rustix::io::Errno::NOENT) => Error::NoRegion(id),
        _ => error,
    }
}

#[cfg(test)]
mod tests;
