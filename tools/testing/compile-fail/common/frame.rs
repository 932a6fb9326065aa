// SPDX-License-Identifier: GPL-2.0

// What the files beside this folder begin with: a module that registers a target, and a macro by
// which another target takes a few lines.

use dm::prelude::*;
use kernel::prelude::*;

module! {
    type: Frame,
    name: "frame",
    authors: ["dm-rs developers"],
    description: "target that is only compiled",
    license: "GPL",
}

#[pin_data]
struct Frame {
    #[pin]
    _registration: Registration<Plain>,
}

impl kernel::InPlaceModule for Frame {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Frame {
            _registration <- Registration::new(module, ()),
        }? Error)
    }
}

/// Implements `Target` with the functions that are given, `map` among them. `ctr` refuses every
/// table line, since no line is ever loaded.
macro_rules! target {
    ($target:ident, $per_bio:ty, { $($functions:tt)+ }) => {
        #[vtable]
        impl Target for $target {
            const NAME: &'static CStr = c"frame";
            const VERSION: [u32; 3] = [1, 0, 0];
            type Global = ();
            type PerBio = $per_bio;

            fn ctr(
                _ti: &mut Ctr<'_, Self>,
                _args: &mut Args<'_>,
            ) -> Result<impl PinInit<Self, Error>, CtrError> {
                Ok(Err::<Self, Error>(EINVAL))
            }

            $($functions)+
        }
    };
}

/// A target of which there is nothing to say.
struct Plain;

target!(Plain, u64, {
    fn map<'a>(&self, bio: MapBio<'a, Self>) -> Mapped<'a> {
        bio.kill()
    }
});
