// SPDX-License-Identifier: GPL-2.0

//! The kernel, and a report of what it is told.

use crate::DeviceInfo;
use crate::Devno;
use crate::Find;
use crate::Kernel;
use crate::Memory;
use crate::Result;
use crate::Target;
use crate::Transport;

/// At this level each message is reported.
const LEVEL: u8 = 3;

/// The kernel that runs, with a report of each message.
pub struct Logged<'a> {
    kernel: &'a Kernel,
    say: &'a dyn Fn(u8, &str),
}

impl<'a> Logged<'a> {
    /// Reports the messages to this kernel.
    pub fn new(kernel: &'a Kernel, say: &'a dyn Fn(u8, &str)) -> Self {
        Logged { kernel, say }
    }
}

impl Transport for Logged<'_> {
    fn devices(&self) -> Result<Vec<(Devno, Vec<u8>)>> {
        self.kernel.devices()
    }

    fn info(&self, find: &Find) -> Result<DeviceInfo> {
        self.kernel.info(find)
    }

    fn targets(&self, devno: Devno, expect: u32) -> Result<Vec<Target>> {
        self.kernel.targets(devno, expect)
    }

    fn message(&self, devno: Devno, text: &[u8], expect: usize) -> Result<Vec<u8>> {
        let reply = self.kernel.message(devno, text, expect);
        let said = String::from_utf8_lossy(text);
        let failed = reply
            .as_ref()
            .err()
            .map(|error| format!(": {error}"))
            .unwrap_or_default();
        (self.say)(LEVEL, &format!("{devno}: {said}{failed}"));
        reply
    }

    fn memory(&self) -> Option<Memory> {
        self.kernel.memory()
    }

    fn memory_used(&self) -> Option<u64> {
        self.kernel.memory_used()
    }
}
