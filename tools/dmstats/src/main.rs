// SPDX-License-Identifier: GPL-2.0

//! `dmstats`: statistics of device-mapper devices and of files on them, on the command line.

#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
