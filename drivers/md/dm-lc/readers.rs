// SPDX-License-Identifier: GPL-2.0

//! Reads that the cache device is serving, counted so that what they read is not overwritten.
//!
//! A read [begins](Readers::begin) under the lock of the shard where it found its block, and
//! [ends](Readers::end) when the device is done, in interrupt context. Who wants to give a part of
//! the log free removes it from the index first, so that no read finds it any more, and then
//! [waits](Readers::wait) for those that did. Reads never wait.
//!
//! Two counters take turns, so that reads which begin later do not prolong the wait.

use dm::prelude::*;
use kernel::{
    new_condvar,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full,
            Relaxed, //
        },
        CondVar, //
    }, //
};

/// The counters.
#[pin_data]
pub(crate) struct Readers {
    count: [Atomic<i64>; 2],
    /// Which counter reads that begin are counted in: the lowest bit.
    turn: Atomic<u32>,
    /// Whether somebody waits.
    waiting: Atomic<u32>,
    #[pin]
    lock: IrqLock<()>,
    #[pin]
    none_left: CondVar,
}

/// Which counter a read is counted in.
#[derive(Clone, Copy)]
pub(crate) struct Turn(u8);

impl Readers {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Readers {
            count: [Atomic::new(0), Atomic::new(0)],
            turn: Atomic::new(0),
            waiting: Atomic::new(0),
            lock <- new_irq_lock!((), "dm_lc_readers"),
            none_left <- new_condvar!("dm_lc_readers"),
        })
    }

    /// A read begins; under the lock of a shard.
    #[inline]
    pub(crate) fn begin(&self) -> Turn {
        let turn = (self.turn.load(Relaxed) & 1) as u8;
        self.count[usize::from(turn)].fetch_add(1, Relaxed);
        Turn(turn)
    }

    /// It has ended. Any context.
    #[inline]
    pub(crate) fn end(&self, turn: Turn) {
        let left = self.count[usize::from(turn.0 & 1)].fetch_sub(1, Full);
        if left == 1 && self.waiting.load(Relaxed) != 0 {
            let _guard = self.lock.lock();
            self.none_left.notify_all();
        }
    }

    /// Waits for all reads that have begun. `barrier` locks each shard once. One at a time; sleeps.
    pub(crate) fn wait(&self, barrier: impl FnOnce()) {
        let turn = self.turn.fetch_add(1, Full) & 1;
        // Whoever saw the turn before has counted himself when his shard can be locked.
        barrier();
        self.waiting.xchg(1, Full);
        let mut guard = self.lock.lock();
        while self.count[turn as usize].load(Relaxed) != 0 {
            self.none_left.wait(&mut guard);
        }
        drop(guard);
        self.waiting.store(0, Relaxed);
    }
}
