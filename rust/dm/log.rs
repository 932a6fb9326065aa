// SPDX-License-Identifier: GPL-2.0

//! Kernel messages in the form of device-mapper's own targets: `device-mapper: <target>: <text>`.
//!
//! A target gives its name once, in a macro of its own or at each call:
//!
//! ```ignore
//! dm::error!("clone", "{}: Aborting current metadata transaction", name);
//! ```

use core::fmt;
use kernel::prelude::*;

/// How urgent a message is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// An operation failed.
    Error,
    /// Something is not as it should be, and went on.
    Warning,
    /// A change of state that an administrator wants to find in the log.
    Info,
}

/// Prints one line. Any context. Used through [`error!`](crate::error!),
/// [`warning!`](crate::warning!) and [`info!`](crate::info!).
pub fn print(level: Level, target: &str, text: fmt::Arguments<'_>) {
    match level {
        Level::Error => pr_err!("{}: {}\n", target, text),
        Level::Warning => pr_warn!("{}: {}\n", target, text),
        Level::Info => pr_info!("{}: {}\n", target, text),
    }
}

/// Prints an error line of a target.
#[macro_export]
macro_rules! error {
    ($target:expr, $($text:tt)+) => {
        $crate::log::print($crate::log::Level::Error, $target, ::core::format_args!($($text)+))
    };
}

/// Prints a warning line of a target.
#[macro_export]
macro_rules! warning {
    ($target:expr, $($text:tt)+) => {
        $crate::log::print($crate::log::Level::Warning, $target, ::core::format_args!($($text)+))
    };
}

/// Prints an informational line of a target.
#[macro_export]
macro_rules! info {
    ($target:expr, $($text:tt)+) => {
        $crate::log::print($crate::log::Level::Info, $target, ::core::format_args!($($text)+))
    };
}
