// SPDX-License-Identifier: GPL-2.0

//! Opens states that power cuts leave with the target that is loaded: each must open, read-write, and show what
//! its disks hold; a clone must have exactly those regions hydrated that its metadata have. Some are brought to
//! their end as well, after which nothing may have changed: clones are hydrated, caches are written back.

use std::path::{Path, PathBuf};
use std::slice::SliceIndex;

use anyhow::{bail, ensure, Context, Result};
use iomodel::device::{Buffer, Device};
use iomodel::exercise::fill;
use iomodel::stamp::{describe, Stamp, SECTOR};
use serde::{Deserialize, Serialize};

use crate::dm;
use crate::log::{self, Content, Contents, Dictionary, Setup, Target, SOURCE};
use crate::view::View;

/// One state in so many is brought to its end.
const ENDED: usize = 16;
/// The sectors of a cache's superblocks.
const SUPERBLOCKS: usize = 16;

/// States of one record, as a file.
#[derive(Serialize, Deserialize)]
pub struct States {
    pub setup: Setup,
    pub dictionary: Dictionary,
    pub states: Vec<State>,
}

#[derive(Serialize, Deserialize)]
pub struct State {
    /// After which event of the record the power was cut.
    pub event: usize,
    pub own: Contents,
    pub data: Contents,
    pub view: View,
    /// What the target must show.
    pub shown: Contents,
}

impl States {
    pub fn load(path: &Path) -> Result<Self> {
        log::load(path)
    }

    pub fn save(&self, path: &Path) -> Result<()> {
        log::save(self, path)
    }
}

/// The disks of one worker, and what is on them.
pub struct Worker {
    pub number: usize,
    own: Image,
    data: Image,
    /// A clone's.
    source: Option<PathBuf>,
    device: dm::Device,
    buffer: Buffer,
}

/// A disk, with what was put on it.
struct Image {
    path: PathBuf,
    device: Device,
    /// None where it is not known.
    contents: Vec<Option<Content>>,
}

impl Worker {
    pub fn new(
        number: usize,
        setup: &Setup,
        own: &Path,
        data: &Path,
        source: Option<&Path>,
    ) -> Result<Self> {
        let device = dm::Device::create(&format!("opened{number}"))?;
        device.load(setup.sectors, "error", "")?;
        device.resume()?;
        Ok(Worker {
            number,
            own: Image::new(own, setup.own_sectors)?,
            data: Image::new(data, setup.sectors)?,
            source: source.map(Path::to_owned),
            device,
            buffer: Buffer::new(),
        })
    }

    /// Opens one state after the other.
    pub fn run<'a>(
        mut self,
        states: &States,
        mine: impl Iterator<Item = (usize, &'a State)>,
    ) -> Result<()> {
        for (number, state) in mine {
            // If the kernel does not survive this, its log says which state it was.
            std::fs::write(
                "/dev/kmsg",
                format!("crash: state {number}, after event {}\n", state.event),
            )?;
            self.open(states, state, number % ENDED == 0)
                .with_context(|| format!("state {number}, cut after event {}", state.event))?;
        }
        self.device.remove()
    }

    fn open(&mut self, states: &States, state: &State, ends: bool) -> Result<()> {
        let Setup {
            sectors, target, ..
        } = states.setup;
        let dictionary = &states.dictionary;
        self.own
            .become_(&state.own, |_, content| dictionary.sector(content).to_vec())?;
        self.data.become_(&state.data, |sector, tag| {
            let mut bytes = vec![0; SECTOR];
            Stamp { sector, tag }.fill(&mut bytes);
            bytes
        })?;
        let (own, data) = (self.own.path.display(), self.data.path.display());
        let (name, words) = match (target, &self.source) {
            (Target::Clone { region }, Some(source)) => {
                let source = source.display();
                let settings = "1 no_hydration 4 hydration_threshold 64 hydration_batch_size 16";
                (
                    "clone",
                    format!("{own} {data} {source} {region} {settings}"),
                )
            }
            (Target::Clone { .. }, None) => bail!("clones need --source"),
            (Target::Lc { .. }, _) => ("lc", format!("{data} {own} 2 allow_migrate 0")),
        };
        self.device.load(sectors, name, &words)?;
        self.device.suspend()?;
        self.device.resume()?;
        let status = self.device.status(true)?;
        let right = match target {
            Target::Clone { .. } => {
                let progress = format!("{}/{}", state.view.count(), states.setup.regions());
                status.get(3) == Some(&progress) && status.last().is_some_and(|mode| mode == "rw")
            }
            Target::Lc { .. } => status.get(1).is_some_and(|state| state == "rw"),
        };
        ensure!(
            right,
            "status: {}; must be rw, with {}",
            status.join(" "),
            state.view
        );
        self.check(state)?;
        if ends {
            match target {
                Target::Clone { .. } => self.hydrate(states.setup.regions())?,
                Target::Lc { .. } => self.device.message("flush")?,
            }
            self.check(state).context("at its end")?;
        }
        self.device.replace(sectors, "error", "")?;
        if ends {
            let data = Device::open(&self.data.path, 0, Some(sectors), false)?;
            Self::holds(&data, &mut self.buffer, state).context("the disk of data, at the end")?;
            self.data.forget(..);
            self.own.forget(..);
        } else if matches!(target, Target::Lc { .. }) {
            // It counts how often it was opened, in its superblocks.
            self.own.forget(..SUPERBLOCKS);
        }
        Ok(())
    }

    /// Reads all of the target.
    fn check(&mut self, state: &State) -> Result<()> {
        let top = Device::open(&self.device.path(), 0, None, false)?;
        Self::holds(&top, &mut self.buffer, state)
    }

    fn holds(device: &Device, buffer: &mut Buffer, state: &State) -> Result<()> {
        let mut shown = state.shown.iter();
        for range in device.pieces() {
            let bytes = buffer.part(&range);
            device.read(range.start, bytes)?;
            for ((sector, bytes), tag) in range.zip(bytes.chunks_exact(SECTOR)).zip(&mut shown) {
                // Sectors do not tear: number and tag tell enough of a stamp.
                let start: Vec<u8> = [sector, tag]
                    .iter()
                    .flat_map(|word| word.to_le_bytes())
                    .collect();
                ensure!(
                    bytes.starts_with(&start),
                    "there is {}; must be {}",
                    describe(bytes),
                    Stamp { sector, tag }
                );
            }
        }
        Ok(())
    }

    fn hydrate(&mut self, regions: u64) -> Result<()> {
        self.device.message("enable_hydration")?;
        let all = format!("{regions}/{regions}");
        loop {
            // A status that commits, so that the end does not have to wait for the clone's own commit.
            let status = self.device.status(false)?;
            ensure!(
                status.last().is_some_and(|mode| mode == "rw"),
                "status: {}",
                status.join(" ")
            );
            if status.get(3) == Some(&all) {
                return Ok(());
            }
            std::thread::yield_now();
        }
    }
}

impl Image {
    fn new(path: &Path, sectors: u64) -> Result<Self> {
        Ok(Image {
            path: path.into(),
            device: Device::open(path, 0, Some(sectors), true)?,
            contents: vec![None; sectors as usize],
        })
    }

    /// Writes what is not as it must be.
    fn become_(
        &mut self,
        wanted: &Contents,
        bytes: impl Fn(u64, Content) -> Vec<u8>,
    ) -> Result<()> {
        const LONGEST: usize = 128;
        let mut buffer = Buffer::new();
        let mut run: Vec<u8> = Vec::new();
        let sectors = self.contents.len() as u64;
        let mut wanted = wanted.iter();
        for sector in 0..=sectors {
            let change = wanted
                .next()
                .filter(|&content| self.contents[sector as usize] != Some(content));
            if let Some(content) = change {
                run.extend(bytes(sector, content));
                self.contents[sector as usize] = Some(content);
            }
            let length = (run.len() / SECTOR) as u64;
            let is_longest = run.len() / SECTOR == LONGEST;
            if length > 0 && (change.is_none() || is_longest) {
                let end = if change.is_none() { sector } else { sector + 1 };
                let part = buffer.part(&(0..length));
                part.copy_from_slice(&run);
                self.device.write(end - length, part)?;
                run.clear();
            }
        }
        Ok(())
    }

    /// Somebody else has written to it.
    fn forget(&mut self, sectors: impl SliceIndex<[Option<Content>], Output = [Option<Content>]>) {
        self.contents[sectors].fill(None);
    }
}

/// Stamps a source, or what is put before a cache.
pub fn stamp(path: &Path, sectors: u64) -> Result<()> {
    let device = Device::open(path, 0, Some(sectors), true)?;
    let mut buffer = Buffer::new();
    for range in device.pieces() {
        let bytes = buffer.part(&range);
        fill(bytes, range.start, SOURCE);
        device.write(range.start, bytes)?;
    }
    Ok(device.flush()?)
}
