// SPDX-License-Identifier: GPL-2.0

//! A bio has one holder: threads do not share it.
//!
//! error[E0277]: cannot be shared between threads safely

include!("common/frame.rs");

struct Sharing {
    bio: OwnedBio<Sharing>,
}

target!(Sharing, (), {
    fn map<'a>(&self, bio: MapBio<'a, Self>) -> Mapped<'a> {
        self.bio.sectors();
        bio.kill()
    }
});
