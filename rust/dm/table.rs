// SPDX-License-Identifier: GPL-2.0

//! A target's view of the table and the mapped device that it belongs to.
//!
//! ```ignore
//! dm::info!("example", "{}: degraded", self.table.device_name());
//! self.table.event();  // `dmsetup wait` returns
//! ```

use crate::{
    bindings,
    block_device::DevNumber,
    device::Anchor,
    shared::Shared, //
};
use kernel::prelude::*;

/// A handle to the table and the mapped device of a target. Given by
/// [`Ctr::table`](crate::ctr::Ctr::table); the target's destructor waits for it.
#[derive(Clone)]
pub struct Table {
    anchor: Shared<Anchor>,
}

impl Table {
    pub(crate) fn new(anchor: Shared<Anchor>) -> Self {
        Table { anchor }
    }

    /// Tells user space that the state of the device has changed: wakes `dmsetup wait` and raises
    /// the event number that `dmsetup info` shows. May sleep.
    pub fn event(&self) {
        // SAFETY: The anchor keeps the target and with it its table.
        unsafe { bindings::dm_table_event((*self.anchor.ti()).table) }
    }

    /// The name of the mapped device as in kernel messages, `major:minor`.
    pub fn device_name(&self) -> &str {
        // SAFETY: The anchor keeps the target and with it its table and mapped device.
        let name = unsafe { bindings::dm_table_device_name((*self.anchor.ti()).table) };
        // SAFETY: The name is a string that lives as long as the mapped device.
        let name = unsafe { CStr::from_char_ptr(name) };
        name.to_str().unwrap_or("?")
    }

    /// The number of the mapped device.
    pub fn device_number(&self) -> DevNumber {
        // SAFETY: The anchor keeps the target and with it its table.
        let md = unsafe { bindings::dm_table_get_md((*self.anchor.ti()).table) };
        // SAFETY: The table keeps its mapped device, which keeps its disk.
        let disk = unsafe { &*bindings::dm_disk(md) };
        DevNumber::new(disk.major, disk.first_minor)
    }

    /// A number that no other table has at the same time.
    pub fn id(&self) -> usize {
        // SAFETY: The anchor keeps the target.
        unsafe { (*self.anchor.ti()).table as usize }
    }

    /// Whether the device is suspended, or on its way there.
    pub fn is_suspended(&self) -> bool {
        // SAFETY: The anchor keeps the target.
        unsafe { bindings::dm_suspended(self.anchor.ti()) != 0 }
    }

    /// Whether the suspension under way was asked to give bios back rather than to complete them.
    pub fn is_noflush_suspending(&self) -> bool {
        // SAFETY: The anchor keeps the target.
        unsafe { bindings::dm_noflush_suspending(self.anchor.ti()) != 0 }
    }
}
