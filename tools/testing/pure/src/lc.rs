// SPDX-License-Identifier: GPL-2.0

//! Of dm-lc.

#[path = "../../../../drivers/md/dm-lc/admission.rs"]
pub mod admission;
#[path = "../../../../drivers/md/dm-lc/batch.rs"]
pub mod batch;
#[path = "../../../../drivers/md/dm-lc/checksum.rs"]
pub mod checksum;
#[path = "../../../../drivers/md/dm-lc/format.rs"]
pub mod format;
#[path = "../../../../drivers/md/dm-lc/index.rs"]
pub mod index;
#[path = "../../../../drivers/md/dm-lc/log.rs"]
pub mod log;
#[path = "../../../../drivers/md/dm-lc/message.rs"]
pub mod message;
#[path = "../../../../drivers/md/dm-lc/platform.rs"]
pub mod platform;
#[path = "../../../../drivers/md/dm-lc/recovery.rs"]
pub mod recovery;
#[path = "../../../../drivers/md/dm-lc/space.rs"]
pub mod space;
#[path = "../../../../drivers/md/dm-lc/table_line.rs"]
pub mod table_line;
#[path = "../../../../drivers/md/dm-lc/throttle.rs"]
pub mod throttle;
