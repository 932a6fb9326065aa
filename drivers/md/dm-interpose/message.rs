// SPDX-License-Identifier: GPL-2.0

//! The messages that an `interpose` device takes, as words. Pure.
//!
//! ```text
//! attach DEVICE [nofreeze]
//! switch DEVICE [nofreeze]
//! detach [nofreeze]
//! ```

use super::state::Step;
use core::fmt;
use dm::args::{
    Arg,
    ArgError,
    Args, //
};

/// What a message asks for.
pub struct Message<'a> {
    /// What to do.
    pub step: Step,
    /// The device to attach or to switch to, by path or `major:minor`; none to detach.
    pub top: Option<Arg<'a>>,
    /// Whether to freeze the file system of the original meanwhile.
    pub freeze: bool,
}

/// Why a message is not understood: displays as a line for the log.
pub enum Refused<'a> {
    /// No such message.
    Unsupported(Arg<'a>),
    /// A word is missing, or wrong.
    Word(ArgError<'a>),
}

impl<'a> Message<'a> {
    /// Reads a message.
    pub fn parse(args: &mut Args<'a>) -> Result<Self, Refused<'a>> {
        let message = args.next("message").map_err(Refused::Word)?;
        let steps = [
            ("attach", Step::Attach),
            ("switch", Step::Switch),
            ("detach", Step::Detach),
        ];
        let Some(&(_, step)) = steps.iter().find(|(name, _)| message.is(name)) else {
            return Err(Refused::Unsupported(message));
        };
        let top = match step {
            Step::Attach | Step::Switch => Some(args.next("device").map_err(Refused::Word)?),
            Step::Detach => None,
        };
        let freeze = match args.next("option") {
            Ok(option) if option.is("nofreeze") => false,
            Ok(option) => return Err(Refused::Word(option.invalid("nofreeze"))),
            Err(_) => true,
        };
        match args.next("option") {
            Ok(surplus) => Err(Refused::Word(surplus.invalid("no more words"))),
            Err(_) => Ok(Message { step, top, freeze }),
        }
    }
}

impl fmt::Display for Refused<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Unsupported(message) => {
                let word = message.as_c_str().to_bytes().escape_ascii();
                write!(
                    f,
                    "message `{word}': expected attach DEVICE, switch DEVICE or detach"
                )
            }
            Refused::Word(error) => error.fmt(f),
        }
    }
}
