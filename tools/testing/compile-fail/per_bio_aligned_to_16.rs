// SPDX-License-Identifier: GPL-2.0

//! Device-mapper aligns what precedes a bio to 8 bytes.
//!
//! error[E0080]: evaluation of `dm::per_bio::Slot::<Wide>::SIZE` failed

include!("common/frame.rs");

#[derive(Default)]
#[repr(align(16))]
struct Aligned(u8);

struct Wide;

target!(Wide, Aligned, {
    fn map<'a>(&self, bio: MapBio<'a, Self>) -> Mapped<'a> {
        bio.kill()
    }
});

/// Makes the compiler generate the code of the registration.
pub fn register(module: &'static ThisModule) -> Result<Pin<KBox<Registration<Wide>>>> {
    KBox::try_pin_init(Registration::new(module, ()), GFP_KERNEL)
}
