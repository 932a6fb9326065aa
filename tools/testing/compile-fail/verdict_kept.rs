// SPDX-License-Identifier: GPL-2.0

//! A verdict is for the call of `map` that it was made in; it cannot be kept for a later one.
//!
//! error[E0521]: borrowed data escapes outside of function

include!("common/frame.rs");

fn keep<'a>(kept: &mut Option<Mapped<'static>>, bio: MapBio<'a, Plain>) {
    *kept = Some(bio.kill());
}
