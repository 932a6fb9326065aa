// SPDX-License-Identifier: GPL-2.0

//! What `map` changes is in a lock or atomic.
//!
//! error[E0594]: cannot assign to `self.bios`, which is behind a `&` reference

include!("common/frame.rs");

struct Counting {
    bios: u64,
}

target!(Counting, (), {
    fn map<'a>(&self, bio: MapBio<'a, Self>) -> Mapped<'a> {
        self.bios = self.bios.wrapping_add(1);
        bio.kill()
    }
});
