// SPDX-License-Identifier: GPL-2.0

//! Keeps a message that may come often from flooding the kernel log.
//!
//! ```ignore
//! static FAILURES: Ratelimit = Ratelimit::new();
//! if FAILURES.allows() {
//!     dm::error!("clone", "hydration failed");
//! }
//! ```

use crate::bindings::{
    self,
    helpers, //
};
use kernel::types::Opaque;

/// Allows 10 messages in 5 seconds, as the kernel's own `printk_ratelimit()`; says afterwards how
/// many it has kept back. Kept in a `static` beside the message.
pub struct Ratelimit(Opaque<bindings::ratelimit_state>);

// SAFETY: `___ratelimit` takes the state's own lock.
unsafe impl Sync for Ratelimit {}

impl Ratelimit {
    /// A limit of which nothing is used up.
    #[expect(clippy::new_without_default, reason = "made in constants only")]
    pub const fn new() -> Self {
        // SAFETY: All zeroes are a valid state, with an unlocked lock.
        let mut state: bindings::ratelimit_state = unsafe { core::mem::zeroed() };
        state.interval = (5 * bindings::HZ) as kernel::ffi::c_int;
        state.burst = 10;
        Ratelimit(Opaque::new(state))
    }

    /// Whether the message may be printed now. Any context.
    pub fn allows(&self) -> bool {
        // SAFETY: The state is valid, and lives as long as `self`.
        unsafe { helpers::ratelimit(self.0.get()) }
    }
}
