// SPDX-License-Identifier: GPL-2.0

//! What regions cost the kernel in memory, and I/O in time.

use std::collections::BTreeMap;

use crate::bounds::bins;
use crate::reply;
use crate::reply::ListRow;
use crate::Device;
use crate::Region;
use crate::RegionSpec;
use crate::Step;
use crate::Transport;

/// What the kernel accounts for a region, an area of it, and a bin of that, as far as it is known.
pub(crate) const REGION_BYTES: u64 = 65_664;
const AREA_BYTES: u64 = 120;
const AREA_CPU_BYTES: u64 = 104;
const BIN_BYTES: u64 = 8;
/// How many instructions an I/O takes for each region of its device, wherever it goes: the kernel goes through all
/// of them when it begins and when it ends.
pub const PASS_INSTRUCTIONS: u64 = 24;

/// How many CPUs the kernel has counters for: the last of a list such as `0-3`, and one.
pub fn possible_cpus() -> u64 {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/possible").unwrap_or_default();
    let last = text
        .trim()
        .rsplit([',', '-'])
        .next()
        .and_then(|last| last.parse::<u64>().ok());
    last.map_or(1, |last| last.saturating_add(1))
}

/// How many areas a region of so many sectors has.
pub fn areas(len: u64, step: Step) -> u64 {
    let step = match step {
        Step::Sectors(step) => step,
        Step::Areas(areas) => len.div_ceil(u64::from(areas.max(1))),
    };
    len.div_ceil(step.max(1))
}

/// The bytes of an area with so many bins.
fn area_with(bins: u64, cpus: u64) -> u64 {
    let counters = AREA_CPU_BYTES.saturating_mul(cpus);
    let bins = BIN_BYTES
        .saturating_mul(bins)
        .saturating_mul(cpus.saturating_add(1));
    AREA_BYTES.saturating_add(counters).saturating_add(bins)
}

/// The bytes of an area of such a region.
pub fn area(spec: &RegionSpec, cpus: u64) -> u64 {
    area_with(bins(&spec.bounds) as u64, cpus)
}

/// The bytes of so many areas, and of the region that they are of.
fn region_with(areas: u64, area: u64) -> u64 {
    areas.saturating_mul(area).saturating_add(REGION_BYTES)
}

/// The bytes that the kernel accounts for such a region.
pub fn memory(len: u64, spec: &RegionSpec, cpus: u64) -> u64 {
    region_with(areas(len, spec.step), area(spec, cpus))
}

/// The bytes that the kernel accounts for a region that there is.
pub(crate) fn region_memory(region: &Region, cpus: u64) -> u64 {
    region_with(region.areas(), area_with(region.bins() as u64, cpus))
}

/// Who has how much of the kernel's memory for statistics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The device's name.
    pub device: String,
    /// The program.
    pub program: String,
    /// How many regions of it there are.
    pub regions: u64,
    /// What they cost, as far as is known.
    pub bytes: u64,
}

/// Regions of one program, and their bytes.
type Run<'a> = (&'a [u8], u64, u64);

/// The regions of a list that come in a row and are of one program.
fn runs(list: &[u8], cpus: u64) -> Vec<Run<'_>> {
    // There may be thousands of regions, most of them without a histogram.
    let plain = area_with(0, cpus);
    let mut runs: Vec<Run<'_>> = Vec::new();
    for line in reply::lines(list) {
        let above = runs.last().map(|(program, ..)| *program);
        let Some(row) = ListRow::parse(line, above) else {
            continue;
        };
        let area = match row.bounds.as_slice() {
            [] => plain,
            bounds => area_with(bins(bounds) as u64, cpus),
        };
        let bytes = region_with(row.len.div_ceil(row.step), area);
        match runs.last_mut() {
            Some((program, regions, all)) if *program == row.program => {
                *regions += 1;
                *all = all.saturating_add(bytes);
            }
            _ => runs.push((row.program, 1, bytes)),
        }
    }
    runs
}

/// Who has how much of the kernel's memory for statistics, the most first. It is for a message: what cannot be asked
/// for is left out.
pub fn holders(transport: &impl Transport) -> Vec<Holder> {
    let cpus = possible_cpus();
    let mut left = transport.memory_used();
    let mut holders = Vec::new();
    for (devno, name) in transport.devices().unwrap_or_default() {
        let device = Device::new(transport, devno, b"");
        let list = device.list_text(left).unwrap_or_default();
        let mut programs: BTreeMap<&[u8], (u64, u64)> = BTreeMap::new();
        for (program, regions, bytes) in runs(&list, cpus) {
            let all = programs.entry(program).or_default();
            *all = (all.0 + regions, all.1.saturating_add(bytes));
            left = left.map(|left| left.saturating_sub(bytes));
        }
        holders.extend(
            programs
                .into_iter()
                .map(|(program, (regions, bytes))| Holder {
                    device: String::from_utf8_lossy(&name).into_owned(),
                    program: String::from_utf8_lossy(program).into_owned(),
                    regions,
                    bytes,
                }),
        );
    }
    holders.sort_by_key(|holder| std::cmp::Reverse(holder.bytes));
    holders
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Fake;

    #[test]
    fn a32_the_error_says_who_has_the_memory() {
        let fake = Fake::new(10_000);
        let other = fake.add("other", &[8]);
        // Two of the regions that are made last have room, and are not held against anybody.
        fake.set_limit(7 * 66_000);
        Device::new(&fake, other, b"few")
            .create(&RegionSpec::whole())
            .unwrap();
        let device = Device::new(&fake, crate::Devno { major: 0, minor: 0 }, b"many");
        let specs = vec![RegionSpec::whole(); 9];
        let error = device
            .create_all(&specs[..4], |_| ())
            .and_then(|_| device.create_all(&specs, |_| ()));
        let said = error.unwrap_err().to_string();
        let most = "bytes were in use; most of those that stay are of program many on d (";
        assert!(
            said.contains(most) && said.contains("for 4 region(s)): delete regions, or make"),
            "{said}"
        );
    }

    #[test]
    fn the_kernels_memory_is_foretold() {
        let spec = RegionSpec {
            step: Step::Sectors(1),
            ..RegionSpec::whole()
        };
        // As measured on one CPU: 32,768 areas, and one area.
        assert_eq!(memory(32_768, &spec, 1), 7_405_696);
        assert_eq!(memory(8, &RegionSpec::whole(), 1), 65_888);
    }

    #[test]
    fn areas_are_counted_as_the_kernel_makes_them() {
        assert_eq!(
            (
                areas(1000, Step::Areas(3)),
                areas(1000, Step::Sectors(300)),
                areas(10, Step::Areas(20))
            ),
            (3, 4, 10)
        );
        assert_eq!(areas(131_072, Step::Areas(131_073)), 131_072);
    }
}
