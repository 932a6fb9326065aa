// SPDX-License-Identifier: GPL-2.0

//! Bios that are kept for a moment between the top and the original.
//!
//! While the original finishes what it was given before, what comes through the new top waits
//! here, so that there is one moment before which all went directly and after which all goes
//! through the top.

use crate::target::InterposeTarget;
use dm::{
    interpose::Original,
    prelude::*, //
};
use kernel::{
    prelude::*,
    sync::atomic::{
        Acquire,
        Atomic,
        Relaxed,
        Release, //
    }, //
};

type Bio = OwnedBio<InterposeTarget>;

/// Holds bios back, or does not.
#[pin_data]
pub(crate) struct Hold {
    /// Whether it does, for those who may be wrong for a moment.
    on: Atomic<u32>,
    #[pin]
    bios: IrqLock<Option<BioList<Bio>>>,
    /// How many bios have been held so far.
    count: Atomic<u64>,
}

impl Hold {
    /// Holds nothing.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Hold {
            on: Atomic::new(0),
            bios <- new_irq_lock!(None, "Hold::bios"),
            count: Atomic::new(0),
        })
    }

    /// Whether bios are to be brought to [`keep`](Self::keep). Any context.
    ///
    /// Who was led to a top after the beginning of the hold sees it.
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Acquire) != 0
    }

    /// Keeps a bio, or gives it back when the hold is over meanwhile. Any context.
    pub(crate) fn keep(&self, bio: Bio) -> Option<Bio> {
        match &mut *self.bios.lock() {
            Some(bios) => {
                bios.push(bio);
                self.count.fetch_add(1, Relaxed);
                None
            }
            None => Some(bio),
        }
    }

    /// Holds bios back until the returned value is dropped, which sends them to the original. One
    /// at a time.
    pub(crate) fn begin<'a>(&'a self, original: &'a Original) -> Holding<'a> {
        *self.bios.lock() = Some(BioList::new());
        self.on.store(1, Release);
        Holding {
            hold: self,
            original,
        }
    }

    /// How many bios have been held so far.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Relaxed)
    }
}

/// While this lives bios are held back.
#[must_use = "the bios are sent when this is dropped"]
pub(crate) struct Holding<'a> {
    hold: &'a Hold,
    original: &'a Original,
}

impl Drop for Holding<'_> {
    /// Sleeps.
    fn drop(&mut self) {
        self.hold.on.store(0, Release);
        let bios = self.hold.bios.lock().take();
        for bio in bios.into_iter().flatten() {
            bio.pass(self.original);
        }
    }
}
