// SPDX-License-Identifier: GPL-2.0

//! A block is only to be had while it is locked.
//!
//! error[E0505]: cannot move out of `block` because it is borrowed

include!("common/frame.rs");

use dm::persistent_data::BlockManager;

fn unlock(blocks: &mut BlockManager) -> Result<u8> {
    let block = blocks.read_lock_unvalidated(0)?;
    let bytes: &[u8] = &block;
    drop(block);
    bytes.first().copied().ok_or(EINVAL)
}
