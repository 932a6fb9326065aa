// SPDX-License-Identifier: GPL-2.0

//! Bios of two targets do not mix, since their per-bio data differs.
//!
//! error[E0308]: mismatched types

include!("common/frame.rs");

struct Other;

target!(Other, [u64; 7], {
    fn map<'a>(&self, bio: MapBio<'a, Self>) -> Mapped<'a> {
        bio.kill()
    }
});

fn mix(list: &mut BioList<OwnedBio<Plain>>, bio: OwnedBio<Other>) {
    list.push(bio);
}
