// SPDX-License-Identifier: GPL-2.0

//! What all tables share ends with the module; what a target keeps of it is counted.
//!
//! error: lifetime may not live long enough

include!("common/frame.rs");

fn keep(ti: &Ctr<'_, Plain>) -> &'static () {
    ti.global()
}
