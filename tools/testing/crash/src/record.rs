// SPDX-License-Identifier: GPL-2.0

//! Makes a record: a clone on disks that record, used by several jobs at once, while somebody else
//! suspends it, replaces its table, asks for its status, and lets it hydrate now and then.
//!
//! Seeds decide what is done. When it is done, and in which order, they do not: a record is never the same
//! again, so it is kept for as long as somebody may want to look at it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;

use anyhow::{anyhow, Context, Result};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::dm;
use crate::jobs::Jobs;
use crate::log::{Content, Disk, Log, Recorder, Setup, BEFORE, FIRST_TAG};
use crate::nbd::Disks;
use crate::open;

/// What to record.
pub struct Plan {
    pub setup: Setup,
    pub operations: u64,
    pub jobs: u64,
    /// Discards among the operations.
    pub discards: bool,
    /// Tables and messages say nothing of how to hydrate: it is as the target likes it.
    pub no_settings: bool,
    /// A disk of at least the clone's size, for the source.
    pub source: PathBuf,
}

/// What is done to the clone apart from I/O.
struct Control<'a> {
    device: &'a dm::Device,
    recorder: &'a Recorder,
    setup: &'a Setup,
    words: String,
    no_settings: bool,
    random: StdRng,
}

pub fn record(plan: Plan) -> Result<Log> {
    let Plan { setup, .. } = &plan;
    open::stamp(&plan.source, setup.sectors)?;
    let recorder = Arc::new(Recorder::new(setup.clone()));
    let disks = [
        (Disk::Metadata, setup.metadata_sectors, 0),
        (Disk::Dest, setup.sectors, BEFORE),
    ];
    let served = Disks::serve(&disks, recorder.clone(), setup.seed)?;
    served.wait(&disks.map(|(_, sectors, _)| sectors))?;

    let device = dm::Device::create("crash")?;
    let mut control = Control {
        device: &device,
        recorder: &recorder,
        setup,
        no_settings: plan.no_settings,
        words: format!("/dev/nbd0 /dev/nbd1 {}", plan.source.display()),
        random: StdRng::seed_from_u64(setup.seed),
    };
    let table = control.table();
    device.load(setup.sectors, "clone", &table)?;
    device.resume()?;
    let complete = plan.operations / 5;
    run(
        &plan,
        &mut control,
        &recorder,
        FIRST_TAG,
        plan.operations - complete,
    )?;
    control.hydrate_all()?;
    run(
        &plan,
        &mut control,
        &recorder,
        FIRST_TAG + plan.operations,
        complete,
    )?;
    device.replace(setup.sectors, "error", "")?;
    device.remove()?;
    served.end()?;
    let recorder = Arc::into_inner(recorder).context("the server has ended")?;
    Ok(recorder.finish())
}

/// Lets the jobs run, and does the rest beside them until they have ended.
fn run(
    plan: &Plan,
    control: &mut Control<'_>,
    recorder: &Recorder,
    first_tag: Content,
    operations: u64,
) -> Result<()> {
    let jobs = Jobs {
        recorder,
        setup: &plan.setup,
        path: control.device.path(),
        operations,
        first_tag,
        discards: plan.discards,
        begun: AtomicU64::new(0),
        ranges: Default::default(),
    };
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..plan.jobs)
            .map(|number| {
                let (jobs, over) = (&jobs, &over);
                scope.spawn(move || {
                    let result = jobs.run(number);
                    // The first to end or to fail ends the rest's company.
                    over.store(true, Ordering::Relaxed);
                    result
                })
            })
            .collect();
        let mut controlled = Ok(());
        while controlled.is_ok() && !over.load(Ordering::Relaxed) {
            controlled = control.act(&over);
        }
        for job in running {
            job.join().map_err(|_| anyhow!("a job panicked"))??;
        }
        controlled
    })
}

impl Control<'_> {
    /// Words of a table, which does not hydrate by itself.
    fn table(&mut self) -> String {
        let settings = if self.no_settings {
            String::new()
        } else {
            format!(
                " 4 hydration_threshold {} hydration_batch_size {}",
                self.random.random_range(1..=8),
                self.random.random_range(1..=4),
            )
        };
        format!(
            "{} {} 1 no_hydration{settings}",
            self.words, self.setup.region
        )
    }

    /// Lets so many regions be hydrated at once.
    fn set_threshold(&self, regions: u64) -> Result<()> {
        if self.no_settings {
            return Ok(());
        }
        self.device
            .message(&format!("hydration_threshold {regions}"))
    }

    /// How many regions are hydrated, as the status tells.
    fn status(&self, quietly: bool) -> Result<u64> {
        let status = self.device.status(quietly)?;
        let hydrated = status.get(3).and_then(|field| field.split('/').next());
        let hydrated = hydrated.and_then(|number| number.parse().ok());
        let hydrated = hydrated.with_context(|| format!("status: {}", status.join(" ")))?;
        self.recorder.told(hydrated);
        Ok(hydrated)
    }

    /// Does one thing or another.
    fn act(&mut self, over: &AtomicBool) -> Result<()> {
        match self.random.random_range(0..10) {
            0..3 => {
                self.recorder.note("status");
                self.status(false)?;
            }
            // What hydrates as it likes does so by the MiB, and would soon have nothing left to do.
            3..6 if !self.no_settings || self.random.random_bool(0.2) => {
                self.hydrate_some(over)?;
            }
            6 => {
                self.recorder.note("suspend");
                self.device.suspend()?;
                self.recorder.note("resume");
                self.device.resume()?;
            }
            7 => {
                let table = self.table();
                self.recorder.note("load");
                self.device.load(self.setup.sectors, "clone", &table)?;
                self.recorder.note("suspend to swap tables");
                self.device.suspend()?;
                self.recorder.note("resume with another table");
                self.device.resume()?;
            }
            8 => {
                let number = self.random.random_range(1..=16);
                self.set_threshold(number)?;
            }
            _ => {
                self.status(true)?;
            }
        }
        Ok(())
    }

    /// Hydrates to the end, and waits for the event that tells so: a fifth of the I/O comes afterwards.
    fn hydrate_all(&mut self) -> Result<()> {
        self.recorder.note("hydrate to the end");
        self.set_threshold(8)?;
        self.device.message("enable_hydration")?;
        loop {
            let events = self.device.events()?;
            if self.status(true)? == self.setup.regions() {
                return Ok(());
            }
            self.device.wait(events)?;
        }
    }

    /// Hydrates until some more regions are.
    fn hydrate_some(&mut self, over: &AtomicBool) -> Result<()> {
        self.recorder.note("hydrate");
        let regions = self.setup.regions();
        let wanted = regions.min(self.status(true)? + (regions >> 7).max(1));
        self.device.message("enable_hydration")?;
        while self.status(true)? < wanted && !over.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        self.device.message("disable_hydration")
    }
}
