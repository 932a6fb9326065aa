// SPDX-License-Identifier: GPL-2.0

//! There is no verdict but from a bio: "remapped" cannot be said of one that was not.
//!
//! error[E0624]: associated function `new` is private

include!("common/frame.rs");

fn remapped<'a>(_bio: MapBio<'a, Plain>) -> Mapped<'a> {
    Mapped::new(1)
}
