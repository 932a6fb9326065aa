// SPDX-License-Identifier: GPL-2.0

//! What `end_io` keeps back is the one that was kept, not the bio in `end_io`.
//!
//! error[E0382]: borrow of moved value: `bio`

include!("common/frame.rs");

fn keep<'a>(mut bio: EndBio<'a, Plain>) -> Ended<'a> {
    let (verdict, kept) = bio.keep();
    kept.end(Status::OK);
    *bio.per_bio() = 1;
    verdict
}
