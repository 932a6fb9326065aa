// SPDX-License-Identifier: GPL-2.0

//! Since when what is in the log waits for being written back. Pure.
//!
//! Nothing on the cache device says when it was written. So it is noted how far the log came, and
//! when, some times while anything becomes as old as it may: what is in front of such a mark is at
//! least as old as that. What a restart finds is as old as the first mark.

/// How many marks there are at a time: one more than there are looks while something becomes old.
const STEPS: usize = 16;

/// The log came as far as this.
#[derive(Clone, Copy, Default)]
struct Mark {
    position: u64,
    /// In milliseconds.
    at: u64,
}

/// The marks, the oldest one first.
#[derive(Default)]
pub struct Age {
    marks: [Mark; STEPS],
    count: usize,
}

impl Age {
    /// How many milliseconds there are from one look to the next while anything is not written back,
    /// if it may be `max_age` milliseconds old.
    pub fn step(max_age: u32) -> u32 {
        max_age.div_ceil(STEPS as u32 - 1).max(1)
    }

    /// Looks at the log at the time `now`, in milliseconds: from `tail` to `end` it is not written
    /// back. Returns the position up to which it is too old, if any of it is.
    pub fn look(&mut self, now: u64, tail: u64, end: u64, max_age: u32) -> Option<u64> {
        self.drop_while(|mark| mark.position <= tail);
        let mut old = None;
        self.drop_while(|mark| {
            let is_old = now.saturating_sub(mark.at) >= u64::from(max_age);
            if is_old {
                old = Some(mark.position);
            }
            is_old
        });
        if tail < end {
            self.mark(Mark {
                position: end,
                at: now,
            });
        }
        old
    }

    fn drop_while(&mut self, mut is_done: impl FnMut(&Mark) -> bool) {
        let marks = self.marks.get(..self.count).unwrap_or(&[]);
        let done = marks.iter().take_while(|mark| is_done(mark)).count();
        self.marks.copy_within(done..self.count, 0);
        self.count -= done;
    }

    /// Adds a mark. What the log has not gone beyond since the last one is as old as that; and if there
    /// is no room, so young as now is what came since the last but one.
    fn mark(&mut self, mark: Mark) {
        let last = self.count.checked_sub(1).map(|last| self.marks[last]);
        if last.is_some_and(|last| last.position >= mark.position) {
            return;
        }
        self.count = (self.count + 1).min(STEPS);
        self.marks[self.count - 1] = mark;
    }
}
