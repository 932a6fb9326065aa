// SPDX-License-Identifier: GPL-2.0

//! What the users of a target do: writes, FUA writes, discards and flushes at random, each recorded.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use iomodel::device::{Buffer, Device};
use iomodel::exercise::fill;
use iomodel::range_lock::RangeLock;
use iomodel::stamp::SECTOR;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::log::{Content, Contents, Disk, Recorder, Request, Setup, Target, ANYTHING};

/// Several jobs that share a target.
pub struct Jobs<'a> {
    pub recorder: &'a Recorder,
    pub setup: &'a Setup,
    pub path: PathBuf,
    /// How many operations, of all jobs.
    pub operations: u64,
    pub discards: bool,
    /// Half of the writes continue the job's last one.
    pub runs: bool,
    /// The tag of the first write.
    pub first_tag: Content,
    pub begun: AtomicU64,
    /// Of overlapping writes nobody knows which is the later one: there are none.
    pub ranges: RangeLock,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operation {
    Write,
    FuaWrite,
    Discard,
    Flush,
}

impl Jobs<'_> {
    /// Runs one job until all operations have begun.
    pub fn run(&self, number: u64) -> Result<()> {
        let seed = [self.setup.seed, self.first_tag, number];
        let seed = seed
            .into_iter()
            .fold(0u64, |sum, one| sum.wrapping_mul(10_007).wrapping_add(one));
        let mut random = StdRng::seed_from_u64(seed);
        let device = Device::open(&self.path, 0, None, true)?;
        let fua = FuaWriter::open(&self.path)?;
        let mut buffer = Buffer::new();
        let mut run = 0..0;
        loop {
            let count = self.begun.fetch_add(1, Ordering::Relaxed);
            if count >= self.operations {
                return Ok(());
            }
            let operation = match random.random_range(0..100) {
                0..58 => Operation::Write,
                58..74 => Operation::FuaWrite,
                74..82 if self.discards => Operation::Discard,
                74..88 => Operation::Write,
                _ => Operation::Flush,
            };
            let is_write = matches!(operation, Operation::Write | Operation::FuaWrite);
            let continues = self.runs && is_write && run.end % self.setup.sectors != 0;
            let range = if continues && random.random_bool(0.5) {
                let sectors = random.random_range(1..=48);
                run.end..(run.end + sectors).min(self.setup.sectors)
            } else {
                self.range(&mut random, operation, count)
            };
            if is_write {
                run = range.clone();
            }
            let _held = self.ranges.hold(range.clone());
            let sectors = range.end - range.start;
            let tag = self.first_tag + count;
            let request = match operation {
                Operation::Flush => Request::Flush,
                _ => Request::Write {
                    first: range.start,
                    contents: Contents::all(
                        sectors,
                        if operation == Operation::Discard {
                            ANYTHING
                        } else {
                            tag
                        },
                    ),
                    fua: operation == Operation::FuaWrite,
                },
            };
            let id = self.recorder.begin(Disk::Top, request);
            match operation {
                Operation::Flush => device.flush(),
                Operation::Discard => device.discard(range.clone()),
                Operation::Write | Operation::FuaWrite => {
                    let bytes = buffer.part(&range);
                    fill(bytes, range.start, tag);
                    if operation == Operation::Write {
                        device.write(range.start, bytes)
                    } else {
                        fua.write(range.start, bytes)
                    }
                }
            }
            .with_context(|| format!("{operation:?} of {sectors} sectors at {}", range.start))?;
            self.recorder.end(id);
        }
    }

    /// Where to do it. Hydration goes through a clone from its start on, so the jobs go from its end
    /// downwards: there is something left to hydrate for both all the time. A cache has some long writes as well,
    /// which fill it.
    fn range(&self, random: &mut StdRng, operation: Operation, count: u64) -> Range<u64> {
        let (sectors, region) = (self.setup.sectors, self.setup.region());
        if operation == Operation::Flush {
            return 0..0;
        }
        let regions = self.setup.regions();
        let frontier = regions - regions * count / self.operations;
        let nearby = frontier.saturating_sub(regions / 32)..(frontier + regions / 32).min(regions);
        let first = match random.random_range(0..10) {
            0..6 => random.random_range(nearby),
            6..9 => random.random_range(nearby.start..regions),
            _ => random.random_range(0..regions),
        };
        let start = first * region;
        if matches!(self.setup.target, Target::Lc { .. }) && random.random_bool(0.05) {
            return start..(start + random.random_range(100..=400)).min(sectors);
        }
        let whole = (start + region * random.random_range(1..=3)).min(sectors);
        if operation == Operation::Discard || random.random_bool(0.3) {
            return start..whole;
        }
        // A part of a region, or parts of two.
        let start = start + random.random_range(0..region);
        let start = start.min(sectors - 1);
        start..(start + random.random_range(1..=16)).min(sectors)
    }
}

/// Writes with FUA. Only asynchronous I/O gives a FUA write alone: a synchronous one flushes as well.
struct FuaWriter {
    file: File,
    context: libc::c_ulong,
}

/// struct iocb of include/uapi/linux/aio_abi.h.
#[repr(C)]
#[derive(Default)]
struct Iocb {
    data: u64,
    key: u32,
    rw_flags: u32,
    opcode: u16,
    priority: i16,
    file: u32,
    buffer: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    result_file: u32,
}

/// struct io_event.
#[repr(C)]
#[derive(Default)]
struct IoEvent {
    data: u64,
    object: u64,
    result: i64,
    result2: i64,
}

const IOCB_CMD_PWRITE: u16 = 1;
const RWF_DSYNC: u32 = 2;

impl FuaWriter {
    fn open(path: &PathBuf) -> Result<Self> {
        let mut options = OpenOptions::new();
        let options = options.write(true).custom_flags(libc::O_DIRECT);
        let file = options.open(path)?;
        let mut context: libc::c_ulong = 0;
        // SAFETY: io_setup writes a number to the address.
        let result = unsafe { libc::syscall(libc::SYS_io_setup, 1, &mut context) };
        if result != 0 {
            return Err(io::Error::last_os_error()).context("io_setup");
        }
        Ok(FuaWriter { file, context })
    }

    /// Writes `bytes` from a sector on, and waits until they are durable.
    fn write(&self, first: u64, bytes: &[u8]) -> io::Result<()> {
        let mut one = Iocb {
            opcode: IOCB_CMD_PWRITE,
            rw_flags: RWF_DSYNC,
            file: self.file.as_raw_fd() as u32,
            buffer: bytes.as_ptr() as u64,
            bytes: bytes.len() as u64,
            offset: (first * SECTOR as u64) as i64,
            ..Iocb::default()
        };
        let mut list = [&mut one as *mut Iocb];
        let mut event = IoEvent::default();
        // SAFETY: Both calls get what they ask for, and `bytes` stays until the write has ended, which
        // the second waits for.
        let results = unsafe {
            let submitted = libc::syscall(libc::SYS_io_submit, self.context, 1, list.as_mut_ptr());
            if submitted != 1 {
                return Err(io::Error::last_os_error());
            }
            loop {
                let none = std::ptr::null_mut::<libc::timespec>();
                match libc::syscall(libc::SYS_io_getevents, self.context, 1, 1, &mut event, none) {
                    1 => break event.result,
                    _ if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
                    _ => return Err(io::Error::last_os_error()),
                }
            }
        };
        match results {
            written if written == bytes.len() as i64 => Ok(()),
            error if error < 0 => Err(io::Error::from_raw_os_error(-error as i32)),
            written => Err(io::Error::other(format!("only {written} bytes"))),
        }
    }
}

impl Drop for FuaWriter {
    fn drop(&mut self) {
        // SAFETY: The context is ours, and nothing is in flight.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.context) };
    }
}
