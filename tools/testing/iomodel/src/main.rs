// SPDX-License-Identifier: GPL-2.0

//! Checks a block device against a byte-exact model of what was written to it.
//!
//! Runs in a guest. Every sector of a stamped device tells where it belongs and which write it is from
//! ([`iomodel::stamp`]); the [`iomodel::model`] knows what each must hold; random I/O is checked against it
//! ([`iomodel::exercise`]); a [`iomodel::ledger`] tells after a power cut what must have survived.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{ensure, Context, Result};
use clap::{Args, Parser, Subcommand};

use iomodel::device::{Buffer, Device};
use iomodel::exercise::{check, fill, Exercise, Plan};
use iomodel::ledger;
use iomodel::model::{Expected, Model};

/// Checks a block device against a byte-exact model of what was written to it
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Fills the area with stamps of a tag
    Stamp {
        #[command(flatten)]
        area: Area,
        tag: u64,
    },
    /// Reads the whole area and compares it with what it must hold
    Verify {
        #[command(flatten)]
        area: Area,
        #[command(flatten)]
        content: Content,
    },
    /// Reads, writes, discards and flushes at random, compares all that is read, and the whole area at last
    Run {
        #[command(flatten)]
        area: Area,
        #[command(flatten)]
        content: Content,
        #[command(flatten)]
        load: Load,
    },
    /// Writes and flushes at random until killed; prints `SECTOR COUNT TAG` for each durable write
    Ledger {
        #[command(flatten)]
        area: Area,
        #[arg(long, default_value_t = 1)]
        seed: u64,
        #[arg(long, default_value_t = 4)]
        threads: u64,
        /// The highest tag that was used before
        #[arg(long, default_value_t = 1)]
        after: u64,
    },
    /// Compares the area with ledgers of durable writes
    LedgerCheck {
        #[command(flatten)]
        area: Area,
        /// The tag of what was not written
        #[arg(long, default_value_t = 1)]
        source: u64,
        #[arg(required = true)]
        ledgers: Vec<PathBuf>,
    },
}

#[derive(Args)]
struct Area {
    device: PathBuf,
    /// First sector of the tested area; stamps count from there
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Size of the tested area [default: to the end of the device]
    #[arg(long)]
    sectors: Option<u64>,
}

impl Area {
    fn open(&self, writable: bool) -> Result<Device> {
        Device::open(&self.device, self.first, self.sectors, writable)
    }
}

#[derive(Args)]
struct Content {
    /// The area was filled with stamps of this tag
    #[arg(long, value_name = "TAG", required_unless_present_any = ["reference", "state"])]
    source: Option<u64>,
    /// The area has the content of this file or device
    #[arg(long, value_name = "FILE", conflicts_with = "source")]
    reference: Option<PathBuf>,
    /// The model, if the file is there; `run` writes it, for the next command to go on with
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
}

impl Content {
    fn model(&self, sectors: u64) -> Result<Model> {
        if let Some(path) = self.state.as_ref().filter(|path| path.exists()) {
            let model = Model::load(BufReader::new(File::open(path)?))?;
            ensure!(
                model.sectors() == sectors,
                "{}: is of an area of {} sectors, this one has {sectors}",
                path.display(),
                model.sectors()
            );
            return Ok(model);
        }
        ensure!(
            self.source.is_some() || self.reference.is_some(),
            "there is no such state yet: say --source or --reference"
        );
        Ok(Model::new(
            sectors,
            self.source.map_or(Expected::Reference, Expected::Tag),
        ))
    }

    fn reference(&self) -> Result<Option<File>> {
        let open = |path: &PathBuf| File::open(path).with_context(|| path.display().to_string());
        self.reference.as_ref().map(open).transpose()
    }
}

#[derive(Args)]
struct Load {
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..))]
    threads: u64,
    /// Threads work on the whole area, not each on its own part
    #[arg(long)]
    overlap: bool,
    /// How many operations, of all threads
    #[arg(long, required_unless_present = "while_exists")]
    ops: Option<u64>,
    /// Goes on as long as this file exists
    #[arg(long = "while", value_name = "FILE")]
    while_exists: Option<PathBuf>,
    /// Of 100 operations; the rest are writes
    #[arg(long, default_value_t = 45)]
    reads: u32,
    #[arg(long, default_value_t = 0)]
    discards: u32,
    #[arg(long, default_value_t = 2)]
    flushes: u32,
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Stamp { area, tag } => stamp_all(&area.open(true)?, tag),
        Command::Verify { area, content } => {
            let device = area.open(false)?;
            let model = content.model(device.sectors())?;
            verify(&device, &model, content.reference()?.as_ref())
        }
        Command::Run {
            area,
            content,
            load,
        } => run(&area.open(true)?, &content, load),
        Command::Ledger {
            area,
            seed,
            threads,
            after,
        } => ledger::keep(&area.open(true)?, seed, threads, after),
        Command::LedgerCheck {
            area,
            source,
            ledgers,
        } => {
            let mut durable = HashMap::new();
            for path in ledgers {
                let text =
                    std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
                ledger::read(&text, &mut durable)?;
            }
            let count = ledger::check(&area.open(false)?, &durable, source)?;
            println!("{count} sectors of the ledger are there");
            Ok(())
        }
    }
}

fn stamp_all(device: &Device, tag: u64) -> Result<()> {
    let mut buffer = Buffer::new();
    for range in device.pieces() {
        let bytes = buffer.part(&range);
        fill(bytes, range.start, tag);
        device.write(range.start, bytes)?;
    }
    Ok(device.flush()?)
}

fn verify(device: &Device, model: &Model, reference: Option<&File>) -> Result<()> {
    let mut buffer = Buffer::new();
    for range in device.pieces() {
        check(device, model, reference, &range, &mut buffer)?;
    }
    Ok(())
}

fn run(device: &Device, content: &Content, load: Load) -> Result<()> {
    ensure!(
        load.reads + load.discards + load.flushes <= 100,
        "reads, discards and flushes are more than 100 of 100"
    );
    let model = content.model(device.sectors())?;
    let reference = content.reference()?;
    println!("seed {}", load.seed);
    let began = Instant::now();
    let plan = Plan {
        seed: load.seed,
        threads: load.threads,
        overlap: load.overlap,
        operations: load.ops,
        while_exists: load.while_exists,
        reads: load.reads,
        discards: load.discards,
        flushes: load.flushes,
    };
    let done = Exercise::new(device, &model, reference.as_ref(), plan).run()?;
    verify(device, &model, reference.as_ref())
        .with_context(|| format!("seed {}: the whole at the end", load.seed))?;
    if let Some(path) = &content.state {
        model.save(BufWriter::new(File::create(path)?))?;
    }
    println!(
        "{done} operations in {:.1} s",
        began.elapsed().as_secs_f64()
    );
    Ok(())
}
