// SPDX-License-Identifier: GPL-2.0

//! Device-mapper's ioctls: devices of one target each.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{ensure, Context, Result};

// include/uapi/linux/dm-ioctl.h
const CREATE: u32 = 3;
const REMOVE: u32 = 4;
const SUSPEND: u32 = 6;
const STATUS: u32 = 7;
const WAIT: u32 = 8;
const TABLE_LOAD: u32 = 9;
const TABLE_STATUS: u32 = 12;
const MESSAGE: u32 = 14;
const SUSPEND_FLAG: u32 = 1 << 1;
const TABLE_FLAG: u32 = 1 << 4;
const NOFLUSH_FLAG: u32 = 1 << 11;
const VERSION: u32 = 4;
const HEADER: usize = 312;
/// _IOWR with the type of device-mapper's ioctls and their header's size.
const IOWR_DM: libc::Ioctl = (3 << 30) | ((HEADER as libc::Ioctl) << 16) | (0xfd << 8);
const SPEC: usize = 40;
const ROOM: usize = 16384;
const FLAGS_AT: usize = 28;
const EVENT_AT: usize = 32;
const DEV_AT: usize = 40;
const NAME_AT: usize = 48;

/// A device. It stays if it is not removed.
pub struct Device {
    control: File,
    name: String,
    minor: u64,
}

impl Device {
    /// Makes a device without a table.
    pub fn create(name: &str) -> Result<Self> {
        let path = "/dev/mapper/control";
        let control = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .context(path)?;
        let mut device = Device {
            control,
            name: name.into(),
            minor: 0,
        };
        let answer = device.ioctl(CREATE, 0, 0, &[])?;
        let number = u64::from_le_bytes(answer[DEV_AT..DEV_AT + 8].try_into().expect("8 bytes"));
        device.minor = libc::minor(number).into();
        Ok(device)
    }

    /// Its node, which the kernel makes.
    pub fn path(&self) -> PathBuf {
        format!("/dev/dm-{}", self.minor).into()
    }

    /// Puts a table of one target into the inactive slot.
    pub fn load(&self, sectors: u64, target: &str, words: &str) -> Result<()> {
        let mut data = vec![0; SPEC];
        let length = SPEC + words.len() + 1;
        data[8..16].copy_from_slice(&sectors.to_le_bytes());
        data[20..24].copy_from_slice(&(length as u32).to_le_bytes());
        data[24..24 + target.len()].copy_from_slice(target.as_bytes());
        data.extend(words.as_bytes());
        data.push(0);
        self.ioctl(TABLE_LOAD, 0, 1, &data)
            .with_context(|| format!("{target} {words}"))?;
        Ok(())
    }

    pub fn suspend(&self) -> Result<()> {
        self.ioctl(SUSPEND, SUSPEND_FLAG, 0, &[])?;
        Ok(())
    }

    /// Resumes, with the inactive table if there is one.
    pub fn resume(&self) -> Result<()> {
        self.ioctl(SUSPEND, 0, 0, &[])?;
        Ok(())
    }

    /// Swaps the table.
    pub fn replace(&self, sectors: u64, target: &str, words: &str) -> Result<()> {
        self.load(sectors, target, words)?;
        self.suspend()?;
        self.resume()
    }

    /// The words of the target's status; `quietly` does not make it commit.
    pub fn status(&self, quietly: bool) -> Result<Vec<String>> {
        let flags = if quietly { NOFLUSH_FLAG } else { 0 };
        let answer = self.ioctl(TABLE_STATUS, flags, 0, &[])?;
        let words = answer[HEADER + SPEC..]
            .split(|&byte| byte == 0)
            .next()
            .unwrap_or_default();
        let words = String::from_utf8_lossy(words);
        Ok(words.split_whitespace().map(str::to_owned).collect())
    }

    /// How many events there were.
    pub fn events(&self) -> Result<u32> {
        let answer = self.ioctl(STATUS, 0, 0, &[])?;
        Ok(u32::from_le_bytes(
            answer[EVENT_AT..EVENT_AT + 4].try_into().expect("4 bytes"),
        ))
    }

    /// Waits until there were more events than so many.
    pub fn wait(&self, events: u32) -> Result<()> {
        // With the answer comes a table: a status would be one more reason for the target to commit.
        self.request(WAIT, TABLE_FLAG, 0, events, &[])?;
        Ok(())
    }

    pub fn message(&self, words: &str) -> Result<()> {
        let mut data = vec![0; 8];
        data.extend(words.as_bytes());
        data.push(0);
        self.ioctl(MESSAGE, 0, 0, &data)
            .with_context(|| words.to_owned())?;
        Ok(())
    }

    /// Removes it; waits for others that have it open.
    pub fn remove(self) -> Result<()> {
        loop {
            match self.ioctl(REMOVE, 0, 0, &[]) {
                Err(error) if is_busy(&error) => std::thread::sleep(Duration::from_millis(5)),
                other => return other.map(|_| ()),
            }
        }
    }

    fn ioctl(&self, command: u32, flags: u32, targets: u32, data: &[u8]) -> Result<Vec<u8>> {
        self.request(command, flags, targets, 0, data)
    }

    fn request(
        &self,
        command: u32,
        flags: u32,
        targets: u32,
        event: u32,
        data: &[u8],
    ) -> Result<Vec<u8>> {
        ensure!(data.len() <= ROOM, "a table of {} bytes", data.len());
        let mut buffer = vec![0; HEADER + ROOM];
        let mut word = |at: usize, value: u32| {
            buffer[at..at + 4].copy_from_slice(&value.to_le_bytes());
        };
        word(0, VERSION);
        word(12, (HEADER + ROOM) as u32);
        word(16, HEADER as u32);
        word(20, targets);
        word(FLAGS_AT, flags);
        word(EVENT_AT, event);
        buffer[NAME_AT..NAME_AT + self.name.len()].copy_from_slice(self.name.as_bytes());
        buffer[HEADER..HEADER + data.len()].copy_from_slice(data);
        let number = IOWR_DM | libc::Ioctl::from(command);
        // SAFETY: The kernel reads and writes as many bytes as the buffer says that it has.
        let result = unsafe { libc::ioctl(self.control.as_raw_fd(), number, buffer.as_mut_ptr()) };
        if result != 0 {
            let error = io::Error::last_os_error();
            return Err(error).with_context(|| format!("{}: ioctl {command}", self.name));
        }
        Ok(buffer)
    }
}

fn is_busy(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.raw_os_error() == Some(libc::EBUSY))
}
