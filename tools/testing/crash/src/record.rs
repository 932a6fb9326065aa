// SPDX-License-Identifier: GPL-2.0

//! Makes a record: a target on disks that record, used by several jobs at once, while somebody else does what
//! there is to be done with it ([`Control`]).
//!
//! Seeds decide what is done. When it is done, and in which order, they do not: a record is never the same
//! again, so it is kept for as long as somebody may want to look at it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;

use anyhow::{anyhow, Context, Result};

use crate::check::data_at_first;
use crate::dm;
use crate::jobs::Jobs;
use crate::log::{Content, Disk, Log, Recorder, Setup, Target, FIRST_TAG};
use crate::nbd::Disks;
use crate::open;
use crate::use_clone::CloneControl;
use crate::use_lc::LcControl;

/// The target's own disk, and that of the data.
pub const OWN: &str = "/dev/nbd0";
pub const DATA: &str = "/dev/nbd1";

/// What to record.
pub struct Plan {
    pub setup: Setup,
    pub operations: u64,
    pub jobs: u64,
    /// Discards among the operations.
    pub discards: bool,
    /// Tables and messages say nothing of settings: all is as the target likes it.
    pub no_settings: bool,
    /// Writes of a cache that continue one another, some of them around the log: see the table line of `lc`.
    pub sequential_cutoff: Option<u32>,
    /// A disk of at least the clone's size, for its source.
    pub source: Option<PathBuf>,
}

/// What is done to the target apart from I/O.
pub trait Control {
    /// Its name, and the words of a table.
    fn table(&mut self) -> (&'static str, String);

    /// Does one thing or another, beside the jobs. Whatever takes long ends when they are `over`.
    fn act(&mut self, over: &AtomicBool) -> Result<()>;

    /// What comes before the last fifth of the I/O, which has the target alone.
    fn come_to_an_end(&mut self) -> Result<()>;
}

/// Makes a record.
pub fn record(plan: Plan) -> Result<Log> {
    let Plan { setup, .. } = &plan;
    if let Some(source) = &plan.source {
        open::stamp(source, setup.sectors)?;
    }
    let recorder = Arc::new(Recorder::new(setup.clone()));
    let disks = [
        (Disk::Own, setup.own_sectors, 0),
        (Disk::Data, setup.sectors, data_at_first(setup.target)),
    ];
    let served = Disks::serve(&disks, recorder.clone(), setup.seed)?;
    served.wait(&disks.map(|(_, sectors, _)| sectors))?;

    let device = dm::Device::create("crash")?;
    let mut control: Box<dyn Control + '_> = match setup.target {
        Target::Clone { .. } => Box::new(CloneControl::new(&plan, &device, &recorder)?),
        Target::Lc { .. } => Box::new(LcControl::new(&plan, &device, &recorder)),
    };
    let (name, words) = control.table();
    device.load(setup.sectors, name, &words)?;
    device.resume()?;
    let last = plan.operations / 5;
    let first = plan.operations - last;
    run(&plan, &mut *control, &device, &recorder, FIRST_TAG, first)?;
    control.come_to_an_end()?;
    let tag = FIRST_TAG + plan.operations;
    run(&plan, &mut *control, &device, &recorder, tag, last)?;
    drop(control);
    device.replace(setup.sectors, "error", "")?;
    device.remove()?;
    served.end()?;
    let recorder = Arc::into_inner(recorder).context("the server has ended")?;
    Ok(recorder.finish())
}

/// Lets the jobs run, and does the rest beside them until they have ended.
fn run(
    plan: &Plan,
    control: &mut dyn Control,
    device: &dm::Device,
    recorder: &Recorder,
    first_tag: Content,
    operations: u64,
) -> Result<()> {
    let jobs = Jobs {
        recorder,
        setup: &plan.setup,
        path: device.path(),
        operations,
        first_tag,
        discards: plan.discards,
        runs: plan.sequential_cutoff.is_some(),
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
