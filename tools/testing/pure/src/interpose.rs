// SPDX-License-Identifier: GPL-2.0

//! Of dm-interpose.

#[path = "../../../../drivers/md/dm-interpose/fit.rs"]
pub mod fit;
#[path = "../../../../drivers/md/dm-interpose/message.rs"]
pub mod message;
#[path = "../../../../drivers/md/dm-interpose/state.rs"]
pub mod state;
