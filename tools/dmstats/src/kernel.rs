// SPDX-License-Identifier: GPL-2.0

//! The kernel. A request has a buffer of about the size that its answer needs, and no memory of larger ones:
//! the kernel copies each buffer in and out, whatever is in it.

use std::cell::Cell;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;

use crate::ioctl;
use crate::ioctl::Kind;
use crate::DeviceInfo;
use crate::Devno;
use crate::Error;
use crate::Find;
use crate::Memory;
use crate::Result;
use crate::Target;
use crate::Transport;

const CONTROL: &str = "/dev/mapper/control";
const ACCOUNT: &str = "/sys/module/dm_mod/parameters/stats_current_allocated_bytes";
const HEADER: usize = 312;
/// Where after the header a message begins.
const MESSAGE: usize = 8;

/// What a row of a table mostly has.
const ROW: usize = 80;
/// Of a table with more rows the size is not foretold.
const LONGEST_TABLE: usize = 50_000;

/// The kernel takes no larger buffer (`DM_MAX_TARGETS` times `DM_MAX_TARGET_PARAMS`).
const LARGEST: usize = 1 << 30;

const VERSION: u8 = 0;
const LIST_DEVICES: u8 = 2;
const DEV_STATUS: u8 = 7;
const TABLE_STATUS: u8 = 12;
const TARGET_MSG: u8 = 14;

const READONLY: u32 = 1;
const SUSPENDED: u32 = 1 << 1;
const STATUS_TABLE: u32 = 1 << 4;
const ACTIVE_PRESENT: u32 = 1 << 5;
const INACTIVE_PRESENT: u32 = 1 << 6;
const BUFFER_FULL: u32 = 1 << 8;
const SKIP_BDGET: u32 = 1 << 9;
const DATA_OUT: u32 = 1 << 16;

/// The kernel that runs, by device-mapper's control device.
pub struct Kernel {
    control: File,
    requests: Cell<u64>,
    /// The buffer of the last message, if the next can have it: there may be thousands.
    spare: Cell<Vec<u8>>,
}

/// A reply: the header is in it, and data from `start` to `end`.
struct Reply {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    flags: u32,
}

impl Reply {
    fn data(&self) -> &[u8] {
        ioctl::get(
            &self.buffer,
            self.start,
            self.end.saturating_sub(self.start),
        )
    }

    fn text(&self, at: usize, len: usize) -> Vec<u8> {
        until_zero(ioctl::get(&self.buffer, at, len)).to_vec()
    }
}

fn until_zero(bytes: &[u8]) -> &[u8] {
    memchr::memchr(0, bytes).map_or(bytes, |end| &bytes[..end])
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// How large a buffer is to be after one that had no room for the answer; none if there is no larger one.
fn larger(size: usize) -> Option<usize> {
    let four = HEADER + size.saturating_sub(HEADER).max(1024).saturating_mul(4);
    (size < LARGEST).then(|| four.min(LARGEST))
}

/// A device's number as the kernel packs it.
fn pack(devno: Devno) -> u64 {
    let (major, minor) = (u64::from(devno.major), u64::from(devno.minor));
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

fn unpack(dev: u64) -> Devno {
    Devno {
        major: (dev >> 8) as u32 & 0xfff,
        minor: (dev as u32 & 0xff) | ((dev >> 12) as u32 & 0xfff00),
    }
}

impl Kernel {
    /// Opens the control device.
    pub fn open() -> Result<Self> {
        let control = OpenOptions::new()
            .read(true)
            .write(true)
            .open(CONTROL)
            .map_err(|source| Error::Io {
                what: format!("Cannot open {CONTROL} (is dm_mod loaded, and are you root?)"),
                source,
            })?;
        Ok(Kernel {
            control,
            requests: Cell::new(0),
            spare: Cell::default(),
        })
    }

    /// How many requests were made so far.
    pub fn requests(&self) -> u64 {
        self.requests.get()
    }

    /// The version of device-mapper's interface.
    pub fn version(&self) -> Result<(u32, u32, u32)> {
        let reply = self.request(VERSION, "version ioctl", None, 0, &[], 0)?;
        let part = |index: usize| ioctl::get_u32(&reply.buffer, index * 4);
        Ok((part(0), part(1), part(2)))
    }

    /// So many zeroes.
    fn buffer(&self, size: usize) -> Vec<u8> {
        let mut spare = self.spare.take();
        if spare.capacity() < size {
            return vec![0; size];
        }
        spare.clear();
        spare.resize(size, 0);
        spare
    }

    fn request(
        &self,
        number: u8,
        what: &str,
        find: Option<&Find>,
        flags: u32,
        message: &[u8],
        expect: usize,
    ) -> Result<Reply> {
        // It has a sector before it, which is always 0, and a zero byte after it.
        let input = match message {
            [] => 0,
            _ => MESSAGE + message.len() + 1,
        };
        let mut size = HEADER + input.max(expect);
        loop {
            let too_long = || Error::Invalid(format!("{what}: the answer is too long"));
            let size32 = u32::try_from(size).map_err(|_| too_long())?;
            let mut buffer = self.buffer(size);
            ioctl::put(&mut buffer, 0, &4u32.to_ne_bytes());
            ioctl::put(&mut buffer, 12, &size32.to_ne_bytes());
            ioctl::put(&mut buffer, 16, &(HEADER as u32).to_ne_bytes());
            ioctl::put(&mut buffer, 28, &flags.to_ne_bytes());
            match find {
                None => {}
                Some(Find::Name(name)) if name.len() < 128 => ioctl::put(&mut buffer, 48, name),
                Some(Find::Uuid(uuid)) if uuid.len() < 129 => ioctl::put(&mut buffer, 176, uuid),
                Some(Find::Devno(devno)) => {
                    ioctl::put(&mut buffer, 40, &pack(*devno).to_ne_bytes())
                }
                Some(other) => return Err(Error::NoDevice(other.to_string())),
            }
            ioctl::put(&mut buffer, HEADER + MESSAGE, message);
            self.requests.set(self.requests.get() + 1);
            ioctl::call(&self.control, Kind::Dm(number), &mut buffer).map_err(
                |errno| match errno {
                    rustix::io::Errno::NXIO => {
                        Error::NoDevice(find.map_or_else(String::new, Find::to_string))
                    }
                    _ => Error::Kernel {
                        what: match find {
                            Some(find) => format!("device-mapper: {what} on {find}"),
                            None => format!("device-mapper: {what}"),
                        },
                        source: io::Error::from(errno),
                    },
                },
            )?;
            let flags = ioctl::get_u32(&buffer, 28);
            if flags & BUFFER_FULL != 0 {
                size = larger(size).ok_or_else(too_long)?;
                continue;
            }
            return Ok(Reply {
                start: ioctl::get_u32(&buffer, 16) as usize,
                end: (ioctl::get_u32(&buffer, 12) as usize).min(size),
                flags,
                buffer,
            });
        }
    }
}

impl Transport for Kernel {
    fn devices(&self) -> Result<Vec<(Devno, Vec<u8>)>> {
        let reply = self.request(LIST_DEVICES, "list ioctl", None, 0, &[], 16 << 10)?;
        let data = reply.data();
        let mut devices = Vec::new();
        let mut at = 0;
        while let (Some(dev), Some(next)) = (u64_at(data, at), u32_at(data, at + 8)) {
            let name = until_zero(data.get(at + 12..).unwrap_or_default());
            if dev == 0 || name.is_empty() {
                break;
            }
            devices.push((unpack(dev), name.to_vec()));
            if next == 0 {
                break;
            }
            at += next as usize;
        }
        Ok(devices)
    }

    fn info(&self, find: &Find) -> Result<DeviceInfo> {
        let reply = self.request(DEV_STATUS, "info ioctl", Some(find), SKIP_BDGET, &[], 0)?;
        let number = |at: usize| ioctl::get_u32(&reply.buffer, at);
        Ok(DeviceInfo {
            devno: unpack(ioctl::get_u64(&reply.buffer, 40)),
            name: reply.text(48, 128),
            uuid: reply.text(176, 129),
            open: number(24) as i32,
            targets: number(20),
            events: number(32),
            suspended: reply.flags & SUSPENDED != 0,
            read_only: reply.flags & READONLY != 0,
            live: reply.flags & ACTIVE_PRESENT != 0,
            inactive: reply.flags & INACTIVE_PRESENT != 0,
        })
    }

    fn targets(&self, devno: Devno, expect: u32) -> Result<Vec<Target>> {
        let find = Find::Devno(devno);
        let reply = self.request(
            TABLE_STATUS,
            "table ioctl",
            Some(&find),
            STATUS_TABLE,
            &[],
            (expect as usize).clamp(256, LONGEST_TABLE) * ROW,
        )?;
        let (data, count) = (reply.data(), ioctl::get_u32(&reply.buffer, 20));
        let mut targets = Vec::new();
        let mut at = 0;
        for _ in 0..count {
            let (Some(start), Some(len), Some(next)) = (
                u64_at(data, at),
                u64_at(data, at + 8),
                u32_at(data, at + 20),
            ) else {
                break;
            };
            targets.push(Target { start, len });
            // Counted from the first one, whatever one would think.
            at = next as usize;
        }
        Ok(targets)
    }

    fn message(&self, devno: Devno, text: &[u8], expect: usize) -> Result<Vec<u8>> {
        let mut reply = self.request(
            TARGET_MSG,
            "message ioctl",
            Some(&Find::Devno(devno)),
            0,
            text,
            expect,
        )?;
        if reply.flags & DATA_OUT == 0 {
            self.spare.set(reply.buffer);
            return Ok(Vec::new());
        }
        let len = until_zero(reply.data()).len();
        // A list may be long: what is not of it is cut off where it lies.
        reply.buffer.truncate(reply.start + len);
        reply.buffer.drain(..reply.start.min(reply.buffer.len()));
        Ok(reply.buffer)
    }

    fn memory(&self) -> Option<Memory> {
        let used = self.memory_used()?;
        let info = std::fs::read_to_string("/proc/meminfo").ok()?;
        let total = info
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:"))?;
        let kib: u64 = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(Memory {
            used,
            limit: kib.checked_mul(1024)? / 4,
        })
    }

    fn memory_used(&self) -> Option<u64> {
        let text = std::fs::read_to_string(ACCOUNT).ok()?;
        text.trim().parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_grows_to_the_largest_that_the_kernel_takes() {
        let mut size = HEADER;
        let mut count = 0;
        while let Some(next) = larger(size) {
            assert!(next > size && (next == LARGEST || next >= 4 * size - 3 * HEADER));
            size = next;
            count += 1;
        }
        assert_eq!((size, count), (LARGEST, 10));
    }

    #[test]
    fn device_numbers_are_packed_as_the_kernel_does() {
        for (major, minor) in [(253, 0), (253, 255), (253, 256), (7, 1_048_575)] {
            let devno = Devno { major, minor };
            assert_eq!(unpack(pack(devno)), devno);
        }
        assert_eq!(
            pack(Devno {
                major: 253,
                minor: 300
            }),
            0x10fd2c
        );
    }
}
