// SPDX-License-Identifier: GPL-2.0

//! What a target's own disk says of the target: where each of its sectors is.

use std::fmt;

use anyhow::{ensure, Result};
use serde::{Deserialize, Serialize};

use crate::cached::{self, Cached};
use crate::log::{Content, Dictionary, Setup, Target, SOURCE};
use crate::metadata::{self, Found, Hydrated};

/// An account of all sectors.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum View {
    /// What is hydrated is on the destination, all else on the source.
    Clone { hydrated: Hydrated, region: u64 },
    /// What is not in the cache is on the backing device.
    Lc(Cached),
}

/// Where a sector is.
pub enum Place {
    /// On the disk of data.
    Data,
    /// Elsewhere, and holds this.
    Holds(Content),
}

impl View {
    /// That of a disk that was never used.
    pub fn blank(setup: &Setup) -> Self {
        match setup.target {
            Target::Clone { region } => View::Clone {
                hydrated: Hydrated::none(setup.regions()),
                region,
            },
            Target::Lc { .. } => View::Lc(Cached::nothing(setup.sectors)),
        }
    }

    /// What an image of the disk says. None if it is blank: whoever opens it formats it.
    pub fn read(
        contents: &[Content],
        dictionary: &Dictionary,
        setup: &Setup,
    ) -> Result<Option<Self>> {
        match setup.target {
            Target::Clone { region } => {
                let image = metadata::Image {
                    contents,
                    dictionary,
                };
                Ok(match metadata::read(&image, (region, setup.sectors))? {
                    Found::Blank => None,
                    Found::Metadata(hydrated) => Some(View::Clone { hydrated, region }),
                })
            }
            Target::Lc { .. } => {
                Ok(cached::read(contents, dictionary, setup.sectors)?.map(View::Lc))
            }
        }
    }

    /// Where a sector is.
    pub fn place(&self, sector: u64) -> Place {
        match self {
            View::Clone { hydrated, region } if hydrated.has(sector / region) => Place::Data,
            View::Clone { .. } => Place::Holds(SOURCE),
            View::Lc(cached) => cached.sector(sector).map_or(Place::Data, Place::Holds),
        }
    }

    /// How much is accounted for: regions that are hydrated, or sectors that are in the cache.
    pub fn count(&self) -> u64 {
        match self {
            View::Clone { hydrated, .. } => hydrated.count(),
            View::Lc(cached) => cached.count(),
        }
    }

    /// Fails if a clone's status has told of more hydrated regions than there are.
    pub fn check_told(&self, told: u64) -> Result<()> {
        if let View::Clone { .. } = self {
            ensure!(self.count() >= told, "{self}, but {told} were told");
        }
        Ok(())
    }
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            View::Clone { .. } => write!(f, "{} regions hydrated", self.count()),
            View::Lc(_) => write!(f, "{} sectors in the cache", self.count()),
        }
    }
}
