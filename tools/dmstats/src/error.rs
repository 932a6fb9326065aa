// SPDX-License-Identifier: GPL-2.0

//! What can go wrong, each with its cause in words.

use std::io;

use crate::cost::Holder;
use crate::transport::Devno;
use crate::transport::Memory;

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no device of that name, UUID or number.
    #[error("Device {0} not found")]
    NoDevice(String),
    /// The kernel refused a request.
    #[error("{what} failed: {source}")]
    Kernel {
        /// The request, as the kernel calls it.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel's answer is not what it should be.
    #[error("Could not parse {what} response: {line}")]
    Reply {
        /// The request.
        what: &'static str,
        /// The line that is not understood.
        line: String,
    },
    /// There is no such region.
    #[error("Region ID {0} does not exist")]
    NoRegion(u32),
    /// There is no such group.
    #[error("Group ID {0} does not exist")]
    NoGroup(u32),
    /// Somebody else changes groups of a device, and has not ended.
    #[error("Groups of device {0} are being changed by another process, which does not end")]
    Busy(Devno),
    /// A group has the id and the name of one that is to be deleted, but nothing of where its file was.
    #[error("Group ID {0} may be that of another file by now: it is not deleted")]
    Unsure(u32),
    /// A group is followed by one process only.
    #[error("Group ID {group} is followed by process {pid} already")]
    Followed {
        /// The group.
        group: u32,
        /// The process.
        pid: String,
    },
    /// A region can be in one group only.
    #[error("Region ID {region} already a member of group ID {group}")]
    Grouped {
        /// The region.
        region: u32,
        /// The group that it is in.
        group: u32,
    },
    /// The kernel has no more memory for statistics.
    #[error("{}", memory_text(.0, .1))]
    Memory(Option<Memory>, Vec<Holder>),
    /// A region could not be made; those before it were removed again.
    #[error("Failed to create region {number} of {count} at {start}: {cause}")]
    Create {
        /// Counted from 1.
        number: usize,
        /// How many were to be made.
        count: usize,
        /// Its first sector.
        start: u64,
        /// Why.
        cause: Box<Error>,
    },
    /// What was made before an error could not all be removed.
    #[error("{cause}; {left} new region(s) could not be removed: {second}")]
    Rollback {
        /// Why it had to be removed.
        cause: Box<Error>,
        /// How many regions stay.
        left: usize,
        /// Why they stay.
        second: Box<Error>,
    },
    /// A group with so many scattered members cannot be described in a way that other programs can read.
    #[error("Group descriptor of {0} bytes is longer than other programs can read: use fewer regions, or neighbours")]
    DescriptorTooLong(usize),
    /// The file cannot be mapped.
    #[error("Cannot map file: {0}")]
    File(String),
    /// The words cannot be sent.
    #[error("{0}")]
    Invalid(String),
    /// Something of the system failed.
    #[error("{what}: {source}")]
    Io {
        /// What was done.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
}

/// A result of this library.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The kernel's error number, if it was the kernel that refused.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::Kernel { source, .. } => source.raw_os_error(),
            Error::Memory(..) => Some(rustix::io::Errno::NOMEM.raw_os_error()),
            Error::Create { cause, .. } | Error::Rollback { cause, .. } => cause.errno(),
            _ => None,
        }
    }

    /// Whether the kernel said that it does not know the region or device.
    pub fn is_missing(&self) -> bool {
        matches!(self, Error::NoDevice(_) | Error::NoRegion(_))
            || self.errno() == Some(rustix::io::Errno::NOENT.raw_os_error())
    }
}

fn memory_text(memory: &Option<Memory>, holders: &[Holder]) -> String {
    let used = memory.map_or_else(String::new, |memory| {
        format!(": {} of {} bytes were in use", memory.used, memory.limit)
    });
    let most = match holders.first() {
        None => ";".to_string(),
        Some(holder) => format!(
            "; most of those that stay are of program {} on {} ({} bytes for {} region(s)): delete regions, or",
            holder.program, holder.device, holder.bytes, holder.regions
        ),
    };
    format!(
        "The kernel's limit for statistics is reached{used}{most} make fewer with more areas each"
    )
}
