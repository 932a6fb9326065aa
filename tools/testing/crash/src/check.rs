// SPDX-License-Identifier: GPL-2.0

//! Goes through a record, and looks after each event at what a power cut would leave there.
//!
//! A clone promises what any disk with a volatile cache does ([`crate::cache`]): so what its users did to it
//! makes one such disk, and its metadata and destination are two. After each event:
//!
//! - The metadata is put together from what may be on its disk: without what may be lost, with all of it,
//!   with and without each write, and with random parts of random writes. It must be sound, and of the
//!   regions that the status told to be hydrated none may be missing.
//! - For each of these, every sector of every hydrated region is looked at on the destination, and every
//!   other one on the source. All that may be there must be what may be on the clone. Since a sector is
//!   there or not whatever became of the others, this covers every state of the destination.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use anyhow::{ensure, Result};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::cache::Cache;
use crate::log::{Content, Disk, Event, Log, Request, ANYTHING, BEFORE, SOURCE};
use crate::metadata::{self, Found, Hydrated};

/// Random choices among the writes to the metadata, for each cut.
const RANDOM: usize = 6;
/// Of one flaw, so many examples are told.
const EXAMPLES: usize = 3;

/// The disks of the record and the clone, as after some of its events.
pub struct World<'a> {
    log: &'a Log,
    pub metadata: Cache,
    pub dest: Cache,
    clone: Cache,
    /// Whose requests they are that have not ended.
    owners: HashMap<u32, Disk>,
    told: u64,
    /// What was done last, for messages.
    note: &'a str,
    events: usize,
    /// These flushes are left out.
    missing: HashSet<u32>,
}

impl<'a> World<'a> {
    pub fn new(log: &'a Log, left_out: &[Flushes]) -> Self {
        World {
            log,
            metadata: Cache::new(log.setup.metadata_sectors, 0),
            dest: Cache::new(log.setup.sectors, BEFORE),
            clone: Cache::new(log.setup.sectors, SOURCE),
            owners: HashMap::new(),
            told: 0,
            note: "",
            events: 0,
            missing: missing(log, left_out),
        }
    }

    fn cache(&mut self, disk: Disk) -> &mut Cache {
        match disk {
            Disk::Metadata => &mut self.metadata,
            Disk::Dest => &mut self.dest,
            Disk::Clone => &mut self.clone,
        }
    }

    /// Lets the next event happen. Returns the disk whose content, or whose promise, it is about.
    pub fn step(&mut self, event: &'a Event) -> Option<Disk> {
        self.events += 1;
        match event {
            Event::Begin { id, disk, request } => {
                if self.missing.contains(id) {
                    return None;
                }
                self.owners.insert(*id, *disk);
                self.cache(*disk).begin(*id, request);
                Some(*disk)
            }
            Event::End { id } => {
                let disk = self.owners.remove(id)?;
                self.cache(disk).end(*id);
                Some(disk)
            }
            Event::Told { hydrated } => {
                self.told = self.told.max(*hydrated);
                Some(Disk::Clone)
            }
            Event::Note(note) => {
                self.note = note;
                None
            }
        }
    }

    /// What a clone with these regions hydrated must show, if its destination holds this.
    pub fn shown(&self, hydrated: &Hydrated, dest: &[Content]) -> Vec<Content> {
        (0..)
            .zip(dest)
            .map(|(sector, &content)| {
                if hydrated.has(sector / self.log.setup.region) {
                    content
                } else {
                    SOURCE
                }
            })
            .collect()
    }

    /// Whether there is a sector that may hold what the clone must not show.
    fn check_data(&self, hydrated: &Hydrated) -> Result<()> {
        for sector in 0..self.clone.sectors() {
            let region = sector / self.log.setup.region;
            let is_hydrated = hydrated.has(region);
            let allowed = || self.clone.possible(sector);
            let check = |content: Content| {
                ensure!(
                    allowed().any(|one| one == content || one == ANYTHING),
                    "sector {sector} of region {region}, which is {}hydrated, may hold {}; must be {}",
                    if is_hydrated { "" } else { "not " },
                    name(content),
                    allowed().map(name).collect::<Vec<_>>().join(" or "),
                );
                Ok(())
            };
            if is_hydrated {
                self.dest.possible(sector).try_for_each(check)?;
            } else {
                check(SOURCE)?;
            }
        }
        Ok(())
    }
}

/// Some of the flushes of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Flushes {
    /// All of the destination.
    Dest,
    /// All of the metadata.
    Metadata,
    /// The last of the metadata before each superblock.
    BeforeSuperblock,
}

/// The numbers of flushes.
fn missing(log: &Log, flushes: &[Flushes]) -> HashSet<u32> {
    let mut missing = HashSet::new();
    let mut last = None;
    for event in &log.events {
        let Event::Begin { id, disk, request } = event else {
            continue;
        };
        match (disk, request) {
            (Disk::Dest, Request::Flush) if flushes.contains(&Flushes::Dest) => {
                missing.insert(*id);
            }
            (Disk::Metadata, Request::Flush) => {
                last = Some(*id);
                if flushes.contains(&Flushes::Metadata) {
                    missing.insert(*id);
                }
            }
            (Disk::Metadata, Request::Write { first, .. }) => {
                let last = last.take();
                if *first == 0 && flushes.contains(&Flushes::BeforeSuperblock) {
                    missing.extend(last);
                }
            }
            _ => {}
        }
    }
    missing
}

/// Words for a content of the clone.
fn name(content: Content) -> String {
    match content {
        SOURCE => "the source's".into(),
        BEFORE => "what was there before".into(),
        ANYTHING => "anything".into(),
        tag => format!("write {tag}"),
    }
}

/// Which of the metadata's writes are there after a cut.
#[derive(Clone, Copy, Debug)]
enum Kept {
    None,
    All,
    Only(u32),
    AllBut(u32),
    /// Parts of them, by this seed.
    Random(u64),
}

impl Kept {
    fn keeps(self, write: u32, sector: u64) -> bool {
        match self {
            Kept::None => false,
            Kept::All => true,
            Kept::Only(one) => one == write,
            Kept::AllBut(one) => one != write,
            Kept::Random(seed) => torn(seed, write, sector),
        }
    }
}

/// Of a third of the writes nothing is there, of a third all, of a third one sector in two.
pub fn torn(seed: u64, write: u32, sector: u64) -> bool {
    let random = |salt: u64| {
        let mut hasher = DefaultHasher::new();
        (seed, write, salt).hash(&mut hasher);
        hasher.finish()
    };
    match random(u64::MAX) % 3 {
        0 => false,
        1 => true,
        _ => random(sector) % 2 == 0,
    }
}

/// What the check of a record has found.
#[derive(Default)]
pub struct Report {
    pub cuts: u64,
    /// Metadata images, of all cuts.
    pub images: u64,
    /// Sets of hydrated regions that are different.
    pub sets: u64,
    /// The most regions that were hydrated.
    pub hydrated: u64,
    pub flaws: u64,
    pub examples: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} cuts, {} states of the metadata ({} different sets of up to {} hydrated regions), \
             each with every state of the destination: {} flaws",
            self.cuts, self.images, self.sets, self.hydrated, self.flaws
        )
    }
}

/// A state to be opened in a guest.
pub struct Chosen {
    pub event: usize,
    pub metadata: Vec<Content>,
    pub dest: Vec<Content>,
    pub hydrated: Hydrated,
}

/// How to check a record.
pub struct Plan<'a> {
    pub seed: u64,
    /// Flushes that are left out, to see whether they are missed.
    pub left_out: &'a [Flushes],
    /// How many states to choose for guests.
    pub choose: usize,
}

/// Checks a record; hands out the chosen states.
pub fn check(log: &Log, plan: &Plan<'_>) -> (Report, Vec<Chosen>) {
    let mut world = World::new(log, plan.left_out);
    let mut read = Reading {
        log,
        known: HashMap::new(),
    };
    let mut report = Report::default();
    let mut sets = HashSet::new();
    // For each event: whether the set of hydrated regions was seen there first, and the state.
    let mut chosen: BTreeMap<usize, Chosen> = BTreeMap::new();
    let mut random = StdRng::seed_from_u64(plan.seed);
    let share = plan.choose as f64 / log.events.len().max(1) as f64;
    for (number, event) in log.events.iter().enumerate() {
        let Some(_) = world.step(event) else {
            continue;
        };
        report.cuts += 1;
        let seed = random.random::<u64>();
        let mut images = HashSet::new();
        let mut cut_sets = HashSet::new();
        let mut openable = Vec::new();
        for kept in choices(&world.metadata, seed) {
            let image = world
                .metadata
                .after_cut(|write, sector| kept.keeps(write, sector));
            let Some(found) = read.image(&image, &mut images) else {
                continue;
            };
            report.images += 1;
            let hydrated = match &*found {
                Ok(Found::Blank) => Hydrated::none(log.setup.regions()),
                Ok(Found::Metadata(hydrated)) => {
                    openable.push(image);
                    hydrated.clone()
                }
                Err(error) => {
                    report.flaw(number, &world, kept, &format!("{error:#}"));
                    continue;
                }
            };
            if !cut_sets.insert(hydrated.clone()) {
                continue;
            }
            if hydrated.count() < world.told {
                let error = format!("{hydrated}, but {} were told", world.told);
                report.flaw(number, &world, kept, &error);
            }
            if let Err(error) = world.check_data(&hydrated) {
                report.flaw(number, &world, kept, &format!("{error:#}"));
            }
            report.hydrated = report.hydrated.max(hydrated.count());
        }
        let mut is_new = false;
        for set in cut_sets {
            is_new |= sets.insert(set);
        }
        if is_new || random.random_bool(share.min(1.0)) {
            if let Some(metadata) = openable.choose(&mut random) {
                let Ok(Found::Metadata(hydrated)) = read_image(metadata, log) else {
                    unreachable!("it was read before")
                };
                let dest = world
                    .dest
                    .after_cut(|write, sector| torn(seed, write, sector));
                chosen.insert(
                    number,
                    Chosen {
                        event: number,
                        metadata: metadata.clone(),
                        dest,
                        hydrated,
                    },
                );
            }
        }
    }
    report.sets = sets.len() as u64;
    let chosen: Vec<Chosen> = chosen.into_values().collect();
    (report, thin_out(chosen, plan.choose, &mut random))
}

/// Leaves so many, in their order.
fn thin_out(chosen: Vec<Chosen>, count: usize, random: &mut StdRng) -> Vec<Chosen> {
    let mut left = chosen.len();
    let mut wanted = count.min(left);
    let mut thin = Vec::with_capacity(wanted);
    for one in chosen {
        if random.random_range(0..left) < wanted {
            thin.push(one);
            wanted -= 1;
        }
        left -= 1;
    }
    thin
}

/// Reads an image of the metadata device.
fn read_image(contents: &[Content], log: &Log) -> Result<Found> {
    let image = metadata::Image {
        contents,
        dictionary: &log.dictionary,
    };
    metadata::read(&image, (log.setup.region, log.setup.sectors))
}

/// Reads images, each once.
struct Reading<'a> {
    log: &'a Log,
    known: HashMap<u64, std::rc::Rc<Result<Found>>>,
}

impl Reading<'_> {
    /// None if the image is among `seen`.
    fn image(
        &mut self,
        image: &[Content],
        seen: &mut HashSet<u64>,
    ) -> Option<std::rc::Rc<Result<Found>>> {
        let mut hasher = DefaultHasher::new();
        image.hash(&mut hasher);
        let hash = hasher.finish();
        if !seen.insert(hash) {
            return None;
        }
        let read = || read_image(image, self.log).into();
        Some(self.known.entry(hash).or_insert_with(read).clone())
    }
}

fn choices(metadata: &Cache, seed: u64) -> Vec<Kept> {
    let mut choices = vec![Kept::All, Kept::None];
    for write in metadata.unsettled() {
        choices.extend([Kept::Only(write), Kept::AllBut(write)]);
    }
    if metadata.unsettled().next().is_some() {
        choices.extend((0..RANDOM as u64).map(|number| Kept::Random(seed.wrapping_add(number))));
    }
    choices
}

impl Report {
    fn flaw(&mut self, event: usize, world: &World<'_>, kept: Kept, error: &str) {
        self.flaws += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(format!(
                "cut after event {event} ({:?}; last done: {}), of the metadata's writes {kept:?}: {error}",
                world.log.events[event], world.note
            ));
        }
    }
}
