// SPDX-License-Identifier: GPL-2.0

//! The words of a table line that follow the two devices, and the settings that they and messages
//! make. Pure.
//!
//! ```text
//! [<#args> [<key> <value>]*]
//! ```

use core::fmt;
use dm::args::{
    Arg,
    ArgError,
    Args, //
};

/// A key may be given once; there are so many.
const KEYS: u32 = 6;

/// Which way writes go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// To the log.
    Writeback,
    /// To the backing device, unless the cache has a copy of what they overwrite.
    Writearound,
    /// As with `Writearound`; and everything is written back.
    Cleaner,
}

impl Mode {
    /// All of them.
    pub const ALL: [Mode; 3] = [Mode::Writeback, Mode::Writearound, Mode::Cleaner];

    /// Its word.
    pub fn name(&self) -> &'static str {
        match self {
            Mode::Writeback => "writeback",
            Mode::Writearound => "writearound",
            Mode::Cleaner => "cleaner",
        }
    }
}

/// What may be changed while the cache is in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Which way writes go.
    pub mode: Mode,
    /// Write back at all, unless there is no room left.
    pub allow_migrate: bool,
    /// Above so many percent of the log in use, it is written back.
    pub high_watermark: u32,
    /// Until so many are.
    pub low_watermark: u32,
    /// So many seconds after a write, at most, it is written to the log; 0: when there is need to.
    pub flush_current_buffer_interval: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            mode: Mode::Writeback,
            allow_migrate: true,
            high_watermark: 50,
            low_watermark: 45,
            flush_current_buffer_interval: 1,
        }
    }
}

/// What a table line asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// The settings to begin with.
    pub settings: Settings,
    /// Format the cache device, whatever is on it.
    pub format: bool,
}

/// A key of a setting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Key {
    Mode,
    AllowMigrate,
    HighWatermark,
    LowWatermark,
    FlushInterval,
    Format,
}

impl Key {
    const ALL: [Key; KEYS as usize] = [
        Key::Mode,
        Key::AllowMigrate,
        Key::HighWatermark,
        Key::LowWatermark,
        Key::FlushInterval,
        Key::Format,
    ];

    fn name(&self) -> &'static str {
        match self {
            Key::Mode => "mode",
            Key::AllowMigrate => "allow_migrate",
            Key::HighWatermark => "high_watermark",
            Key::LowWatermark => "low_watermark",
            Key::FlushInterval => "flush_current_buffer_interval",
            Key::Format => "format",
        }
    }

    fn of(word: &Arg<'_>) -> Option<Key> {
        Key::ALL.into_iter().find(|key| word.is(key.name()))
    }
}

impl Options {
    /// Reads the words.
    pub fn parse<'a>(args: &mut Args<'a>) -> Result<Self, ArgError<'a>> {
        let mut options = Options::default();
        if args.is_empty() {
            return Ok(options);
        }
        let (count, word) = args.group("number of arguments", 2 * KEYS)?;
        if count % 2 != 0 {
            return Err(word.invalid("an even number"));
        }
        let mut seen = [false; KEYS as usize];
        for _ in 0..count / 2 {
            let word = args.next("key")?;
            let key = Key::of(&word).ok_or_else(|| {
                word.invalid(
                    "mode, allow_migrate, high_watermark, low_watermark, \
                     flush_current_buffer_interval or format",
                )
            })?;
            if core::mem::replace(&mut seen[key as usize], true) {
                return Err(word.invalid("each key once"));
            }
            let value = args.next(key.name())?;
            match key {
                Key::Format => options.format = value.number(0..=1u32)? == 1,
                key => options.settings.set(key, value)?,
            }
        }
        if let Ok(word) = args.next("word") {
            return Err(word.invalid("no word after the arguments that were counted"));
        }
        // Which of the two came first does not matter.
        if !options.settings.watermarks_fit() {
            return Err(word.invalid("a low_watermark that is not above the high_watermark"));
        }
        Ok(options)
    }
}

impl Settings {
    /// Changes the setting that `word` names to `value`. None: there is no such setting.
    pub fn change<'a>(
        &mut self,
        word: Arg<'a>,
        value: Arg<'a>,
    ) -> Option<Result<(), ArgError<'a>>> {
        let key = Key::of(&word).filter(|&key| key != Key::Format)?;
        let mut changed = *self;
        let result = changed.set(key, value).and_then(|()| {
            if changed.watermarks_fit() {
                Ok(())
            } else {
                Err(value.invalid("a low_watermark that is not above the high_watermark"))
            }
        });
        if result.is_ok() {
            *self = changed;
        }
        Some(result)
    }

    /// Whether a word names a setting.
    pub fn has(word: &Arg<'_>) -> bool {
        Key::of(word).is_some_and(|key| key != Key::Format)
    }

    fn set<'a>(&mut self, key: Key, value: Arg<'a>) -> Result<(), ArgError<'a>> {
        match key {
            Key::Mode => {
                let mut modes = Mode::ALL.into_iter();
                self.mode = modes
                    .find(|mode| value.is(mode.name()))
                    .ok_or_else(|| value.invalid("writeback, writearound or cleaner"))?;
            }
            Key::AllowMigrate => self.allow_migrate = value.number(0..=1u32)? == 1,
            Key::HighWatermark => self.high_watermark = value.number(0..=100)?,
            Key::LowWatermark => self.low_watermark = value.number(0..=100)?,
            Key::FlushInterval => self.flush_current_buffer_interval = value.number(0..=3600)?,
            Key::Format => {}
        }
        Ok(())
    }

    fn watermarks_fit(&self) -> bool {
        self.low_watermark <= self.high_watermark
    }

    /// The settings with their values.
    fn values(&self) -> [(Key, u32); 4] {
        [
            (Key::AllowMigrate, self.allow_migrate.into()),
            (Key::HighWatermark, self.high_watermark),
            (Key::LowWatermark, self.low_watermark),
            (Key::FlushInterval, self.flush_current_buffer_interval),
        ]
    }

    /// Writes the arguments of a table line with these settings: those that are not the defaults.
    pub fn write_table(&self, out: &mut impl fmt::Write) -> fmt::Result {
        let default = Settings::default();
        let changed = || {
            let values = self.values().into_iter().zip(default.values());
            values.filter(|(now, default)| now != default)
        };
        let has_mode = self.mode != default.mode;
        write!(out, "{}", 2 * (changed().count() + usize::from(has_mode)))?;
        if has_mode {
            write!(out, " {} {}", Key::Mode.name(), self.mode.name())?;
        }
        for ((key, value), _) in changed() {
            write!(out, " {} {value}", key.name())?;
        }
        Ok(())
    }

    /// Writes all settings but the mode, as a status has them: ` key value` each.
    pub fn write_status(&self, out: &mut impl fmt::Write) -> fmt::Result {
        for (key, value) in self.values() {
            write!(out, " {} {value}", key.name())?;
        }
        Ok(())
    }

    /// How many words [`write_status`](Self::write_status) writes.
    pub const STATUS_WORDS: usize = 8;
}
