// SPDX-License-Identifier: GPL-2.0

//! Reads, or writes, that continue one another. Pure.
//!
//! Several are followed at a time, so that streams which take turns are told from each other, and from
//! what comes here and there. One that is not continued for long is forgotten for another.

/// How many runs are followed at a time: those that were continued last.
const RUNS: usize = 16;

/// I/Os that continue each other.
#[derive(Clone, Copy, Default)]
struct Run {
    /// The sector behind the last one.
    end: u64,
    /// How many sectors there were, all in all.
    sectors: u64,
    /// When it was continued last.
    at: u64,
}

/// The runs.
#[derive(Default)]
pub struct Runs {
    runs: [Run; RUNS],
    /// Counts what is noted.
    now: u64,
}

impl Runs {
    /// Notes an I/O. How many sectors the run has that it belongs to, with its own.
    pub fn note(&mut self, sector: u64, sectors: u32) -> u64 {
        self.now += 1;
        let known = self
            .runs
            .iter()
            .position(|run| run.at != 0 && run.end == sector);
        let oldest = || {
            let runs = self.runs.iter().enumerate();
            runs.min_by_key(|(_, run)| run.at).map(|(number, _)| number)
        };
        let before = known.and_then(|number| self.runs.get(number));
        let before = before.map_or(0, |run| run.sectors);
        let total = before.saturating_add(sectors.into());
        if let Some(run) = known
            .or_else(oldest)
            .and_then(|number| self.runs.get_mut(number))
        {
            *run = Run {
                end: sector.saturating_add(sectors.into()),
                sectors: total,
                at: self.now,
            };
        }
        total
    }
}
