// SPDX-License-Identifier: GPL-2.0

//! Device-mapper target `interpose`: any mapped device under the users of a device that is in use.
//!
//! An `interpose` device is the lowest of a stack. It passes all that it gets on to its *original*,
//! a disk or a partition that may be mounted, which it opens without a claim. On it the
//! administrator builds any stack of mapped devices. A message then *attaches* the uppermost one,
//! the *top*: what users send to the original goes through the top from then on, while they have
//! the original open as before. Another message detaches it again.
//!
//! # Where things are
//!
//! - What device-mapper calls: [`target`], and the words of its messages: [`message`].
//! - Attach, switch and detach, step by step: [`origin`]. Who shares an original: [`registry`].
//! - Holding bios back for a moment: [`hold`].
//! - Pure, tested on the host: what may follow what, [`state`]; which top fits which original,
//!   [`fit`]; [`message`].
//! - The hooks themselves, in the layer: [`dm::interpose`].
//!
//! # What always holds
//!
//! 1. What runs for each bio of the system never sleeps, allocates or takes a lock, and is there
//!    only while something is attached.
//! 2. A bio is led to a top once at most; what leaves an `interpose` device is never led.
//! 3. A top stays open until every bio that was led to it has ended, however long that takes.
//! 4. Nothing is held back while the step waits for a file system, for writers to leave the
//!    submission path, or for a top.
//! 5. The original's queue is frozen only while bios are held back above it, and neither lasts longer
//!    than the limit of a drain: what the drain waits for may wait for a bio that is held.
//! 6. A file system is frozen and thawed within one message, and memory that is allocated between
//!    does not wait for writes.
//! 7. A detach is never undone: once bios go to the original directly, no later one goes through
//!    the top again, since that may have remembered what it has seen last. Nor is an attach, once
//!    the file system has been thawed: what it has written since may be in the top alone.
//! 8. `presuspend` waits for the step under way before device-mapper stops I/O, and refuses
//!    those that follow; else a freeze would wait for I/O that waits for the message.
//! 9. The module can be unloaded when nothing is attached and no table is left, and then no thread
//!    is in any code of it.

#![forbid(unsafe_code)]

use dm::prelude::*;
use kernel::prelude::*;

pub mod fit;
mod hold;
pub mod message;
mod origin;
mod registry;
pub mod state;
mod target;

/// The name in kernel messages.
const NAME: &str = "interpose";

module! {
    type: InterposeModule,
    name: "dm_interpose_rs",
    authors: ["dm-rs developers"],
    description: "device-mapper interpose target",
    license: "GPL",
    alias: ["dm-interpose"],
}

/// What exists while the module is loaded.
#[pin_data]
struct InterposeModule {
    #[pin]
    _registration: Registration<target::InterposeTarget>,
}

impl kernel::InPlaceModule for InterposeModule {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            let originals = registry::Originals::new(module)?;
            Ok(try_pin_init!(InterposeModule {
                _registration <- Registration::new(module, originals),
            }? Error))
        })
    }
}
