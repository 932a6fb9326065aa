// SPDX-License-Identifier: GPL-2.0

//! What was remapped is device-mapper's again.
//!
//! error[E0382]: borrow of moved value: `bio`

include!("common/frame.rs");

fn remap<'a>(bio: MapBio<'a, Plain>, dev: &'a Bdev) -> Mapped<'a> {
    let verdict = bio.remap(dev, 0);
    bio.sectors();
    verdict
}
