// SPDX-License-Identifier: GPL-2.0

//! A verdict on one bio is no answer for another.
//!
//! error: lifetime may not live long enough

include!("common/frame.rs");

fn swap<'a, 'b: 'a>(_this: MapBio<'a, Plain>, other: MapBio<'b, Plain>) -> Mapped<'a> {
    other.kill()
}
