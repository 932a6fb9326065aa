// SPDX-License-Identifier: GPL-2.0

//! A target in full. If this is refused, then so is everything, and no refusal proves anything.
//!
//! compiles

#![forbid(unsafe_code)]

use dm::prelude::*;
use kernel::prelude::*;

module! {
    type: LinearModule,
    name: "linear",
    authors: ["dm-rs developers"],
    description: "device-mapper linear target",
    license: "GPL",
}

#[pin_data]
struct LinearModule {
    #[pin]
    _registration: Registration<Linear>,
}

impl kernel::InPlaceModule for LinearModule {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(LinearModule {
            _registration <- Registration::new(module, ()),
        }? Error)
    }
}

struct Linear {
    dev: Device,
    start: Sector,
}

#[vtable]
impl Target for Linear {
    const NAME: &'static CStr = c"linear2";
    const VERSION: [u32; 3] = [1, 0, 0];
    type Global = ();
    type PerBio = ();

    fn ctr(
        ti: &mut Ctr<'_, Self>,
        args: &mut Args<'_>,
    ) -> Result<impl PinInit<Self, Error>, CtrError> {
        let bad = |e| CtrError::argument("linear2", e, c"Invalid argument");
        let path = args.next("device").map_err(bad)?;
        let start = args
            .next("start")
            .and_then(|arg| arg.number(0..=u64::MAX))
            .map_err(bad)?;
        let dev = ti
            .open(path, Mode::ReadWrite)
            .map_err(|e| CtrError::new(e, c"Device lookup failed"))?;
        Ok(try_init!(Linear { dev, start }? Error))
    }

    fn map<'a>(&'a self, bio: MapBio<'a, Self>) -> Mapped<'a> {
        let sector = bio.sector().saturating_add(self.start);
        bio.remap(&self.dev, sector)
    }
}
