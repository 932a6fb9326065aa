// SPDX-License-Identifier: GPL-2.0

//! How many bios of an original went which way.
//!
//! Each is counted on the processor that it is seen on, so that counting costs no shared memory.

use crate::bindings::{
    self,
    helpers, //
};
use core::ptr::NonNull;
use kernel::prelude::*;

/// A number that any context may add one to.
///
/// # Invariants
///
/// The pointer is to one `u64` for each processor, and ours.
pub(super) struct Count(NonNull<u64>);

// SAFETY: The memory may be used from any thread.
unsafe impl Send for Count {}
// SAFETY: Each processor adds to its own number, in one instruction.
unsafe impl Sync for Count {}

impl Count {
    fn new() -> Result<Self> {
        // SAFETY: Allocates, zeroed; the caller may sleep.
        let numbers = unsafe { helpers::percpu_alloc() };
        // INVARIANT: It was just allocated.
        Ok(Count(NonNull::new(numbers).ok_or(ENOMEM)?))
    }

    /// Adds one. Any context.
    #[inline]
    pub(super) fn add(&self) {
        // SAFETY: By the type invariants, the memory is live.
        unsafe { helpers::this_cpu_inc(self.0.as_ptr()) }
    }

    /// What was added up to about now.
    fn sum(&self) -> u64 {
        // SAFETY: By the type invariants, the memory is live.
        unsafe { helpers::percpu_sum(self.0.as_ptr()) }
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, the memory is ours to free.
        unsafe { bindings::free_percpu(self.0.as_ptr().cast()) }
    }
}

/// What is counted.
pub(super) struct Counts {
    pub(super) led: Count,
    pub(super) ended: Count,
    pub(super) failed: Count,
    pub(super) stragglers: Count,
    pub(super) passed: Count,
}

impl Counts {
    /// All 0. May sleep.
    pub(super) fn new() -> Result<Self> {
        Ok(Counts {
            led: Count::new()?,
            ended: Count::new()?,
            failed: Count::new()?,
            stragglers: Count::new()?,
            passed: Count::new()?,
        })
    }

    /// The sums of now.
    pub(super) fn sums(&self) -> Counted {
        // What ended was led there before: in this order the difference is not less than 0.
        let ended = self.ended.sum();
        let led = self.led.sum();
        Counted {
            led,
            in_flight: led.saturating_sub(ended),
            failed: self.failed.sum(),
            stragglers: self.stragglers.sum(),
            passed: self.passed.sum(),
        }
    }
}

/// How many bios of an original went which way, since it is one.
#[derive(Clone, Copy)]
pub struct Counted {
    /// Led to a top.
    pub led: u64,
    /// Led to a top, and not ended yet.
    pub in_flight: u64,
    /// Led to a top, and ended with an error.
    pub failed: u64,
    /// Of those led to a top, those that were under way to the original when it got one.
    pub stragglers: u64,
    /// Seen on their way to the original past the hooks.
    pub passed: u64,
}
