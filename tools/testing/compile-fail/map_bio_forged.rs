// SPDX-License-Identifier: GPL-2.0

//! Only the layer makes bios, from what device-mapper hands it.
//!
//! error[E0624]: associated function `from_raw` is private

include!("common/frame.rs");

fn forge(bio: *mut kernel::bindings::bio) {
    unsafe { OwnedBio::<Plain>::from_raw(bio) };
}
