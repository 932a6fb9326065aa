// SPDX-License-Identifier: GPL-2.0

//! Goes through a record, and looks after each event at what a power cut would leave there.
//!
//! A target promises what any disk with a volatile cache does ([`crate::cache`]): so what its users did to it
//! makes one such disk, and its own disk and that of its data are two. After each event:
//!
//! - Its own disk is put together from what may be on it: without what may be lost, with all of it, with and
//!   without each write, and with random parts of random writes. What is there must be sound, and of the
//!   regions that a clone's status told to be hydrated none may be missing.
//! - For each of these ([`View`]), every sector is looked at where it must be: on the disk of data, or as it is
//!   on the target's own disk or a clone's source. All that may be there must be what may be on the target. Since
//!   a sector is there or not whatever became of the others, this covers every state of the disk of data.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use anyhow::{ensure, Result};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::cache::Cache;
use crate::log::{Content, Contents, Disk, Event, Log, Request, Target, ANYTHING, BEFORE, SOURCE};
use crate::view::{Place, View};

/// Random choices among the writes to the target's own disk, for each cut.
const RANDOM: usize = 6;
/// How many images are remembered.
const REMEMBERED: usize = 1000;
/// How much likelier a state is chosen if nothing like it was there before.
const NEW: f64 = 4.0;
/// Of one flaw, so many examples are told.
const EXAMPLES: usize = 3;

/// The disks of the record and the target, as after some of its events.
struct World<'a> {
    log: &'a Log,
    own: Cache,
    data: Cache,
    top: Cache,
    /// Whose requests they are that have not ended.
    owners: HashMap<u32, Disk>,
    told: u64,
    /// What was done last, for messages.
    note: &'a str,
    /// These flushes are left out.
    missing: HashSet<u32>,
}

impl<'a> World<'a> {
    fn new(log: &'a Log, left_out: &[Flushes]) -> Self {
        World {
            log,
            own: Cache::new(log.setup.own_sectors, 0),
            data: Cache::new(log.setup.sectors, data_at_first(log.setup.target)),
            top: Cache::new(log.setup.sectors, SOURCE),
            owners: HashMap::new(),
            told: 0,
            note: "",
            missing: missing(log, left_out),
        }
    }

    fn cache(&mut self, disk: Disk) -> &mut Cache {
        match disk {
            Disk::Own => &mut self.own,
            Disk::Data => &mut self.data,
            Disk::Top => &mut self.top,
        }
    }

    /// Lets the next event happen. Returns the disk whose content, or whose promise, it is about.
    pub fn step(&mut self, event: &'a Event) -> Option<Disk> {
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
                Some(Disk::Top)
            }
            Event::Note(note) => {
                self.note = note;
                None
            }
        }
    }

    /// Whether there is a sector that may hold what the target must not show.
    fn check_data(&self, view: &View) -> Result<()> {
        for sector in 0..self.top.sectors() {
            let allowed = || self.top.possible(sector);
            let check = |content: Content, place: &str| {
                ensure!(
                    allowed().any(|one| one == content || one == ANYTHING),
                    "sector {sector}, which is {place}, may hold {}; must be {}",
                    name(content),
                    allowed().map(name).collect::<Vec<_>>().join(" or "),
                );
                Ok(())
            };
            match view.place(sector) {
                Place::Data => {
                    let mut possible = self.data.possible(sector);
                    possible.try_for_each(|content| check(content, "on the disk of data"))?;
                }
                Place::Holds(content) => check(content, "not on the disk of data")?,
            }
        }
        Ok(())
    }
}

/// What is all over the disk of data before a target uses it.
pub fn data_at_first(target: Target) -> Content {
    match target {
        Target::Clone { .. } => BEFORE,
        Target::Lc { .. } => SOURCE,
    }
}

/// What a target must show, if the disk of data holds this.
pub fn shown(view: &View, data: &Contents) -> Contents {
    let sectors = (0..).zip(data.iter());
    sectors
        .map(|(sector, content)| match view.place(sector) {
            Place::Data => content,
            Place::Holds(content) => content,
        })
        .collect()
}

/// Some of the flushes of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Flushes {
    /// All of the disk of data.
    Data,
    /// All of the target's own disk.
    Own,
    /// The last of that before each superblock.
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
            (Disk::Data, Request::Flush) if flushes.contains(&Flushes::Data) => {
                missing.insert(*id);
            }
            (Disk::Own, Request::Flush) => {
                last = Some(*id);
                if flushes.contains(&Flushes::Own) {
                    missing.insert(*id);
                }
            }
            (Disk::Own, Request::Write { first, .. }) => {
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

/// Words for a content of the target.
fn name(content: Content) -> String {
    match content {
        SOURCE => "the source's".into(),
        BEFORE => "what was there before".into(),
        ANYTHING => "anything".into(),
        tag => format!("write {tag}"),
    }
}

/// Which of the writes to the target's own disk are there after a cut.
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
    let random = |salt: u64| hash(&(seed, write, salt));
    match random(u64::MAX) % 3 {
        0 => false,
        1 => true,
        _ => random(sector) % 2 == 0,
    }
}

fn hash(what: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

/// What the check of a record has found.
#[derive(Default)]
pub struct Report {
    pub cuts: u64,
    /// Images of the target's own disk, of all cuts.
    pub images: u64,
    /// Views that are different.
    pub views: u64,
    /// The largest of them.
    pub largest: Option<View>,
    pub flaws: u64,
    pub examples: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} cuts, {} states of the target's own disk ({} different ones, ",
            self.cuts, self.images, self.views
        )?;
        if let Some(largest) = &self.largest {
            write!(f, "of up to {largest}")?;
        }
        write!(
            f,
            "), each with every state of the disk of data: {} flaws",
            self.flaws
        )
    }
}

/// A state to be opened in a guest.
pub struct Chosen {
    pub event: usize,
    pub own: Contents,
    pub data: Contents,
    pub view: View,
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
    let mut views = HashSet::new();
    let mut chosen = Vec::new();
    let mut random = StdRng::seed_from_u64(plan.seed);
    let share = plan.choose as f64 / log.events.len().max(1) as f64;
    for (number, event) in log.events.iter().enumerate() {
        let Some(_) = world.step(event) else {
            continue;
        };
        report.cuts += 1;
        let seed = random.random::<u64>();
        let mut images = HashSet::new();
        let mut cut_views = HashSet::new();
        let mut openable = Vec::new();
        for kept in choices(&world.own, seed) {
            let image = world
                .own
                .after_cut(|write, sector| kept.keeps(write, sector));
            let Some(found) = read.image(&image, &mut images) else {
                continue;
            };
            report.images += 1;
            let view = match found {
                Ok(None) => Rc::new(View::blank(&log.setup)),
                Ok(Some(view)) => {
                    openable.push((image, view.clone()));
                    view
                }
                Err(error) => {
                    report.flaw(number, &world, kept, &error);
                    continue;
                }
            };
            if cut_views.contains(&view) {
                continue;
            }
            for checked in [view.check_told(world.told), world.check_data(&view)] {
                if let Err(error) = checked {
                    report.flaw(number, &world, kept, &format!("{error:#}"));
                }
            }
            if report
                .largest
                .as_ref()
                .is_none_or(|largest| largest.count() < view.count())
            {
                report.largest = Some(View::clone(&view));
            }
            cut_views.insert(view);
        }
        let mut is_new = false;
        for view in cut_views {
            is_new |= views.insert(hash(&*view));
        }
        let share = if is_new { NEW * share } else { share };
        if random.random_bool(share.min(1.0)) {
            if let Some((own, view)) = openable.choose(&mut random) {
                let data = world
                    .data
                    .after_cut(|write, sector| torn(seed, write, sector));
                chosen.push(Chosen {
                    event: number,
                    own: own.iter().copied().collect(),
                    data: data.into_iter().collect(),
                    view: View::clone(view),
                });
            }
        }
    }
    report.views = views.len() as u64;
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

/// What an image says; None if it is blank.
type Read = Result<Option<Rc<View>>, String>;

/// Reads images, each once if it comes again soon.
struct Reading<'a> {
    log: &'a Log,
    known: HashMap<u64, Read>,
}

impl Reading<'_> {
    /// None if the image is among `seen`.
    fn image(&mut self, image: &[Content], seen: &mut HashSet<u64>) -> Option<Read> {
        let hash = hash(image);
        if !seen.insert(hash) {
            return None;
        }
        if self.known.len() > REMEMBERED {
            self.known.clear();
        }
        let read = || match View::read(image, &self.log.dictionary, &self.log.setup) {
            Ok(view) => Ok(view.map(Rc::new)),
            Err(error) => Err(format!("{error:#}")),
        };
        Some(self.known.entry(hash).or_insert_with(read).clone())
    }
}

fn choices(own: &Cache, seed: u64) -> Vec<Kept> {
    let mut choices = vec![Kept::All, Kept::None];
    for write in own.unsettled() {
        choices.extend([Kept::Only(write), Kept::AllBut(write)]);
    }
    if own.unsettled().next().is_some() {
        choices.extend((0..RANDOM as u64).map(|number| Kept::Random(seed.wrapping_add(number))));
    }
    choices
}

impl Report {
    fn flaw(&mut self, event: usize, world: &World<'_>, kept: Kept, error: &str) {
        self.flaws += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(format!(
                "cut after event {event} ({:?}; last done: {}), of the writes to its own disk {kept:?}: {error}",
                world.log.events[event], world.note
            ));
        }
    }
}
