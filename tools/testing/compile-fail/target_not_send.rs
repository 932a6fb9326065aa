// SPDX-License-Identifier: GPL-2.0

//! A target is dropped by another thread than the one that made it.
//!
//! error[E0277]: cannot be sent between threads safely

include!("common/frame.rs");

struct Locking {
    _guard: dm::rwsem::ReadGuard<'static, u64>,
}

target!(Locking, (), {
    fn map<'a>(&self, bio: MapBio<'a, Self>) -> Mapped<'a> {
        bio.kill()
    }
});
