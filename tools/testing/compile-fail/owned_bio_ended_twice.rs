// SPDX-License-Identifier: GPL-2.0

//! A bio ends once.
//!
//! error[E0382]: use of moved value: `bio`

include!("common/frame.rs");

fn end(bio: OwnedBio<Plain>) {
    bio.end(Status::OK);
    bio.end(Status::IOERR);
}
