// SPDX-License-Identifier: GPL-2.0

//! A bio is sent to a device of the target, which stays open until the bio has ended.
//!
//! error[E0515]: cannot return value referencing function parameter `dev`

include!("common/frame.rs");

fn remap<'a>(bio: MapBio<'a, Plain>, dev: Device) -> Mapped<'a> {
    bio.remap(&dev, 0)
}
