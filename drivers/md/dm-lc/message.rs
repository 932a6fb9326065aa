// SPDX-License-Identifier: GPL-2.0

//! The messages that a cache takes, as words. Pure.

use super::table_line::Settings;
use core::fmt;
use dm::args::{
    Arg,
    ArgError,
    Args, //
};

/// What a message asks for.
pub enum Message<'a> {
    /// `flush`: write everything back, and wait for it.
    Flush,
    /// `flush_current_buffer`: make the log durable.
    FlushBuffer,
    /// `clear_stat`: count from zero.
    ClearStat,
    /// `stats`: answered with a table for people.
    Stats,
    /// `<key> <value>`: change a setting.
    Set(Arg<'a>, Arg<'a>),
}

/// Why a message is refused: displays as a line for the log.
pub enum Refused<'a> {
    /// No such message.
    Unsupported(Arg<'a>),
    /// A word is missing, or wrong.
    Word(ArgError<'a>),
}

impl<'a> Message<'a> {
    /// Reads a message.
    pub fn parse(args: &mut Args<'a>) -> Result<Self, Refused<'a>> {
        let word = args.next("message").map_err(Refused::Word)?;
        let message = if Settings::has(&word) {
            let value = args.next("value").map_err(Refused::Word)?;
            Message::Set(word, value)
        } else if word.is("flush") {
            Message::Flush
        } else if word.is("flush_current_buffer") {
            Message::FlushBuffer
        } else if word.is("clear_stat") {
            Message::ClearStat
        } else if word.is("stats") {
            Message::Stats
        } else {
            return Err(Refused::Unsupported(word));
        };
        match args.next("word") {
            Ok(word) => Err(Refused::Word(word.invalid("no further word"))),
            Err(_) => Ok(message),
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
                    "message `{word}': expected flush, flush_current_buffer, clear_stat, \
                           stats, or a setting and its value"
                )
            }
            Refused::Word(error) => error.fmt(f),
        }
    }
}
