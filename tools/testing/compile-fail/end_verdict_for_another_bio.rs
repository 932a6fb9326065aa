// SPDX-License-Identifier: GPL-2.0

//! What `end_io` decided about one bio is no answer for another.
//!
//! error: lifetime may not live long enough

include!("common/frame.rs");

fn swap<'a, 'b: 'a>(_this: EndBio<'a, Plain>, other: EndBio<'b, Plain>) -> Ended<'a> {
    other.done()
}
