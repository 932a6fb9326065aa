// SPDX-License-Identifier: GPL-2.0

//! A bio ends on another thread than it was mapped on, and so does its per-bio data.
//!
//! error[E0277]: cannot be sent between threads safely

include!("common/frame.rs");

struct Bound;

target!(Bound, Option<dm::noio::NoIo>, {
    fn map<'a>(&self, bio: MapBio<'a, Self>) -> Mapped<'a> {
        bio.kill()
    }
});
