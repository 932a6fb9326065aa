// SPDX-License-Identifier: GPL-2.0

//! Words as device-mapper hands them to a target, for the tests of what reads them.

use crate::args::Args;
use std::ffi::CString;

/// Calls `read` with these words. A NUL in a word ends it.
pub fn read<R>(words: &[impl AsRef<[u8]>], read: impl FnOnce(&mut Args<'_>) -> R) -> R {
    let words: Vec<CString> = words
        .iter()
        .map(|word| {
            let word = word.as_ref();
            let end = word.iter().position(|&byte| byte == 0);
            CString::new(&word[..end.unwrap_or(word.len())]).expect("there is no NUL any more")
        })
        .collect();
    let mut argv: Vec<*mut u8> = words
        .iter()
        .map(|word| word.as_ptr().cast_mut().cast())
        .collect();
    // SAFETY: These are as many pointers to strings, which live until the call is over.
    read(&mut unsafe { Args::from_raw(argv.len() as u32, argv.as_mut_ptr()) })
}
