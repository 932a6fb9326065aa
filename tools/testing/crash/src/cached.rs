// SPDX-License-Identifier: GPL-2.0

//! Reads a cache device, as the module does when it starts: with its own pure files, so that what is judged is
//! the order of what it wrote. That they read the format right is for their own tests, and for `open`.

use anyhow::{anyhow, bail, ensure, Result};
use iomodel::stamp::{Stamp, SECTOR};
use pure::lc::format::{self, Found, SUPERBLOCK_BYTES, SUPERBLOCK_SECTORS};
use pure::lc::recovery::{self, Error, Read};
use pure::lc::space::RECORD_SECTORS;
use serde::{Deserialize, Serialize};

use crate::log::{Content, Dictionary, FOREIGN};

/// What the cache has of each sector of the target.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Cached(Vec<Option<Content>>);

impl Cached {
    pub fn nothing(sectors: u64) -> Self {
        Cached(vec![None; sectors as usize])
    }

    pub fn sector(&self, sector: u64) -> Option<Content> {
        self.0[sector as usize]
    }

    pub fn count(&self) -> u64 {
        self.0.iter().flatten().count() as u64
    }

    fn range(&mut self, first: u64, sectors: u32) -> &mut [Option<Content>] {
        &mut self.0[first as usize..][..sectors as usize]
    }
}

/// An image of the cache device: the content of each sector.
struct Image<'a> {
    contents: &'a [Content],
    dictionary: &'a Dictionary,
}

impl Read for Image<'_> {
    type Error = anyhow::Error;

    fn read(&mut self, sector: u64, memory: &mut [u8]) -> Result<()> {
        let contents = self
            .contents
            .get(sector as usize..)
            .filter(|contents| contents.len() * SECTOR >= memory.len())
            .ok_or_else(|| anyhow!("the log goes on beyond the end of the device"))?;
        for (bytes, content) in memory.chunks_exact_mut(SECTOR).zip(contents) {
            bytes.copy_from_slice(self.dictionary.sector(*content));
        }
        Ok(())
    }
}

/// Reads all of the log. None if there is no cache on the device yet.
pub fn read(contents: &[Content], dictionary: &Dictionary, sectors: u64) -> Result<Option<Cached>> {
    let mut image = Image {
        contents,
        dictionary,
    };
    let mut copies = [[0; SUPERBLOCK_BYTES]; 2];
    for (copy, sector) in copies.iter_mut().zip(SUPERBLOCK_SECTORS) {
        image.read(sector, copy)?;
    }
    let superblock = match format::find([&copies[0], &copies[1]]) {
        Found::Cache(superblock) => superblock,
        Found::Blank => return Ok(None),
        Found::Refused(refusal) => bail!("the cache device {refusal}"),
    };
    ensure!(
        superblock.backing_sectors == sectors && superblock.lost.sectors() == 0,
        "superblock: {superblock:?}"
    );
    let mut cached = Cached::nothing(sectors);
    let mut damaged = None;
    let mut window = vec![0; 2 * RECORD_SECTORS as usize * SECTOR];
    recovery::walk(&mut image, &superblock, &mut window, |extent, _, data| {
        let places = cached.range(extent.sector, extent.sectors);
        if extent.discarded {
            places.fill(None);
            return;
        }
        let Some(data) = data else {
            damaged = Some(extent.sector);
            return;
        };
        for ((sector, place), bytes) in (extent.sector..).zip(places).zip(data.chunks_exact(SECTOR))
        {
            let stamp = Stamp::read(bytes).filter(|stamp| stamp.sector == sector);
            *place = Some(stamp.map_or(FOREIGN, |stamp| stamp.tag));
        }
    })
    .map_err(|error| match error {
        Error::Device(error) => error,
        Error::Damaged(id) => anyhow!("record {id} was durable, and is not there"),
    })?;
    if let Some(sector) = damaged {
        bail!("what was written to sector {sector} was durable, and is damaged");
    }
    Ok(Some(cached))
}
