// SPDX-License-Identifier: GPL-2.0

//! Waiting for what wakes nobody: it is looked at now and then.

use crate::bindings::helpers;
use kernel::time::{
    delay::fsleep,
    Delta,
    Instant,
    Monotonic, //
};

/// How long to sleep between two looks, in microseconds: at first, as long as the last one mostly
/// takes, and at most.
const SHORTEST_PAUSE_US: i64 = 100;
const LONGEST_PAUSE_US: i64 = 10_000;

/// Waits until it is `done`, then true; with a `limit` for that long at most, and a fatal signal ends
/// the wait as well. Sleeps.
pub(crate) fn until(done: impl Fn() -> bool, limit: Option<Delta>) -> bool {
    let began = Instant::<Monotonic>::now();
    let mut pause = SHORTEST_PAUSE_US;
    while !done() {
        // SAFETY: A question about this thread.
        let killed = || unsafe { helpers::fatal_signal_pending() };
        if limit.is_some_and(|limit| began.elapsed() >= limit || killed()) {
            return false;
        }
        fsleep(Delta::from_micros(pause));
        pause = (pause * 2).min(LONGEST_PAUSE_US);
    }
    true
}
