// SPDX-License-Identifier: GPL-2.0

//! The buffer of a status is the ioctl's, for the call.
//!
//! error: lifetime may not live long enough

include!("common/frame.rs");

fn keep(kept: &mut Option<StatusWriter<'static>>, out: StatusWriter<'_>) {
    *kept = Some(out);
}
