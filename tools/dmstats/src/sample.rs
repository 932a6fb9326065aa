// SPDX-License-Identifier: GPL-2.0

//! What was counted: for each area, and in sum for each region and each group. The sums are made once, with
//! the sample.

use crate::idmap::IdMap;
use crate::projection;
use crate::Snapshot;

/// The counters of an area, or of many. Times are nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Counters {
    pub reads: u64,
    pub reads_merged: u64,
    pub read_sectors: u64,
    pub read_time: u64,
    pub writes: u64,
    pub writes_merged: u64,
    pub write_sectors: u64,
    pub write_time: u64,
    pub in_progress: u64,
    pub io_ticks: u64,
    pub queue_ticks: u64,
    pub read_ticks: u64,
    pub write_ticks: u64,
}

impl Counters {
    /// Where in a row of the kernel's the number of requests in flight is.
    pub(crate) const IN_PROGRESS: usize = 8;

    /// In the order of the kernel's rows.
    pub const fn from_row(row: [u64; 13]) -> Self {
        let [reads, reads_merged, read_sectors, read_time, writes, writes_merged, write_sectors, write_time, in_progress, io_ticks, queue_ticks, read_ticks, write_ticks] =
            row;
        Counters {
            reads,
            reads_merged,
            read_sectors,
            read_time,
            writes,
            writes_merged,
            write_sectors,
            write_time,
            in_progress,
            io_ticks,
            queue_ticks,
            read_ticks,
            write_ticks,
        }
    }

    /// In the order of the kernel's rows.
    pub fn row(&self) -> [u64; 13] {
        [
            self.reads,
            self.reads_merged,
            self.read_sectors,
            self.read_time,
            self.writes,
            self.writes_merged,
            self.write_sectors,
            self.write_time,
            self.in_progress,
            self.io_ticks,
            self.queue_ticks,
            self.read_ticks,
            self.write_ticks,
        ]
    }

    fn combine(&self, other: &Self, with: impl Fn(u64, u64) -> u64) -> Self {
        let mut row = self.row();
        for (value, more) in row.iter_mut().zip(other.row()) {
            *value = with(*value, more);
        }
        Self::from_row(row)
    }

    /// What was read and written.
    pub fn sectors(&self) -> u64 {
        self.read_sectors.saturating_add(self.write_sectors)
    }

    /// Both in sum.
    pub fn plus(&self, other: &Self) -> Self {
        self.combine(other, u64::saturating_add)
    }

    /// What came since `earlier`. If somebody cleared the counters in between, what came since then.
    pub fn since(&self, earlier: &Self) -> Self {
        let cleared = self
            .row()
            .iter()
            .zip(earlier.row())
            .enumerate()
            .any(|(index, (now, then))| index != Self::IN_PROGRESS && *now < then);
        if cleared {
            return *self;
        }
        Counters {
            in_progress: self.in_progress,
            ..self.combine(earlier, u64::saturating_sub)
        }
    }

    /// With times in nanoseconds instead of units of so many of them.
    pub(crate) fn scaled(mut self, unit: u64) -> Self {
        for time in [
            &mut self.read_time,
            &mut self.write_time,
            &mut self.io_ticks,
            &mut self.queue_ticks,
            &mut self.read_ticks,
            &mut self.write_ticks,
        ] {
            *time = time.saturating_mul(unit);
        }
        self
    }
}

/// What was counted in one place: counters, and the bins of its histogram if it has one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// The counters.
    pub counters: Counters,
    /// The bins.
    pub bins: Vec<u64>,
}

impl Count {
    /// Nothing.
    pub const NOTHING: Count = Count {
        counters: Counters::from_row([0; 13]),
        bins: Vec::new(),
    };

    fn since(&self, earlier: &Self) -> Self {
        let fell = self.bins.len() != earlier.bins.len()
            || self
                .bins
                .iter()
                .zip(&earlier.bins)
                .any(|(now, then)| now < then);
        let bins = if fell {
            self.bins.clone()
        } else {
            self.bins
                .iter()
                .zip(&earlier.bins)
                .map(|(now, then)| now - then)
                .collect()
        };
        Count {
            counters: self.counters.since(&earlier.counters),
            bins,
        }
    }

    /// A part of it, as if all were evenly spread, rounded; no part of what has no length.
    pub(crate) fn part(&self, own: u64, of: u64) -> Self {
        if own == of {
            return self.clone();
        }
        let part = |value: u64| {
            let all = u128::from(value) * u128::from(own) + u128::from(of / 2);
            u64::try_from(all.checked_div(of.into()).unwrap_or(0)).unwrap_or(u64::MAX)
        };
        Count {
            counters: Counters::from_row(self.counters.row().map(part)),
            bins: self.bins.iter().map(|bin| part(*bin)).collect(),
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.counters = self.counters.plus(&other.counters);
        self.bins
            .iter_mut()
            .zip(&other.bins)
            .for_each(|(sum, more)| *sum = sum.saturating_add(*more));
    }
}

/// What was counted in a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionSample {
    /// Where the region is: first sector and sectors.
    pub place: (u64, u64),
    /// In each area.
    pub areas: Vec<Count>,
    /// In all of them.
    pub total: Count,
}

impl RegionSample {
    /// The sample of a region at this place, with these areas and so many bins in each.
    pub fn new(place: (u64, u64), areas: Vec<Count>, bins: usize) -> Self {
        let mut total = Count {
            bins: vec![0; bins],
            ..Count::default()
        };
        areas.iter().for_each(|area| total.add(area));
        RegionSample {
            place,
            areas,
            total,
        }
    }
}

/// What was counted in the regions and groups of a device.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// By region id.
    pub regions: IdMap<RegionSample>,
    /// By group id. A group has bins if all its members have those of the same bounds.
    pub groups: IdMap<Count>,
    /// By the id of a group that lies over a file: the part of its counts that is estimated, from 0 to 1.
    pub errors: IdMap<f64>,
}

impl Sample {
    pub(crate) fn new(snapshot: &Snapshot, regions: IdMap<RegionSample>) -> Self {
        let mut groups = IdMap::new();
        for (id, group) in &snapshot.groups {
            let mut sum = Count {
                bins: vec![
                    0;
                    snapshot
                        .group_bounds(group)
                        .map_or(0, |bounds| bounds.len() + 1)
                ],
                ..Count::default()
            };
            group
                .members
                .among(&snapshot.regions)
                .filter_map(|id| regions.get(&id))
                .for_each(|region| sum.add(&region.total));
            groups.insert(*id, sum);
        }
        Sample {
            regions,
            groups,
            errors: IdMap::new(),
        }
    }

    /// Attributes what was counted in the regions of a group to its file, which lies at these places.
    pub fn project(&mut self, snapshot: &Snapshot, id: u32, places: &[(u64, u64)]) {
        let Some(group) = snapshot.groups.get(&id) else {
            return;
        };
        let projection = projection::project(group.own(snapshot), &self.regions, places);
        self.groups.insert(id, projection.count);
        self.errors.insert(id, projection.error);
    }

    /// What came since an earlier sample; of regions that were not in it, all. A region elsewhere is another one, which
    /// has the id by now.
    pub fn since(&self, snapshot: &Snapshot, earlier: &Self) -> Self {
        let mut regions = IdMap::new();
        for (id, region) in &self.regions {
            let bins = region.total.bins.len();
            let sample = match earlier.regions.get(id) {
                Some(then)
                    if then.place == region.place
                        && then.areas.len() == region.areas.len()
                        && then.total.bins.len() == bins =>
                {
                    RegionSample::new(
                        region.place,
                        region
                            .areas
                            .iter()
                            .zip(&then.areas)
                            .map(|(now, then)| now.since(then))
                            .collect(),
                        bins,
                    )
                }
                _ => region.clone(),
            };
            regions.insert(*id, sample);
        }
        Sample::new(snapshot, regions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(value: u64) -> Counters {
        Counters::from_row([value; 13])
    }

    #[test]
    fn a_difference_is_what_came_in_between() {
        assert_eq!(
            row(7).since(&row(5)),
            Counters {
                in_progress: 7,
                ..row(2)
            }
        );
    }

    #[test]
    fn a_difference_over_a_clear_is_what_came_after_it() {
        assert_eq!(row(3).since(&row(5)), row(3));
        let (now, then) = (
            Count {
                bins: vec![1, 0],
                ..Default::default()
            },
            Count {
                bins: vec![5, 0],
                ..Default::default()
            },
        );
        assert_eq!(now.since(&then).bins, [1, 0]);
    }

    #[test]
    fn sums_never_overflow() {
        assert_eq!(row(u64::MAX).plus(&row(1)), row(u64::MAX));
        assert_eq!(row(u64::MAX).scaled(1_000_000).read_time, u64::MAX);
    }
}
