// SPDX-License-Identifier: GPL-2.0

//! The words of a table line live as long as the call; what is kept of them is copied.
//!
//! error: lifetime may not live long enough

include!("common/frame.rs");

fn first(args: &mut Args<'_>) -> Option<&'static CStr> {
    Some(args.next("word").ok()?.as_c_str())
}
