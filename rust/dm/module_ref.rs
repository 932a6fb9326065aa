// SPDX-License-Identifier: GPL-2.0

//! Keeps a module loaded for what outlives its tables.
//!
//! Device-mapper holds a target's module as long as a table uses it. What goes on after the last
//! table needs a reference of its own.

use crate::bindings;
use kernel::prelude::*;

/// While this lives the module cannot be unloaded.
///
/// The last code of the module to run is that which drops it, so this has to be something that the
/// module's exit waits for, an item of its own workqueue for instance.
///
/// # Invariants
///
/// The value has a reference to the module.
pub struct ModuleRef(&'static ThisModule);

impl ModuleRef {
    /// Takes a reference. The module must be in use already, as it is while a table of it exists;
    /// else this fails with `ENODEV` when it is about to go. Any context.
    pub fn new(module: &'static ThisModule) -> Result<Self> {
        // SAFETY: The pointer is to this very module.
        if unsafe { bindings::try_module_get(module.as_ptr()) } {
            // INVARIANT: It was just taken.
            Ok(ModuleRef(module))
        } else {
            Err(ENODEV)
        }
    }
}

impl Drop for ModuleRef {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, the reference is ours.
        unsafe { bindings::module_put(self.0.as_ptr()) }
    }
}
