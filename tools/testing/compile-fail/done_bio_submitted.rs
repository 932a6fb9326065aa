// SPDX-License-Identifier: GPL-2.0

//! What a device has done is not sent to a device again.
//!
//! error[E0599]: no method named `submit` found for struct `dm::owned_bio::DoneBio<Plain>`

include!("common/frame.rs");

fn again(bio: DoneBio<Plain>, dev: &Bdev) {
    bio.submit(dev, 0);
}
