// SPDX-License-Identifier: GPL-2.0

//! Device-mapper calls `map` on many CPUs at once.
//!
//! error[E0277]: cannot be shared between threads safely

include!("common/frame.rs");

struct Counting {
    bios: core::cell::Cell<u64>,
}

target!(Counting, (), {
    fn map<'a>(&self, bio: MapBio<'a, Self>) -> Mapped<'a> {
        self.bios.set(self.bios.get().wrapping_add(1));
        bio.kill()
    }
});
