// SPDX-License-Identifier: GPL-2.0

//! How hard the background copies, beside users of the clone. Pure.
//!
//! While nobody uses the clone, there are as many copies under way as there may be. While somebody
//! does, two things hold:
//!
//! - *The share.* Copying never waits for an idle device: it is under way for at least a given
//!   percentage of the time, whatever that does to the users.
//! - *The users.* Above that, what they wait for decides. I/O that met a background copy is
//!   compared with I/O that met none; if more than a few took twice as long, copying becomes
//!   gentler, step by step, and if hardly any did, it becomes harder again after a while.
//!
//! A share of 100 % leaves nothing to decide: it is copied as if nobody were there.
//!
//! The steps, from hard to gentle: fewer copies at a time, down to one; shorter copies, where that
//! makes a copy take less time, which it does not where the device takes its time for each request
//! whatever its length; a rest after each copy, as long as the share allows.
//!
//! Now and then there is a pause of some I/O, in which no copy is under way, to know what I/O takes
//! that meets none.
//!
//! Times are in nanoseconds of any clock that does not go back.

/// The share that is kept if nobody says otherwise, in percent.
pub const DEFAULT_SHARE: u32 = 50;

/// log2 of the longest piece that is copied at a time, in sectors: 1 MiB.
pub const LONGEST_PIECE: u32 = 11;
/// log2 of the shortest one: 64 KiB.
const SHORTEST_PIECE: u32 = 7;
/// How many lengths there are.
const LENGTHS: usize = (LONGEST_PIECE - SHORTEST_PIECE + 1) as usize;
/// How many steps of rest there are, from none to as much as the share allows.
const RESTS: u32 = 4;

/// Who has not been seen for this long is gone, or for [`GONE_AFTER`] of what I/O or a copy takes.
const GONE: u64 = 100_000_000;
const GONE_AFTER: u64 = 8;
/// On how many I/Os it is decided to become harder.
const SAMPLE: u64 = 64;
/// So many slow ones among them make it gentler at once.
const SLOW: u64 = 4;
/// How long it stays gentler when harder was too hard, at first; twice as long each time.
const HOLD: u64 = 30_000_000_000;
const LONGEST_HOLD: u64 = 480_000_000_000;
/// How many I/Os that meet no copy are wanted for each measurement.
const ALONE: u64 = 8;
/// How often that is measured at most, and so many times as long as it took.
const MEASURE: u64 = 2_000_000_000;
const BETWEEN: u64 = 50;
/// The longest time that a measurement may take.
const MEASURE_FOR: u64 = 100_000_000;
/// After this long, what was found not to help is tried again.
const FORGET: u64 = 30_000_000_000;
/// The most rest that is owed, or was taken beforehand: no burst is longer.
const MOST_OWED: u64 = 1_000_000_000;
/// Rests shorter than this are not worth the timer: they add up until they are.
const SHORTEST_REST: u64 = 4_000_000;

/// What users' I/O has taken since it was asked last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// I/Os that met no copy.
    pub alone: u64,
    /// How long they took in all.
    pub alone_time: u64,
    /// I/Os that met one.
    pub beside: u64,
    /// How many of them took longer than [`Pace::patience`].
    pub slow: u64,
    /// When the last one began; 0 if none ever did.
    pub last: u64,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// A copy may be started, if there are fewer than this under way.
    Copy {
        /// How many copies there may be.
        copies: usize,
    },
    /// Nothing is to be started for this long.
    Rest(u64),
}

/// How hard to copy.
pub struct Pace {
    share: u32,
    /// How many copies there are at a time when nobody uses the clone.
    most: usize,
    /// How many there are when somebody does.
    copies: usize,
    /// The length of a piece, as log2 less [`SHORTEST_PIECE`].
    length: usize,
    /// How much to rest, of [`RESTS`].
    rest: u32,
    /// What a piece of each length took, lately.
    took: [u64; LENGTHS],
    /// The shortest length that is known to help, until `forget`.
    floor: usize,
    forget: u64,
    /// What I/O takes that meets no copy, lately.
    alone: u64,
    /// I/Os that met a copy since the last decision, and the slow ones among them.
    beside: u64,
    slow: u64,
    /// Until when it does not become harder, and for how long after the next time.
    hold: u64,
    holding: u64,
    /// I/Os that met none since the measurement began.
    measured: u64,
    /// When the measurement began, or when the next one does.
    measuring: bool,
    measure: u64,
    /// Users are there.
    busy: bool,
    /// The rest that is owed, what was rested beyond it, and since when there is rest.
    owed: u64,
    credit: u64,
    resting_since: u64,
}

impl Pace {
    /// A pace for up to `most` copies at a time.
    pub fn new(most: usize) -> Self {
        Pace {
            share: DEFAULT_SHARE,
            most: most.max(1),
            copies: most.max(1),
            length: LENGTHS - 1,
            rest: 0,
            took: [0; LENGTHS],
            floor: 0,
            forget: 0,
            alone: 0,
            beside: 0,
            slow: 0,
            hold: 0,
            holding: HOLD,
            measured: 0,
            measuring: false,
            measure: 0,
            busy: false,
            owed: 0,
            credit: 0,
            resting_since: 0,
        }
    }

    /// The share, in percent.
    pub fn share(&self) -> u32 {
        self.share
    }

    /// Sets the share, 1 to 100 percent.
    pub fn set_share(&mut self, percent: u32) {
        self.share = percent.clamp(1, 100);
        self.owed = self.owed.min(MOST_OWED);
    }

    /// How many sectors to copy at a time, a power of two.
    pub fn piece(&self) -> u32 {
        if self.is_busy() {
            1 << (SHORTEST_PIECE + self.length as u32)
        } else {
            1 << LONGEST_PIECE
        }
    }

    /// What I/O may take beside a copy before it is slow; 0 while that is not known.
    pub fn patience(&self) -> u64 {
        // A little more than twice: what meets one request of its own length is not slow.
        self.alone.saturating_mul(17) / 8
    }

    /// Whether somebody uses the clone for whom copying may have to be gentle.
    pub fn is_busy(&self) -> bool {
        self.busy && self.share < 100
    }

    /// What to do now, with so many copies under way.
    pub fn advise(&mut self, now: u64, seen: Seen, under_way: usize) -> Advice {
        self.note(now, seen);
        if !self.is_busy() {
            return Advice::Copy { copies: self.most };
        }
        if self.measuring {
            if under_way != 0 {
                // Those under way come to their end first; what is seen until then met them.
                self.measure = now.saturating_add(MEASURE_FOR);
                return Advice::Rest(SHORTEST_REST);
            }
            if self.measured < ALONE && now < self.measure {
                return Advice::Rest((self.measure - now).clamp(1, SHORTEST_REST));
            }
            self.measuring = false;
            let paused = (now.saturating_add(MEASURE_FOR)).saturating_sub(self.measure);
            let until_next = MEASURE.max(paused.saturating_mul(BETWEEN));
            self.measure = now.saturating_add(until_next);
        } else if now >= self.measure {
            self.measuring = true;
            self.measured = 0;
            self.measure = now.saturating_add(MEASURE_FOR);
            return Advice::Rest(SHORTEST_REST);
        }
        self.decide(now);
        if under_way == 0 && self.resting_since != 0 {
            // A timer that came late has given more than was owed, which counts.
            let rested = now.saturating_sub(self.resting_since);
            let more = rested.saturating_sub(self.owed);
            self.credit = self.credit.saturating_add(more).min(MOST_OWED);
            self.owed = self.owed.saturating_sub(rested);
            self.resting_since = 0;
        }
        if self.owed >= SHORTEST_REST {
            if under_way == 0 {
                self.resting_since = now.max(1);
            }
            return Advice::Rest(self.owed);
        }
        Advice::Copy {
            copies: self.copies,
        }
    }

    /// A piece of so many sectors has taken this long.
    pub fn copied(&mut self, sectors: u64, took: u64) {
        let length = sectors
            .checked_ilog2()
            .map_or(0, |log| log.saturating_sub(SHORTEST_PIECE)) as usize;
        let last = &mut self.took[length.min(LENGTHS - 1)];
        *last = average(*last, took);
        if self.busy {
            let longest = self.longest_rest(took);
            let rest = (longest / u64::from(RESTS)).saturating_mul(self.rest.into());
            let paid = rest.min(self.credit);
            self.credit -= paid;
            self.owed = self.owed.saturating_add(rest - paid).min(MOST_OWED);
        }
    }

    /// How long the share lets copying rest after a copy.
    fn longest_rest(&self, took: u64) -> u64 {
        let rest = took.saturating_mul((100 - self.share).into());
        rest.checked_div(self.share.into()).unwrap_or(0)
    }

    /// Takes over what was seen.
    fn note(&mut self, now: u64, seen: Seen) {
        if let Some(time) = seen.alone_time.checked_div(seen.alone) {
            self.alone = average(self.alone, time);
        }
        self.measured = self.measured.saturating_add(seen.alone);
        self.beside = self.beside.saturating_add(seen.beside);
        self.slow = self.slow.saturating_add(seen.slow);
        // An I/O that waits behind copies is not gone.
        let slowest = self.took.iter().copied().fold(self.alone, u64::max);
        let gone = GONE.max(slowest.saturating_mul(GONE_AFTER));
        let busy = seen.last != 0 && now.saturating_sub(seen.last) < gone;
        if busy && !self.busy {
            // Somebody new: what I/O takes is not known, and nothing is owed.
            (self.beside, self.slow) = (0, 0);
            (self.hold, self.holding) = (0, HOLD);
            self.measuring = false;
            self.measure = now;
        }
        if !busy {
            (self.owed, self.credit, self.resting_since) = (0, 0, 0);
        }
        self.busy = busy;
    }

    /// Becomes gentler or harder, when enough was seen.
    fn decide(&mut self, now: u64) {
        let slow = self.slow >= SLOW;
        if self.alone == 0 || !slow && self.beside < SAMPLE {
            return;
        }
        (self.beside, self.slow) = (0, 0);
        if now >= self.forget {
            self.floor = 0;
        }
        if slow {
            self.become_gentler(now);
            if now >= self.hold {
                self.hold = now.saturating_add(self.holding);
                self.holding = (self.holding * 2).min(LONGEST_HOLD);
            }
        } else if now >= self.hold {
            self.become_harder();
        }
    }

    fn become_gentler(&mut self, now: u64) {
        if self.copies > 1 {
            self.copies /= 2;
        } else if !self.shortening_helps() {
            // Back to the length that takes no longer, and stay there for a while.
            self.length += 1;
            self.floor = self.length;
            self.forget = now.saturating_add(FORGET);
        } else if self.length > self.floor {
            self.length -= 1;
        } else if self.rest < RESTS {
            self.rest += 1;
        }
    }

    fn become_harder(&mut self) {
        if self.rest > 0 {
            self.rest -= 1;
        } else if self.length < LENGTHS - 1 {
            self.length += 1;
        } else if self.copies < self.most {
            self.copies = (self.copies * 2).min(self.most);
        }
    }

    /// Whether pieces of this length take less time than those twice as long; true if that is not
    /// known.
    fn shortening_helps(&self) -> bool {
        match (self.took.get(self.length), self.took.get(self.length + 1)) {
            (Some(&short), Some(&long)) if short != 0 && long != 0 => short < long / 4 * 3,
            _ => true,
        }
    }
}

/// Follows a value slowly.
fn average(old: u64, new: u64) -> u64 {
    if old == 0 {
        new
    } else {
        old - old / 8 + new / 8
    }
}
