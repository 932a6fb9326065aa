// SPDX-License-Identifier: GPL-2.0

//! A bio gets one verdict.
//!
//! error[E0382]: use of moved value: `bio`

include!("common/frame.rs");

fn answer<'a>(bio: MapBio<'a, Plain>) -> Mapped<'a> {
    let (_verdict, owned) = bio.take();
    owned.end(Status::OK);
    bio.requeue()
}
