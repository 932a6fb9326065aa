// SPDX-License-Identifier: GPL-2.0

//! Lets threads work on overlapping ranges one after the other, on others at once.

use std::ops::Range;
use std::sync::{Condvar, Mutex};

/// The ranges that are in use.
#[derive(Default)]
pub struct RangeLock {
    held: Mutex<Vec<Range<u64>>>,
    released: Condvar,
}

/// A range in use; it ends with this.
pub struct Held<'a> {
    lock: &'a RangeLock,
    range: Range<u64>,
}

impl RangeLock {
    /// Waits until no other thread has a part of the range.
    pub fn hold(&self, range: Range<u64>) -> Held<'_> {
        let free = self.held.lock().expect("no thread panics with it");
        let mut free = self
            .released
            .wait_while(free, |held| held.iter().any(|other| overlap(other, &range)))
            .expect("no thread panics with it");
        free.push(range.clone());
        Held { lock: self, range }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut held = self.lock.held.lock().expect("no thread panics with it");
        let place = held.iter().position(|range| *range == self.range);
        held.swap_remove(place.expect("a held range is in the list"));
        self.lock.released.notify_all();
    }
}

fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn neighbours_do_not_overlap() {
        assert!(!overlap(&(0..4), &(4..8)));
        assert!(overlap(&(0..5), &(4..8)));
        assert!(overlap(&(0..9), &(4..8)));
    }

    #[test]
    fn an_overlapping_range_waits() {
        let lock = RangeLock::default();
        let released = AtomicBool::new(false);
        let first = lock.hold(0..10);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _second = lock.hold(9..12);
                assert!(released.load(Ordering::SeqCst));
            });
            let _third = lock.hold(20..30);
            released.store(true, Ordering::SeqCst);
            drop(first);
        });
        assert!(lock.held.lock().unwrap().is_empty());
    }
}
