// SPDX-License-Identifier: GPL-2.0

//! A moment in which the file system of a block device writes nothing and is consistent.
//!
//! ```ignore
//! let _noio = NoIo::enter();        // memory must not wait for what is frozen
//! let frozen = device.freeze()?;
//! change_what_is_beneath();
//! drop(frozen);                     // writers go on
//! ```

use crate::{
    bindings,
    block_device::Bdev, //
};
use core::marker::PhantomData;
use kernel::{
    error::to_result,
    prelude::*, //
};

impl Bdev {
    /// Freezes the file system that is mounted from the device: waits until its writers have been
    /// stopped and all its data is written. Without one, what is cached of the device is written,
    /// and nobody is stopped. Sleeps, for as long as the device takes to write.
    ///
    /// The caller does not touch a file until the file system is thawed. What it allocates until
    /// then must not wait for writes, see [`NoIo`](crate::noio::NoIo). Freezes nest, also with those
    /// of user space.
    pub fn freeze(&self) -> Result<Frozen<'_>> {
        // SAFETY: The device is open.
        to_result(unsafe { bindings::bdev_freeze(self.as_ptr()) })?;
        // INVARIANT: It was just frozen.
        Ok(Frozen {
            device: self,
            _not_send: PhantomData,
        })
    }
}

/// While this lives the device is frozen. Not [`Send`]: whoever froze it thaws it, in the same call.
///
/// # Invariants
///
/// The device was frozen once for this value.
#[must_use = "the device is thawed when this is dropped"]
pub struct Frozen<'a> {
    device: &'a Bdev,
    _not_send: PhantomData<*mut ()>,
}

impl Drop for Frozen<'_> {
    /// Sleeps.
    fn drop(&mut self) {
        // SAFETY: The device is open, and was frozen by us. What fails here is the file system's
        // own thaw, which has said so and which nobody else can do any better.
        unsafe { bindings::bdev_thaw(self.device.as_ptr()) };
    }
}
