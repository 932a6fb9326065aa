// SPDX-License-Identifier: GPL-2.0

//! How fast something goes: over the last seconds, and in all. Pure.
//!
//! Times are in milliseconds of any clock that does not go back.

/// How many seconds the present rate is made of, at least 2; a power of two.
const SECONDS: u64 = 8;
const MILLISECONDS: u64 = 1000;

/// A count, with the time that it took.
#[derive(Default)]
pub struct Rate {
    /// What came in each of the last seconds, by the number of the second.
    lately: [u64; SECONDS as usize],
    /// The last second that something came in.
    second: u64,
    total: u64,
    /// When the first and the last came.
    first: Option<u64>,
    last: u64,
}

impl Rate {
    /// So much more has been done.
    pub fn note(&mut self, now: u64, count: u64) {
        let second = now / MILLISECONDS;
        let passed = second.saturating_sub(self.second).min(SECONDS);
        for later in 1..=passed {
            self.lately[slot(second - passed + later)] = 0;
        }
        self.second = self.second.max(second);
        let lately = &mut self.lately[slot(self.second)];
        *lately = lately.saturating_add(count);
        self.total = self.total.saturating_add(count);
        self.first.get_or_insert(now);
        self.last = self.last.max(now);
    }

    /// How much has been done in all.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// How much is done in a second now; 0 if nothing was for a while.
    pub fn present(&self, now: u64) -> u64 {
        let Some(first) = self.first else { return 0 };
        let second = now / MILLISECONDS;
        let oldest = second.saturating_sub(SECONDS - 1);
        let kept = |second: &u64| *second <= self.second && self.second - *second < SECONDS;
        let done = (oldest..=second).filter(kept).fold(0u64, |done, second| {
            done.saturating_add(self.lately[slot(second)])
        });
        per_second(done, now.saturating_sub(first.max(oldest * MILLISECONDS)))
    }

    /// How much was done in a second, on average from the first to the last.
    pub fn mean(&self) -> u64 {
        per_second(self.total, self.last - self.first.unwrap_or(self.last))
    }

    /// In how many seconds so much will be done at the present rate; None if there is none.
    pub fn seconds_for(&self, count: u64, now: u64) -> Option<u64> {
        match count {
            0 => Some(0),
            _ => count.checked_div(self.present(now)),
        }
    }
}

fn slot(second: u64) -> usize {
    (second & (SECONDS - 1)) as usize
}

/// A count in some milliseconds; less than one counts as one.
fn per_second(count: u64, milliseconds: u64) -> u64 {
    count
        .saturating_mul(MILLISECONDS)
        .checked_div(milliseconds.max(1))
        .unwrap_or(0)
}
