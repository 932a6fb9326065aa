// SPDX-License-Identifier: GPL-2.0

//! One [`Cache`] for each cache device.
//!
//! While a table is replaced, the old one and the new one are open at the same time: `dmsetup load`
//! constructs the new table long before `dmsetup resume` ends the old one. Were each to read the
//! log for itself, the new one would go by a log from before the old one's last writes, and lose
//! them. So the tables of one mapped device share the cache; any other user is refused.

use crate::{
    cache::Cache,
    table_line::Options,
    NAME, //
};
use core::ops::Deref;
use dm::{
    block_device::DevNumber,
    prelude::*, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    }, //
};

/// The devices of a table.
pub(crate) struct Devices {
    pub(crate) backing: Device,
    pub(crate) cache: Device,
}

/// Whose a cache is: the mapped device, and the part of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) device: DevNumber,
    pub(crate) begin: Sector,
    pub(crate) sectors: Sector,
}

/// The caches that are open.
#[pin_data]
pub(crate) struct Registry {
    #[pin]
    open: Mutex<KVec<Open>>,
}

struct Open {
    cache: DevNumber,
    backing: DevNumber,
    user: User,
    /// How many tables of that device.
    tables: usize,
    opened: Arc<Owner<Cache>>,
}

impl Registry {
    /// An empty registry. May sleep.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Registry { open <- new_mutex!(KVec::new(), "dm_lc_registry") }),
            GFP_KERNEL,
        )
    }

    /// The cache for a table of `user` with these devices: what its other tables have open, or else
    /// opened now. Sleeps.
    ///
    /// Fails with `EBUSY` if another user, or another cache, is in the way; or as
    /// [`Cache::open`].
    pub(crate) fn open(
        self: &Arc<Self>,
        devices: &Devices,
        user: User,
        options: &Options,
    ) -> Result<CacheRef, CtrError> {
        let no_memory = |_| CtrError::new(ENOMEM, c"Failed to allocate memory for the cache");
        let mut open = self.open.lock();
        let (cache, backing) = (devices.cache.number(), devices.backing.number());
        let taken = open.iter_mut().find(|entry| {
            let theirs = [entry.cache, entry.backing];
            theirs.contains(&cache) || theirs.contains(&backing)
        });
        if let Some(entry) = taken {
            if entry.cache != cache || entry.backing != backing || entry.user != user {
                dm::error!(
                    NAME,
                    "cache device {}: backing device {} is cached on {} for {}",
                    cache,
                    entry.backing,
                    entry.cache,
                    entry.user.device
                );
                return Err(CtrError::new(EBUSY, c"Device is in use by another cache"));
            }
            entry.tables += 1;
            return Ok(CacheRef {
                registry: self.clone(),
                cache: entry.opened.clone(),
            });
        }
        open.reserve(1, GFP_KERNEL).map_err(no_memory)?;
        let opened = Cache::open(devices, user.sectors, options)?;
        let opened = Arc::new(opened, GFP_KERNEL).map_err(no_memory)?;
        open.push(
            Open {
                cache,
                backing,
                user,
                tables: 1,
                opened: opened.clone(),
            },
            GFP_KERNEL,
        )
        .map_err(no_memory)?;
        Ok(CacheRef {
            registry: self.clone(),
            cache: opened,
        })
    }
}

/// A table's share in its cache. The last one to go closes it.
pub(crate) struct CacheRef {
    registry: Arc<Registry>,
    cache: Arc<Owner<Cache>>,
}

impl Deref for CacheRef {
    type Target = Owner<Cache>;

    #[inline]
    fn deref(&self) -> &Owner<Cache> {
        &self.cache
    }
}

impl Drop for CacheRef {
    /// Sleeps.
    fn drop(&mut self) {
        let mut open = self.registry.open.lock();
        let ours = |entry: &Open| Arc::ptr_eq(&entry.opened, &self.cache);
        let Some(index) = open.iter().position(ours) else {
            return;
        };
        open[index].tables -= 1;
        if open[index].tables == 0 {
            // Under the lock: whoever opens the device next finds it at rest.
            Cache::quiesce(&self.cache.share());
            let _ = open.remove(index);
        }
    }
}
