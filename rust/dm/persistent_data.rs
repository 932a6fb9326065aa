// SPDX-License-Identifier: GPL-2.0

//! Metadata on a block device that changes in transactions: after a crash, the device has the
//! state of the last commit, whole.
//!
//! It is the library that thin, cache, era and clone keep their metadata with, hence the formats
//! on disk are theirs:
//!
//! - [`block_manager`]: cached blocks of the metadata device, validated when they are read;
//! - [`transaction_manager`]: copy on write of these blocks, and the two steps of a commit;
//! - [`space_map`]: which blocks are free;
//! - [`mod@array`] and [`bitset`]: what is stored.
//!
//! Nothing here has a lock that a user could rely on: a [`TransactionManager`] is changed through
//! `&mut`, and read through `&`, so an [`RwSem`](crate::rwsem::RwSem) around it is what a target
//! wants. Everything that reads or writes blocks sleeps.
//!
//! ```ignore
//! let blocks = BlockManager::new(device, 4096, 5)?;
//! let mut tm = TransactionManager::create(blocks, 0)?;
//! let mut bits = Bitset::empty(&mut tm)?;
//! bits.resize(&mut tm, 1 << 20, false)?;
//! bits.set(&mut tm, 42)?;
//! let root = bits.flush(&mut tm)?;
//!
//! let commit = tm.pre_commit()?;             // everything but the superblock is on disk
//! let mut space_map = [0; 128];
//! commit.copy_space_map_root(&mut space_map)?;
//! commit.format::<Superblock>(|block| write_superblock(block, root, &space_map))?;
//! ```

pub mod array;
pub mod bitset;
pub mod block_manager;
pub mod space_map;
pub mod transaction_manager;

pub use self::{
    array::Array,
    bitset::Bitset,
    block_manager::{
        checksum,
        BlockManager,
        Validator, //
    },
    space_map::SpaceMap,
    transaction_manager::{
        PreCommitted,
        TransactionManager, //
    }, //
};
