// SPDX-License-Identifier: GPL-2.0

//! Copying between block devices in the background.
//!
//! A [`Copier`] has *lanes*. A [`Lane`] is a buffer and what it takes to fill it from one device
//! and to write it to another: whoever has a lane can copy an extent of up to
//! [`capacity`](Copier::capacity) bytes, without any further memory. The copy is one read and one
//! write, each of one bio, whatever the units in which its user counts.
//!
//! A copy is a [`CopyJob`]: an object that names what to copy. It belongs to the lane from
//! [`Lane::start`] until [`CopyJob::done`], which is given both back, so that a longer job goes on
//! in the same lane with its next piece. Both devices are borrowed from the job, so they stay open
//! as long as the copy needs them; a job usually holds a [`Shared`] handle to what has the devices.
//!
//! Lanes are made as they are asked for, up to a number, and some of them are kept for the next
//! one who asks. One at least exists as long as the copier is in use, so that copying goes on
//! without free memory.
//!
//! # The copier must not be dropped by a job
//!
//! Dropping the copier waits for all its lanes, and a job that drops it would wait for itself. A
//! copier therefore belongs into what an [`Owner`] owns: jobs hold `Shared` handles, and those
//! never run the destructor.
//!
//! ```ignore
//! struct Copy { engine: Shared<Engine>, region: u64 }
//!
//! impl CopyJob for Copy {
//!     fn source(&self) -> Extent<'_> {
//!         Extent { dev: &self.engine.source, sector: self.region * 8, sectors: 8 }
//!     }
//!     fn destination(&self) -> (&Bdev, Sector) {
//!         (&self.engine.destination, self.region * 8)
//!     }
//!     fn urgency(&self) -> Urgency {
//!         Urgency::Background
//!     }
//!     fn done(self, lane: Lane<Self>, result: Result<(), CopyError>) {
//!         drop(lane);
//!         self.engine.copied(self.region, result);
//!     }
//! }
//!
//! if let Some(lane) = engine.copier.lane() {
//!     lane.start(Copy { engine: engine.share(), region });
//! }
//! ```

use crate::{
    bindings,
    block_device::{
        Bdev,
        Sector,
        SECTOR_SHIFT, //
    },
    extent::Extent,
    irq_lock::{
        new_irq_lock,
        IrqLock, //
    },
    noio::NoIo,
    shared::{
        Owner,
        Shared, //
    },
    workqueue::OwnedQueue, //
};
use core::{
    mem::ManuallyDrop,
    ptr::NonNull, //
};
use kernel::{
    alloc::{
        flags::GFP_NOWAIT,
        Flags, //
    },
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::Arc,
    types::Opaque,
    workqueue::{
        impl_has_work,
        new_work,
        Work,
        WorkItem, //
    }, //
};

/// log2 of the bytes of the longest run of pages that a buffer is put together from.
const MAX_ORDER: u32 = 8;

/// Which side of a copy failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyError {
    /// The source could not be read.
    Read,
    /// The destination could not be written.
    Write,
}

/// Who waits for a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// Somebody: it is done like the I/O that waits for it.
    Wanted,
    /// Nobody: it is done at the lowest priority that is served at all.
    Background,
}

/// One copy, from its start to its end.
pub trait CopyJob: Send + Sized + 'static {
    /// What to copy next: one sector at least, and no more than the lane's capacity.
    fn source(&self) -> Extent<'_>;

    /// The device to copy to, and the first sector there. It may be the source's device if the
    /// two do not overlap.
    fn destination(&self) -> (&Bdev, Sector);

    /// Who waits for it.
    fn urgency(&self) -> Urgency;

    /// The copy has ended. On failure an unknown part of the destination was written. The lane may
    /// be used for another copy at once, or dropped.
    ///
    /// Called in the copier's work item, one call at a time: it may sleep, but all further copies
    /// of this copier wait for it, so it must not wait for any of them, nor for a lane, and must
    /// not drop the copier.
    fn done(self, lane: Lane<Self>, result: Result<(), CopyError>);
}

/// A run of pages.
///
/// # Invariants
///
/// `page` is the first of `1 << order` pages that this value owns.
struct Pages {
    page: NonNull<bindings::page>,
    order: u32,
}

// SAFETY: Pages are freed on any thread.
unsafe impl Send for Pages {}

impl Pages {
    fn new(order: u32, flags: bindings::gfp_t) -> Option<Self> {
        // One compound page, so that drivers may keep references to any part of it; and no noise
        // and no effort for long runs, since shorter ones do as well.
        let flags = match order {
            0 => flags | bindings::__GFP_NOWARN,
            _ => flags | bindings::__GFP_NOWARN | bindings::__GFP_NORETRY | bindings::__GFP_COMP,
        };
        // SAFETY: A call without pointers.
        let page = unsafe { bindings::alloc_pages(flags, order) };
        // INVARIANT: New pages are ours alone.
        NonNull::new(page).map(|page| Pages { page, order })
    }

    fn bytes(&self) -> usize {
        PAGE_SIZE << self.order
    }
}

impl Drop for Pages {
    /// Any context.
    fn drop(&mut self) {
        // SAFETY: By the type invariants, the pages are ours, and of this order.
        unsafe { bindings::__free_pages(self.page.as_ptr(), self.order) }
    }
}

/// log2 of the pages of the longest run that is no longer than `bytes`.
fn order_of(bytes: usize) -> u32 {
    (bytes >> PAGE_SHIFT)
        .checked_ilog2()
        .map_or(0, |order| order.min(MAX_ORDER))
}

/// A lane's memory, and the job in it.
///
/// # Invariants
///
/// While a bio is under way, the mover belongs to it, and `job` and `core` are there. At all other
/// times `bio` and the content of `table` are not used by anybody.
struct Mover<T: CopyJob> {
    bio: Opaque<bindings::bio>,
    /// Room for the bio's vectors, one for each of `pages`.
    table: KVec<bindings::bio_vec>,
    pages: KVec<Pages>,
    job: Option<T>,
    core: Option<Shared<Core<T>>>,
    stage: Stage,
    /// The bytes that are read, and then written.
    bytes: usize,
    status: bindings::blk_status_t,
    next: Option<KBox<Mover<T>>>,
}

/// What a mover does, or has just done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Read,
    Write,
}

// SAFETY: The bio and the table are used by one thread at a time, that which has the mover; the
// rest is `Send`.
unsafe impl<T: CopyJob> Send for Mover<T> {}

impl<T: CopyJob> Mover<T> {
    /// Makes a mover for `bytes` bytes.
    fn new(bytes: usize, flags: Flags, raw_flags: bindings::gfp_t) -> Result<KBox<Self>> {
        let mut pages = KVec::new();
        let mut order = MAX_ORDER;
        let mut left = bytes;
        while left > 0 {
            order = order.min(order_of(left));
            match Pages::new(order, raw_flags) {
                Some(run) => {
                    left = left.saturating_sub(run.bytes());
                    pages.push(run, flags)?;
                }
                None if order == 0 => return Err(ENOMEM),
                None => order -= 1,
            }
        }
        let table = KVec::with_capacity(pages.len(), flags)?;
        let mover = Mover {
            bio: Opaque::uninit(),
            table,
            pages,
            job: None,
            core: None,
            stage: Stage::Read,
            bytes: 0,
            status: 0,
            next: None,
        };
        Ok(KBox::new(mover, flags)?)
    }

    /// Sends the read or the write of the job's extent, unless that is empty. Sleeps as far as the device makes it.
    fn submit(mut mover: KBox<Self>, stage: Stage) {
        mover.stage = stage;
        let this = &mut *mover;
        let Some(job) = this.job.as_ref() else {
            return;
        };
        let (dev, sector) = match stage {
            Stage::Read => {
                let source = job.source();
                // Not asked for again: what was not read must not be written.
                this.bytes = (source.sectors << SECTOR_SHIFT) as usize;
                (source.dev, source.sector)
            }
            Stage::Write => job.destination(),
        };
        let mut left = this.bytes;
        let is_empty = left == 0;
        let urgency = job.urgency();
        let op = match stage {
            Stage::Read => bindings::req_op_REQ_OP_READ,
            Stage::Write => bindings::req_op_REQ_OP_WRITE,
        };
        let (flags, priority) = match urgency {
            Urgency::Wanted => (bindings::REQ_SYNC | bindings::REQ_IDLE, 0),
            Urgency::Background => (0, LOWEST_PRIORITY),
        };
        let dev = dev.as_ptr();
        let bio = mover.bio.get();
        let table = mover.table.as_mut_ptr();
        let room = mover.table.capacity().min(mover.pages.len()) as kernel::ffi::c_ushort;

        // SAFETY: By the type invariants, bio and table are unused, and stay where they are, since
        // the mover is in a box. The device is borrowed from the job, which stays as long as the
        // bio is under way.
        unsafe { bindings::bio_init(bio, dev, table, room, op | flags) };
        for run in &mover.pages {
            let len = left.min(run.bytes());
            if len == 0 {
                break;
            }
            // SAFETY: The bio was just initialised, with a vector for each run of pages.
            unsafe { bindings::__bio_add_page(bio, run.page.as_ptr(), len as u32, 0) };
            left -= len;
        }
        // INVARIANT: The mover belongs to its bio from here on.
        let raw = KBox::into_raw(mover);
        // SAFETY: The bio is initialised and not yet sent.
        unsafe {
            (*bio).bi_iter.bi_sector = sector;
            (*bio).bi_ioprio = priority;
            (*bio).bi_end_io = Some(ended::<T>);
            (*bio).bi_private = raw.cast();
        }
        if left > 0 {
            // More than there are pages for.
            // SAFETY: As above.
            unsafe { (*bio).bi_status = bindings::BLK_STS_IOERR };
        }
        if is_empty || left > 0 {
            // An empty read or write is none that drivers know.
            // SAFETY: The bio is complete, and not sent; `ended::<T>` takes the mover back.
            return unsafe { bindings::bio_endio(bio) };
        }
        // SAFETY: The bio is complete; `ended::<T>` takes the mover back.
        unsafe { bindings::submit_bio(bio) }
    }

    /// Goes on with a mover whose bio has ended.
    fn advance(mut mover: KBox<Self>) {
        let ok = mover.status == 0;
        if ok && mover.stage == Stage::Read {
            return Self::submit(mover, Stage::Write);
        }
        let result = match mover.stage {
            _ if ok => Ok(()),
            Stage::Read => Err(CopyError::Read),
            Stage::Write => Err(CopyError::Write),
        };
        let (job, core) = (mover.job.take(), mover.core.take());
        if let (Some(job), Some(core)) = (job, core) {
            T::done(job, Lane::new(mover, core), result);
        }
    }
}

/// The lowest priority of the class that is always served: the idle class may starve.
const LOWEST_PRIORITY: u16 = (bindings::IOPRIO_CLASS_BE << bindings::IOPRIO_CLASS_SHIFT) as u16 | 7;

/// The end of a mover's bio. Any context.
///
/// # Safety
///
/// `bio` must be that of a `Mover<T>`, which `bi_private` points at and which passes to this call.
unsafe extern "C" fn ended<T: CopyJob>(bio: *mut bindings::bio) {
    // SAFETY: The bio has ended, and is the caller's.
    let (raw, status) = unsafe { ((*bio).bi_private, (*bio).bi_status) };
    // SAFETY: As above; what `bio_init` took is given back.
    unsafe { bindings::bio_uninit(bio) };
    // SAFETY: By the function's contract, the pointer is that of a mover, from `KBox::into_raw`.
    let mut mover = unsafe { KBox::from_raw(raw.cast::<Mover<T>>()) };
    mover.status = status;
    let Some(core) = mover.core.clone() else {
        return;
    };
    let mut lanes = core.lanes.lock();
    mover.next = lanes.ended.take();
    lanes.ended = Some(mover);
    let idle = !core::mem::replace(&mut lanes.working, true);
    drop(lanes);
    if idle {
        // Not queued: `working` says so, under the lock. The core keeps the queue: it may be dropped here,
        // where the queue, whose end sleeps, may not.
        let keeper = core.clone();
        let _ = keeper.queue.enqueue::<_, 0>(core);
    }
}

/// The right to copy one extent at a time, from [`Copier::lane`]. Dropping it gives it back, and
/// may be done in any context.
pub struct Lane<T: CopyJob> {
    mover: ManuallyDrop<KBox<Mover<T>>>,
    core: ManuallyDrop<Shared<Core<T>>>,
}

impl<T: CopyJob> Lane<T> {
    fn new(mover: KBox<Mover<T>>, core: Shared<Core<T>>) -> Self {
        Lane {
            mover: ManuallyDrop::new(mover),
            core: ManuallyDrop::new(core),
        }
    }

    /// Begins a copy; the job's [`done`](CopyJob::done) tells when it has ended. May be called
    /// inside `map`; sleeps as far as the source makes whoever reads from it.
    pub fn start(self, job: T) {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is neither used nor dropped from here on.
        let mut mover = unsafe { ManuallyDrop::take(&mut this.mover) };
        // SAFETY: As above.
        let core = unsafe { ManuallyDrop::take(&mut this.core) };
        mover.job = Some(job);
        mover.core = Some(core);
        Mover::submit(mover, Stage::Read);
    }
}

impl<T: CopyJob> Drop for Lane<T> {
    fn drop(&mut self) {
        // SAFETY: The fields are not used again.
        let mut mover = unsafe { ManuallyDrop::take(&mut self.mover) };
        // SAFETY: As above.
        let core = unsafe { ManuallyDrop::take(&mut self.core) };
        let mut lanes = core.lanes.lock();
        if lanes.idle_count < lanes.keep {
            lanes.idle_count += 1;
            mover.next = lanes.idle.take();
            lanes.idle = Some(mover);
            drop(lanes);
        } else {
            lanes.made -= 1;
            drop(lanes);
            drop(mover);
        }
    }
}

/// The lanes that are not in use, or have something to do.
struct Lanes<T: CopyJob> {
    idle: Option<KBox<Mover<T>>>,
    idle_count: usize,
    /// How many idle ones are kept.
    keep: usize,
    /// How many there are in all.
    made: usize,
    /// Movers whose bio has ended, the last one first.
    ended: Option<KBox<Mover<T>>>,
    /// The work item is queued or runs, and will see what is in `ended`.
    working: bool,
}

#[pin_data]
struct Core<T: CopyJob> {
    capacity: usize,
    most: usize,
    queue: Arc<OwnedQueue>,
    #[pin]
    lanes: IrqLock<Lanes<T>>,
    #[pin]
    work: Work<Core<T>>,
}

impl_has_work! {
    impl{T: CopyJob} HasWork<Self> for Core<T> { self.work }
}

impl<T: CopyJob> WorkItem for Core<T> {
    type Pointer = Shared<Core<T>>;

    fn run(this: Shared<Core<T>>) {
        loop {
            let mut lanes = this.lanes.lock();
            let Some(newest) = lanes.ended.take() else {
                lanes.working = false;
                return;
            };
            drop(lanes);
            let mut link = in_order(newest);
            while let Some(mut mover) = link {
                link = mover.next.take();
                Mover::advance(mover);
            }
        }
    }
}

/// Turns a chain round.
fn in_order<T: CopyJob>(newest: KBox<Mover<T>>) -> Option<KBox<Mover<T>>> {
    let mut turned = None;
    let mut link = Some(newest);
    while let Some(mut mover) = link {
        link = core::mem::replace(&mut mover.next, turned);
        turned = Some(mover);
    }
    turned
}

/// Copies extents in lanes; see the [module](self).
///
/// Dropping it waits for all lanes that are in use, hence sleeps; see the [module](self) for where
/// it must not happen.
pub struct Copier<T: CopyJob> {
    core: Owner<Core<T>>,
}

/// How many lanes a copier has, and how large they are.
#[derive(Clone, Copy, Debug)]
pub struct Lanesize {
    /// The bytes that a lane can copy at a time; rounded up to whole pages.
    pub capacity: usize,
    /// How many lanes there may be at a time; one at least.
    pub most: usize,
    /// How many of them are kept while nobody uses them; one at least.
    pub keep: usize,
}

impl<T: CopyJob> Copier<T> {
    /// Makes a copier, and its first lane. Its work is done in `queue`, in one item at a time.
    /// Sleeps.
    pub fn new(queue: Arc<OwnedQueue>, size: Lanesize) -> Result<Self> {
        let capacity = size.capacity.max(1).next_multiple_of(PAGE_SIZE);
        let first = Mover::new(capacity, GFP_KERNEL, bindings::GFP_KERNEL)?;
        let lanes = Lanes {
            idle: Some(first),
            idle_count: 1,
            keep: size.keep.max(1),
            made: 1,
            ended: None,
            working: false,
        };
        let core = Owner::pin_init(pin_init!(Core {
            capacity,
            most: size.most.max(1),
            queue,
            lanes <- new_irq_lock!(lanes, "dm_copier_lanes"),
            work <- new_work!("dm_copier"),
        }))?;
        Ok(Copier { core })
    }

    /// The bytes that a lane can copy at a time.
    pub fn capacity(&self) -> usize {
        self.core.capacity
    }

    /// A lane, if one is free or if there is memory for one. Does not sleep.
    pub fn try_lane(&self) -> Option<Lane<T>> {
        self.take_or_make(GFP_NOWAIT, bindings::GFP_NOWAIT)
    }

    /// A lane, if one is free or there may be one more: waits for memory, not for others. None only as
    /// long as somebody has one, or tries to make one. Sleeps, so not inside `map`.
    pub fn lane(&self) -> Option<Lane<T>> {
        let _noio = NoIo::enter();
        loop {
            let lane = self.take_or_make(GFP_KERNEL, bindings::GFP_NOIO);
            if lane.is_some() || self.core.lanes.lock().made != 0 {
                return lane;
            }
        }
    }

    fn take_or_make(&self, flags: Flags, raw_flags: bindings::gfp_t) -> Option<Lane<T>> {
        let mut lanes = self.core.lanes.lock();
        if let Some(mut mover) = lanes.idle.take() {
            lanes.idle = mover.next.take();
            lanes.idle_count -= 1;
            drop(lanes);
            return Some(Lane::new(mover, self.core.share()));
        }
        if lanes.made >= self.core.most {
            return None;
        }
        lanes.made += 1;
        drop(lanes);
        match Mover::new(self.core.capacity, flags, raw_flags) {
            Ok(mover) => Some(Lane::new(mover, self.core.share())),
            Err(_) => {
                self.core.lanes.lock().made -= 1;
                None
            }
        }
    }

    /// Keeps no more lanes than are in use: there will be little to copy. Memory for one is again
    /// asked for when it is needed, and may then be lacking.
    pub fn retire(&self) {
        let mut lanes = self.core.lanes.lock();
        lanes.keep = 0;
        let mut link = lanes.idle.take();
        lanes.made -= core::mem::take(&mut lanes.idle_count);
        drop(lanes);
        while let Some(mut mover) = link {
            link = mover.next.take();
        }
    }
}
