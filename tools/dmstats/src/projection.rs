// SPDX-License-Identifier: GPL-2.0

//! Files that are counted by areas: a few regions with many areas lie over all of a file's places, and what was
//! counted there is attributed to the file when it is read.
//!
//! A region for each extent is exact, but each I/O of the device passes all regions, and each takes 128 KiB of the
//! kernel. An area takes some hundred bytes, and none of the time of others. So files in many pieces are projected.
//! Where the file goes its areas are already; there is nothing to be changed.
//!
//! A request counts in each area that it touches. If areas are as large as what the file's places are multiples of,
//! each belongs to the file or not at all; if there is no memory for so many, some belong to the file in part. Of
//! what was counted in these, the part is taken that they have of the file, and the error is told.

use std::path::Path;
use std::path::PathBuf;

use std::os::unix::ffi::OsStrExt;
use std::os::unix::ffi::OsStringExt;

use crate::ffi::Handle;
use crate::follow::Mode;
use crate::ranges::Ranges;
use crate::sample::Count;
use crate::sample::RegionSample;
use crate::Region;

/// Regions of one file; more would be in the way of I/O.
const REGIONS: usize = 8;
/// Beyond its places, regions have what a file system allots at once, so that a file may grow: 128 MiB.
const ROOM: u64 = 262_144;
/// At most this, in sectors: coarser areas tell nothing.
const COARSEST: u64 = 1 << 21;

/// What begins a region's word if the group that it leads is a projected file.
const TAG: &[u8] = b"FILE=";

/// Regions to be made for a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// First sector and sectors of each.
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
        let path = unescaped(parts.next()?)?;
        Some(Word {
            mode,
            handle,
            path: std::ffi::OsString::from_vec(path).into(),
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

fn escape(path: &Path, word: &mut Vec<u8>) {
    for byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-+@".contains(byte) {
            word.push(*byte);
        } else {
            word.extend(format!("%{byte:02x}").bytes());
        }
    }
}

fn unescaped(word: &[u8]) -> Option<Vec<u8>> {
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
    Some(out)
}

/// Regions over a file at these places of a device of so many sectors, with so many areas at most in all. None for a
/// file without places.
pub fn plan(places: &[(u64, u64)], sectors: u64, areas: u64) -> Option<Plan> {
    let set = Ranges::of_places(places);
    let align = set
        .iter()
        .map(|(start, end)| (start | end).trailing_zeros())
        .min()?;
    let exact = 1u64 << align.min(COARSEST.trailing_zeros());
    // The finest step for which there is memory, first with room to grow, then without.
    for (room, coarsest) in [(ROOM, exact), (exact, COARSEST)] {
        let mut step = exact;
        while step <= coarsest {
            let regions = clusters(&set, room.max(step), sectors);
            let count: u64 = regions.iter().map(|(_, len)| len.div_ceil(step)).sum();
            if count <= areas.max(1) || (step == COARSEST && room != ROOM) {
                let foreign = foreign(&set, &regions, step);
                return Some(Plan {
                    regions,
                    step,
                    foreign,
                });
            }
            step *= 2;
        }
    }
    None
}

/// A few ranges over a set, each a multiple of `room`, which are apart by the widest gaps that there are.
fn clusters(set: &Ranges, room: u64, sectors: u64) -> Vec<(u64, u64)> {
    let widened: Ranges = set
        .iter()
        .map(|(start, end)| {
            let wide = end.div_ceil(room).saturating_mul(room);
            (start / room * room, wide.min(sectors.max(end)))
        })
        .collect();
    let ranges: Vec<_> = widened.iter().collect();
    let mut gaps: Vec<(u64, usize)> = ranges
        .windows(2)
        .enumerate()
        .map(|(index, pair)| (pair[1].0 - pair[0].1, index + 1))
        .collect();
    gaps.sort_unstable_by(|one, other| other.cmp(one));
    let mut cuts: Vec<usize> = gaps
        .iter()
        .take(REGIONS - 1)
        .map(|(_, index)| *index)
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

/// Attributes what was counted in regions to a file at these places.
pub fn project<'a>(
    regions: impl Iterator<Item = (&'a Region, &'a RegionSample)>,
    places: &[(u64, u64)],
) -> Projection {
    let set = Ranges::of_places(places);
    let mut sum = Count::default();
    let mut estimated = 0u64;
    for (region, sample) in regions {
        if sum.bins.len() < sample.total.bins.len() {
            sum.bins.resize(sample.total.bins.len(), 0);
        }
        for (area, count) in (0..).zip(&sample.areas) {
            let (start, len) = (region.area_start(area), region.area_len(area));
            let own = set.common(start, start.saturating_add(len));
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

    fn every_second_block(count: u64) -> Vec<(u64, u64)> {
        (0..count).map(|index| (4096 + index * 16, 8)).collect()
    }

    #[test]
    fn a_file_in_pieces_takes_one_region_and_no_error() {
        let plan = plan(&every_second_block(5000), DEVICE, 100_000).unwrap();
        assert_eq!(
            (plan.regions, plan.step, plan.foreign),
            (vec![(0, ROOM)], 8, 0)
        );
    }

    #[test]
    fn places_far_apart_have_regions_of_their_own() {
        let far = [(0, 8), (1 << 22, 8), (1 << 23, 8)];
        let exact = plan(&far, DEVICE, 3 * ROOM / 8).unwrap();
        assert_eq!((exact.regions.len(), exact.step, exact.foreign), (3, 8, 0));
        // Without memory for room to grow there is none.
        let tight = plan(&far, DEVICE, 100).unwrap();
        assert_eq!((tight.regions, tight.step), (far.to_vec(), 8));
        // Without memory for small areas, these are larger, and that is told.
        let places: Vec<_> = (0..64).map(|index| (index << 17, 8)).collect();
        let coarse = plan(&places, DEVICE, 100).unwrap();
        assert!(coarse.step > 8 && coarse.foreign > 0 && coarse.regions.len() <= REGIONS);
    }

    #[test]
    fn no_file_has_no_plan() {
        assert_eq!(plan(&[], DEVICE, 100), None);
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
        RegionSample::new(areas.collect(), 1)
    }

    #[test]
    fn what_is_the_files_own_is_counted_and_the_rest_estimated() {
        let (region, sample) = (region(0, 64, 16), sectors(&[16, 16, 16, 16]));
        let of = |places: &[(u64, u64)]| project([(&region, &sample)].into_iter(), places);
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

    proptest! {
        /// A plan covers the file, within its limits; if it says that nothing is foreign, nothing is.
        #[test]
        fn plans_are_sound(
            blocks in proptest::collection::btree_set(0u64..4000, 1..60),
            areas in 1u64..5000,
        ) {
            let places: Vec<(u64, u64)> = blocks.iter().map(|block| (block * 8, 8)).collect();
            let plan = plan(&places, 40_000, areas).unwrap();
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
