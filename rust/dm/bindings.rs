// SPDX-License-Identifier: GPL-2.0

//! The raw device-mapper interfaces, as bindgen reads them from the kernel's headers.
//!
//! Only what those headers declare is generated for this crate; every other type is the one of
//! [`kernel::bindings`], so that for instance a `*mut bio` from here and one from there are the
//! same type. Nothing outside this crate sees this module: it is wrapped by the others.

#![allow(
    clippy::all,
    clippy::pedantic,
    clippy::undocumented_unsafe_blocks,
    dead_code,
    improper_ctypes,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub,
    unsafe_op_in_unsafe_fn
)]

pub(crate) use kernel::bindings::*;
use kernel::ffi;

// bindgen's name for C's `bool` in a bitfield.
type bool_ = bool;

include!(concat!(env!("DM_GENERATED"), "/dm_bindings.rs"));

/// Our own C helpers, see `helpers.c`.
pub(crate) mod helpers {
    use super::*;

    include!(concat!(env!("DM_GENERATED"), "/dm_helpers.rs"));
}

/// Assertions that the kernel which will load us lays these structs out as we were told.
mod layout {
    include!(concat!(env!("DM_GENERATED"), "/layout.rs"));
}
