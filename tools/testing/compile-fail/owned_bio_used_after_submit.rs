// SPDX-License-Identifier: GPL-2.0

//! What was submitted may be gone already.
//!
//! error[E0382]: borrow of moved value: `bio`

include!("common/frame.rs");

fn submit(bio: OwnedBio<Plain>, dev: &Bdev) -> u32 {
    bio.submit(dev, 0);
    bio.sectors()
}
