// SPDX-License-Identifier: GPL-2.0

//! Records what a target, `clone` or `lc`, does to its disks, and finds out what a power cut at any moment would
//! leave of it.
//!
//! `record` runs in a guest and makes a [`log`] with one order of all requests. `check` runs on the host,
//! goes through the record and judges what may be on the disks after each event ([`check`]). `open` runs in a
//! guest again, and lets the target itself open some of these states ([`open`]). `audit` reads a clone's metadata
//! as `check` does, from their device.

mod cache;
mod cached;
mod check;
mod dm;
mod jobs;
mod log;
mod metadata;
mod nbd;
mod open;
mod order;
mod record;
mod show;
mod use_clone;
mod use_lc;
mod view;

use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail, ensure, Result};
use clap::{Parser, Subcommand};

use check::Flushes;
use iomodel::device::Device;
use log::{Log, Setup, Target};
use metadata::{Found, OnDevice};
use open::{State, States, Worker};

/// Finds out what a power cut would leave of a clone or of a write cache
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Uses a target on /dev/nbd0 and /dev/nbd1, and writes down all that happens
    Record {
        /// The file for the record
        log: PathBuf,
        /// A clone's source, which is stamped first; without one it is a cache that is recorded
        #[arg(long)]
        source: Option<PathBuf>,
        #[arg(long, default_value_t = 1)]
        seed: u64,
        #[arg(long, default_value_t = 1000)]
        operations: u64,
        #[arg(long, default_value_t = 6)]
        jobs: u64,
        #[arg(long)]
        no_discards: bool,
        /// Change no settings
        #[arg(long)]
        no_settings: bool,
        /// Have a cache written back in the order of flushes
        #[arg(long, conflicts_with = "source")]
        ordered: bool,
        /// Have a cache's jobs write runs, those longer than so many KiB around the log
        #[arg(long, value_name = "KIB", conflicts_with_all = ["source", "ordered"])]
        sequential_cutoff: Option<u32>,
        /// Sizes in sectors: of the target, of a clone's region, of the target's own disk
        #[arg(long, default_value_t = 16384)]
        sectors: u64,
        #[arg(long, default_value_t = 8)]
        region: u64,
        #[arg(long, default_value_t = 512)]
        own_sectors: u64,
    },
    /// Judges what may be on the disks after each event
    Check {
        log: PathBuf,
        /// Decides which random states there are
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Judges as if these flushes had not been sent
        #[arg(long, value_name = "FLUSHES")]
        without: Vec<Flushes>,
        /// Chooses so many states for `open`
        #[arg(long, default_value_t = 0, requires = "states")]
        choose: usize,
        /// The file for them
        #[arg(long)]
        states: Option<PathBuf>,
    },
    /// Prints what of a record matters to a sector of the target
    Show { log: PathBuf, sector: u64 },
    /// Opens states with the target that is loaded
    Open {
        states: PathBuf,
        /// A clone's source, which is stamped first
        #[arg(long)]
        source: Option<PathBuf>,
        /// For each worker a disk of the target's own and one for data
        #[arg(required = true)]
        disks: Vec<PathBuf>,
    },
    /// Accounts for every block of metadata that nobody uses, and prints how many regions are hydrated
    Audit {
        metadata: PathBuf,
        /// How many regions of 4 KiB the clone has
        regions: u64,
        /// The area of the device, in sectors
        #[arg(long, default_value_t = 0)]
        first: u64,
        #[arg(long)]
        sectors: Option<u64>,
    },
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Record {
            log,
            source,
            seed,
            operations,
            jobs,
            no_discards,
            no_settings,
            ordered,
            sequential_cutoff,
            sectors,
            region,
            own_sectors,
        } => {
            let plan = record::Plan {
                setup: Setup {
                    seed,
                    sectors,
                    own_sectors,
                    target: match source {
                        Some(_) => Target::Clone { region },
                        None => Target::Lc { ordered },
                    },
                },
                operations,
                jobs,
                discards: !no_discards,
                no_settings,
                sequential_cutoff,
                source,
            };
            record::record(plan)?.save(&log)
        }
        Command::Check {
            log,
            seed,
            without,
            choose,
            states,
        } => {
            let log = Log::load(&log)?;
            let plan = check::Plan {
                seed,
                left_out: &without,
                choose,
            };
            judge(log, &plan, states)
        }
        Command::Show { log, sector } => {
            show::show(&Log::load(&log)?, sector);
            Ok(())
        }
        Command::Open {
            states,
            source,
            disks,
        } => open_all(&States::load(&states)?, source.as_deref(), &disks),
        Command::Audit {
            metadata,
            regions,
            first,
            sectors,
        } => {
            let device = OnDevice::new(Device::open(&metadata, first, sectors, false)?);
            match metadata::read(&device, (8, 8 * regions))? {
                Found::Blank => bail!("{}: is blank", metadata.display()),
                Found::Metadata(hydrated) => println!("{}", hydrated.count()),
            }
            Ok(())
        }
    }
}

fn judge(log: Log, plan: &check::Plan<'_>, states: Option<PathBuf>) -> Result<()> {
    let (report, chosen) = check::check(&log, plan);
    println!("seed {}: {} events, {report}", plan.seed, log.events.len());
    if report.flaws > 0 {
        bail!("{}", report.examples.join("\n"));
    }
    if log.setup.target == (Target::Lc { ordered: true }) {
        let states = order::check(&log)?;
        println!("each of {states} states of the disk of data alone fits to a flush");
    }
    if let Some(path) = states {
        let state = |one: check::Chosen| State {
            event: one.event,
            shown: check::shown(&one.view, &one.data),
            own: one.own,
            data: one.data,
            view: one.view,
        };
        let states: Vec<State> = chosen.into_iter().map(state).collect();
        println!("{} states chosen", states.len());
        let states = States {
            states,
            setup: log.setup,
            dictionary: log.dictionary,
        };
        states.save(&path)?;
    }
    Ok(())
}

fn open_all(states: &States, source: Option<&Path>, disks: &[PathBuf]) -> Result<()> {
    ensure!(
        disks.len() % 2 == 0,
        "each worker needs two disks, {} are one too many",
        disks.len()
    );
    if let Some(source) = source {
        open::stamp(source, states.setup.sectors)?;
    }
    let mut workers = Vec::new();
    for (number, pair) in disks.chunks_exact(2).enumerate() {
        workers.push(Worker::new(
            number,
            &states.setup,
            &pair[0],
            &pair[1],
            source,
        )?);
    }
    let count = workers.len();
    std::thread::scope(|scope| {
        let running: Vec<_> = workers
            .into_iter()
            .map(|worker| {
                let first = worker.number;
                let mine = states.states.iter().enumerate().skip(first).step_by(count);
                scope.spawn(move || worker.run(states, mine))
            })
            .collect();
        for worker in running {
            worker.join().map_err(|_| anyhow!("a worker panicked"))??;
        }
        Ok::<(), anyhow::Error>(())
    })?;
    println!("{} states opened", states.states.len());
    Ok(())
}
