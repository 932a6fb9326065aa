// SPDX-License-Identifier: GPL-2.0

//! The words of a clone's table line that follow the three devices. Pure.
//!
//! ```text
//! <region size> [<#feature args> [no_hydration] [no_discard_passdown]
//!                [<#core args> [hydration_threshold <regions>] [hydration_batch_size <regions>]]]
//! ```
//!
//! Words that follow are kept, shown by `dmsetup table`, and mean nothing.

use super::geometry::{
    Geometry,
    GeometryError,
    MAX_REGION_SECTORS,
    MIN_REGION_SECTORS, //
};
use core::{
    ffi::CStr,
    fmt, //
};
use dm::args::{
    ArgError,
    Args, //
};

/// What the status shows for a number that was not given: the default of the kernel's own module,
/// whose status this has to be.
const SHOWN_IF_UNSET: u32 = 1;

/// The setting of [`Options::hydration_threshold`], in tables, status and messages.
pub const THRESHOLD: &str = "hydration_threshold";
/// The setting of [`Options::hydration_batch_size`], in tables, status and messages.
pub const BATCH_SIZE: &str = "hydration_batch_size";

/// Why a table line is refused.
pub struct Refused<'a> {
    /// The wrong word.
    pub error: ArgError<'a>,
    /// The sentence that device-mapper logs, the one of the kernel's own module.
    pub message: &'static CStr,
}

/// Adds the sentence to what is wrong with a word.
fn because<'a>(message: &'static CStr) -> impl Fn(ArgError<'a>) -> Refused<'a> {
    move |error| Refused { error, message }
}

/// Reads the region size, by which a target of `target_sectors` is divided. `block_sectors`: the
/// larger one of the logical blocks of source and destination, a power of two.
pub fn parse_geometry<'a>(
    args: &mut Args<'a>,
    target_sectors: u64,
    block_sectors: u32,
) -> Result<Geometry, Refused<'a>> {
    let bad_size = because(c"Invalid region size");
    let word = args.next("region size").map_err(&bad_size)?;
    let size = word
        .number(MIN_REGION_SECTORS..=MAX_REGION_SECTORS)
        .map_err(&bad_size)?;
    let geometry = Geometry::new(target_sectors, size).map_err(|error| match error {
        GeometryError::RegionSize => bad_size(word.invalid("another size")),
        GeometryError::NotPowerOfTwo => {
            because(c"Region size is not a power of 2")(word.invalid("a power of 2"))
        }
        GeometryError::RegionCount => {
            because(c"Too many regions. Consider increasing the region size")(
                word.invalid("a size with which there are 1 to 2147483648 regions"),
            )
        }
    })?;
    // Both are powers of two.
    if block_sectors > size {
        return Err(because(
            c"Region size is not a multiple of device logical block size",
        )(word.invalid(
            "a multiple of the logical block sizes of source and destination",
        )));
    }
    Ok(geometry)
}

/// What the optional words ask for. Displays as in the status line, which is also how a table line
/// would say the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Copy in the background.
    pub hydration: bool,
    /// Pass discards on to the destination.
    pub discard_passdown: bool,
    /// How many regions may be copied at a time in the background; the target chooses if it is not
    /// given.
    pub hydration_threshold: Option<u32>,
    /// How many neighbouring regions are copied in one go; the target chooses if it is not given.
    pub hydration_batch_size: Option<u32>,
}

impl Options {
    /// Reads the optional words.
    pub fn parse<'a>(args: &mut Args<'a>) -> Result<Self, Refused<'a>> {
        let mut options = Options {
            hydration: true,
            discard_passdown: true,
            hydration_threshold: None,
            hydration_batch_size: None,
        };
        options.parse_features(args)?;
        options.parse_core(args)?;
        Ok(options)
    }

    fn parse_features<'a>(&mut self, args: &mut Args<'a>) -> Result<(), Refused<'a>> {
        if args.is_empty() {
            return Ok(());
        }
        let bad = because(c"Invalid feature argument");
        let (count, _) = args
            .group("number of feature arguments", 2)
            .map_err(because(c"Invalid number of feature arguments"))?;
        for _ in 0..count {
            let feature = args.next("feature").map_err(&bad)?;
            if feature.is("no_hydration") {
                self.hydration = false;
            } else if feature.is("no_discard_passdown") {
                self.discard_passdown = false;
            } else {
                return Err(bad(feature.invalid("no_hydration or no_discard_passdown")));
            }
        }
        Ok(())
    }

    fn parse_core<'a>(&mut self, args: &mut Args<'a>) -> Result<(), Refused<'a>> {
        if args.is_empty() {
            return Ok(());
        }
        let bad = because(c"Invalid core argument");
        let (count, word) = args
            .group("number of core arguments", 4)
            .map_err(because(c"Invalid number of core arguments"))?;
        if count & 1 != 0 {
            return Err(because(c"Number of core arguments must be even")(
                word.invalid("0, 2 or 4"),
            ));
        }
        for _ in 0..count / 2 {
            let key = args.next("core argument").map_err(&bad)?;
            let (name, setting, message): (_, _, &'static CStr) = if key.is(THRESHOLD) {
                let message = c"Invalid value for argument `hydration_threshold'";
                (THRESHOLD, &mut self.hydration_threshold, message)
            } else if key.is(BATCH_SIZE) {
                let message = c"Invalid value for argument `hydration_batch_size'";
                (BATCH_SIZE, &mut self.hydration_batch_size, message)
            } else {
                return Err(bad(
                    key.invalid("hydration_threshold or hydration_batch_size")
                ));
            };
            let value = args
                .next(name)
                .and_then(|value| value.number(0..=u32::MAX))
                .map_err(because(message))?;
            *setting = Some(value);
        }
        Ok(())
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let features = [
            (!self.hydration, " no_hydration"),
            (!self.discard_passdown, " no_discard_passdown"),
        ];
        write!(f, "{}", features.iter().filter(|(on, _)| *on).count())?;
        for (_, feature) in features.iter().filter(|(on, _)| *on) {
            f.write_str(feature)?;
        }
        write!(
            f,
            " 4 {THRESHOLD} {} {BATCH_SIZE} {}",
            self.hydration_threshold.unwrap_or(SHOWN_IF_UNSET),
            self.hydration_batch_size.unwrap_or(SHOWN_IF_UNSET)
        )
    }
}
