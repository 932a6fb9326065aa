// SPDX-License-Identifier: GPL-2.0

//! What `dmsetup status`, `dmsetup table` and a message's reply are written with.
//!
//! ```ignore
//! fn status(&self, kind: StatusKind, out: &mut StatusWriter<'_>) -> fmt::Result {
//!     match kind {
//!         StatusKind::Info { .. } => write!(out, "{}/{}", self.used(), self.total()),
//!         StatusKind::Table => write!(out, "{} {}", self.dev.number(), self.start),
//!         StatusKind::Ima => write!(out, ",start={}", self.start),
//!     }
//! }
//! ```

use crate::target::Target;
use core::fmt::{
    self,
    Write, //
};
use kernel::{
    ffi::c_char,
    prelude::*, //
};

/// What a status is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum StatusKind {
    /// `dmsetup status`: how the target is doing.
    Info {
        /// The caller does not want the status to cause I/O (`--noflush`).
        noflush: bool,
    },
    /// `dmsetup table`: the line that would make the same target again.
    Table,
    /// What the integrity subsystem measures: `,key=value` pairs. The layer writes the target's
    /// name and version in front of them, and the semicolon that ends them.
    Ima,
}

/// Writes text into the buffer of an ioctl.
///
/// When the buffer is too small it is filled to the last byte, which is how device-mapper sees
/// that it has to be called again with a larger one.
///
/// # Invariants
///
/// `used < buffer.len()`, or both are 0, and a NUL stands at `used`.
pub struct StatusWriter<'a> {
    buffer: &'a mut [u8],
    used: usize,
}

impl<'a> StatusWriter<'a> {
    /// # Safety
    ///
    /// `result` must point at `maxlen` writable bytes that nobody else uses for `'a`.
    pub(crate) unsafe fn from_raw(result: *mut c_char, maxlen: u32) -> Self {
        let buffer: &mut [u8] = if maxlen == 0 || result.is_null() {
            &mut []
        } else {
            // SAFETY: The caller promises `maxlen` bytes.
            unsafe { core::slice::from_raw_parts_mut(result.cast(), maxlen as usize) }
        };
        if let Some(first) = buffer.first_mut() {
            *first = 0;
        }
        // INVARIANT: The NUL was just written.
        StatusWriter { buffer, used: 0 }
    }

    /// Writes a word from a table line as it came.
    pub fn word(&mut self, word: &CStr) -> fmt::Result {
        self.bytes(word.to_bytes());
        Ok(())
    }

    /// Writes what is measured of a target: its name and version, what `rest` adds, and the end.
    pub(crate) fn measurement<T: Target>(
        &mut self,
        rest: impl FnOnce(&mut Self) -> fmt::Result,
    ) -> fmt::Result {
        let [major, minor, patch] = T::VERSION;
        self.write_str("target_name=")?;
        self.word(T::NAME)?;
        write!(self, ",target_version={major}.{minor}.{patch}")?;
        rest(self)?;
        self.write_str(";")
    }

    fn bytes(&mut self, text: &[u8]) {
        let Some(room) = self.buffer.len().checked_sub(self.used + 1) else {
            return;
        };
        let fits = &text[..text.len().min(room)];
        self.buffer[self.used..self.used + fits.len()].copy_from_slice(fits);
        // INVARIANT: At most `room` bytes were added, and the NUL follows them.
        self.used += fits.len();
        self.buffer[self.used] = 0;
    }
}

impl fmt::Write for StatusWriter<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.bytes(text.as_bytes());
        Ok(())
    }
}
