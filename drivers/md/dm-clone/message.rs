// SPDX-License-Identifier: GPL-2.0

//! The messages that a clone takes, as words. Pure.

use super::table_line::{
    BATCH_SIZE,
    THRESHOLD, //
};
use core::{
    fmt,
    ops::RangeInclusive, //
};
use dm::args::{
    Arg,
    ArgError,
    Args, //
};

const MIN_SHARE: &str = "set_min_share";
const STATS: &str = "stats";

/// What a message asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message {
    /// `enable_hydration`, `disable_hydration`: whether to copy in the background.
    Hydration(bool),
    /// `hydration_threshold <regions>`
    Threshold(u32),
    /// `hydration_batch_size <regions>`
    BatchSize(u32),
    /// `set_min_share <percent>`: how much of the time copying keeps beside users.
    MinShare(u32),
    /// `stats`: answered with numbers.
    Stats,
}

/// Why a message is refused: displays as a line for the log.
pub enum Refused<'a> {
    /// No such message.
    Unsupported(Arg<'a>),
    /// A word is missing, or wrong.
    Word(ArgError<'a>),
    /// More words follow than this setting takes.
    Surplus(&'static str),
}

impl Message {
    /// Reads a message.
    pub fn parse<'a>(args: &mut Args<'a>) -> Result<Self, Refused<'a>> {
        let message = args.next("message").map_err(Refused::Word)?;
        if message.is("enable_hydration") {
            Ok(Message::Hydration(true))
        } else if message.is("disable_hydration") {
            Ok(Message::Hydration(false))
        } else if message.is(THRESHOLD) {
            Ok(Message::Threshold(setting(args, THRESHOLD, 0..=u32::MAX)?))
        } else if message.is(BATCH_SIZE) {
            Ok(Message::BatchSize(setting(args, BATCH_SIZE, 0..=u32::MAX)?))
        } else if message.is(MIN_SHARE) {
            Ok(Message::MinShare(setting(args, MIN_SHARE, 1..=100)?))
        } else if message.is(STATS) {
            match args.next(STATS) {
                Ok(word) => Err(Refused::Word(word.invalid("no word"))),
                Err(_) => Ok(Message::Stats),
            }
        } else {
            Err(Refused::Unsupported(message))
        }
    }
}

/// Reads the one word that follows the name of a setting.
fn setting<'a>(
    args: &mut Args<'a>,
    name: &'static str,
    range: RangeInclusive<u32>,
) -> Result<u32, Refused<'a>> {
    let value = args
        .next(name)
        .and_then(|word| word.number(range))
        .map_err(Refused::Word)?;
    if args.is_empty() {
        Ok(value)
    } else {
        Err(Refused::Surplus(name))
    }
}

impl fmt::Display for Refused<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Unsupported(message) => {
                let word = message.as_c_str().to_bytes().escape_ascii();
                write!(f, "Unsupported message `{word}'")
            }
            Refused::Word(error) => error.fmt(f),
            Refused::Surplus(name) => write!(f, "{name}: only one word may follow"),
        }
    }
}
