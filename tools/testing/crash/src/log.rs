// SPDX-License-Identifier: GPL-2.0

//! The record: what was asked of a target and of its two disks, and when each had done it, in one order.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::sync::Mutex;

use anyhow::{Context, Result};
use iomodel::stamp::SECTOR;
use serde::{Deserialize, Serialize};

/// What one sector holds. On the disk of data and on the target, where all is stamped, the stamp's tag; on
/// the target's own disk, a number for each different content, with 0 for zeroes.
pub type Content = u64;

/// The tag of what a target shows at first: of a clone's source, and of what a cache is put before.
pub const SOURCE: Content = 1;
/// The tag that the destination is stamped with before it is cloned to. Nobody may ever read it.
pub const BEFORE: Content = 2;
/// What a discard leaves: anything.
pub const ANYTHING: Content = 3;
/// No stamp of this sector. Nobody writes that.
pub const FOREIGN: Content = 4;
/// Writes have tags from here on.
pub const FIRST_TAG: Content = 16;

/// Whom a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Disk {
    /// The target's own: the metadata device of a clone, the cache device of a cache.
    Own,
    /// That of the data: the destination of a clone, the backing device of a cache.
    Data,
    /// What the target makes of them.
    Top,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// A write, or a discard, which writes [`ANYTHING`].
    Write {
        first: u64,
        contents: Contents,
        fua: bool,
    },
    Flush,
}

/// What successive sectors hold: runs of equal contents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents(Vec<(u32, Content)>);

impl Contents {
    pub fn iter(&self) -> impl Iterator<Item = Content> + '_ {
        let runs = self.0.iter();
        runs.flat_map(|&(count, content)| std::iter::repeat_n(content, count as usize))
    }

    pub fn len(&self) -> u64 {
        self.0.iter().map(|&(count, _)| u64::from(count)).sum()
    }

    /// The same content in so many sectors.
    pub fn all(sectors: u64, content: Content) -> Self {
        std::iter::repeat_n(content, sectors as usize).collect()
    }
}

impl FromIterator<Content> for Contents {
    fn from_iter<T: IntoIterator<Item = Content>>(contents: T) -> Self {
        let mut runs: Vec<(u32, Content)> = Vec::new();
        for content in contents {
            match runs.last_mut() {
                Some((count, last)) if *last == content => *count += 1,
                _ => runs.push((1, content)),
            }
        }
        Contents(runs)
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Event {
    /// A request was received. From here on the disk may carry it out, in whole or in part.
    Begin {
        id: u32,
        disk: Disk,
        request: Request,
    },
    /// It was carried out, and is about to be answered.
    End { id: u32 },
    /// The status told that so many regions are hydrated.
    Told { hydrated: u64 },
    /// Something that was done to the target, for those who read the record.
    Note(String),
}

/// What was recorded, and how to record it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setup {
    pub seed: u64,
    /// Sizes of the target and of its own disk.
    pub sectors: u64,
    pub own_sectors: u64,
    pub target: Target,
}

/// What is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Target {
    /// A clone with regions of so many sectors.
    Clone { region: u64 },
    /// A write cache; whether it is to be written back in the order of flushes.
    Lc { ordered: bool },
}

impl Setup {
    /// What the target keeps account of by itself, in sectors: a region, or a block.
    pub fn region(&self) -> u64 {
        match self.target {
            Target::Clone { region } => region,
            Target::Lc { .. } => 8,
        }
    }

    /// How many regions there are.
    pub fn regions(&self) -> u64 {
        self.sectors.div_ceil(self.region())
    }
}

/// The different contents that the target's own disk has had.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Dictionary(Vec<Vec<u8>>);

impl Dictionary {
    pub fn sector(&self, content: Content) -> &[u8] {
        &self.0[content as usize]
    }
}

impl Default for Dictionary {
    fn default() -> Self {
        Dictionary(vec![vec![0; SECTOR]])
    }
}

#[derive(Serialize, Deserialize)]
pub struct Log {
    pub setup: Setup,
    pub dictionary: Dictionary,
    pub events: Vec<Event>,
}

impl Log {
    pub fn save(&self, path: &Path) -> Result<()> {
        save(self, path)
    }

    pub fn load(path: &Path) -> Result<Self> {
        load(path)
    }
}

/// Writes anything to a file, for [`load`].
pub fn save(value: &impl Serialize, path: &Path) -> Result<()> {
    let name = path.display();
    let file = File::create(path).with_context(|| format!("{name}: cannot be made"))?;
    postcard::to_io(value, BufWriter::new(file))
        .map_err(std::io::Error::other)
        .and_then(|mut file| file.flush())
        .with_context(|| format!("{name}: cannot be written"))
}

/// Reads what [`save`] wrote.
pub fn load<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let name = path.display();
    let file = File::open(path).with_context(|| format!("{name}: cannot be read"))?;
    let mut bytes = Vec::new();
    BufReader::new(file).read_to_end(&mut bytes)?;
    postcard::from_bytes(&bytes).with_context(|| format!("{name}: is not what it should be"))
}

/// Writes the record. All threads share it: who gets the lock first comes first.
pub struct Recorder(Mutex<Inner>);

struct Inner {
    setup: Setup,
    requests: u32,
    events: Vec<Event>,
    dictionary: Dictionary,
    known: HashMap<Vec<u8>, Content>,
}

impl Recorder {
    pub fn new(setup: Setup) -> Self {
        let dictionary = Dictionary::default();
        let known = HashMap::from([(dictionary.0[0].clone(), 0)]);
        Recorder(Mutex::new(Inner {
            setup,
            requests: 0,
            events: Vec::new(),
            dictionary,
            known,
        }))
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().expect("no thread panics with it")
    }

    /// Records a request; returns its number, for [`end`](Self::end).
    pub fn begin(&self, disk: Disk, request: Request) -> u32 {
        let mut inner = self.inner();
        let id = inner.requests;
        inner.requests += 1;
        inner.events.push(Event::Begin { id, disk, request });
        id
    }

    pub fn end(&self, id: u32) {
        self.inner().events.push(Event::End { id });
    }

    pub fn told(&self, hydrated: u64) {
        self.inner().events.push(Event::Told { hydrated });
    }

    pub fn note(&self, words: impl Into<String>) {
        self.inner().events.push(Event::Note(words.into()));
    }

    /// The number of a content of the target's own disk.
    pub fn number(&self, sector: &[u8]) -> Content {
        let inner = &mut *self.inner();
        if let Some(&number) = inner.known.get(sector) {
            return number;
        }
        let number = inner.dictionary.0.len() as Content;
        inner.dictionary.0.push(sector.to_vec());
        inner.known.insert(sector.to_vec(), number);
        number
    }

    /// The content of the target's own disk that has this number.
    pub fn sector(&self, content: Content) -> Vec<u8> {
        self.inner().dictionary.sector(content).to_vec()
    }

    pub fn finish(self) -> Log {
        let inner = self.0.into_inner().expect("no thread panics with it");
        Log {
            setup: inner.setup,
            dictionary: inner.dictionary,
            events: inner.events,
        }
    }
}
