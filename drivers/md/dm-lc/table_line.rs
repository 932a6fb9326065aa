// SPDX-License-Identifier: GPL-2.0

//! The words of a table line that follow the two devices, and the settings that they and messages
//! make. Pure.
//!
//! ```text
//! [<#args> [<key> <value>]*]
//! ```
//!
//! What dm-writeboost calls by another name is known by that as well.

use super::admission::MAX_CELLS;
use core::fmt;
use dm::args::{
    Arg,
    ArgError,
    Args, //
};

/// Which way writes go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// To the log.
    Writeback,
    /// To the backing device; if the cache has a copy of what they overwrite, to the log before.
    Writethrough,
    /// To the backing device, unless the cache has a copy of what they overwrite: then to the log.
    Writearound,
    /// As with `Writearound`, and the cache has nothing: else it is not entered.
    Passthrough,
    /// As with `Writearound`; and everything is written back.
    Cleaner,
}

impl Mode {
    /// All of them.
    pub const ALL: [Mode; 5] = [
        Mode::Writeback,
        Mode::Writethrough,
        Mode::Writearound,
        Mode::Passthrough,
        Mode::Cleaner,
    ];

    /// Its word.
    pub fn name(&self) -> &'static str {
        match self {
            Mode::Writeback => "writeback",
            Mode::Writethrough => "writethrough",
            Mode::Writearound => "writearound",
            Mode::Passthrough => "passthrough",
            Mode::Cleaner => "cleaner",
        }
    }

    /// Whether the cache is to be emptied.
    pub fn cleans(&self) -> bool {
        matches!(self, Mode::Passthrough | Mode::Cleaner)
    }
}

/// A setting that is a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Knob {
    /// 1: write back, when there is a reason to. 0: only when there is no room left.
    AllowMigrate,
    /// 1: write everything back, whatever the other settings say.
    ForceMigrate,
    /// Write back below the watermarks too, while the backing device is busy for at most so many
    /// percent of the time.
    MigrateThreshold,
    /// So many seconds are looked at to tell how busy the backing device is.
    UpdateInterval,
    /// So many full records are written back at a time.
    NrMaxBatchedMigration,
    /// Above so many percent of the log in use, it is written back.
    HighWatermark,
    /// Until so many are.
    LowWatermark,
    /// A flush may wait so many milliseconds for others.
    BarrierDeadlineMs,
    /// So many seconds after a write, at most, it is written to the log; 0: when there is need to.
    FlushCurrentBufferInterval,
    /// The superblock is written every so many seconds; 0: when there is need to.
    CommitSuperBlockInterval,
    /// 1: compare what is read from the cache device with its checksums.
    VerifyReads,
    /// 1: the backing device alone is always as it was at a flush, but for what was written before the
    /// next one.
    PrefixConsistent,
    /// What is read from the backing device is copied to the cache, if it is of a run of at most so many
    /// blocks; 0: it is not.
    ReadCacheThreshold,
    /// So many reads may wait for being copied.
    NrReadCacheCells,
    /// 1: go on without a cache device that fails, if no write is lost by that.
    BypassOnError,
    /// A run of writes that is longer than so many KiB goes around the log; 0: none does.
    SequentialCutoff,
    /// What was written so many milliseconds ago is written back below the watermarks too; 0: it is not.
    MaxAgeMs,
}

/// The longest [`Knob::SequentialCutoff`], in KiB.
const MAX_CUTOFF: u32 = 1 << 20;
/// The longest [`Knob::MaxAgeMs`]: a day.
const MAX_AGE_MS: u32 = 24 * 60 * 60 * 1000;

/// How many there are.
const KNOBS: usize = 17;

/// What there is to know of a setting.
struct About {
    name: &'static str,
    /// What dm-writeboost calls it, if it has it.
    writeboost: Option<&'static str>,
    from: u32,
    to: u32,
    default: u32,
}

const ABOUT: [About; KNOBS] = [
    About::new("allow_migrate", None, 0, 1, 1),
    About::new("force_migrate", None, 0, 1, 0),
    About::new("migrate_threshold", Some("writeback_threshold"), 0, 100, 0),
    About::new("update_interval", None, 1, 60, 1),
    About::new(
        "nr_max_batched_migration",
        Some("nr_max_batched_writeback"),
        1,
        16,
        16,
    ),
    About::new("high_watermark", None, 0, 100, 50),
    About::new("low_watermark", None, 0, 100, 45),
    About::new("barrier_deadline_ms", None, 0, 1000, 0),
    About::new(
        "flush_current_buffer_interval",
        Some("sync_data_interval"),
        0,
        3600,
        1,
    ),
    About::new(
        "commit_super_block_interval",
        Some("update_sb_record_interval"),
        0,
        3600,
        0,
    ),
    About::new("verify_reads", None, 0, 1, 0),
    About::new("prefix_consistent", None, 0, 1, 0),
    About::new("read_cache_threshold", None, 0, 127, 0),
    About::new("nr_read_cache_cells", None, 1, MAX_CELLS, MAX_CELLS),
    About::new("bypass_on_error", None, 0, 1, 0),
    About::new("sequential_cutoff", None, 0, MAX_CUTOFF, 0),
    About::new("max_age_ms", None, 0, MAX_AGE_MS, 0),
];

impl About {
    const fn new(
        name: &'static str,
        writeboost: Option<&'static str>,
        from: u32,
        to: u32,
        default: u32,
    ) -> Self {
        About {
            name,
            writeboost,
            from,
            to,
            default,
        }
    }
}

impl Knob {
    /// All of them, in the order of their numbers.
    pub const ALL: [Knob; KNOBS] = [
        Knob::AllowMigrate,
        Knob::ForceMigrate,
        Knob::MigrateThreshold,
        Knob::UpdateInterval,
        Knob::NrMaxBatchedMigration,
        Knob::HighWatermark,
        Knob::LowWatermark,
        Knob::BarrierDeadlineMs,
        Knob::FlushCurrentBufferInterval,
        Knob::CommitSuperBlockInterval,
        Knob::VerifyReads,
        Knob::PrefixConsistent,
        Knob::ReadCacheThreshold,
        Knob::NrReadCacheCells,
        Knob::BypassOnError,
        Knob::SequentialCutoff,
        Knob::MaxAgeMs,
    ];

    fn about(self) -> &'static About {
        &ABOUT[self as usize]
    }
}

/// What a write needs to know of the settings, in one word: it is looked at for each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WriteSettings(u32);

impl WriteSettings {
    const MODE_BITS: u32 = 3;

    /// Those of a cache.
    pub fn of(settings: &Settings) -> Self {
        let cutoff = settings.get(Knob::SequentialCutoff);
        WriteSettings(settings.mode as u32 | cutoff << Self::MODE_BITS)
    }

    /// From the word.
    #[inline]
    pub fn from_word(word: u32) -> Self {
        WriteSettings(word)
    }

    /// The word.
    pub fn word(self) -> u32 {
        self.0
    }

    /// Whether all writes go to the log.
    #[inline]
    pub fn are_plain(self) -> bool {
        self.0 == Mode::Writeback as u32
    }

    /// Whether this is the mode.
    #[inline]
    pub fn has(self, mode: Mode) -> bool {
        self.0 & ((1 << Self::MODE_BITS) - 1) == mode as u32
    }

    /// Whether a run of so many sectors goes around the log.
    pub fn is_long(self, sectors: u64) -> bool {
        let cutoff = u64::from(self.0 >> Self::MODE_BITS);
        cutoff != 0 && sectors > cutoff << 1
    }
}

/// What may be changed while the cache is in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Which way writes go.
    pub mode: Mode,
    numbers: [u32; KNOBS],
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            mode: Mode::Writeback,
            numbers: ABOUT.map(|about| about.default),
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

/// A key of a table line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Key {
    Mode,
    /// dm-writeboost's way to say a mode.
    WriteAround,
    Number(Knob),
    Format,
}

/// A key may be given once; there are so many, with `mode` and `format`.
const KEYS: usize = KNOBS + 2;

const WRITE_AROUND: &str = "write_around_mode";

impl Key {
    /// The key that is called by this word, and the name by which it was called.
    fn of(word: &Arg<'_>) -> Option<(Key, &'static str)> {
        let others = [
            (Key::Mode, "mode"),
            (Key::WriteAround, WRITE_AROUND),
            (Key::Format, "format"),
        ];
        let knobs = Knob::ALL.into_iter().flat_map(|knob| {
            let names = [Some(knob.about().name), knob.about().writeboost];
            let named = names.into_iter().flatten();
            named.map(move |name| (Key::Number(knob), name))
        });
        others
            .into_iter()
            .chain(knobs)
            .find(|(_, name)| word.is(name))
    }

    /// Its number among all keys that mean something of their own.
    fn number(self) -> usize {
        match self {
            Key::Number(knob) => knob as usize,
            Key::Mode | Key::WriteAround => KNOBS,
            Key::Format => KNOBS + 1,
        }
    }
}

impl Options {
    /// Reads the words.
    pub fn parse<'a>(args: &mut Args<'a>) -> Result<Self, ArgError<'a>> {
        let mut options = Options::default();
        if args.is_empty() {
            return Ok(options);
        }
        let (count, word) = args.group("number of arguments", 2 * KEYS as u32)?;
        if count % 2 != 0 {
            return Err(word.invalid("an even number"));
        }
        let mut seen = [false; KEYS];
        for _ in 0..count / 2 {
            let word = args.next("key")?;
            let (key, name) = Key::of(&word).ok_or_else(|| unknown(&word))?;
            if core::mem::replace(&mut seen[key.number()], true) {
                return Err(word.invalid("each key once"));
            }
            let value = args.next(name)?;
            match key {
                Key::Format => options.format = value.number(0..=1u32)? == 1,
                key => options.settings.set(key, value)?,
            }
        }
        if let Ok(word) = args.next("word") {
            return Err(word.invalid("no word after the arguments that were counted"));
        }
        // Which of two came first does not matter.
        let fit = options.settings.fitting();
        fit.map_err(|expected| word.invalid(expected))?;
        Ok(options)
    }
}

fn unknown<'a>(word: &Arg<'a>) -> ArgError<'a> {
    word.invalid(
        "mode, allow_migrate, force_migrate, migrate_threshold, update_interval, \
         nr_max_batched_migration, high_watermark, low_watermark, barrier_deadline_ms, \
         flush_current_buffer_interval, commit_super_block_interval, verify_reads, \
         prefix_consistent, read_cache_threshold, nr_read_cache_cells, bypass_on_error, \
         sequential_cutoff, max_age_ms or format",
    )
}

impl Settings {
    /// The value of a setting.
    #[inline]
    pub fn get(&self, knob: Knob) -> u32 {
        self.numbers[knob as usize]
    }

    /// The same settings in another mode; or what is expected instead, if it does not go with them.
    pub fn with_mode(self, mode: Mode) -> Result<Self, &'static str> {
        Settings { mode, ..self }.fitting()
    }

    /// Whether a setting that is 0 or 1 is 1.
    pub fn is_set(&self, knob: Knob) -> bool {
        self.get(knob) != 0
    }

    /// Changes the setting that `word` names to the value that follows. None: there is no such
    /// setting.
    pub fn change<'a>(
        &mut self,
        word: &Arg<'a>,
        args: &mut Args<'a>,
    ) -> Option<Result<(), ArgError<'a>>> {
        let (key, name) = Key::of(word).filter(|&(key, _)| key != Key::Format)?;
        let result = args.next(name).and_then(|value| {
            let mut changed = *self;
            changed.set(key, value)?;
            *self = changed
                .fitting()
                .map_err(|expected| value.invalid(expected))?;
            Ok(())
        });
        Some(result)
    }

    fn set<'a>(&mut self, key: Key, value: Arg<'a>) -> Result<(), ArgError<'a>> {
        match key {
            Key::Mode => {
                let mut modes = Mode::ALL.into_iter();
                self.mode = modes.find(|mode| value.is(mode.name())).ok_or_else(|| {
                    value.invalid("writeback, writethrough, writearound, passthrough or cleaner")
                })?;
            }
            Key::WriteAround => {
                self.mode = if value.number(0..=1u32)? == 1 {
                    Mode::Writearound
                } else {
                    Mode::Writeback
                };
            }
            Key::Number(knob) => {
                let About { from, to, .. } = *knob.about();
                self.numbers[knob as usize] = value.number(from..=to)?;
            }
            Key::Format => {}
        }
        Ok(())
    }

    /// The settings, if they go together; or what is expected.
    fn fitting(self) -> Result<Self, &'static str> {
        if self.get(Knob::LowWatermark) > self.get(Knob::HighWatermark) {
            Err("a low_watermark that is not above the high_watermark")
        } else if self.is_set(Knob::PrefixConsistent) && self.mode != Mode::Writeback {
            Err("the mode writeback with prefix_consistent 1")
        } else if self.is_set(Knob::PrefixConsistent) && self.is_set(Knob::BypassOnError) {
            Err("bypass_on_error 0 with prefix_consistent 1")
        } else if self.is_set(Knob::PrefixConsistent) && self.is_set(Knob::SequentialCutoff) {
            Err("sequential_cutoff 0 with prefix_consistent 1")
        } else {
            Ok(self)
        }
    }

    /// Writes the arguments of a table line with these settings: those that are not the defaults.
    pub fn write_table(&self, out: &mut impl fmt::Write) -> fmt::Result {
        let changed = || {
            let knobs = Knob::ALL.into_iter();
            knobs.filter(|&knob| self.get(knob) != knob.about().default)
        };
        let has_mode = self.mode != Mode::Writeback;
        write!(out, "{}", 2 * (changed().count() + usize::from(has_mode)))?;
        if has_mode {
            write!(out, " mode {}", self.mode.name())?;
        }
        for knob in changed() {
            write!(out, " {} {}", knob.about().name, self.get(knob))?;
        }
        Ok(())
    }

    /// Writes all settings but the mode, as a status has them: ` key value` each.
    pub fn write_status(&self, out: &mut impl fmt::Write) -> fmt::Result {
        for knob in Knob::ALL {
            write!(out, " {} {}", knob.about().name, self.get(knob))?;
        }
        Ok(())
    }

    /// How many words [`write_status`](Self::write_status) writes.
    pub const STATUS_WORDS: usize = 2 * KNOBS;
}
