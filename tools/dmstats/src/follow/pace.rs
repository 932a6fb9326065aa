// SPDX-License-Identifier: GPL-2.0

//! When to look at a file: soon after it was written to, rarely while it is written to all the time, and a few
//! times more after that, because the place of what was written is often chosen only when it leaves the memory,
//! of which nobody tells.

use std::time::Duration;
use std::time::Instant;

/// From the first sign of a change to the look.
const FIRST: Duration = Duration::from_millis(100);
/// Between two looks at a file that changes all the time.
const LONGEST: Duration = Duration::from_secs(5);
/// The kernel writes what is older than 30 s, and looks for it every 5 s.
const SETTLED: Duration = Duration::from_secs(40);
/// After failures it is at most this long until the next try.
const PATIENCE: Duration = Duration::from_secs(300);

/// When to look at one file.
#[derive(Clone, Debug)]
pub struct Pace {
    due: Option<Instant>,
    touched: Option<Instant>,
    /// Whether it was touched since the last look.
    dirty: bool,
    /// From a touch to the look.
    busy: Duration,
    /// From a look to the next, without a touch.
    quiet: Duration,
}

impl Pace {
    /// A file that was last written to so long ago, and is to be looked at now.
    pub fn new(now: Instant, age: Duration) -> Self {
        Pace {
            due: Some(now),
            touched: now.checked_sub(age),
            dirty: false,
            busy: FIRST,
            quiet: FIRST,
        }
    }

    /// When to look; not at all without.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Something was done to the file.
    pub fn touch(&mut self, now: Instant) {
        self.touched = Some(now);
        if !self.dirty {
            self.dirty = true;
            let at = now + self.busy;
            self.due = Some(self.due.map_or(at, |due| due.min(at)));
        }
    }

    /// The file was looked at. `pending`: some of it has no place yet.
    pub fn looked(&mut self, now: Instant, pending: bool) {
        if self.dirty {
            self.busy = (self.busy * 2).min(LONGEST);
            self.quiet = self.busy;
        } else {
            self.busy = FIRST;
            self.quiet = (self.quiet * 2).min(LONGEST);
        }
        self.dirty = false;
        let since = self
            .touched
            .map_or(SETTLED, |touched| now.saturating_duration_since(touched));
        self.due = (pending || since < SETTLED).then(|| now + self.quiet);
    }

    /// The look, or what had to be done after it, failed.
    pub fn failed(&mut self, now: Instant) {
        self.busy = (self.busy * 2).clamp(Duration::from_secs(1), PATIENCE);
        self.quiet = self.busy;
        self.dirty = false;
        self.due = Some(now + self.busy);
    }

    /// To be looked at after so long, although nothing was done to it.
    pub fn again(&mut self, now: Instant, after: Duration) {
        self.due = Some(now + after);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG_AGO: Duration = Duration::from_secs(3600);

    fn seconds(from: Instant, pace: &Pace) -> Option<f64> {
        pace.due().map(|due| (due - from).as_secs_f64())
    }

    #[test]
    fn f16_a_file_that_rests_is_looked_at_once() {
        let start = Instant::now();
        let mut pace = Pace::new(start, LONG_AGO);
        assert_eq!(pace.due(), Some(start));
        pace.looked(start, false);
        assert_eq!(pace.due(), None);
        // So it is if there was no reason for the look.
        let later = start + LONG_AGO;
        pace.again(later, Duration::ZERO);
        assert_eq!(pace.due(), Some(later));
        pace.looked(later, false);
        assert_eq!(pace.due(), None);
    }

    #[test]
    fn a_touch_is_answered_soon_and_followed_until_all_is_written() {
        let start = Instant::now();
        let mut pace = Pace::new(start, LONG_AGO);
        pace.looked(start, false);
        pace.touch(start);
        assert_eq!(seconds(start, &pace), Some(0.1));
        let mut looks = 0;
        while let Some(due) = pace.due() {
            pace.looked(due, false);
            looks += 1;
            assert!(due - start < SETTLED + LONGEST);
        }
        assert!((10..20).contains(&looks), "{looks}");
        // After a rest the next touch is answered as soon.
        let later = start + LONG_AGO;
        pace.touch(later);
        assert_eq!(seconds(later, &pace), Some(0.1));
    }

    #[test]
    fn what_has_no_place_yet_is_waited_for() {
        let start = Instant::now();
        let mut pace = Pace::new(start, LONG_AGO);
        for _ in 0..100 {
            let due = pace.due().unwrap();
            pace.looked(due, true);
        }
        pace.looked(pace.due().unwrap(), false);
        assert_eq!(pace.due(), None);
    }

    #[test]
    fn constant_writing_is_looked_at_every_five_seconds() {
        let start = Instant::now();
        let mut pace = Pace::new(start, LONG_AGO);
        let (mut looks, mut now) = (0, start);
        while now < start + Duration::from_secs(100) {
            pace.touch(now);
            if pace.due().is_some_and(|due| due <= now) {
                pace.looked(now, false);
                looks += 1;
            }
            now += Duration::from_millis(10);
        }
        assert!((20..30).contains(&looks), "{looks}");
    }

    #[test]
    fn after_failures_it_takes_longer_and_longer() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now, LONG_AGO);
        for _ in 0..20 {
            pace.failed(now);
            pace.touch(now);
            now = pace.due().unwrap();
        }
        pace.failed(now);
        assert_eq!(pace.due(), Some(now + PATIENCE));
    }
}
