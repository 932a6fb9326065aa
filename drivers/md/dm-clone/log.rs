// SPDX-License-Identifier: GPL-2.0

//! Kernel messages of this target.

/// The name in kernel messages.
pub(crate) const NAME: &str = "clone";
/// The name in messages about the metadata.
pub(crate) const METADATA: &str = "clone metadata";
