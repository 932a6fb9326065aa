// SPDX-License-Identifier: GPL-2.0

//! Reads that go over regions of both states: each part is sent to where its data is.

use crate::{
    engine::Engine,
    target::CloneTarget, //
};
use dm::prelude::*;

/// How many parts of a read are sent in `map`, where nothing else is done for the thread meanwhile.
const MOST_PARTS: u32 = 512;

/// Where the first of a read's data is, and how many sectors from there on are on the same device.
fn first_part<'a>(engine: &'a Engine, bio: &Bio) -> (&'a Device, u32) {
    let metadata = engine.metadata();
    let geometry = metadata.geometry();
    let touched = geometry.touched(bio.range());
    let (hydrated, run) = metadata.regions().run(touched.clone());
    let dev = if hydrated {
        &engine.dest
    } else {
        &engine.source
    };
    (dev, geometry.sectors_to(touched.start + run, bio.sector()))
}

/// Sends a read on its way. What there is no memory for at the moment, and the end of one with too
/// many parts, is left to the I/O work item.
pub(crate) fn map<'a>(engine: &'a Owner<Engine>, mut bio: MapBio<'a, CloneTarget>) -> Mapped<'a> {
    for _ in 0..MOST_PARTS {
        let (dev, sectors) = first_part(engine, &bio);
        let sector = bio.sector();
        if sectors >= bio.sectors() {
            return bio.remap(dev, sector);
        }
        if bio.send_part(sectors, dev, sector).is_err() {
            break;
        }
    }
    let (mapped, bio) = bio.take();
    let this = engine.share();
    this.deferred.lock().reads.push(bio);
    Engine::kick_io(&this);
    mapped
}

/// Sends what is left of a read. Sleeps.
pub(crate) fn send(this: &Engine, mut bio: OwnedBio<CloneTarget>) {
    loop {
        let (dev, sectors) = first_part(this, &bio);
        let sector = bio.sector();
        if sectors >= bio.sectors() {
            return bio.submit(dev, sector);
        }
        if bio.send_part(sectors, dev, sector).is_err() {
            return bio.end(Status::IOERR);
        }
    }
}
