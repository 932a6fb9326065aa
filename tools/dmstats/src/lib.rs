// SPDX-License-Identifier: GPL-2.0

//! Statistics of device-mapper devices, and of files on them.
//!
//! The kernel counts the I/O of *regions* of a device, each split into *areas* of equal size. A program that
//! makes a region puts its name on it, and a word of its own, in which *groups* of regions are described:
//! that much is shared with other programs, above all with LVM2's `dmstats`, and is a text format.
//!
//! ```text
//! Device --list--> Snapshot --sample--> Sample --since--> Sample     (what there is; its counters; a difference)
//!    |                 |
//!    |                 +-- regions, groups, problems                 (parsed without trust, see `reply`, `aux`)
//!    +-- create, delete, group, map_file, ...                        (ordered so that no group is ever broken)
//!    |
//!    +-- Transport: `Kernel`, or `fake::Fake` in tests
//! ```
//!
//! Counters can only be asked for of what was listed: [`Snapshot`] comes from nothing but a list, and a
//! failed list leaves none. Times are nanoseconds and lengths are sectors of 512 bytes everywhere.
//!
//! # Invariants
//!
//! - A group's descriptor names existing regions only, at any moment: regions are made before they are
//!   named, and named no more before they go.
//! - A region that belongs to another program is never changed, unless its id was asked for.
//! - An id that the kernel gave is kept as such; it never becomes the index or the size of anything.

#![deny(missing_docs, unsafe_code)]

pub mod aux;
pub mod bounds;
pub mod cost;
mod device;
mod error;
pub mod extents;
pub mod fake;
#[allow(unsafe_code)]
pub mod ffi;
mod filemap;
pub mod follow;
pub mod idmap;
pub mod ids;
#[allow(unsafe_code)]
mod ioctl;
mod kernel;
pub mod lock;
mod logged;
pub mod message;
pub mod metrics;
pub mod projection;
pub mod ranges;
pub mod reply;
mod sample;
mod snapshot;
pub mod start;
mod transport;

pub use device::Device;
pub use device::RegionSpec;
pub use device::Step;
pub use error::Error;
pub use error::Result;
pub use filemap::FileMap;
pub use filemap::Update;
pub use ids::IdSet;
pub use kernel::Kernel;
pub use logged::Logged;
pub use sample::Count;
pub use sample::Counters;
pub use sample::RegionSample;
pub use sample::Sample;
pub use snapshot::Group;
pub use snapshot::Problem;
pub use snapshot::Region;
pub use snapshot::Snapshot;
pub use transport::DeviceInfo;
pub use transport::Devno;
pub use transport::Find;
pub use transport::Memory;
pub use transport::Target;
pub use transport::Transport;
