// SPDX-License-Identifier: GPL-2.0

//! Disks with volatile write caches for this machine's kernel, served over NBD, that record what they do.
//!
//! One thread serves all, so that there is one order. It takes in what has been sent, and carries it out in
//! a random order, as a disk may: more is in flight at once, and each disk's requests end in another order
//! than they began.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{anyhow, bail, ensure, Context, Result};
use iomodel::stamp::{Stamp, SECTOR};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::log::{Content, Contents, Disk, Recorder, Request, ANYTHING, FOREIGN};

// include/uapi/linux/nbd.h
const NBD_SET_SOCK: libc::Ioctl = 0xab00;
const NBD_SET_BLKSIZE: libc::Ioctl = 0xab01;
const NBD_DO_IT: libc::Ioctl = 0xab03;
const NBD_SET_SIZE_BLOCKS: libc::Ioctl = 0xab07;
const NBD_DISCONNECT: libc::Ioctl = 0xab08;
const NBD_SET_FLAGS: libc::Ioctl = 0xab0a;
/// There are flags; flushes, FUA and discards are taken.
const FLAGS: libc::c_ulong = 0b10_1101;
const REQUEST: u32 = 0x2560_9513;
const REPLY: u32 = 0x6744_6698;
const READ: u16 = 0;
const WRITE: u16 = 1;
const DISCONNECT: u16 = 2;
const FLUSH: u16 = 3;
const DISCARD: u16 = 4;
const FUA: u16 = 1;

/// The disks; they end with [`end`](Disks::end).
pub struct Disks {
    devices: Vec<Device>,
    server: JoinHandle<Result<()>>,
}

/// The kernel's side of a disk.
struct Device {
    file: File,
    runs: JoinHandle<io::Result<()>>,
}

/// Our side of it.
struct Served {
    disk: Disk,
    socket: UnixStream,
    contents: Vec<Content>,
    open: bool,
}

/// A request that was received and not carried out.
struct Pending {
    served: usize,
    cookie: u64,
    what: What,
}

enum What {
    Read { first: usize, sectors: usize },
    Change { id: u32, request: Request },
}

impl Disks {
    /// Serves /dev/nbd0, /dev/nbd1, ... , each with its content all over.
    pub fn serve(
        disks: &[(Disk, u64, Content)],
        recorder: Arc<Recorder>,
        seed: u64,
    ) -> Result<Self> {
        let mut devices = Vec::new();
        let mut served = Vec::new();
        for (number, &(disk, sectors, content)) in disks.iter().enumerate() {
            let (ours, kernels) = UnixStream::pair()?;
            devices.push(Device::start(number, sectors, kernels)?);
            served.push(Served {
                disk,
                socket: ours,
                contents: vec![content; sectors as usize],
                open: true,
            });
        }
        let server = std::thread::spawn(move || serve(served, &recorder, seed));
        Ok(Disks { devices, server })
    }

    /// Waits until the kernel has all disks.
    pub fn wait(&self, sizes: &[u64]) -> Result<()> {
        for (number, (device, size)) in self.devices.iter().zip(sizes).enumerate() {
            let path = format!("/sys/block/nbd{number}/size");
            while fs::read_to_string(&path)?.trim() != size.to_string() {
                ensure!(
                    !device.runs.is_finished(),
                    "/dev/nbd{number}: the kernel does not serve it"
                );
                std::thread::yield_now();
            }
        }
        Ok(())
    }

    /// Takes the disks away from the kernel. Nobody may use them any more.
    pub fn end(self) -> Result<()> {
        for device in self.devices {
            // SAFETY: This ioctl has no argument.
            let result = unsafe { libc::ioctl(device.file.as_raw_fd(), NBD_DISCONNECT) };
            ensure!(
                result == 0,
                "NBD_DISCONNECT: {}",
                io::Error::last_os_error()
            );
            device.runs.join().map_err(|_| anyhow!("NBD_DO_IT"))??;
        }
        self.server.join().map_err(|_| anyhow!("the server"))?
    }
}

impl Device {
    fn start(number: usize, sectors: u64, socket: UnixStream) -> Result<Self> {
        let path = format!("/dev/nbd{number}");
        let open = || OpenOptions::new().read(true).write(true).open(&path);
        let file = open().with_context(|| path.clone())?;
        let other = open()?;
        let settings = [
            (NBD_SET_SOCK, socket.as_raw_fd() as libc::c_ulong),
            (NBD_SET_BLKSIZE, SECTOR as libc::c_ulong),
            (NBD_SET_SIZE_BLOCKS, sectors),
            (NBD_SET_FLAGS, FLAGS),
        ];
        let runs = std::thread::spawn(move || {
            for (request, argument) in settings {
                // SAFETY: These ioctls take a number.
                if unsafe { libc::ioctl(file.as_raw_fd(), request, argument) } != 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            // SAFETY: This ioctl has no argument. It returns when the connection has ended.
            let result = unsafe { libc::ioctl(file.as_raw_fd(), NBD_DO_IT) };
            drop(socket);
            match result {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        });
        Ok(Device { file: other, runs })
    }
}

/// Serves until the kernel has disconnected all.
fn serve(mut disks: Vec<Served>, recorder: &Recorder, seed: u64) -> Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut pending: Vec<Pending> = Vec::new();
    while disks.iter().any(|disk| disk.open) || !pending.is_empty() {
        // With something to do it waits for more only sometimes, and not for long.
        let patience = match pending.len() {
            0 => -1,
            1..8 if random.random_bool(0.4) => 1,
            _ => 0,
        };
        for served in readable(&disks, patience)? {
            match receive(&mut disks[served], recorder)? {
                Some((cookie, what)) => pending.push(Pending {
                    served,
                    cookie,
                    what,
                }),
                None => {
                    // The kernel's side ends when ours does.
                    disks[served].socket.shutdown(Shutdown::Both)?;
                    disks[served].open = false;
                }
            }
        }
        if !pending.is_empty() {
            let request = pending.swap_remove(random.random_range(0..pending.len()));
            disks[request.served].carry_out(request.cookie, request.what, recorder)?;
        }
    }
    Ok(())
}

/// The disks that have sent something. Waits for that so many milliseconds, or without end if negative.
fn readable(disks: &[Served], patience: libc::c_int) -> Result<Vec<usize>> {
    let mut wanted: Vec<_> = disks
        .iter()
        .map(|disk| libc::pollfd {
            fd: if disk.open {
                disk.socket.as_raw_fd()
            } else {
                -1
            },
            events: libc::POLLIN,
            revents: 0,
        })
        .collect();
    // SAFETY: `wanted` has as many elements as is said.
    let result = unsafe { libc::poll(wanted.as_mut_ptr(), wanted.len() as libc::nfds_t, patience) };
    ensure!(result >= 0, "poll: {}", io::Error::last_os_error());
    let ready = (0..).zip(&wanted).filter(|(_, one)| one.revents != 0);
    Ok(ready.map(|(number, _)| number).collect())
}

/// The next request; None when the kernel has disconnected.
fn receive(disk: &mut Served, recorder: &Recorder) -> Result<Option<(u64, What)>> {
    let mut header = [0; 28];
    match disk.socket.read_exact(&mut header) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let word = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().expect("4 bytes"));
    let long = |at: usize| u64::from_be_bytes(header[at..at + 8].try_into().expect("8 bytes"));
    ensure!(word(0) == REQUEST, "the kernel speaks another protocol");
    let (flags, command) = ((word(4) >> 16) as u16, word(4) as u16);
    let (cookie, first) = (long(8), long(16) as usize / SECTOR);
    let sectors = word(24) as usize / SECTOR;
    ensure!(
        long(16) as usize % SECTOR == 0 && word(24) as usize % SECTOR == 0,
        "{:?}: {} bytes at {}",
        disk.disk,
        word(24),
        long(16)
    );
    let request = match command {
        READ => return Ok(Some((cookie, What::Read { first, sectors }))),
        DISCONNECT => return Ok(None),
        FLUSH => Request::Flush,
        WRITE => {
            let mut bytes = vec![0; sectors * SECTOR];
            disk.socket.read_exact(&mut bytes)?;
            let sector =
                |(number, bytes): (usize, &[u8])| disk.disk.content(number, bytes, recorder);
            Request::Write {
                first: first as u64,
                contents: (first..)
                    .zip(bytes.chunks_exact(SECTOR))
                    .map(sector)
                    .collect(),
                fua: flags & FUA != 0,
            }
        }
        DISCARD => {
            let content = disk.disk.discarded();
            Request::Write {
                first: first as u64,
                contents: Contents::all(sectors as u64, content),
                fua: flags & FUA != 0,
            }
        }
        other => bail!("the kernel sent command {other}"),
    };
    let id = recorder.begin(disk.disk, request.clone());
    Ok(Some((cookie, What::Change { id, request })))
}

impl Served {
    fn carry_out(&mut self, cookie: u64, what: What, recorder: &Recorder) -> Result<()> {
        let mut reply = Vec::new();
        reply.extend(REPLY.to_be_bytes());
        reply.extend(0u32.to_be_bytes());
        reply.extend(cookie.to_be_bytes());
        match what {
            What::Read { first, sectors } => {
                for sector in first..first + sectors {
                    reply.extend(self.disk.bytes(sector, self.contents[sector], recorder));
                }
            }
            What::Change { id, request } => {
                if let Request::Write {
                    first, contents, ..
                } = request
                {
                    for (sector, content) in self.contents[first as usize..]
                        .iter_mut()
                        .zip(contents.iter())
                    {
                        *sector = content;
                    }
                }
                recorder.end(id);
            }
        }
        Ok(self.socket.write_all(&reply)?)
    }
}

impl Disk {
    /// What these bytes are in a sector of this disk.
    fn content(self, number: usize, bytes: &[u8], recorder: &Recorder) -> Content {
        if self == Disk::Own {
            return recorder.number(bytes);
        }
        match Stamp::read(bytes) {
            Some(stamp) if stamp.sector == number as u64 => stamp.tag,
            _ => FOREIGN,
        }
    }

    fn bytes(self, number: usize, content: Content, recorder: &Recorder) -> Vec<u8> {
        if self == Disk::Own {
            return recorder.sector(content);
        }
        let mut bytes = vec![0; SECTOR];
        let stamp = Stamp {
            sector: number as u64,
            tag: content,
        };
        stamp.fill(&mut bytes);
        bytes
    }

    /// What a discard leaves. No target discards what is its own.
    fn discarded(self) -> Content {
        match self {
            Disk::Own => 0,
            _ => ANYTHING,
        }
    }
}
