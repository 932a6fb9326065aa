// SPDX-License-Identifier: GPL-2.0

//! What users of a clone have to wait for, while it is not complete: noted on each bio's way, with
//! no lock, for [`Pace`](crate::pace::Pace) to decide by.
//!
//! A bio *meets* a copy when a piece of one is under way when it begins, or begins before it ends.

use crate::pace::Seen;
use core::num::NonZero;
use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};

/// When a bio began, and what there was to meet.
#[derive(Clone, Copy)]
pub(crate) struct Begun {
    /// Nanoseconds of the engine's clock, at least 1.
    at: NonZero<u64>,
    /// The number of pieces started until then; [`MEETS`] if one was under way.
    started: u32,
}

/// There is a piece to meet already.
const MEETS: u32 = u32::MAX;

/// The counters. Each is right by itself; together they may be those of slightly different times,
/// which does no harm.
pub(crate) struct Users {
    alone: Atomic<u64>,
    alone_time: Atomic<u64>,
    beside: Atomic<u64>,
    slow: Atomic<u64>,
    last: Atomic<u64>,
    /// What is slow; 0: not known.
    patience: Atomic<u64>,
    /// Pieces under way, and pieces started.
    under_way: Atomic<u32>,
    started: Atomic<u32>,
}

impl Begun {
    /// Of a bio that is not watched.
    pub(crate) const UNSEEN: Begun = Begun {
        at: NonZero::<u64>::MAX,
        started: 0,
    };
}

impl Users {
    pub(crate) fn new() -> Self {
        Users {
            alone: Atomic::new(0),
            alone_time: Atomic::new(0),
            beside: Atomic::new(0),
            slow: Atomic::new(0),
            last: Atomic::new(0),
            patience: Atomic::new(0),
            under_way: Atomic::new(0),
            started: Atomic::new(0),
        }
    }

    /// A bio begins. Any context, as all here.
    pub(crate) fn begin(&self, now: u64) -> Begun {
        let at = NonZero::new(now).unwrap_or(NonZero::<u64>::MIN);
        self.last.store(at.get(), Relaxed);
        Begun {
            at,
            started: if self.under_way.load(Relaxed) != 0 {
                MEETS
            } else {
                self.started.load(Relaxed)
            },
        }
    }

    /// A bio has ended.
    pub(crate) fn end(&self, begun: Begun, now: impl FnOnce() -> u64) {
        if begun.at == Begun::UNSEEN.at {
            return;
        }
        let now = now();
        let took = now.saturating_sub(begun.at.get());
        if begun.started == self.started.load(Relaxed) {
            self.alone.fetch_add(1, Relaxed);
            self.alone_time.fetch_add(took, Relaxed);
            return;
        }
        self.beside.fetch_add(1, Relaxed);
        let patience = self.patience.load(Relaxed);
        if patience != 0 && took > patience {
            self.slow.fetch_add(1, Relaxed);
        }
    }

    /// A piece of a background copy is started.
    pub(crate) fn piece_starts(&self) {
        self.under_way.fetch_add(1, Relaxed);
        // Never `MEETS`.
        let next = self.started.load(Relaxed).wrapping_add(1);
        self.started
            .store(if next == MEETS { 0 } else { next }, Relaxed);
    }

    /// It has ended.
    pub(crate) fn piece_ends(&self) {
        self.under_way.fetch_sub(1, Relaxed);
    }

    /// From now on, I/O that takes longer is slow.
    pub(crate) fn set_patience(&self, patience: u64) {
        self.patience.store(patience, Relaxed);
    }

    /// What was seen since it was asked last.
    pub(crate) fn seen(&self) -> Seen {
        Seen {
            alone: self.alone.xchg(0, Relaxed),
            alone_time: self.alone_time.xchg(0, Relaxed),
            beside: self.beside.xchg(0, Relaxed),
            slow: self.slow.xchg(0, Relaxed),
            last: self.last.load(Relaxed),
        }
    }
}
