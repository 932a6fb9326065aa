// SPDX-License-Identifier: GPL-2.0

//! One [`Cache`] for each cache device.
//!
//! A new table that read the log for itself would go by a log from before the old table's last
//! writes, and lose them. So the tables of one mapped device share the cache; any other user is
//! refused.

use crate::{
    cache::Cache,
    table_line::Options,
    NAME, //
};
use dm::{
    block_device::DevNumber,
    prelude::*,
    registry::{
        Entry,
        Registry,
        TableRef, //
    }, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
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
pub(crate) type Caches = Registry<Open>;

/// A table's share in its cache.
pub(crate) type CacheRef = TableRef<Open>;

/// A cache that is open.
pub(crate) struct Open {
    cache: DevNumber,
    backing: DevNumber,
    user: User,
    opened: Arc<Owner<Cache>>,
}

impl Entry for Open {
    type Object = Owner<Cache>;
    type Share = ();

    fn object(&self) -> &Arc<Owner<Cache>> {
        &self.opened
    }

    /// Whoever opens the devices next finds them at rest.
    fn close(&self) {
        Cache::quiesce(&self.opened.share());
    }
}

impl Open {
    /// Whether a table of `user` with these devices shares this, or the error that it may not.
    fn fits(&self, cache: DevNumber, backing: DevNumber, user: User) -> Result<bool, CtrError> {
        let theirs = [self.cache, self.backing];
        if !theirs.contains(&cache) && !theirs.contains(&backing) {
            return Ok(false);
        }
        if (self.cache, self.backing, self.user) != (cache, backing, user) {
            dm::error!(
                NAME,
                "cache device {}: backing device {} is cached on {} for {}",
                cache,
                self.backing,
                self.cache,
                self.user.device
            );
            return Err(CtrError::new(EBUSY, c"Device is in use by another cache"));
        }
        Ok(true)
    }
}

/// The cache for a table of `user` with these devices: what its other tables have open, or else
/// opened now. Sleeps.
///
/// Fails with `EBUSY` if another user, or another cache, is in the way; or as [`Cache::open`].
pub(crate) fn open(
    caches: &Arc<Caches>,
    devices: &Devices,
    user: User,
    options: &Options,
) -> Result<CacheRef, CtrError> {
    let (cache, backing) = (devices.cache.number(), devices.backing.number());
    caches.open(
        |open, _| open.fits(cache, backing, user),
        (),
        || {
            let opened = Arc::new(Cache::open(devices, user.sectors, options)?, GFP_KERNEL)?;
            Ok(Open {
                cache,
                backing,
                user,
                opened,
            })
        },
    )
}
