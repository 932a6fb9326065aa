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
//!     type Share = ();
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
//!     |open, _| match (open.device == device, open.owner == owner) {
//!         (true, false) => Err(EBUSY),
//!         (same, _) => Ok(same),
//!     },
//!     (),
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

    /// What is noted of each table.
    type Share: Send;

    /// The object of this entry: always the same.
    fn object(&self) -> &Arc<Self::Object>;

    /// The last table has gone. Whoever comes next for the same devices waits until this returns, and
    /// until the entry has been dropped; the object with it, if nobody else has it. May sleep; neither
    /// this nor the drop may open or drop a table's share in the registry.
    fn close(&self);
}

/// The objects of all tables of a module.
#[pin_data]
pub struct Registry<E: Entry> {
    #[pin]
    open: Mutex<Entries<E>>,
}

struct Entries<E: Entry> {
    all: KVec<Open<E>>,
    /// The id of the next table.
    next: u64,
}

/// # Invariants
///
/// `tables` has one for each [`Share`] in the entry; there is one while the registry is not locked.
struct Open<E: Entry> {
    entry: E,
    tables: KVec<Sharer<E::Share>>,
}

/// A table.
struct Sharer<S> {
    id: u64,
    share: S,
}

impl<E: Entry> Registry<E> {
    /// An empty registry. May sleep.
    pub fn new() -> Result<Arc<Self>> {
        let entries = Entries {
            all: KVec::new(),
            next: 0,
        };
        Arc::pin_init(
            pin_init!(Registry { open <- new_mutex!(entries, "dm_registry") }),
            GFP_KERNEL,
        )
    }

    /// The object for a table: that of the entry that fits, or of a new one. Sleeps.
    ///
    /// `fits` is asked of every entry, with what is noted of its tables: whether the table shares it, or
    /// an error if it is in the table's way. `share` is noted of the table, as long as it has its share.
    /// `open` makes the entry if none fits. All of it is done under the registry's lock; the first error
    /// is the result.
    pub fn open<X: From<AllocError>>(
        self: &Arc<Self>,
        fits: impl Fn(&E, &mut dyn Iterator<Item = &E::Share>) -> Result<bool, X>,
        share: E::Share,
        open: impl FnOnce() -> Result<E, X>,
    ) -> Result<TableRef<E>, X> {
        let mut entries = self.open.lock();
        let mut found = None;
        for (index, open) in entries.all.iter().enumerate() {
            let mut shares = open.tables.iter().map(|table| &table.share);
            if fits(&open.entry, &mut shares)? {
                found = Some(index);
            }
        }
        let id = entries.next;
        entries.next = id.wrapping_add(1);
        let table = Sharer { id, share };
        let object = match found {
            Some(index) => {
                let open = &mut entries.all[index];
                open.tables.push(table, GFP_KERNEL)?;
                open.entry.object().clone()
            }
            None => {
                // Before anything is opened that would have to be closed.
                entries.all.reserve(1, GFP_KERNEL)?;
                let mut tables = KVec::new();
                tables.push(table, GFP_KERNEL)?;
                let entry = open()?;
                let object = entry.object().clone();
                entries.all.push(Open { entry, tables }, GFP_KERNEL)?;
                object
            }
        };
        Ok(TableRef {
            object,
            _share: Share {
                registry: self.clone(),
                id,
            },
        })
    }
}

/// A table's share in an object. The last one to go closes it.
pub struct TableRef<E: Entry> {
    // Dropped before the share: the last reference is that of the entry, which goes under the lock.
    object: Arc<E::Object>,
    _share: Share<E>,
}

/// That a table is noted in an entry.
struct Share<E: Entry> {
    registry: Arc<Registry<E>>,
    /// That of the table.
    id: u64,
}

impl<E: Entry> Deref for TableRef<E> {
    type Target = Arc<E::Object>;

    #[inline]
    fn deref(&self) -> &Arc<E::Object> {
        &self.object
    }
}

impl<E: Entry> Drop for Share<E> {
    /// Sleeps.
    fn drop(&mut self) {
        let mut entries = self.registry.open.lock();
        let ours = |table: &Sharer<E::Share>| table.id == self.id;
        for index in 0..entries.all.len() {
            let open = &mut entries.all[index];
            let Some(table) = open.tables.iter().position(ours) else {
                continue;
            };
            let _ = open.tables.remove(table);
            if open.tables.is_empty() {
                // Under the lock, with the object: whoever opens the devices next finds them closed.
                open.entry.close();
                let _ = entries.all.remove(index);
            }
            return;
        }
    }
}
