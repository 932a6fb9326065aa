// SPDX-License-Identifier: GPL-2.0

//! Files that are counted by areas: a few regions with many areas lie over all of a file's places, and what was
//! counted there is attributed to the file when it is read.
//!
//! A region for each extent is exact, but each I/O of the device passes all regions, and each takes 128 KiB of the
//! kernel. An area takes some hundred bytes, and none of the time of others. So files in many pieces are projected.
//! Where the file goes its areas are already; there is nothing to be changed.
//!
//! A file that leaves its regions gets more, beside those that it has. Of [`REGIONS`] all but one lie so, and each
//! time half of what is left of these is given away. When none is left, the last lies over all of the device, so that
//! the file cannot leave them again. What it counts for the file is what lies under none of the others: these are
//! older, and have what was counted there before. So regions overlap only if the longer is the younger, and it is the
//! shortest that has the counts of a sector; ids do not tell which is older, as the kernel gives them again.
//!
//! A request counts in each area that it touches. If areas are as large as what the file's places are multiples of,
//! each belongs to the file or not at all; if there is no memory for so many, some belong to the file in part. Of
//! what was counted in these, the part is taken that they have of the file, and the error is told.

use std::iter::successors;
use std::path::Path;
use std::path::PathBuf;

use std::os::unix::ffi::OsStrExt;
use std::os::unix::ffi::OsStringExt;

use crate::ffi::Handle;
use crate::follow::Mode;
use crate::idmap::IdMap;
use crate::ranges::Ranges;
use crate::sample::Count;
use crate::sample::RegionSample;
use crate::Region;

/// Regions of one file at most, however it changes; more would be in the way of I/O. Only if the device itself has
/// become larger since there were so many, and the file has gone there, there is one more.
pub const REGIONS: usize = 8;
/// A file in more pieces is projected unless something else is asked for: each region is passed by each I/O of the
/// device.
pub const MANY_EXTENTS: usize = 64;
/// Beyond its places, regions have what a file system allots at once, so that a file may grow: 128 MiB, or as large a
/// part of it as there is memory for.
const ROOM: u64 = 262_144;
/// What a file's data is mostly allotted in, in sectors.
const PAGE: u64 = 8;
/// At most this, in sectors: coarser areas tell nothing.
const COARSEST: u64 = 1 << 21;

/// What begins a region's word if the group that it leads is a projected file.
const TAG: &[u8] = b"FILE=";

/// What there is for the regions of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// The sectors of the device.
    pub sectors: u64,
    /// How many regions the file has.
    pub regions: usize,
    /// What these cover.
    pub taken: Ranges,
    /// How many areas new regions may have.
    pub areas: u64,
}

/// Regions to be made for a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// First sector and sectors of each. They do not overlap what is taken; or it is one, which is longer than all
    /// that it overlaps.
    pub regions: Vec<(u64, u64)>,
    /// The sectors of an area.
    pub step: u64,
    /// How many sectors of areas that have some of the file are not its own.
    pub foreign: u64,
}

/// The file of a projected group, as the word of its first region tells it.
#[derive(Clone, PartialEq, Eq)]
pub struct Word {
    /// What is seen: the file, or what has the path.
    pub mode: Mode,
    /// The file.
    pub handle: Handle,
    /// Its path.
    pub path: PathBuf,
}

impl Word {
    /// Reads a word; none if it is another.
    pub fn parse(word: &[u8]) -> Option<Self> {
        let mut parts = word.strip_prefix(TAG)?.splitn(3, |byte| *byte == b',');
        let mode = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
        let handle = Handle::parse(std::str::from_utf8(parts.next()?).ok()?)?;
        Some(Word {
            mode,
            handle,
            path: unescaped(parts.next()?)?,
        })
    }

    /// The word, without what other programs could stumble over.
    pub fn format(&self) -> Vec<u8> {
        let mut word = TAG.to_vec();
        word.extend(format!("{},{},", self.mode, self.handle).bytes());
        escape(&self.path, &mut word);
        word
    }
}

/// Writes a path as one word that is text, whatever bytes it has.
pub(crate) fn escape(path: &Path, word: &mut Vec<u8>) {
    for byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-+@".contains(byte) {
            word.push(*byte);
        } else {
            word.extend(format!("%{byte:02x}").bytes());
        }
    }
}

/// Reads a path that was written so.
pub(crate) fn unescaped(word: &[u8]) -> Option<PathBuf> {
    let mut out = Vec::new();
    let mut bytes = word.iter();
    while let Some(byte) = bytes.next() {
        if *byte == b'%' {
            let digits = [*bytes.next()?, *bytes.next()?];
            out.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            out.push(*byte);
        }
    }
    Some(std::ffi::OsString::from_vec(out).into())
}

/// The regions that are to be made over what a file at these places has outside of its regions; none if there is
/// nothing.
pub fn plan(places: &[(u64, u64)], space: &Space) -> Option<Plan> {
    let set = Ranges::of_places(places).without(&space.taken);
    let mut gaps: Vec<(u64, u64)> = set
        .iter()
        .map(|(start, _)| space.taken.gap(start))
        .collect();
    gaps.dedup();
    let left = REGIONS.saturating_sub(1 + space.regions);
    let most = left.div_ceil(2).max(gaps.len());
    let whole = gaps.len() > left;
    // Areas are as large as what the ends are multiples of, and so are the starts of the gaps, where regions may begin.
    // File systems of smaller blocks have pages that are all as far from a multiple of a page: so are regions then.
    let (first, _) = set.iter().next()?;
    let starts = gaps.iter().map(|(start, _)| *start);
    let ends: Vec<u64> = set
        .iter()
        .flat_map(|(start, end)| [start, end])
        .chain(starts.filter(|start| *start > 0))
        .collect();
    let common = |origin: u64| {
        let bits = ends.iter().map(|end| (end ^ origin).trailing_zeros());
        1u64 << bits.min().unwrap_or(0).min(COARSEST.trailing_zeros())
    };
    let exact = common(0).max(if whole { 1 } else { common(first).min(PAGE) });
    let origin = first % exact;
    let end = space.sectors.max(set.end()).max(space.taken.end());
    // As much room to grow as there is memory for; if there is none for the file itself, larger areas.
    let halved = |room: &u64| (room / 2 > exact).then_some(room / 2);
    let doubled = |step: &u64| (*step < COARSEST).then_some(step * 2);
    let rooms = successors(Some(ROOM.max(exact)), halved).map(|room| (room, exact));
    let steps = successors(Some(exact), doubled).map(|step| (step, step));
    rooms.chain(steps).find_map(|(room, step)| {
        let regions = if whole {
            vec![(0, end)]
        } else {
            clusters(&set, (origin, room), end, &space.taken, most)
        };
        let count: u64 = regions.iter().map(|(_, len)| len.div_ceil(step)).sum();
        (count <= space.areas.max(1) || step == COARSEST).then(|| Plan {
            foreign: foreign(&set, &regions, step),
            regions,
            step,
        })
    })
}

/// At most so many ranges over a set, which are apart by what is taken, and by the widest gaps that there are. Each is
/// a multiple of a room, which the rooms' origin is before, within a gap of what is taken.
fn clusters(
    set: &Ranges,
    (origin, room): (u64, u64),
    end: u64,
    taken: &Ranges,
    most: usize,
) -> Vec<(u64, u64)> {
    let widened: Ranges = set
        .iter()
        .map(|(first, last)| {
            let (from, to) = taken.gap(first);
            let rooms = (last - origin).div_ceil(room);
            let wide = origin.saturating_add(rooms.saturating_mul(room));
            let start = origin + (first - origin) / room * room;
            (start.max(from), wide.min(to).min(end))
        })
        .collect();
    let ranges: Vec<_> = widened.iter().collect();
    let mut gaps: Vec<(bool, u64, usize)> = ranges
        .windows(2)
        .enumerate()
        .map(|(index, pair)| {
            let (from, to) = (pair[0].1, pair[1].0);
            (taken.common(from, to) > 0, to - from, index + 1)
        })
        .collect();
    gaps.sort_unstable_by(|one, other| other.cmp(one));
    let mut cuts: Vec<usize> = gaps
        .iter()
        .take(most.saturating_sub(1))
        .map(|(.., index)| *index)
        .collect();
    cuts.sort_unstable();
    cuts.push(ranges.len());
    let mut first = 0;
    let mut regions = Vec::new();
    for cut in cuts {
        if let (Some(start), Some(end)) = (ranges.get(first), ranges.get(cut.wrapping_sub(1))) {
            regions.push((start.0, end.1 - start.0));
        }
        first = cut;
    }
    regions
}

/// How many sectors of areas that have some of a file are not its own.
fn foreign(set: &Ranges, regions: &[(u64, u64)], step: u64) -> u64 {
    let mut touched = Vec::new();
    for (start, len) in regions {
        for (from, to) in set.within(*start, start + len) {
            let first = start + (from - start) / step * step;
            let last = start + (to - start).div_ceil(step) * step;
            touched.push((first, last.min(start + len)));
        }
    }
    let touched: Ranges = touched.into_iter().collect();
    let all: u64 = touched.iter().map(|(start, end)| end - start).sum();
    let own: u64 = touched
        .iter()
        .map(|(start, end)| set.common(start, end))
        .sum();
    all - own
}

/// What of a region's counts is a file's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Projection {
    /// The counts, of which those of areas that the file shares with others are estimated.
    pub count: Count,
    /// The part of the counted sectors that this is true for, from 0 to 1.
    pub error: f64,
}

/// Which of a file's places are counted in which of its regions: in the shortest that covers them, which is the
/// oldest.
pub fn shares<'a>(
    regions: impl Iterator<Item = &'a Region>,
    places: &Ranges,
) -> Vec<(&'a Region, Ranges)> {
    let mut order: Vec<&Region> = regions.collect();
    order.sort_unstable_by_key(|region| (region.len, region.start, region.id));
    let mut left = places.clone();
    let share = |region: &'a Region| {
        let (start, end) = (region.start, region.start.saturating_add(region.len));
        let share = left.within(start, end).collect();
        left = left.without(&Ranges::from_iter([(start, end)]));
        (region, share)
    };
    order.into_iter().map(share).collect()
}

/// Attributes what was counted in regions to a file at these places. What lies under an older region is not the
/// file's own in a younger: an area of which this is true for a part is estimated, as is one that has other data.
pub fn project<'a>(
    regions: impl Iterator<Item = &'a Region>,
    samples: &IdMap<RegionSample>,
    places: &[(u64, u64)],
) -> Projection {
    let sampled = regions.filter(|region| samples.contains_key(&region.id));
    let mut sum = Count::default();
    let mut estimated = 0u64;
    for (region, share) in shares(sampled, &Ranges::of_places(places)) {
        let Some(sample) = samples.get(&region.id) else {
            continue;
        };
        if sum.bins.len() < sample.total.bins.len() {
            sum.bins.resize(sample.total.bins.len(), 0);
        }
        for (area, count) in (0..).zip(&sample.areas) {
            let (start, len) = (region.area_start(area), region.area_len(area));
            let own = share.common(start, start.saturating_add(len));
            if own == 0 {
                continue;
            }
            let part = count.part(own, len);
            if own < len {
                estimated = estimated.saturating_add(part.counters.sectors());
            }
            sum.add(&part);
        }
    }
    let all = sum.counters.sectors();
    Projection {
        error: if all == 0 {
            0.0
        } else {
            estimated as f64 / all as f64
        },
        count: sum,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Counters;
    use proptest::prelude::*;

    const DEVICE: u64 = 1 << 24;

    /// A device with room for so many areas, and no region so far.
    fn space(sectors: u64, areas: u64) -> Space {
        Space {
            sectors,
            areas,
            ..Space::default()
        }
    }

    fn every_second_block(count: u64) -> Vec<(u64, u64)> {
        (0..count).map(|index| (4096 + index * 16, 8)).collect()
    }

    #[test]
    fn a_file_in_pieces_takes_one_region_and_no_error() {
        let plan = plan(&every_second_block(5000), &space(DEVICE, 100_000)).unwrap();
        assert_eq!(
            (plan.regions, plan.step, plan.foreign),
            (vec![(0, ROOM)], 8, 0)
        );
    }

    #[test]
    fn places_far_apart_have_regions_of_their_own() {
        let far = [(0, 8), (1 << 22, 8), (1 << 23, 8)];
        let exact = plan(&far, &space(DEVICE, 3 * ROOM / 8)).unwrap();
        assert_eq!((exact.regions.len(), exact.step, exact.foreign), (3, 8, 0));
        // There is as much room to grow as there is memory for.
        let some = plan(&far, &space(DEVICE, 3 * ROOM / 32)).unwrap();
        assert!(some.regions.iter().all(|(_, len)| *len == ROOM / 4));
        let tight = plan(&far, &space(DEVICE, 3)).unwrap();
        assert_eq!((tight.regions, tight.step), (far.to_vec(), 8));
        // Without memory for small areas, these are larger, and that is told.
        let places: Vec<_> = (0..64).map(|index| (index << 17, 8)).collect();
        let coarse = plan(&places, &space(DEVICE, 100)).unwrap();
        assert!(coarse.step > 8 && coarse.foreign > 0 && coarse.regions.len() <= REGIONS / 2);
    }

    /// Regions, each of which is taken, with the gaps between them as long.
    fn taken(regions: usize, len: u64) -> Space {
        let places: Vec<_> = (0..regions as u64)
            .map(|index| ((2 * index + 1) * len, len))
            .collect();
        Space {
            regions,
            taken: Ranges::of_places(&places),
            ..space(DEVICE, 1 << 20)
        }
    }

    #[test]
    fn new_regions_lie_beside_those_that_there_are_and_leave_some_for_later() {
        let one = ROOM;
        // Of six that are left three are given away, and none lies over what is taken.
        let far: Vec<_> = (8..64).map(|index| (index * one, 8)).collect();
        let more = plan(&far, &taken(1, one)).unwrap();
        assert_eq!(more.regions.len(), 3);
        // What is within regions needs none, and in the gaps they do not reach into these.
        let plan_in = |places: &[(u64, u64)]| plan(places, &taken(2, 24)).map(|plan| plan.regions);
        assert_eq!(plan_in(&[(24, 8), (80, 16)]), None);
        assert_eq!(
            plan_in(&[(8, 8), (24, 8), (48, 8), (88, 16)]),
            Some(vec![(0, 24), (48, 24), (96, ROOM - 96)])
        );
    }

    #[test]
    fn the_last_region_lies_over_the_device_and_so_it_is_if_there_are_too_few_for_the_gaps() {
        let whole = vec![(0, DEVICE)];
        let last = plan(&[(5, 1)], &taken(REGIONS - 1, 24)).unwrap();
        assert_eq!(last.regions, whole);
        assert!(last.step > 1 && last.foreign > 0);
        let gaps: Vec<_> = (0..4).map(|index| (index * 48, 8)).collect();
        assert_eq!(plan(&gaps, &taken(4, 24)).unwrap().regions, whole);
        assert_eq!(plan(&gaps, &taken(3, 24)).unwrap().regions.len(), 4);
    }

    #[test]
    fn pages_that_are_no_multiples_of_one_have_an_area_each() {
        let odd = plan(&[(2, 8), (26, 16), (1002, 8)], &space(DEVICE, 100_000)).unwrap();
        assert_eq!(
            (odd.regions, odd.step, odd.foreign),
            (vec![(2, ROOM)], PAGE, 0)
        );
        let beside = plan(&[(50, 8)], &taken(1, 24)).unwrap();
        assert_eq!((beside.step, beside.foreign), (2, 0));
    }

    #[test]
    fn no_file_has_no_plan() {
        assert_eq!(plan(&[], &space(DEVICE, 100)), None);
    }

    #[test]
    fn words_say_which_file_it_is() {
        let word = Word {
            mode: Mode::Path,
            handle: Handle::parse("1.0d00000082518cff").unwrap(),
            path: "/srv/a b,#:%\u{e9}".into(),
        };
        let text = word.format();
        assert_eq!(
            text,
            b"FILE=path,1.0d00000082518cff,/srv/a%20b%2c%23%3a%25%c3%a9"
        );
        assert!(Word::parse(&text) == Some(word));
        for other in [
            "",
            "-",
            "FILE=",
            "FILE=path,1.0d",
            "FILE=path,x,/a",
            "FILE=path,1.0d,/a%2",
        ] {
            assert!(Word::parse(other.as_bytes()).is_none(), "{other}");
        }
    }

    fn region(start: u64, len: u64, step: u64) -> Region {
        Region {
            id: 0,
            start,
            len,
            step,
            program: Default::default(),
            user: Vec::new(),
            precise: false,
            bounds: Vec::new(),
            group: None,
        }
    }

    fn sectors(reads: &[u64]) -> RegionSample {
        let areas = reads.iter().map(|sectors| Count {
            counters: Counters {
                reads: 1,
                read_sectors: *sectors,
                ..Counters::default()
            },
            bins: vec![2],
        });
        RegionSample::new((0, reads.len() as u64), areas.collect(), 1)
    }

    #[test]
    fn what_is_the_files_own_is_counted_and_the_rest_estimated() {
        let (region, sample) = (region(0, 64, 16), sectors(&[16, 16, 16, 16]));
        let mut samples = IdMap::new();
        samples.insert(0, sample);
        let of = |places: &[(u64, u64)]| project([&region].into_iter(), &samples, places);
        let own = of(&[(16, 32)]);
        assert_eq!(
            (
                own.count.counters.read_sectors,
                own.count.counters.reads,
                own.error
            ),
            (32, 2, 0.0)
        );
        let shared = of(&[(0, 16), (16, 4)]);
        assert_eq!(
            (shared.count.counters.read_sectors, shared.count.bins[0]),
            (20, 3)
        );
        assert_eq!(shared.error, 0.2);
        assert_eq!(of(&[]).count.counters, Counters::default());
    }

    #[test]
    fn what_several_regions_have_counted_is_taken_from_the_shortest() {
        let regions =
            [(0, 0, 96, 24), (1, 16, 16, 16), (2, 48, 24, 24)].map(|(id, start, len, step)| {
                Region {
                    id,
                    ..region(start, len, step)
                }
            });
        let mut samples = IdMap::new();
        samples.insert(0, sectors(&[24, 24, 24, 24]));
        samples.insert(1, sectors(&[10]));
        samples.insert(2, sectors(&[7]));
        let of = |places: &[(u64, u64)]| {
            let projection = project(regions.iter(), &samples, places);
            (projection.count.counters.read_sectors, projection.error)
        };
        assert_eq!(of(&[(48, 24)]), (7, 0.0));
        assert_eq!(of(&[(16, 16), (72, 24)]), (34, 0.0));
        // Of the first two areas of the long one, eight sectors each lie under another.
        assert_eq!(of(&[(0, 96)]), (16 + 10 + 16 + 7 + 24, 32.0 / 73.0));
    }

    proptest! {
        /// A plan covers the file, within its limits; if it says that nothing is foreign, nothing is.
        #[test]
        fn plans_are_sound(
            blocks in proptest::collection::btree_set(0u64..4000, 1..60),
            areas in 1u64..5000, origin in 0u64..8,
        ) {
            let places: Vec<(u64, u64)> = blocks.iter().map(|block| (block * 8 + origin, 8)).collect();
            let plan = plan(&places, &space(40_000, areas)).unwrap();
            prop_assert!(!plan.regions.is_empty() && plan.regions.len() <= REGIONS);
            let covered = Ranges::of_places(&plan.regions);
            prop_assert!(Ranges::of_places(&places).iter().all(|(start, end)| covered.common(start, end) == end - start));
            prop_assert!(plan.regions.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0));
            let count: u64 = plan.regions.iter().map(|(_, len)| len.div_ceil(plan.step)).sum();
            prop_assert!(count <= areas.max(REGIONS as u64));
            prop_assert!(plan.step > 8 || plan.foreign == 0);
        }
    }
}
