// SPDX-License-Identifier: GPL-2.0

//! `map` cannot return without a verdict, so a bio that is dropped there cannot get lost.
//!
//! error[E0308]: mismatched types

include!("common/frame.rs");

struct Forgetful;

target!(Forgetful, (), {
    fn map<'a>(&self, bio: MapBio<'a, Self>) -> Mapped<'a> {
        drop(bio);
    }
});
