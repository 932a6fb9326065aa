// SPDX-License-Identifier: GPL-2.0

//! What the other files do wrongly, done rightly: it is their misuse that is refused, not the use.
//!
//! compiles

include!("common/frame.rs");

use core::fmt::Write;
use dm::{
    copier::{
        Copier,
        CopyJob, //
    },
    persistent_data::{
        Bitset,
        BlockManager,
        TransactionManager,
        Validator, //
    }, //
};

/// Per-bio data of the largest alignment that is allowed.
#[derive(Default)]
#[repr(align(8))]
struct Aligned(u8);

#[pin_data]
struct Careful {
    dev: Device,
    queue: OwnedQueue,
    #[pin]
    waiting: IrqLock<BioList<OwnedBio<Careful>>>,
    #[pin]
    ended: IrqLock<u64>,
}

target!(Careful, Aligned, {
    fn map<'a>(&'a self, mut bio: MapBio<'a, Self>) -> Mapped<'a> {
        if bio.accept_partial(8).is_ok() {
            return bio.remap(&self.dev, 0);
        }
        bio.per_bio().0 = 1;
        let (verdict, owned) = bio.take();
        self.waiting.lock().push(owned);
        verdict
    }

    fn end_io<'a>(&self, mut bio: EndBio<'a, Self>) -> Ended<'a> {
        *self.ended.lock() += 1;
        bio.per_bio().0 = 2;
        let (verdict, kept) = bio.keep();
        kept.end(Status::OK);
        verdict
    }

    fn status(&self, _kind: StatusKind, out: &mut StatusWriter<'_>) -> core::fmt::Result {
        write!(out, "{}", *self.ended.lock())
    }
});

pub fn register(module: &'static ThisModule) -> Result<Pin<KBox<Registration<Careful>>>> {
    KBox::try_pin_init(Registration::new(module, ()), GFP_KERNEL)
}

pub fn send(queue: &kernel::workqueue::Queue, bio: OwnedBio<Careful>) -> Result {
    Ok(queue.try_spawn(GFP_KERNEL, move || bio.end(EIO))?)
}

pub fn share(queue: &kernel::workqueue::Queue, shared: Shared<u64>) -> Result {
    Ok(queue.try_spawn(GFP_KERNEL, move || drop(shared))?)
}

pub fn submit_waiting(target: &Careful) {
    let waiting = target.waiting.lock().take_all();
    for bio in waiting {
        bio.submit(&target.dev, 0);
    }
    target.queue.flush();
}

pub fn number(args: &mut Args<'_>) -> Option<u32> {
    args.next("number").ok()?.number(0..=9).ok()
}

pub fn commit<V: Validator>(tm: &mut TransactionManager, bits: &mut Bitset) -> Result {
    bits.set(tm, 1)?;
    bits.flush(tm)?;
    tm.pre_commit()?.commit::<V>(|_superblock| {})
}

pub fn first_byte(blocks: &mut BlockManager) -> Result<u8> {
    let block = blocks.read_lock_unvalidated(0)?;
    block.first().copied().ok_or(EINVAL)
}

pub fn copy<J: CopyJob>(copier: &Copier<J>, job: J) -> Sector {
    let sectors = job.source().sectors;
    if let Some(lane) = copier.lane() {
        lane.start(job);
    }
    sectors
}
