// SPDX-License-Identifier: GPL-2.0

//! Bios that were submitted before there was a top, and have not entered the original's queue.
//!
//! The entry hook was too early for them; the second hook catches them. It costs each bio of the
//! system as much as the entry hook does, so it goes as soon as there can be none any more. Where
//! can one be, between the two hooks?
//!
//! - On a thread that was interrupted there: [`Original::wait_for_submitters`] waits for these, and
//!   comes before anything here. If it gives up, nobody knows when the last of them comes.
//! - In the list of what a thread has still to hand on, while it sleeps: a driver of bios above the
//!   original has made several of one, and another of them waits for a free request of its device.
//!   The list is `bio_list` of the thread. When it has been seen empty once, all that was in it has
//!   gone through the second hook, and what came into it later through the entry hook.
//! - In the throttle of a cgroup, for as long as that likes. A queue that never had a limit has no
//!   throttle; of one that has, nobody tells how many bios are in it.
//! - In the list of a rescuer thread, which submits bios once more that a thread had in its list.
//!   The entry hook leads them then, unless they were found on the disk of their partition already.
//!   There are rescuers for bcache alone, which claims its device; as a file system does, but that
//!   does so with operations for the holder.
//!
//! For the last two, and where the wait was given up, the second hook stays.

use super::{
    hook::Interposer,
    original::Original, //
};
use crate::{
    bindings::{
        self,
        helpers, //
    },
    module_ref::ModuleRef, //
};
use core::ptr::NonNull;
use kernel::{
    prelude::*,
    sync::{
        aref::ARef,
        Arc, //
    },
    task::Task, //
};

/// How many threads with such a list there is room for at first.
const ROOM: usize = 64;

/// Catches bios that were submitted to an original before there was a top, as long as it lives.
/// Made before the original leads anywhere. Dropping it sleeps.
///
/// # Invariants
///
/// The interposer counts this.
pub struct Stragglers {
    interposer: Arc<Interposer>,
    /// The threads that may have some; none if it is not known yet who may.
    threads: Option<KVec<Thread>>,
    /// Whether they may come at any time.
    stays: bool,
    /// The hook stays with one that is forgotten, and so does its code.
    _module: ModuleRef,
}

/// Whether there may be stragglers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum MayCome {
    /// There are none, and will be none.
    Never,
    /// There may be, for a while.
    Still,
    /// There may be at any time.
    Always,
}

impl Stragglers {
    /// Begins to catch them. Sleeps.
    pub fn catch(original: &Original) -> Result<Self> {
        let module = ModuleRef::new(original.interposer().module())?;
        original.interposer().add_stragglers()?;
        // INVARIANT: It counts this now.
        Ok(Stragglers {
            interposer: original.interposer().clone(),
            threads: None,
            stays: false,
            _module: module,
        })
    }

    /// The original's submitters could not be waited for: some may come at any time.
    pub fn stay(&mut self) {
        self.stays = true;
    }

    /// Whether bios may come that were submitted before the original led anywhere, which it does,
    /// and its submitters were waited for, unless these [stay](Self::stay): see
    /// [`Original::wait_for_submitters`]. Sleeps.
    pub fn may_come(&mut self, original: &Original) -> MayCome {
        // SAFETY: The device is open.
        if self.stays || unsafe { helpers::bdev_may_keep_bios(original.as_ptr()) } {
            return MayCome::Always;
        }
        let threads = match &mut self.threads {
            Some(threads) => threads,
            None => match submitters() {
                Ok(found) => self.threads.insert(found),
                Err(_) => return MayCome::Still,
            },
        };
        threads.retain(|thread| thread.has_bios());
        if threads.is_empty() {
            MayCome::Never
        } else {
            MayCome::Still
        }
    }
}

impl Drop for Stragglers {
    fn drop(&mut self) {
        self.interposer.remove_stragglers();
    }
}

/// A thread, which may have ended.
///
/// # Invariants
///
/// It is one of which this value has a reference.
#[repr(transparent)]
struct Thread(NonNull<bindings::task_struct>);

impl Thread {
    fn has_bios(&self) -> bool {
        // SAFETY: By the type invariants, the thread is valid; it is only asked whether it has a
        // list, which is not looked at.
        unsafe { helpers::task_has_bios(self.0.as_ptr()) }
    }
}

// SAFETY: References to threads are given back on any thread.
unsafe impl Send for Thread {}

impl Drop for Thread {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, there is a reference that is ours; a `Task` is such a
        // struct.
        drop(unsafe { ARef::from_raw(self.0.cast::<Task>()) });
    }
}

/// The threads that have bios in their list at about this moment. Sleeps.
fn submitters() -> Result<KVec<Thread>> {
    let mut room = ROOM;
    loop {
        let mut threads: KVec<Thread> = KVec::with_capacity(room, GFP_KERNEL)?;
        let spare = threads.spare_capacity_mut();
        // SAFETY: There is room for so many pointers, which is what a `Thread` is.
        let count = unsafe { helpers::tasks_with_bios(spare.as_mut_ptr().cast(), spare.len()) };
        let fits = count.min(spare.len());
        // SAFETY: So many were written. INVARIANT: Each came with a reference that is ours.
        unsafe { threads.inc_len(fits) };
        if fits == count {
            return Ok(threads);
        }
        room = count.checked_mul(2).ok_or(ENOMEM)?;
    }
}
