// SPDX-License-Identifier: GPL-2.0

//! Keeps a message that may come often from flooding the kernel log.
//!
//! ```ignore
//! #[pin_data]
//! struct Example {
//!     #[pin]
//!     failures: Ratelimit,
//! }
//!
//! pin_init!(Example { failures <- Ratelimit::new() });
//!
//! if example.failures.allows() {
//!     dm::error!("example", "hydration failed");
//! }
//! ```

use crate::bindings::{
    self,
    helpers, //
};
use kernel::{
    prelude::*,
    types::Opaque, //
};

/// Allows 10 messages in 5 seconds, as the kernel's own `printk_ratelimit()`; says afterwards how
/// many it has kept back.
#[pin_data]
pub struct Ratelimit {
    #[pin]
    state: Opaque<bindings::ratelimit_state>,
}

// SAFETY: The state belongs to no thread.
unsafe impl Send for Ratelimit {}
// SAFETY: `___ratelimit` takes the state's own lock.
unsafe impl Sync for Ratelimit {}

impl Ratelimit {
    /// A limit of which nothing is used up. Any context.
    pub fn new() -> impl PinInit<Self> {
        pin_init!(Ratelimit {
            // SAFETY: The place is for a state, and stays where it is. There is nothing to take down.
            state <- Opaque::ffi_init(|state| unsafe { helpers::ratelimit_init(state) }),
        })
    }

    /// Whether the message may be printed now. Any context.
    pub fn allows(&self) -> bool {
        // SAFETY: The state is initialised, and lives as long as `self`.
        unsafe { helpers::ratelimit(self.state.get()) }
    }
}
