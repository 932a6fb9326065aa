// SPDX-License-Identifier: GPL-2.0

//! What the rest needs of a kernel.

use std::fmt;

use crate::Result;

/// A device's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Devno {
    /// The driver's part.
    pub major: u32,
    /// The device's part.
    pub minor: u32,
}

impl fmt::Display for Devno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// How a device is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Find {
    /// By its name, as the kernel has it.
    Name(Vec<u8>),
    /// By its UUID.
    Uuid(Vec<u8>),
    /// By its number.
    Devno(Devno),
}

impl fmt::Display for Find {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Find::Name(name) => f.write_str(&String::from_utf8_lossy(name)),
            Find::Uuid(uuid) => f.write_str(&String::from_utf8_lossy(uuid)),
            Find::Devno(devno) => write!(f, "({devno})"),
        }
    }
}

/// A device-mapper device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its number.
    pub devno: Devno,
    /// Its name, as the kernel has it.
    pub name: Vec<u8>,
    /// Its UUID, which may be empty.
    pub uuid: Vec<u8>,
    /// How often it is open.
    pub open: i32,
    /// How many targets its table has.
    pub targets: u32,
    /// How many events there were.
    pub events: u32,
    /// Whether it is suspended.
    pub suspended: bool,
    /// Whether it is read-only.
    pub read_only: bool,
    /// Whether it has a table.
    pub live: bool,
    /// Whether a table is loaded that is not yet used.
    pub inactive: bool,
}

/// One target of a device's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its first sector.
    pub start: u64,
    /// Its sectors.
    pub len: u64,
}

/// The kernel's account of memory for statistics, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// What is in use.
    pub used: u64,
    /// What it may be at most.
    pub limit: u64,
}

/// A kernel, or what behaves as one.
pub trait Transport {
    /// All devices, in the kernel's order.
    fn devices(&self) -> Result<Vec<(Devno, Vec<u8>)>>;

    /// One device.
    fn info(&self, find: &Find) -> Result<DeviceInfo>;

    /// The targets of a device's table; `expect` is how many these may well be.
    fn targets(&self, devno: Devno, expect: u32) -> Result<Vec<Target>>;

    /// Sends a message and gives back its reply; `expect` is how long that may well be.
    fn message(&self, devno: Devno, text: &[u8], expect: usize) -> Result<Vec<u8>>;

    /// The account of memory, if it can be read.
    fn memory(&self) -> Option<Memory>;

    /// How many bytes of it are in use, which costs less to ask than all of the account.
    fn memory_used(&self) -> Option<u64> {
        self.memory().map(|memory| memory.used)
    }

    /// The messages since this was last asked, with their errors, if they are to be reported.
    fn take_sent(&self) -> Vec<String> {
        Vec::new()
    }
}
