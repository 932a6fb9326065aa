// SPDX-License-Identifier: GPL-2.0

//! A device stays open while it is frozen.
//!
//! error[E0505]: cannot move out of `dev` because it is borrowed

include!("common/frame.rs");

fn close_first(dev: dm::block_device::BlockDevice) {
    let frozen = dev.freeze();
    drop(dev);
    drop(frozen);
}
