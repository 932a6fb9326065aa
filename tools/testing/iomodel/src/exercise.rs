// SPDX-License-Identifier: GPL-2.0

//! Random reads, writes, discards and flushes, each checked against the model.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{anyhow, bail, Context, Result};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::device::{Buffer, Device, LARGEST};
use crate::model::{Expected, Mismatch, Model};
use crate::range_lock::RangeLock;
use crate::stamp::{Stamp, SECTOR};

/// What to do, and how much of it.
pub struct Plan {
    pub seed: u64,
    pub threads: u64,
    /// Threads work on the whole area, not each on its own part.
    pub overlap: bool,
    pub operations: Option<u64>,
    /// It ends when there is no such file any more.
    pub while_exists: Option<PathBuf>,
    /// Of 100 operations; the rest are writes.
    pub reads: u32,
    pub discards: u32,
    pub flushes: u32,
}

/// The device, its model and what the threads share.
pub struct Exercise<'a> {
    pub device: &'a Device,
    pub model: &'a Model,
    pub reference: Option<&'a File>,
    pub plan: Plan,
    locks: RangeLock,
    next_tag: AtomicU64,
    stop: AtomicBool,
}

#[derive(Clone, Copy, Debug)]
enum Operation {
    Read,
    Write,
    Discard,
    Flush,
}

impl<'a> Exercise<'a> {
    pub fn new(
        device: &'a Device,
        model: &'a Model,
        reference: Option<&'a File>,
        plan: Plan,
    ) -> Self {
        Exercise {
            device,
            model,
            reference,
            plan,
            locks: RangeLock::default(),
            next_tag: AtomicU64::new(model.highest_tag() + 1),
            stop: AtomicBool::new(false),
        }
    }

    /// Runs the plan; returns how many operations were done. The first failure of a thread stops all.
    pub fn run(&self) -> Result<u64> {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.plan.threads)
                .map(|number| {
                    scope.spawn(move || {
                        let done = self.thread(number);
                        if done.is_err() {
                            self.stop.store(true, Ordering::Relaxed);
                        }
                        done
                    })
                })
                .collect();
            let mut sum = 0;
            let mut failure = None;
            for thread in threads {
                match thread.join().map_err(|_| anyhow!("a thread panicked"))? {
                    Ok(done) => sum += done,
                    Err(error) => failure = failure.or(Some(error)),
                }
            }
            failure.map_or(Ok(sum), Err)
        })
    }

    fn thread(&self, number: u64) -> Result<u64> {
        let mut random =
            StdRng::seed_from_u64(self.plan.seed.wrapping_mul(1000).wrapping_add(number));
        let mut buffer = Buffer::new();
        let area = self.area(number);
        let mut done = 0;
        while !self.stop.load(Ordering::Relaxed)
            && self
                .plan
                .operations
                .is_none_or(|all| done < all / self.plan.threads)
            && self
                .plan
                .while_exists
                .as_ref()
                .is_none_or(|file| file.exists())
        {
            let operation = self.choose(&mut random);
            let range = random_range(&mut random, &area, self.device.block());
            self.perform(operation, &range, &mut buffer)
                .with_context(|| {
                    format!(
                    "seed {}: thread {number}, operation {done}: {operation:?} of {} sectors at {}",
                    self.plan.seed,
                    range.end - range.start,
                    range.start
                )
                })?;
            done += 1;
        }
        Ok(done)
    }

    /// The part of the device that a thread works on.
    fn area(&self, number: u64) -> Range<u64> {
        if self.plan.overlap {
            return 0..self.device.sectors();
        }
        let blocks = self.device.sectors() / self.device.block();
        let edge = |number: u64| blocks * number / self.plan.threads * self.device.block();
        edge(number)..edge(number + 1)
    }

    fn choose(&self, random: &mut StdRng) -> Operation {
        let plan = &self.plan;
        match random.random_range(0..100) {
            dice if dice < plan.reads => Operation::Read,
            dice if dice < plan.reads + plan.discards => Operation::Discard,
            dice if dice < plan.reads + plan.discards + plan.flushes => Operation::Flush,
            _ => Operation::Write,
        }
    }

    fn perform(&self, operation: Operation, range: &Range<u64>, buffer: &mut Buffer) -> Result<()> {
        if matches!(operation, Operation::Flush) {
            return Ok(self.device.flush()?);
        }
        let _held = self.locks.hold(range.clone());
        match operation {
            Operation::Read => check(self.device, self.model, self.reference, range, buffer)?,
            Operation::Write => {
                let tag = self.next_tag.fetch_add(1, Ordering::Relaxed);
                let bytes = buffer.part(range);
                fill(bytes, range.start, tag);
                // Until it is done, and if it fails, old and new content are both right.
                self.model.set(range.clone(), Expected::Anything);
                self.device.write(range.start, bytes)?;
                self.model.set(range.clone(), Expected::Tag(tag));
            }
            Operation::Discard => {
                self.model.set(range.clone(), Expected::Anything);
                self.device.discard(range.clone())?;
            }
            Operation::Flush => unreachable!("done above"),
        }
        Ok(())
    }
}

/// Writes stamps of a tag to memory, from a sector on.
pub fn fill(bytes: &mut [u8], first: u64, tag: u64) {
    for (sector, chunk) in (first..).zip(bytes.chunks_exact_mut(SECTOR)) {
        Stamp { sector, tag }.fill(chunk);
    }
}

/// Reads a range and compares it with the model.
pub fn check(
    device: &Device,
    model: &Model,
    reference: Option<&File>,
    range: &Range<u64>,
    buffer: &mut Buffer,
) -> Result<()> {
    let bytes = buffer.part(range);
    device.read(range.start, bytes)?;
    let length = bytes.len();
    let original = || {
        let mut original = vec![0; length];
        let file = reference.ok_or_else(|| io::Error::other("no --reference was given"))?;
        file.read_exact_at(&mut original, range.start * SECTOR as u64)?;
        Ok(original)
    };
    match model.check(range.start, bytes, original)? {
        Ok(()) => Ok(()),
        Err(Mismatch {
            sector,
            expected,
            got,
        }) => {
            bail!(
                "sector {sector} (byte {}): expected {expected}; got {got}",
                sector * SECTOR as u64
            )
        }
    }
}

/// A range of the area: lengths of all magnitudes alike, many at round places, some at the area's end.
fn random_range(random: &mut StdRng, area: &Range<u64>, block: u64) -> Range<u64> {
    let size = (area.end - area.start) / block;
    let magnitude = random.random_range(0..=(LARGEST / block).ilog2());
    let longest = (LARGEST / block).min(2 << magnitude).min(size);
    let length = random.random_range(1..=longest);
    let start = match random.random_range(0..16) {
        0 => size - length,
        1..8 => {
            let round = 1 << magnitude;
            random.random_range(0..=(size - length) / round) * round
        }
        _ => random.random_range(0..=size - length),
    };
    area.start + start * block..area.start + (start + length) * block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_stay_in_their_area_and_reach_its_ends() {
        let mut random = StdRng::seed_from_u64(1);
        for block in [1, 8] {
            let area = 800..800 + 4096 * block;
            let (mut lowest, mut highest, mut longest) = (u64::MAX, 0, 0);
            for _ in 0..20_000 {
                let range = random_range(&mut random, &area, block);
                assert!(
                    range.start >= area.start && range.end <= area.end && range.start < range.end
                );
                assert!(range.start % block == 0 && range.end % block == 0);
                lowest = lowest.min(range.start);
                highest = highest.max(range.end);
                longest = longest.max(range.end - range.start);
            }
            assert_eq!((lowest, highest), (area.start, area.end));
            assert!(longest > LARGEST * 9 / 10 && longest <= LARGEST);
        }
    }

    #[test]
    fn a_small_area_will_do() {
        let mut random = StdRng::seed_from_u64(2);
        for _ in 0..100 {
            assert_eq!(random_range(&mut random, &(5..6), 1), 5..6);
        }
    }
}
