// SPDX-License-Identifier: GPL-2.0

//! A bio that was passed to an original is gone.
//!
//! error[E0382]: use of moved value: `bio`

include!("common/frame.rs");

fn twice(bio: OwnedBio<Plain>, original: &dm::interpose::Original) {
    bio.pass(original);
    bio.pass(original);
}
