// SPDX-License-Identifier: GPL-2.0

//! Leads the bios of one block device, the *original*, through another, its *top*, and counts those
//! under way: all of what a target needs to put itself below the users of a device that is in use.
//!
//! The kernel has no interface for this. It has function tracing, and every bio that is submitted
//! enters `submit_bio_noacct()` with its device in `bi_bdev`, before anything has been decided by
//! it. A callback there, which changes that one field and returns, is all: the function then treats
//! the bio as one for the top. Nothing is called in the function's place, nothing sleeps, and no
//! bio is kept.
//!
//! ```text
//!   file system, raw user       bi_bdev = original
//!            |
//!   submit_bio_noacct   <------ entry hook: bi_bdev = top, counted     hook.rs
//!            |
//!   top (any mapped device)
//!            |
//!   target on the original      marks the bio and sends it there       pass.rs
//!            |
//!   submit_bio_noacct   <------ entry hook: marked, let through
//!            |
//!     __submit_bio       <---- second hook, for a while: a bio for the original that is not marked
//!            |                 was under way before there was a top
//!        original
//! ```
//!
//! # Who keeps what alive
//!
//! - The hooks find devices in two tables (`table.rs`) that are read under RCU: [`Original`]s by the
//!   device that is interposed, [`Top`]s by the device that is led to.
//! - An [`Original`] that leads to a [`Top`] holds a reference to it. Taking it away
//!   ([`Original::unlead`]) waits for an RCU grace period, so no hook is left that has seen it.
//! - A [`Top`] counts the bios that the hooks lead there, and those of them that have ended; its drop
//!   waits for as many of these before it closes the device.
//! - The hooks are in place as long as there is a [`Top`]: with none, no bio of the system runs
//!   through any code of the module. The second hook is there as long as somebody has
//!   [`Stragglers`], which is for a moment mostly.
//! - All hold the [`Interposer`], which belongs to the module. What needs the hooks keeps the module.
//!
//! # What is marked, and how
//!
//! The two highest bits of `bi_flags`, which the kernel does not use (`hook.rs` asserts it):
//! *passed*, of a bio that was sent to the original past the hooks, and *counted*, of one that was
//! led to a top.

mod counts;
mod hook;
mod original;
mod pass;
mod stragglers;
mod table;
mod top;

pub use counts::Counted;
pub use hook::Interposer;
pub use original::Original;
pub use stragglers::{
    MayCome,
    Stragglers, //
};
pub use top::Top;
