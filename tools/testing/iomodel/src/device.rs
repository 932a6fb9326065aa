// SPDX-License-Identifier: GPL-2.0

//! The block device: direct I/O on the tested area of it, in sectors from the area's start.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{ensure, Context, Result};

use crate::stamp::SECTOR;

/// The largest I/O.
pub const LARGEST: u64 = 2048;
const ALIGNMENT: usize = 4096;

/// The tested area of a device. A regular file will do as well, but has no discards.
pub struct Device {
    file: File,
    first: u64,
    sectors: u64,
    block: u64,
    is_block_device: bool,
}

/// Bytes for direct I/O, aligned in memory.
pub struct Buffer {
    bytes: Vec<u8>,
    start: usize,
}

impl Device {
    /// Opens the area of `sectors` sectors from `first` on; None is all up to the end.
    pub fn open(path: &Path, first: u64, sectors: Option<u64>, writable: bool) -> Result<Self> {
        let name = path.display();
        let kind = std::fs::metadata(path)
            .with_context(|| format!("{name}: not there"))?
            .file_type();
        let is_block_device = kind.is_block_device();
        let flags = if is_block_device { libc::O_DIRECT } else { 0 };
        let mut file = OpenOptions::new()
            .read(true)
            .write(writable)
            .custom_flags(flags)
            .open(path)
            .with_context(|| format!("{name}: cannot be opened"))?;
        let whole = file.seek(SeekFrom::End(0))? / SECTOR as u64;
        let sectors = sectors.unwrap_or(whole.saturating_sub(first));
        ensure!(
            sectors > 0 && first.checked_add(sectors).is_some_and(|end| end <= whole),
            "{name}: has {whole} sectors, so there is no area of {sectors} from {first} on"
        );
        let block = if is_block_device {
            logical_block(&file)? / SECTOR as u64
        } else {
            1
        };
        ensure!(
            first % block == 0 && sectors % block == 0,
            "{name}: its blocks are of {block} sectors; the area must start and end with one"
        );
        Ok(Device {
            file,
            first,
            sectors,
            block,
            is_block_device,
        })
    }

    /// The size of the area.
    pub fn sectors(&self) -> u64 {
        self.sectors
    }

    /// Sectors in the smallest I/O that the device takes.
    pub fn block(&self) -> u64 {
        self.block
    }

    pub fn read(&self, first: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(bytes, self.byte(first))
    }

    pub fn write(&self, first: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.byte(first))
    }

    /// Returns when all that was written before is durable.
    pub fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Discards sectors: they hold anything afterwards.
    pub fn discard(&self, range: Range<u64>) -> io::Result<()> {
        if !self.is_block_device {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let span = [
            self.byte(range.start),
            (range.end - range.start) * SECTOR as u64,
        ];
        // SAFETY: BLKDISCARD reads two u64 at the address, which `span` is.
        let result = unsafe { libc::ioctl(self.file.as_raw_fd(), BLKDISCARD, span.as_ptr()) };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// The area in pieces of the largest I/O.
    pub fn pieces(&self) -> impl Iterator<Item = Range<u64>> {
        let end = self.sectors;
        (0..end)
            .step_by(LARGEST as usize)
            .map(move |start| start..end.min(start + LARGEST))
    }

    fn byte(&self, sector: u64) -> u64 {
        (self.first + sector) * SECTOR as u64
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Self::new()
    }
}

impl Buffer {
    /// A buffer for the largest I/O.
    pub fn new() -> Self {
        let bytes = vec![0; LARGEST as usize * SECTOR + ALIGNMENT];
        let start = bytes.as_ptr().align_offset(ALIGNMENT);
        Buffer { bytes, start }
    }

    /// The part of it for an I/O of this range.
    pub fn part(&mut self, range: &Range<u64>) -> &mut [u8] {
        let length = (range.end - range.start) as usize * SECTOR;
        &mut self.bytes[self.start..self.start + length]
    }
}

const BLKDISCARD: libc::Ioctl = 0x1277;
const BLKSSZGET: libc::Ioctl = 0x1268;

fn logical_block(file: &File) -> io::Result<u64> {
    let mut size: libc::c_int = 0;
    // SAFETY: BLKSSZGET writes an int to the address, which `size` is.
    if unsafe { libc::ioctl(file.as_raw_fd(), BLKSSZGET, &mut size) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(size as u64)
}
