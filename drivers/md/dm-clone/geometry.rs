// SPDX-License-Identifier: GPL-2.0

//! How a target is divided into regions. Pure.
//!
//! A target of `n` sectors has `ceil(n / region size)` regions; the last one may be short. All
//! sectors here count from the start of the target.

use core::ops::Range;

/// The smallest region, in sectors: 4 KiB.
pub const MIN_REGION_SECTORS: u32 = 1 << 3;
/// The largest region, in sectors: 1 GiB.
pub const MAX_REGION_SECTORS: u32 = 1 << 21;
/// The most regions that a target may have; the on-disk bitset counts them in 32 bits.
pub const MAX_REGIONS: u64 = 1 << 31;

/// A target's size and how it is divided.
///
/// # Invariants
///
/// `1 << shift` sectors are a region, within the limits above; there are 1 to [`MAX_REGIONS`]
/// regions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    target_sectors: u64,
    shift: u32,
}

/// Why there is no such geometry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GeometryError {
    /// The region size is out of its limits.
    RegionSize,
    /// The region size is not a power of two.
    NotPowerOfTwo,
    /// There would be more than [`MAX_REGIONS`] regions, or none.
    RegionCount,
}

impl Geometry {
    /// Divides `target_sectors` sectors into regions of `region_sectors`.
    pub fn new(target_sectors: u64, region_sectors: u32) -> Result<Self, GeometryError> {
        if !(MIN_REGION_SECTORS..=MAX_REGION_SECTORS).contains(&region_sectors) {
            return Err(GeometryError::RegionSize);
        }
        if !region_sectors.is_power_of_two() {
            return Err(GeometryError::NotPowerOfTwo);
        }
        // INVARIANT: The size was checked, the count is checked below.
        let geometry = Geometry {
            target_sectors,
            shift: region_sectors.trailing_zeros(),
        };
        if (1..=MAX_REGIONS).contains(&geometry.regions()) {
            Ok(geometry)
        } else {
            Err(GeometryError::RegionCount)
        }
    }

    /// The length of the target in sectors.
    pub fn target_sectors(&self) -> u64 {
        self.target_sectors
    }

    /// The size of a region in sectors.
    pub fn region_sectors(&self) -> u32 {
        1 << self.shift
    }

    /// How many regions there are.
    pub fn regions(&self) -> u64 {
        self.regions_before(self.target_sectors)
    }

    /// The region that a sector lies in.
    pub fn region_of(&self, sector: u64) -> u64 {
        sector >> self.shift
    }

    /// The regions that `sectors` touch.
    pub fn touched(&self, sectors: Range<u64>) -> Range<u64> {
        let sectors = self.clamp(sectors);
        if sectors.is_empty() {
            return 0..0;
        }
        (sectors.start >> self.shift)..(((sectors.end - 1) >> self.shift) + 1)
    }

    /// The regions that `sectors` cover whole. The end of the target ends the last region, however
    /// short that is.
    pub fn covered(&self, sectors: Range<u64>) -> Range<u64> {
        let sectors = self.clamp(sectors);
        let start = self.regions_before(sectors.start);
        let end = if sectors.end == self.target_sectors {
            self.regions()
        } else {
            sectors.end >> self.shift
        };
        // An empty range of the target ends where it starts, also within a region.
        if sectors.is_empty() {
            0..0
        } else {
            start..end.max(start)
        }
    }

    /// What remains of `sectors` when a region at either end that they cover only in part is cut
    /// off, unless `keep` wants it.
    pub fn trimmed(&self, sectors: Range<u64>, keep: impl Fn(u64) -> bool) -> Range<u64> {
        let sectors = self.clamp(sectors);
        let touched = self.touched(sectors.clone());
        if touched.is_empty() {
            return sectors;
        }
        let covered = self.covered(sectors.clone());
        let (first, last) = (touched.start, touched.end - 1);
        let start = if covered.contains(&first) || keep(first) {
            sectors.start
        } else {
            self.sectors(first..first + 1).end.min(sectors.end)
        };
        let end = if covered.contains(&last) || keep(last) {
            sectors.end
        } else {
            self.sectors(last..last + 1).start.max(start)
        };
        start..end
    }

    /// The sectors of some regions; the last region's end with the target.
    pub fn sectors(&self, regions: Range<u64>) -> Range<u64> {
        let bound = |region: u64| {
            region
                .checked_mul(1 << self.shift)
                .map_or(self.target_sectors, |sector| {
                    sector.min(self.target_sectors)
                })
        };
        bound(regions.start)..bound(regions.end)
    }

    /// How many sectors there are from `sector` to where `region` starts, if that is not beyond what
    /// a bio can have.
    pub fn sectors_to(&self, region: u64, sector: u64) -> u32 {
        let end = self.sectors(0..region).end;
        u32::try_from(end.saturating_sub(sector)).unwrap_or(u32::MAX)
    }

    /// How many regions start before a sector.
    fn regions_before(&self, sector: u64) -> u64 {
        // Not `div_ceil`: the shift cannot fail, where the division could.
        let within = sector & ((1 << self.shift) - 1);
        (sector >> self.shift) + u64::from(within != 0)
    }

    fn clamp(&self, sectors: Range<u64>) -> Range<u64> {
        sectors.start.min(self.target_sectors)..sectors.end.min(self.target_sectors)
    }
}
