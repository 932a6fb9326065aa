// SPDX-License-Identifier: GPL-2.0

//! What the tables of one mapped device share.
//!
//! While a table is replaced, the old one and the new one are open at the same time: `dmsetup load`
//! constructs the new table long before `dmsetup resume` ends the old one. What a target knows of
//! the devices below, it can therefore not keep for each table: the new one would go by what the
//! old one knew at the load. The first table opens it, further ones share it, the last one closes
//! it; and it is refused to whoever would be in its way.
//!
//! # Examples
//!
//! ```ignore
//! struct Open {
//!     device: DevNumber,
//!     owner: DevNumber,
//!     log: Arc<Log>,
//! }
//!
//! impl Entry for Open {
//!     type Object = Log;
//!
//!     fn object(&self) -> &Arc<Log> {
//!         &self.log
//!     }
//!
//!     fn close(&self) {
//!         self.log.flush();
//!     }
//! }
//!
//! let log: TableRef<Open> = registry.open(
//!     |open| match (open.device == device, open.owner == owner) {
//!         (true, false) => Err(EBUSY),
//!         (same, _) => Ok(same),
//!     },
//!     |_| (),
//!     || Ok(Open { device, owner, log: Log::open(device)? }),
//! )?;
//! ```

use core::ops::Deref;
use kernel::{
    alloc::AllocError,
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    }, //
};

/// What is noted of an object that tables share.
pub trait Entry: Send {
    /// What the tables get.
    type Object: Send + Sync;

    /// The object of this entry: always the same.
    fn object(&self) -> &Arc<Self::Object>;

    /// The last table has gone. Whoever comes next for the same devices waits until this returns.
    /// May sleep, but may neither open nor drop a table's share in the registry.
    fn close(&self);
}

/// The objects of all tables of a module.
#[pin_data]
pub struct Registry<E: Entry> {
    #[pin]
    open: Mutex<KVec<Open<E>>>,
}

/// # Invariants
///
/// `tables` is the number of [`TableRef`]s with the entry's object; it is not 0 while the registry
/// is not locked.
struct Open<E> {
    entry: E,
    tables: usize,
}

impl<E: Entry> Registry<E> {
    /// An empty registry. May sleep.
    pub fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Registry { open <- new_mutex!(KVec::new(), "dm_registry") }),
            GFP_KERNEL,
        )
    }

    /// The object for a table: that of the entry that fits, or of a new one. Sleeps.
    ///
    /// `fits` is asked of every entry: whether the table shares it, or an error if it is in the
    /// table's way. `share` notes in that entry what the table changes of it. `open` makes the entry
    /// if none fits. All of them run under the registry's lock; the first error is the result.
    pub fn open<X: From<AllocError>>(
        self: &Arc<Self>,
        fits: impl Fn(&E) -> Result<bool, X>,
        share: impl FnOnce(&mut E),
        open: impl FnOnce() -> Result<E, X>,
    ) -> Result<TableRef<E>, X> {
        let mut entries = self.open.lock();
        let mut found = None;
        for (index, open) in entries.iter().enumerate() {
            if fits(&open.entry)? {
                found = Some(index);
            }
        }
        let object = match found {
            Some(index) => {
                let open = &mut entries[index];
                share(&mut open.entry);
                open.tables += 1;
                open.entry.object().clone()
            }
            None => {
                // Before anything is opened that would have to be closed.
                entries.reserve(1, GFP_KERNEL)?;
                let entry = open()?;
                let object = entry.object().clone();
                entries.push(Open { entry, tables: 1 }, GFP_KERNEL)?;
                object
            }
        };
        Ok(TableRef {
            registry: self.clone(),
            object,
        })
    }
}

/// A table's share in an object. The last one to go closes it.
pub struct TableRef<E: Entry> {
    registry: Arc<Registry<E>>,
    object: Arc<E::Object>,
}

impl<E: Entry> Deref for TableRef<E> {
    type Target = Arc<E::Object>;

    #[inline]
    fn deref(&self) -> &Arc<E::Object> {
        &self.object
    }
}

impl<E: Entry> Drop for TableRef<E> {
    /// Sleeps.
    fn drop(&mut self) {
        let mut entries = self.registry.open.lock();
        let ours = |open: &Open<E>| Arc::ptr_eq(open.entry.object(), &self.object);
        let Some(index) = entries.iter().position(ours) else {
            return;
        };
        entries[index].tables -= 1;
        if entries[index].tables == 0 {
            // Under the lock: whoever opens the devices next finds them closed.
            entries[index].entry.close();
            let _ = entries.remove(index);
        }
    }
}
