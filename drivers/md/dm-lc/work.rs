// SPDX-License-Identifier: GPL-2.0

//! The work items of a cache: what runs in the background, and how it is started.
//!
//! | work item | what it does | started by |
//! |---|---|---|
//! | log | writes buffers that are full, serves flushes, see [`crate::commit`]; makes room, see [`crate::room`] | `map`, the writeback |
//! | log timer | writes the open buffer | the first write to a buffer |
//! | admit | writes that waited for room, see [`crate::write`] | whatever makes room |
//! | writeback | writes the log back, see [`crate::writeback`] | the log item, `map`, messages |
//! | retry timer | the writeback, after the backing device failed | the writeback |
//! | barrier timer | as log, for flushes that may wait for others | the first of them |
//! | verify | reads whose checksum is that of more than they ask for, see [`crate::verify`] | `map` |
//! | promote | copies what was read, see [`crate::promote`] | `end_io` |
//! | pace | lets in writes that are slowed down, see [`crate::throttle`] | the first that waits |
//! | age timer | has written back what is too old, see [`crate::age`] | the first write to a buffer, settings; itself while anything is dirty |
//! | clock | what is to be done every second, see [`crate::clock`] | settings that want it |

use crate::{
    age::Age,
    cache::Cache,
    clock::{
        self,
        Clock, //
    },
    commit,
    promote,
    table_line::Knob,
    verify,
    write,
    writeback, //
};
use dm::prelude::*;
use kernel::{
    sync::atomic::Relaxed,
    time::{
        msecs_to_jiffies,
        Jiffies, //
    },
    workqueue::{
        impl_has_delayed_work,
        impl_has_work,
        WorkItem, //
    }, //
};

pub(crate) const LOG: u64 = 0;
pub(crate) const ADMIT: u64 = 1;
pub(crate) const WRITEBACK: u64 = 2;
pub(crate) const LOG_TIMER: u64 = 3;
pub(crate) const RETRY_TIMER: u64 = 4;
pub(crate) const BARRIER_TIMER: u64 = 5;
pub(crate) const CLOCK: u64 = 6;
pub(crate) const VERIFY: u64 = 7;
pub(crate) const PACE: u64 = 8;
pub(crate) const PROMOTE: u64 = 9;
pub(crate) const AGE: u64 = 10;

/// How often writes are let in that are slowed down, in milliseconds.
const PACE_MS: u32 = 10;

impl_has_work! {
    impl HasWork<Cache, 0> for Cache { self.log_work }
    impl HasWork<Cache, 1> for Cache { self.admit_work }
    impl HasWork<Cache, 2> for Cache { self.writeback_work }
    impl HasWork<Cache, 7> for Cache { self.verify_work }
    impl HasWork<Cache, 9> for Cache { self.promote_work }
}
impl_has_delayed_work! {
    impl HasDelayedWork<Cache, 3> for Cache { self.log_timer }
    impl HasDelayedWork<Cache, 4> for Cache { self.retry_timer }
    impl HasDelayedWork<Cache, 5> for Cache { self.barrier_timer }
    impl HasDelayedWork<Cache, 6> for Cache { self.clock_work }
    impl HasDelayedWork<Cache, 8> for Cache { self.pace_timer }
    impl HasDelayedWork<Cache, 10> for Cache { self.age_timer }
}

/// What each of them runs.
macro_rules! run {
    ($($item:ident => $run:expr;)*) => {
        $(impl WorkItem<$item> for Cache {
            type Pointer = Shared<Cache>;

            fn run(this: Shared<Cache>) {
                let run: fn(&Shared<Cache>) = $run;
                run(&this);
            }
        })*
    };
}

run! {
    LOG => |this| commit::serve(this, false);
    LOG_TIMER => |this| commit::serve(this, true);
    BARRIER_TIMER => |this| commit::serve(this, false);
    ADMIT => write::admit;
    PACE => write::pace;
    WRITEBACK => writeback::run;
    RETRY_TIMER => |this| {
        this.paused.store(0, Relaxed);
        writeback::run(this);
    };
    VERIFY => verify::run;
    PROMOTE => promote::run;
    AGE => clock::age;
    CLOCK => |this| {
        clock::tick(this);
        Cache::start_clock(this);
    };
}

impl HasQueue for Cache {
    fn queue(&self) -> &OwnedQueue {
        &self.queue
    }
}

impl Cache {
    /// Lets the log item look at what is to be written. Any context.
    pub(crate) fn kick_log(this: Shared<Self>) {
        let queue = &this.clone().queue;
        // An item that is queued already will see what is there when it runs.
        let _ = queue.enqueue::<_, LOG>(this);
    }

    /// Lets the admit item try again. Any context.
    pub(crate) fn kick_admit(this: &Shared<Self>) {
        let _ = this.queue.enqueue::<_, ADMIT>(this.clone());
    }

    /// Lets the verify item look at the reads that wait for it. Any context.
    pub(crate) fn kick_verify(this: &Shared<Self>) {
        let _ = this.verify_queue.enqueue::<_, VERIFY>(this.clone());
    }

    /// Lets the promote item look at what was read. Any context.
    pub(crate) fn kick_promote(this: &Shared<Self>) {
        let _ = this.queue.enqueue::<_, PROMOTE>(this.clone());
    }

    /// Lets the writeback see whether there is something to do. Any context.
    pub(crate) fn kick_writeback(this: &Shared<Self>) {
        let _ = this.queue.enqueue::<_, WRITEBACK>(this.clone());
    }

    /// Has the buffer that was just opened written before long. Any context.
    pub(crate) fn start_log_timer(this: &Shared<Self>) {
        if let Some(delay) = this.log_delay() {
            let _ = OwnedQueue::enqueue_delayed::<_, LOG_TIMER>(this.clone(), delay);
        }
    }

    /// The same, when settings have changed, for a buffer that may be open. Any context.
    pub(crate) fn restart_log_timer(this: &Shared<Self>) {
        if let Some(delay) = this.log_delay() {
            OwnedQueue::reschedule::<_, LOG_TIMER>(this, delay);
        }
    }

    fn log_delay(&self) -> Option<Jiffies> {
        let seconds = self.settings().get(Knob::FlushCurrentBufferInterval);
        (seconds != 0).then(|| msecs_to_jiffies(seconds.saturating_mul(1000)))
    }

    /// Has the flushes that wait served, at once or when others may have joined them. Any context.
    pub(crate) fn start_barrier(this: Shared<Self>) {
        match this.settings().get(Knob::BarrierDeadlineMs) {
            0 => Self::kick_log(this),
            deadline => {
                let delay = msecs_to_jiffies(deadline);
                let _ = OwnedQueue::enqueue_delayed::<_, BARRIER_TIMER>(this, delay);
            }
        }
    }

    /// Has those that wait let in before long. Any context.
    pub(crate) fn start_pace(this: &Shared<Self>) {
        let delay = msecs_to_jiffies(PACE_MS);
        let _ = OwnedQueue::enqueue_delayed::<_, PACE>(this.clone(), delay);
    }

    /// Has the clock tick in a second, if there is a reason to. Any context.
    pub(crate) fn start_clock(this: &Shared<Self>) {
        if !this.is_suspended() && Clock::is_wanted(&this.settings()) {
            let delay = msecs_to_jiffies(clock::TICK_MS);
            let _ = OwnedQueue::enqueue_delayed::<_, CLOCK>(this.clone(), delay);
        }
    }

    /// Has it looked at before long how old what is dirty is, if that matters. Any context.
    pub(crate) fn start_ageing(this: &Shared<Self>) {
        if let Some(delay) = this.age_delay() {
            let _ = OwnedQueue::enqueue_delayed::<_, AGE>(this.clone(), delay);
        }
    }

    /// The same, when settings have changed: whatever was the time to look before. Any context.
    pub(crate) fn restart_ageing(this: &Shared<Self>) {
        if let Some(delay) = this.age_delay() {
            OwnedQueue::reschedule::<_, AGE>(this, delay);
        }
    }

    fn age_delay(&self) -> Option<Jiffies> {
        clock::max_age(self).map(|max_age| msecs_to_jiffies(Age::step(max_age)))
    }

    /// Has the writeback try again in so many milliseconds. Any context.
    pub(crate) fn set_retry_timer(this: &Shared<Self>, milliseconds: u32) {
        let delay = msecs_to_jiffies(milliseconds);
        OwnedQueue::reschedule::<_, RETRY_TIMER>(this, delay);
    }

    /// Waits until no work item runs or is about to. Sleeps.
    pub(crate) fn quiesce(this: &Shared<Self>) {
        OwnedQueue::cancel_delayed::<_, LOG_TIMER>(this);
        OwnedQueue::cancel_delayed::<_, RETRY_TIMER>(this);
        OwnedQueue::cancel_delayed::<_, BARRIER_TIMER>(this);
        OwnedQueue::cancel_delayed::<_, CLOCK>(this);
        OwnedQueue::cancel_delayed::<_, AGE>(this);
        OwnedQueue::cancel_delayed::<_, PACE>(this);
        this.verify_queue.flush();
        this.queue.flush();
    }
}
