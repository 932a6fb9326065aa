// SPDX-License-Identifier: GPL-2.0

//! A kernel, and a report of what it is told.

use std::cell::RefCell;

use crate::DeviceInfo;
use crate::Devno;
use crate::Find;
use crate::Memory;
use crate::Result;
use crate::Target;
use crate::Transport;

/// A kernel, with a report of each message if one is wanted.
pub struct Logged<'a, T> {
    kernel: &'a T,
    wanted: bool,
    sent: RefCell<Vec<String>>,
}

impl<'a, T: Transport> Logged<'a, T> {
    /// Reports the messages to this kernel, if that is `wanted`.
    pub fn new(kernel: &'a T, wanted: bool) -> Self {
        Logged {
            kernel,
            wanted,
            sent: RefCell::default(),
        }
    }
}

impl<T: Transport> Transport for Logged<'_, T> {
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
        if self.wanted {
            let said = String::from_utf8_lossy(text);
            let failed = reply
                .as_ref()
                .err()
                .map(|error| format!(": {error}"))
                .unwrap_or_default();
            self.sent
                .borrow_mut()
                .push(format!("{devno}: {said}{failed}"));
        }
        reply
    }

    fn memory(&self) -> Option<Memory> {
        self.kernel.memory()
    }

    fn memory_used(&self) -> Option<u64> {
        self.kernel.memory_used()
    }

    fn take_sent(&self) -> Vec<String> {
        self.sent.take()
    }
}
