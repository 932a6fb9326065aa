// SPDX-License-Identifier: GPL-2.0

//! Reading and writing kernel memory from and to block devices.
//!
//! An [`IoClient`] has the descriptors that this takes in reserve, so that it works without free
//! memory. Its methods wait for the device; a [`WriteJob`] does not.
//!
//! Memory begins at a multiple of 512 and is a multiple of 512 bytes long, on any heap: what
//! `kmalloc` returns for a power of two from 512 on, as with
//! [`KVec`], and what `vmalloc` returns, as with
//! [`VVec`]. Anything else fails with `EINVAL`. Some devices ask for more,
//! up to their logical block size.
//!
//! ```ignore
//! let io = IoClient::new()?;
//! io.read(&dev, 0, &mut header)?;
//! io.write(&dev, 8, &record, Barrier::Fua)?;
//! ```

use crate::{
    bindings::{
        self,
        helpers, //
    },
    block_device::{
        Bdev,
        Sector,
        SECTOR_SHIFT, //
    },
    compat,
    extent::Extent,
    mempool::PoolBox,
    shared_memory::SharedMemory, //
};
use core::{
    ffi::c_void,
    ops::Range,
    ptr::NonNull, //
};
use kernel::{
    error::{
        from_err_ptr,
        to_result, //
    },
    ffi::c_ulong,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full,
            Relaxed, //
        },
        Completion, //
    }, //
};
use pin_init::stack_pin_init;

/// What a write does about the device's volatile cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barrier {
    /// Nothing: the data may be lost until the device is flushed.
    None,
    /// The data is durable when the write ends.
    Fua,
    /// All that the device had acknowledged before is durable before the data is written. Whether
    /// that failed is not told: a mapped device forgets it when the data has been written. Where it
    /// matters, [`flush`](IoClient::flush) first.
    Flush,
}

impl Barrier {
    fn flags(self) -> bindings::blk_opf_t {
        match self {
            Barrier::None => 0,
            Barrier::Fua => bindings::REQ_FUA,
            Barrier::Flush => bindings::REQ_PREFLUSH,
        }
    }
}

/// One write from memory of its own, from its submission to its end.
pub trait WriteJob: Send + Sized + 'static {
    /// The client whose descriptors to use.
    fn client(&self) -> &IoClient;

    /// The device and the first sector to write.
    fn destination(&self) -> (&Bdev, Sector);

    /// What to write. See the [module](self) for what it may be.
    fn memory(&self) -> &[u8];

    /// The write has ended. On failure an unknown part of the destination was written.
    ///
    /// Runs in any context, interrupts included, perhaps before [`write`](fn@write) returns. It must
    /// not sleep, and what it drops must not either.
    fn done(this: PoolBox<Self>, result: Result);
}

/// Begins a write.
///
/// The job, the client, the device and the memory that are borrowed from it included, belongs to
/// the write until its [`done`](WriteJob::done). Sleeps until a descriptor is free, so it must not be
/// called inside `map`.
pub fn write<T: WriteJob>(job: PoolBox<T>, barrier: Barrier) {
    let client = job.client().raw;
    let memory = job.memory();
    let (start, len) = (memory.as_ptr(), memory.len());
    if !is_aligned(start, len) {
        return T::done(job, Err(EINVAL));
    }
    let (dev, sector) = job.destination();
    let region = Extent {
        dev,
        sector,
        sectors: sectors(len),
    }
    .to_region();
    let notify = bindings::dm_io_notify {
        fn_: Some(write_done::<T>),
        context: PoolBox::into_raw(job),
    };
    // SAFETY: The client, the device and the memory are borrowed from the job, which from here to
    // `write_done` is owned by the write and touched by nobody. `write_done::<T>` is called once, with
    // the context of a `T`. The result is 0: what can fail is reported there.
    let _ = unsafe {
        transfer(
            client,
            bindings::req_op_REQ_OP_WRITE | barrier.flags(),
            region,
            start.cast_mut().cast(),
            notify,
        )
    };
}

/// Descriptors for I/O in reserve. One per target is enough.
///
/// # Invariants
///
/// `raw` is a live client that this value owns.
pub struct IoClient {
    raw: NonNull<bindings::dm_io_client>,
}

// SAFETY: A client is used from any thread.
unsafe impl Send for IoClient {}
// SAFETY: A client is two pools, which have locks of their own.
unsafe impl Sync for IoClient {}

impl IoClient {
    /// Makes a client. Sleeps.
    pub fn new() -> Result<Self> {
        // SAFETY: A call without arguments.
        let raw = from_err_ptr(unsafe { bindings::dm_io_client_create() })?;
        // INVARIANT: A new client is ours alone.
        Ok(IoClient {
            raw: NonNull::new(raw).ok_or(ENOMEM)?,
        })
    }

    /// Fills `memory` from `sector` on. Sleeps.
    pub fn read(&self, dev: &Bdev, sector: Sector, memory: &mut [u8]) -> Result {
        if !is_aligned(memory.as_ptr(), memory.len()) {
            return Err(EINVAL);
        }
        let extent = Extent {
            dev,
            sector,
            sectors: sectors(memory.len()),
        };
        // SAFETY: Without a function to notify the call waits for the end, and the device and the
        // memory are borrowed as long.
        unsafe {
            transfer(
                self.raw,
                bindings::req_op_REQ_OP_READ,
                extent.to_region(),
                memory.as_mut_ptr().cast(),
                bindings::dm_io_notify::default(),
            )
        }
    }

    /// Writes `memory` from `sector` on. Sleeps.
    pub fn write(&self, dev: &Bdev, sector: Sector, memory: &[u8], barrier: Barrier) -> Result {
        if !is_aligned(memory.as_ptr(), memory.len()) {
            return Err(EINVAL);
        }
        let extent = Extent {
            dev,
            sector,
            sectors: sectors(memory.len()),
        };
        // SAFETY: As in `read`; memory that is written to a device is only read.
        unsafe {
            transfer(
                self.raw,
                bindings::req_op_REQ_OP_WRITE | barrier.flags(),
                extent.to_region(),
                memory.as_ptr().cast_mut().cast(),
                bindings::dm_io_notify::default(),
            )
        }
    }

    /// Writes pieces of memory, each from its sector on, all at the same time. Sleeps.
    ///
    /// The first failure is the result; by then none is under way any more.
    pub fn write_all(
        &self,
        dev: &Bdev,
        pieces: &mut dyn Iterator<Item = (Sector, &[u8])>,
    ) -> Result {
        let pieces = pieces.map(|(sector, memory)| Ok((sector, memory.as_ptr(), memory.len())));
        // SAFETY: The memory is borrowed until this function returns.
        unsafe { self.transfer_all(bindings::req_op_REQ_OP_WRITE, dev, pieces) }
    }

    /// Fills pieces of memory, each from its sector on, all at the same time; as
    /// [`write_all`](Self::write_all).
    pub fn read_all(
        &self,
        dev: &Bdev,
        pieces: &mut dyn Iterator<Item = (Sector, &mut [u8])>,
    ) -> Result {
        let pieces = pieces.map(|(sector, memory)| {
            let start = memory.as_mut_ptr().cast_const();
            Ok((sector, start, memory.len()))
        });
        // SAFETY: As in `write_all`; the memory is borrowed mutably.
        unsafe { self.transfer_all(bindings::req_op_REQ_OP_READ, dev, pieces) }
    }

    /// As [`write_all`](Self::write_all), from shared memory: a piece is a sector, the memory, and
    /// the range of its bytes. What is changed meanwhile is written as it was or as it becomes.
    pub fn write_all_shared<'m>(
        &self,
        dev: &Bdev,
        pieces: &mut dyn Iterator<Item = (Sector, &'m SharedMemory, Range<usize>)>,
    ) -> Result {
        let pieces = pieces.map(|(sector, memory, range)| {
            let len = range.end.saturating_sub(range.start);
            let start = memory.part(range.start, len)?;
            Ok((sector, start.cast_const().cast(), len))
        });
        // SAFETY: As in `write_all`; shared memory may be read at any time.
        unsafe { self.transfer_all(bindings::req_op_REQ_OP_WRITE, dev, pieces) }
    }

    /// Writes or fills pieces of memory, each from its sector on and of so many bytes, all at the same
    /// time, until one of them is an error. Sleeps.
    ///
    /// # Safety
    ///
    /// Until it returns, the memory must be valid, and for a read nobody else's.
    unsafe fn transfer_all(
        &self,
        opf: bindings::blk_opf_t,
        dev: &Bdev,
        pieces: impl Iterator<Item = Result<(Sector, *const u8, usize)>>,
    ) -> Result {
        stack_pin_init!(let group = Group::new());
        let group = group.as_ref().get_ref();
        for piece in pieces {
            let begun = piece.and_then(|(sector, start, len)| {
                // SAFETY: By this function's contract: it waits for the group before it returns.
                unsafe { self.begin_piece(opf, dev, sector, start, len, group) }
            });
            if let Err(error) = begun {
                group.error.store(error.to_errno(), Relaxed);
                break;
            }
        }
        group.wait()
    }

    /// Begins a write or a read that `group` waits for; fails with `EINVAL` for memory that is not
    /// aligned.
    ///
    /// # Safety
    ///
    /// Until the group has waited, the memory must be valid, and for a read nobody else's.
    unsafe fn begin_piece(
        &self,
        opf: bindings::blk_opf_t,
        dev: &Bdev,
        sector: Sector,
        start: *const u8,
        len: usize,
        group: &Group,
    ) -> Result {
        if !is_aligned(start, len) {
            return Err(EINVAL);
        }
        let extent = Extent {
            dev,
            sector,
            sectors: sectors(len),
        };
        let notify = bindings::dm_io_notify {
            fn_: Some(piece_done),
            context: core::ptr::from_ref(group).cast_mut().cast(),
        };
        group.pending.fetch_add(1, Relaxed);
        // SAFETY: The client and the device are borrowed by who waits for the group, and the memory
        // is valid as long, by the function's contract. `piece_done` gets the group that it is
        // counted in. The result is 0: what can fail is reported there.
        let _ = unsafe {
            transfer(
                self.raw,
                opf,
                extent.to_region(),
                start.cast_mut().cast(),
                notify,
            )
        };
        Ok(())
    }

    /// Makes everything durable that the device has acknowledged. Sleeps.
    pub fn flush(&self, dev: &Bdev) -> Result {
        self.write(dev, 0, &[], Barrier::Flush)
    }
}

impl Drop for IoClient {
    /// Sleeps.
    fn drop(&mut self) {
        // SAFETY: By the type invariants, the client is ours. No I/O is left: what waits for its
        // end has borrowed it, and what does not has a job that keeps it.
        unsafe { bindings::dm_io_client_destroy(self.raw.as_ptr()) }
    }
}

/// Writes whose end somebody waits for.
#[pin_data]
struct Group {
    /// The writes under way, and the one who waits until he does.
    pending: Atomic<i32>,
    /// The errno of a failed write, or 0.
    error: Atomic<i32>,
    /// Completed by the last write when there is somebody to wait for it.
    #[pin]
    done: Completion,
}

impl Group {
    fn new() -> impl PinInit<Self> {
        pin_init!(Group {
            pending: Atomic::new(1),
            error: Atomic::new(0),
            done <- Completion::new(),
        })
    }

    /// Waits for all writes that were begun. Sleeps.
    fn wait(&self) -> Result {
        if self.pending.fetch_sub(1, Full) != 1 {
            self.done.wait_for_completion();
        }
        to_result(self.error.load(Relaxed))
    }
}

/// # Safety
///
/// `context` must be a [`Group`] that waits for this write.
unsafe extern "C" fn piece_done(error: c_ulong, unsupported: c_ulong, context: *mut c_void) {
    // SAFETY: The group lives until it has counted this write, below.
    let group = unsafe { &*context.cast::<Group>() };
    if let Err(error) = outcome(error, unsupported) {
        group.error.store(error.to_errno(), Relaxed);
    }
    if group.pending.fetch_sub(1, Full) == 1 {
        // The group waits, and goes away only after this call has released the lock inside.
        group.done.complete_all();
    }
}

/// Whether memory is made of whole sectors; pages are divided at its start, so that matters too.
fn is_aligned(start: *const u8, len: usize) -> bool {
    let mask = (1 << SECTOR_SHIFT) - 1;
    len == 0 || (start.addr() | len) & mask == 0
}

/// Bytes to sectors.
fn sectors(len: usize) -> Sector {
    (len >> SECTOR_SHIFT) as Sector
}

/// Submits I/O, and waits for it if there is no function to notify.
///
/// # Safety
///
/// Until the end of the I/O the client, the region's device and the memory, of the region's
/// length, must be valid, and nobody may write the memory, nor read it if it is being read into.
/// `notify` must be callable in any context.
unsafe fn transfer(
    client: NonNull<bindings::dm_io_client>,
    opf: bindings::blk_opf_t,
    mut region: bindings::dm_io_region,
    memory: *mut c_void,
    notify: bindings::dm_io_notify,
) -> Result {
    // SAFETY: A question about the address only.
    let linear = unsafe { helpers::virt_addr_valid(memory) };
    let mem = if linear {
        bindings::dm_io_memory {
            type_: bindings::dm_io_mem_type_DM_IO_KMEM,
            ptr: bindings::dm_io_memory__bindgen_ty_1 { addr: memory },
            ..Default::default()
        }
    } else {
        bindings::dm_io_memory {
            type_: bindings::dm_io_mem_type_DM_IO_VMA,
            ptr: bindings::dm_io_memory__bindgen_ty_1 { vma: memory },
            ..Default::default()
        }
    };
    let mut request = bindings::dm_io_request {
        bi_opf: opf,
        mem,
        notify,
        client: client.as_ptr(),
    };
    // SAFETY: The request and the region are copied as needed; the rest is the caller's promise.
    to_result(unsafe {
        bindings::dm_io(
            &mut request,
            1,
            &mut region,
            core::ptr::null_mut(),
            core::ptr::null_mut(),
            0,
        )
    })
}

/// What dm-io's two sets of errors, one bit a region, say.
fn outcome(error: c_ulong, unsupported: c_ulong) -> Result {
    match (error, unsupported) {
        (0, 0) => Ok(()),
        (0, _) => Err(compat::eopnotsupp()),
        (_, _) => Err(EIO),
    }
}

/// # Safety
///
/// `context` must be the raw pointer of a `PoolBox<T>`, given to this call for good.
unsafe extern "C" fn write_done<T: WriteJob>(
    error: c_ulong,
    unsupported: c_ulong,
    context: *mut c_void,
) {
    // SAFETY: By the function's contract.
    let job = unsafe { PoolBox::<T>::from_raw(context) };
    T::done(job, outcome(error, unsupported));
}
