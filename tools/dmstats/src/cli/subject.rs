// SPDX-License-Identifier: GPL-2.0

//! The devices that a command is about. Most are found by what the system tells of them in files: a request to the
//! kernel is not needed to know a name or a number.

use std::cell::OnceCell;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use dmstats::Device;
use dmstats::DeviceInfo;
use dmstats::Devno;
use dmstats::Find;
use dmstats::Kernel;
use dmstats::Transport;
use rustix::fs::FileType;

use super::names;

/// A device.
pub struct Subject<'a> {
    /// What can be done with its statistics.
    pub device: Device<'a, Kernel>,
    /// Its name, as the kernel has it.
    pub name: Vec<u8>,
    kernel: &'a Kernel,
    info: OnceCell<Option<DeviceInfo>>,
}

/// The name of a device of this number.
fn name_of(devno: Devno) -> Option<Vec<u8>> {
    let mut name = fs::read(format!("/sys/dev/block/{devno}/dm/name")).ok()?;
    if name.ends_with(b"\n") {
        name.pop();
    }
    Some(name)
}

/// The number of the device of this name, if its node is there and right.
fn number_of(name: &[u8]) -> Option<Devno> {
    let node = rustix::fs::stat(Path::new("/dev/mapper").join(OsStr::from_bytes(name))).ok()?;
    let devno = Devno {
        major: rustix::fs::major(node.st_rdev),
        minor: rustix::fs::minor(node.st_rdev),
    };
    let is_device = FileType::from_raw_mode(node.st_mode) == FileType::BlockDevice;
    (is_device && name_of(devno)? == name).then_some(devno)
}

impl<'a> Subject<'a> {
    /// A device whose number and name are known.
    pub fn new(kernel: &'a Kernel, program: &[u8], devno: Devno, name: Vec<u8>) -> Self {
        Subject {
            device: Device::new(kernel, devno, program),
            name,
            kernel,
            info: OnceCell::new(),
        }
    }

    /// Finds a device.
    pub fn find(kernel: &'a Kernel, program: &[u8], find: &Find) -> dmstats::Result<Self> {
        let known = match find {
            Find::Name(name) => number_of(name).map(|devno| (devno, name.clone())),
            Find::Devno(devno) => name_of(*devno).map(|name| (*devno, name)),
            Find::Uuid(_) => None,
        };
        if let Some((devno, name)) = known {
            return Ok(Self::new(kernel, program, devno, name));
        }
        let info = kernel.info(find)?;
        let subject = Self::new(kernel, program, info.devno, info.name.clone());
        Ok(Subject {
            info: OnceCell::from(Some(info)),
            ..subject
        })
    }

    /// Its number.
    pub fn devno(&self) -> Devno {
        self.device.devno
    }

    /// What else the kernel knows of it, which is asked for once; nothing if it has gone.
    pub fn info(&self) -> Option<&DeviceInfo> {
        let ask = || self.kernel.info(&Find::Devno(self.devno())).ok();
        self.info.get_or_init(ask).as_ref()
    }

    /// The right to change its groups: a daemon that follows a file waits meanwhile, and looks again afterwards.
    pub fn changes(&self) -> dmstats::Result<dmstats::lock::Changes> {
        dmstats::lock::changes(Path::new(dmstats::lock::FOLDER), self.devno())
    }

    /// Tells that a group was made, which is not the one that had its id before.
    pub fn made(&self, group: Option<u32>) {
        if let Some(group) = group {
            dmstats::lock::made_anew(Path::new(dmstats::lock::FOLDER), self.devno(), group);
        }
    }

    /// Its name as people know it.
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&names::shown(&self.name)).into_owned()
    }
}
