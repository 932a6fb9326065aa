// SPDX-License-Identifier: GPL-2.0

//! The pure files of the layer and of the targets: the very sources that are compiled into the modules.

// The targets' files name the layer's by its crate.
extern crate self as dm;

#[path = "../../../../rust/dm/args.rs"]
pub mod args;
pub mod clone;
pub mod interpose;
pub mod lc;
pub mod words;
