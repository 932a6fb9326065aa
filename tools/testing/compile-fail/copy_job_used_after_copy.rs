// SPDX-License-Identifier: GPL-2.0

//! A copy belongs to the copier until it is done.
//!
//! error[E0382]: borrow of moved value: `job`

include!("common/frame.rs");

use dm::copier::{
    Copier,
    CopyJob, //
};

fn copy<J: CopyJob>(copier: &Copier<J>, job: J) -> Sector {
    if let Some(lane) = copier.lane() {
        lane.start(job);
    }
    job.source().sectors
}
