// SPDX-License-Identifier: GPL-2.0

//! How many bios of an original went which way.
//!
//! Each is counted on the processor that it is seen on, so that counting costs no shared memory.
//! No number ever becomes smaller. So whether a top still has bios needs no count of its own: once
//! nothing more is led there, as many have to end as were led.

use crate::bindings::{
    self,
    helpers, //
};
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Release, //
        },
        Arc, //
    }, //
};

/// How many tops an original can have at a time: one that bios are led to and one that leaves, or two
/// that leave.
const LANES: usize = 2;

/// The numbers that each processor has for a lane.
#[derive(Clone, Copy)]
enum Of {
    Led,
    Ended,
    Failed,
    Stragglers,
}

/// How many numbers a lane has.
const PER_LANE: usize = 4;
/// How many there are: those of the lanes, and behind them how many bios were passed.
const NUMBERS: usize = LANES * PER_LANE + 1;

/// A number that any context may add one to.
///
/// # Invariants
///
/// The pointer is to one `u64` for each processor, which live for `'a`.
pub(super) struct Count<'a>(*mut u64, PhantomData<&'a Counts>);

impl Count<'_> {
    /// Adds one. Any context.
    #[inline]
    pub(super) fn add(self) {
        // SAFETY: By the type invariants, the memory is live. Each processor adds to its own number,
        // in one instruction.
        unsafe { helpers::this_cpu_inc(self.0) }
    }

    /// What was added up to about now. What came before an addition that is seen has happened.
    fn sum(self) -> u64 {
        // SAFETY: By the type invariants, the memory is live.
        unsafe { helpers::percpu_sum(self.0) }
    }
}

/// What is counted of an original.
///
/// # Invariants
///
/// The pointer is to [`NUMBERS`] words for each processor, and ours.
pub(super) struct Counts {
    numbers: NonNull<u64>,
    /// Not 0 for lanes that are taken.
    taken: [Atomic<u32>; LANES],
}

// SAFETY: The memory may be used from any thread.
unsafe impl Send for Counts {}
// SAFETY: As above; each processor adds to its own numbers.
unsafe impl Sync for Counts {}

impl Counts {
    /// All 0. May sleep.
    pub(super) fn new() -> Result<Self> {
        // SAFETY: Allocates, zeroed; the caller may sleep.
        let numbers = unsafe { helpers::percpu_alloc(NUMBERS * size_of::<u64>()) };
        // INVARIANT: It was just allocated.
        Ok(Counts {
            numbers: NonNull::new(numbers.cast()).ok_or(ENOMEM)?,
            taken: [const { Atomic::new(0) }; LANES],
        })
    }

    /// One of the numbers; `index` is less than [`NUMBERS`].
    #[inline]
    fn number(&self, index: usize) -> NonNull<u64> {
        // SAFETY: By the type invariants, there are so many words.
        unsafe { self.numbers.add(index % NUMBERS) }
    }

    /// Those that were passed to the original.
    #[inline]
    pub(super) fn passed(&self) -> Count<'_> {
        // INVARIANT: By ours, the numbers live as long as `self`.
        Count(self.number(NUMBERS - 1).as_ptr(), PhantomData)
    }

    fn of_lane(&self, lane: usize, of: Of) -> Count<'_> {
        // INVARIANT: By ours, the numbers live as long as `self`.
        Count(
            self.number(lane * PER_LANE + of as usize).as_ptr(),
            PhantomData,
        )
    }

    /// The sums of now.
    pub(super) fn sums(&self) -> Counted {
        let mut counted = Counted {
            passed: self.passed().sum(),
            ..Counted::default()
        };
        let add = |to: &mut u64, number| *to = to.wrapping_add(number);
        for lane in 0..LANES {
            // What ended was led there before: in this order there are not fewer led.
            let ended = self.of_lane(lane, Of::Ended).sum();
            let led = self.of_lane(lane, Of::Led).sum();
            add(&mut counted.led, led);
            add(&mut counted.in_flight, led.saturating_sub(ended));
            add(&mut counted.failed, self.of_lane(lane, Of::Failed).sum());
            add(
                &mut counted.stragglers,
                self.of_lane(lane, Of::Stragglers).sum(),
            );
        }
        counted
    }
}

impl Drop for Counts {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, the memory is ours to free.
        unsafe { bindings::free_percpu(self.numbers.as_ptr().cast()) }
    }
}

/// What is counted of one top of an original. While it lives the numbers are this top's alone;
/// before and after, as many bios have ended as were led.
///
/// # Invariants
///
/// `numbers` is where those of the lane `index` of `counts` begin, which nobody else has.
pub(super) struct LaneCounts {
    numbers: NonNull<u64>,
    counts: Arc<Counts>,
    index: usize,
}

// SAFETY: As for `Counts`.
unsafe impl Send for LaneCounts {}
// SAFETY: As for `Counts`.
unsafe impl Sync for LaneCounts {}

impl LaneCounts {
    /// A lane of an original. Fails with `EBUSY` if it has no free one.
    pub(super) fn take(counts: &Arc<Counts>) -> Result<Self> {
        for (index, taken) in counts.taken.iter().enumerate() {
            if taken.xchg(1, Acquire) == 0 {
                // INVARIANT: It was just taken.
                return Ok(LaneCounts {
                    numbers: counts.number(index * PER_LANE),
                    counts: counts.clone(),
                    index,
                });
            }
        }
        Err(EBUSY)
    }

    /// Whether this is a lane of the original with these counts.
    pub(super) fn are_of(&self, counts: &Arc<Counts>) -> bool {
        Arc::ptr_eq(&self.counts, counts)
    }

    #[inline]
    fn count(&self, of: Of) -> Count<'_> {
        // SAFETY: By the type invariants, a lane begins there.
        let number = unsafe { self.numbers.add(of as usize) };
        // INVARIANT: By ours, the numbers live as long as `self`.
        Count(number.as_ptr(), PhantomData)
    }

    /// Those that were led to the top.
    #[inline]
    pub(super) fn led(&self) -> Count<'_> {
        self.count(Of::Led)
    }

    /// Those of them that have ended.
    #[inline]
    pub(super) fn ended(&self) -> Count<'_> {
        self.count(Of::Ended)
    }

    /// Those of them that have ended with an error.
    #[inline]
    pub(super) fn failed(&self) -> Count<'_> {
        self.count(Of::Failed)
    }

    /// Those that were under way to the original when it got the top.
    #[inline]
    pub(super) fn stragglers(&self) -> Count<'_> {
        self.count(Of::Stragglers)
    }

    /// Whether all have ended that were led, when none is led any more.
    pub(super) fn is_idle(&self) -> bool {
        self.ended().sum() == self.led().sum()
    }
}

impl Drop for LaneCounts {
    fn drop(&mut self) {
        if let Some(taken) = self.counts.taken.get(self.index) {
            taken.store(0, Release);
        }
    }
}

/// How many bios of an original went which way, since it is one.
#[derive(Clone, Copy, Default)]
pub struct Counted {
    /// Led to a top.
    pub led: u64,
    /// Led to a top, and not ended yet.
    pub in_flight: u64,
    /// Led to a top, and ended with an error.
    pub failed: u64,
    /// Of those led to a top, those that were under way to the original when it got one.
    pub stragglers: u64,
    /// Passed to the original, past the hooks.
    pub passed: u64,
}
