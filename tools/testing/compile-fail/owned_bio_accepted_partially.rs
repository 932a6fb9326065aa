// SPDX-License-Identifier: GPL-2.0

//! Only `map` may shorten a bio for device-mapper to send the rest.
//!
//! error[E0599]: no method named `accept_partial` found for struct `dm::owned_bio::OwnedBio<Plain>`

include!("common/frame.rs");

fn shorten(mut bio: OwnedBio<Plain>) -> Result {
    bio.accept_partial(8)
}
