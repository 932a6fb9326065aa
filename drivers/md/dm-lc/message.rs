// SPDX-License-Identifier: GPL-2.0

//! The messages that a cache takes, as words. Pure.

use super::table_line::{
    Mode,
    Settings, //
};
use core::fmt;
use dm::args::{
    Arg,
    ArgError,
    Args, //
};

/// What a message asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message {
    /// `flush`: write everything back, and wait for it.
    Flush,
    /// `flush_current_buffer`: make the log durable.
    FlushBuffer,
    /// `commit_super_block`: write the superblock.
    CommitSuperblock,
    /// `check`: compare the log with its checksums.
    Check,
    /// `clear_stat`: count from zero.
    ClearStat,
    /// `stats`: answered with a table for people.
    Stats,
    /// `cleaner`, or `<key> <value>`: these settings from now on.
    Set(Settings),
}

/// Why a message is refused: displays as a line for the log.
pub enum Refused<'a> {
    /// No such message.
    Unsupported(Arg<'a>),
    /// A word is missing, or wrong.
    Word(ArgError<'a>),
}

impl Message {
    /// Reads a message; `settings` are those in force.
    pub fn parse<'a>(args: &mut Args<'a>, settings: &Settings) -> Result<Self, Refused<'a>> {
        let word = args.next("message").map_err(Refused::Word)?;
        let words = [
            ("flush", Message::Flush),
            // dm-writeboost's word for it.
            ("drop_caches", Message::Flush),
            ("flush_current_buffer", Message::FlushBuffer),
            ("commit_super_block", Message::CommitSuperblock),
            ("check", Message::Check),
            ("clear_stat", Message::ClearStat),
            ("stats", Message::Stats),
        ];
        let known = words.into_iter().find(|(name, _)| word.is(name));
        let message = match known {
            Some((_, message)) => message,
            None if word.is(Mode::Cleaner.name()) => {
                let cleaner = settings.with_mode(Mode::Cleaner);
                Message::Set(cleaner.map_err(|expected| Refused::Word(word.invalid(expected)))?)
            }
            None => {
                let mut settings = *settings;
                match settings.change(&word, args) {
                    Some(result) => result.map_err(Refused::Word)?,
                    None => return Err(Refused::Unsupported(word)),
                }
                Message::Set(settings)
            }
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
                    "message `{word}': expected flush, flush_current_buffer, commit_super_block, \
                     check, clear_stat, stats, cleaner, or a setting and its value"
                )
            }
            Refused::Word(error) => error.fmt(f),
        }
    }
}
