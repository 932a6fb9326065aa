// SPDX-License-Identifier: GPL-2.0

//! Which regions the background could not copy, and when they are tried again. Pure.
//!
//! A copy of many regions fails when one of them does. It is narrowed: its halves are *suspects*,
//! which are copied next, each by itself, until single regions are left that really fail. A
//! *failed* region is tried again after a second, then after twice as long each time, up to some
//! minutes. Neighbours that have failed are one item: one of them, each time another, is tried for
//! all, so that a dead device is not asked for everything that it cannot give. When something that
//! had failed arrives, the device may be back, and all that has failed is tried again at once.
//!
//! There is room for a fixed number of items. When it is used up, the two that lie next to each
//! other become one, with what lies between them: the list may hold regions that are not in
//! trouble, or are hydrated already, but never leaves out one that is.
//!
//! Times are in milliseconds of any clock that does not go back.

use super::platform::{
    array,
    Array,
    NoMemory, //
};
use core::ops::Range;

/// How many items there may be.
pub const MOST: usize = 128;
/// After how long a region that has failed is tried again.
pub const FIRST_DELAY: u64 = 1000;
/// The longest time between two tries.
pub const LONGEST_DELAY: u64 = 256_000;
/// After how many copies in a row that have failed all copying rests.
pub const STREAK: u32 = 16;
/// The longest such rest.
pub const LONGEST_REST: u64 = 64_000;

/// Neighbouring regions in the same state.
#[derive(Clone, Debug, Default)]
struct Item {
    regions: Range<u64>,
    /// None: suspects.
    failed: Option<Failed>,
    /// A copy of some of them is under way, or would be if a write were not.
    trying: bool,
}

/// Regions that have failed.
#[derive(Clone, Copy, Debug)]
struct Failed {
    /// When one of them is tried.
    due: u64,
    /// How long after that the next one is.
    delay: u64,
    /// How many there are.
    known: u64,
    /// How often they were tried.
    tries: u64,
}

/// What a failed copy means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is copied again in parts.
    Narrowed,
    /// The region has failed; it is tried again after this time.
    Failed {
        /// Milliseconds.
        again: u64,
    },
}

/// The list.
///
/// # Invariants
///
/// The first `len` of `items` are not empty, in order, and do not overlap.
pub struct Failures {
    items: Array<Item>,
    len: usize,
    streak: u32,
    errors: u64,
    retries: u64,
}

impl Failures {
    /// An empty list.
    pub fn new() -> Result<Self, NoMemory> {
        Ok(Failures {
            items: array(MOST, Item::default())?,
            len: 0,
            streak: 0,
            errors: 0,
            retries: 0,
        })
    }

    /// Whether all is well.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many regions have failed.
    pub fn failed_regions(&self) -> u64 {
        self.items().iter().fold(0, |sum, item| {
            sum + item.failed.map_or(0, |failed| failed.known)
        })
    }

    /// How many copies have failed so far.
    pub fn errors(&self) -> u64 {
        self.errors
    }

    /// How often a region that had failed was tried again.
    pub fn retries(&self) -> u64 {
        self.retries
    }

    /// The first item among `regions`: these are not to be copied but through [`pick`](Self::pick).
    pub fn first_of(&self, regions: Range<u64>) -> Option<Range<u64>> {
        self.items()
            .iter()
            .map(|item| item.regions.clone())
            .find(|item| item.start < regions.end && regions.start < item.end)
    }

    /// A copy has failed. `rest` says for how long nothing is to be copied.
    pub fn failed(&mut self, regions: Range<u64>, now: u64) -> Verdict {
        self.errors += 1;
        self.streak = self.streak.saturating_add(1);
        let retried = self.items_mut().iter_mut().find_map(|item| {
            let failed = item.failed.as_mut()?;
            let within = item.regions.start <= regions.start && regions.end <= item.regions.end;
            item.trying &= !within;
            within.then_some(failed)
        });
        if let Some(failed) = retried {
            failed.delay = (failed.delay * 2).min(LONGEST_DELAY);
            failed.due = now.saturating_add(failed.delay);
            failed.tries = failed.tries.wrapping_add(1);
            return Verdict::Failed {
                again: failed.delay,
            };
        }
        self.carve(&regions);
        let count = regions.end.saturating_sub(regions.start);
        if count > 1 {
            let middle = regions.start + count / 2;
            self.insert(Item {
                regions: regions.start..middle,
                ..Item::default()
            });
            self.insert(Item {
                regions: middle..regions.end,
                ..Item::default()
            });
            return Verdict::Narrowed;
        }
        self.insert(Item {
            regions,
            failed: Some(Failed {
                due: now.saturating_add(FIRST_DELAY),
                delay: FIRST_DELAY,
                known: 1,
                tries: 0,
            }),
            trying: false,
        });
        self.join_neighbours();
        Verdict::Failed { again: FIRST_DELAY }
    }

    /// How long nothing at all is to be copied, after so many failures and no success: the device
    /// is gone, and there is no use in finding out for each region.
    pub fn rest(&self) -> Option<u64> {
        if self.streak == 0 || self.streak % STREAK != 0 {
            return None;
        }
        let doublings = (self.streak / STREAK - 1).min(16);
        Some((FIRST_DELAY << doublings).min(LONGEST_REST))
    }

    /// A copy has succeeded: the devices are there.
    pub fn succeeded(&mut self) {
        self.streak = 0;
    }

    /// Regions have become hydrated, by a copy or a write. If they had failed, their neighbours are
    /// suspects now, and what else has failed is tried again. Returns whether they had.
    pub fn arrived(&mut self, regions: Range<u64>, now: u64) -> bool {
        let mut recovered = false;
        for item in self.items_mut() {
            if item.regions.start < regions.end && regions.start < item.regions.end {
                recovered |= item.failed.take().is_some();
            }
        }
        self.carve(&regions);
        if recovered {
            self.streak = 0;
            for failed in self
                .items_mut()
                .iter_mut()
                .filter_map(|i| i.failed.as_mut())
            {
                failed.due = failed.due.min(now);
            }
        }
        recovered
    }

    /// Regions need no copy any more, which says nothing of the devices; or what was on its way
    /// into them has failed, and they may be picked again.
    pub fn released(&mut self, regions: Range<u64>, hydrated: bool) {
        if hydrated {
            return self.carve(&regions);
        }
        for item in self.items_mut() {
            if item.regions.start < regions.end && regions.start < item.regions.end {
                item.trying = false;
            }
        }
    }

    /// What is to be copied next, of `most` regions at most. Begins with a region that is not
    /// hydrated, of which `next_unhydrated` finds the first in a range; the caller leaves out what
    /// follows if it is hydrated or in flight, and tells what becomes of the rest.
    pub fn pick(
        &mut self,
        now: u64,
        most: u64,
        next_unhydrated: impl Fn(Range<u64>) -> Option<u64>,
    ) -> Option<Range<u64>> {
        let suspect = |item: &Item| !item.trying && item.failed.is_none();
        let due = |item: &Item| !item.trying && item.failed.is_some_and(|it| it.due <= now);
        loop {
            let at = self
                .items()
                .iter()
                .position(suspect)
                .or_else(|| self.items().iter().position(due))?;
            let item = &mut self.items[at];
            // What is hydrated stands in the list only because there was no room to leave it out.
            let Some(start) = next_unhydrated(item.regions.clone()) else {
                self.remove(at);
                continue;
            };
            item.regions.start = start;
            item.trying = true;
            let end = item.regions.end;
            let Some(failed) = item.failed.as_mut() else {
                return Some(start..end.min(start.saturating_add(most.max(1))));
            };
            failed.known = failed.known.min(end - start);
            self.retries += 1;
            let turn = start + failed.tries.checked_rem(end - start).unwrap_or(0);
            let region = next_unhydrated(turn..end).unwrap_or(start);
            return Some(region..region + 1);
        }
    }

    /// When there will be something to pick, if nothing else happens before.
    pub fn next_due(&self) -> Option<u64> {
        let idle = self.items().iter().filter(|item| !item.trying);
        idle.map(|item| item.failed.map_or(0, |failed| failed.due))
            .min()
    }

    fn items(&self) -> &[Item] {
        &self.items[..self.len]
    }

    fn items_mut(&mut self) -> &mut [Item] {
        let len = self.len;
        &mut self.items[..len]
    }

    /// Takes regions out of the list. What is left of an item is not being tried any more.
    fn carve(&mut self, regions: &Range<u64>) {
        let mut at = 0;
        while at < self.len {
            let item = &mut self.items[at];
            if item.regions.end <= regions.start || regions.end <= item.regions.start {
                at += 1;
                continue;
            }
            item.trying = false;
            let before = item.regions.start..regions.start;
            let after = regions.end..item.regions.end;
            let taken = item.regions.end.min(regions.end) - item.regions.start.max(regions.start);
            if let Some(failed) = item.failed.as_mut() {
                failed.known = failed.known.saturating_sub(taken);
            }
            match (before.is_empty(), after.is_empty()) {
                (true, true) => self.remove(at),
                (false, true) => item.regions = before,
                (true, false) => item.regions = after,
                (false, false) if self.len < MOST => {
                    // Of which part the known ones are is not known; both together have them all.
                    let mut rest = item.clone();
                    item.regions = before.clone();
                    rest.regions = after.clone();
                    let (low, high) = (before.end - before.start, after.end - after.start);
                    if let (Some(first), Some(second)) =
                        (item.failed.as_mut(), rest.failed.as_mut())
                    {
                        let known = first.known.min(low + high);
                        first.known = known.min(low);
                        second.known = known - first.known;
                    }
                    self.insert(rest);
                    at += 1;
                }
                // No room to leave the middle out: it stays, as a region that is in no trouble.
                (false, false) => at += 1,
            }
        }
    }

    fn remove(&mut self, at: usize) {
        let len = self.len;
        self.items[at..len].rotate_left(1);
        self.len -= 1;
    }

    /// Adds an item that overlaps none.
    fn insert(&mut self, item: Item) {
        if self.len == MOST {
            self.make_room();
        }
        // Making room may have covered it.
        if let Some(cover) = self
            .items_mut()
            .iter_mut()
            .find(|i| i.regions.start < item.regions.end && item.regions.start < i.regions.end)
        {
            cover.regions.start = cover.regions.start.min(item.regions.start);
            cover.regions.end = cover.regions.end.max(item.regions.end);
            cover.failed = together(cover.failed, item.failed);
            return;
        }
        let at = self
            .items()
            .partition_point(|other| other.regions.start < item.regions.start);
        let len = self.len;
        self.items[len] = item;
        self.items[at..=len].rotate_right(1);
        self.len += 1;
    }

    /// Makes one of the two items that lie next to each other.
    fn make_room(&mut self) {
        let gap = |pair: &[Item]| pair[1].regions.start - pair[0].regions.end;
        let nearest = self
            .items()
            .windows(2)
            .enumerate()
            .min_by_key(|(_, pair)| gap(pair))
            .map(|(at, _)| at);
        if let Some(at) = nearest {
            self.join(at);
        }
    }

    /// Joins what has failed side by side.
    fn join_neighbours(&mut self) {
        let mut at = 1;
        while at < self.len {
            let (left, right) = (&self.items[at - 1], &self.items[at]);
            let alike = left.failed.is_some() && right.failed.is_some();
            if alike && left.regions.end == right.regions.start && !left.trying && !right.trying {
                self.join(at - 1);
            } else {
                at += 1;
            }
        }
    }

    /// Makes one of an item and the one that follows.
    fn join(&mut self, at: usize) {
        let right = self.items[at + 1].clone();
        let left = &mut self.items[at];
        left.regions.end = right.regions.end;
        left.failed = together(left.failed, right.failed);
        left.trying |= right.trying;
        self.remove(at + 1);
    }
}

/// The state of two items that become one: that of the one that is tried earlier.
fn together(left: Option<Failed>, right: Option<Failed>) -> Option<Failed> {
    match (left, right) {
        (Some(left), Some(right)) => Some(Failed {
            due: left.due.min(right.due),
            delay: left.delay.min(right.delay),
            known: left.known + right.known,
            tries: left.tries,
        }),
        (one, None) | (None, one) => one,
    }
}
