// SPDX-License-Identifier: GPL-2.0

//! The words of a table line or of a message. Pure: no kernel in it.
//!
//! A word is asked for by the name that the documentation gives it; what is wrong with it is said
//! with that name, the word itself and what would have been right.
//!
//! ```ignore
//! let region = args.next("region size").map_err(..)?;
//! let region = region.number::<u32>(8..=2097152)?;
//! // region size `7': not a number from 8 to 2097152
//! ```

use core::{
    ffi::CStr,
    fmt,
    marker::PhantomData,
    ops::RangeInclusive, //
};

/// The words that have not been read yet. Lives only as long as the call it was given to.
pub struct Args<'a> {
    words: &'a [*mut u8],
    taken: usize,
    _words: PhantomData<&'a CStr>,
}

impl<'a> Args<'a> {
    /// # Safety
    ///
    /// `argv` must point at `argc` pointers to strings, all valid and unchanged for `'a`. It may be
    /// null if `argc` is 0. (A `char` of the kernel is a `u8`.)
    pub(crate) unsafe fn from_raw(argc: u32, argv: *mut *mut u8) -> Self {
        let words: &[*mut u8] = if argc == 0 || argv.is_null() {
            &[]
        } else {
            // SAFETY: The caller promises `argc` valid pointers.
            unsafe { core::slice::from_raw_parts(argv, argc as usize) }
        };
        Args {
            words,
            taken: 0,
            _words: PhantomData,
        }
    }

    /// How many words are left.
    pub fn len(&self) -> usize {
        self.words.len() - self.taken
    }

    /// Whether no word is left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes the next word, which the documentation calls `name`.
    pub fn next(&mut self, name: &'static str) -> Result<Arg<'a>, ArgError<'a>> {
        let word = self.words.get(self.taken).ok_or(ArgError {
            name,
            word: None,
            expected: Expected::Present,
        })?;
        self.taken += 1;
        Ok(Arg {
            name,
            // SAFETY: `from_raw` was promised strings that live for `'a`.
            word: unsafe { string(*word) },
        })
    }

    /// Takes the count of a group of words, then checks that the words are there. Returns the count
    /// as a number and as a word.
    pub fn group(&mut self, name: &'static str, max: u32) -> Result<(u32, Arg<'a>), ArgError<'a>> {
        let arg = self.next(name)?;
        let count = arg.number(0..=max)?;
        if count as usize > self.len() {
            return Err(ArgError {
                name,
                word: Some(arg.word),
                expected: Expected::AtMostLeft(self.len()),
            });
        }
        Ok((count, arg))
    }

    /// The words that are left, to be kept as they are. Does not take them.
    pub fn rest(&self) -> impl Iterator<Item = &'a CStr> + '_ {
        self.words[self.taken..].iter().map(|word| {
            // SAFETY: `from_raw` was promised strings that live for `'a`.
            unsafe { string(*word) }
        })
    }
}

/// A string of the kernel's.
///
/// # Safety
///
/// `word` must be valid and unchanged for `'a`.
#[allow(clippy::disallowed_methods)] // The kernel's own function for this is not there on the host.
unsafe fn string<'a>(word: *mut u8) -> &'a CStr {
    // SAFETY: The caller promises it.
    unsafe { CStr::from_ptr(word.cast()) }
}

/// One word with the name it goes by.
#[derive(Clone, Copy)]
pub struct Arg<'a> {
    name: &'static str,
    word: &'a CStr,
}

impl<'a> Arg<'a> {
    /// The word itself.
    pub fn as_c_str(&self) -> &'a CStr {
        self.word
    }

    /// Whether the word is `keyword`, in letters of either case.
    pub fn is(&self, keyword: &str) -> bool {
        self.word
            .to_bytes()
            .eq_ignore_ascii_case(keyword.as_bytes())
    }

    /// The word as a decimal number in `range`.
    pub fn number<N>(&self, range: RangeInclusive<N>) -> Result<N, ArgError<'a>>
    where
        N: TryFrom<u64> + Into<u64> + PartialOrd + Copy,
    {
        let out_of_range = || ArgError {
            name: self.name,
            word: Some(self.word),
            expected: Expected::Number {
                from: (*range.start()).into(),
                to: (*range.end()).into(),
            },
        };
        let number = parse_decimal(self.word.to_bytes()).ok_or_else(out_of_range)?;
        let number = N::try_from(number).map_err(|_| out_of_range())?;
        if range.contains(&number) {
            Ok(number)
        } else {
            Err(out_of_range())
        }
    }

    /// An error that says what this word should have been.
    pub fn invalid(&self, expected: &'static str) -> ArgError<'a> {
        ArgError {
            name: self.name,
            word: Some(self.word),
            expected: Expected::Text(expected),
        }
    }
}

/// Digits only, with an optional plus sign, as the kernel's own `kstrtoull` takes them.
fn parse_decimal(word: &[u8]) -> Option<u64> {
    let digits = word.strip_prefix(b"+").unwrap_or(word);
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number.checked_mul(10)?.checked_add(digit.into())
    })
}

/// What was wrong with a word: displays as its name, the word, and what was expected.
#[derive(Clone, Copy)]
pub struct ArgError<'a> {
    name: &'static str,
    word: Option<&'a CStr>,
    expected: Expected,
}

#[derive(Clone, Copy)]
enum Expected {
    Present,
    Number { from: u64, to: u64 },
    AtMostLeft(usize),
    Text(&'static str),
}

impl fmt::Display for ArgError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        if let Some(word) = self.word {
            write!(f, " `{}'", word.to_bytes().escape_ascii())?;
        }
        match self.expected {
            Expected::Present => f.write_str(": missing"),
            Expected::Number { from, to } => {
                write!(f, ": expected a number from {from} to {to}")
            }
            Expected::AtMostLeft(left) => write!(f, ": only {left} words follow"),
            Expected::Text(text) => write!(f, ": expected {text}"),
        }
    }
}
