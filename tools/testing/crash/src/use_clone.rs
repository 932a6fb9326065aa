// SPDX-License-Identifier: GPL-2.0

//! What is done to a clone apart from I/O: it is suspended, its table is replaced, it is asked for its status, and
//! it is let hydrate now and then.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::dm;
use crate::log::{Recorder, Setup};
use crate::record::{Control, Plan, DATA, OWN};

pub struct CloneControl<'a> {
    device: &'a dm::Device,
    recorder: &'a Recorder,
    setup: &'a Setup,
    source: String,
    no_settings: bool,
    random: StdRng,
}

impl<'a> CloneControl<'a> {
    pub fn new(plan: &'a Plan, device: &'a dm::Device, recorder: &'a Recorder) -> Result<Self> {
        let source = plan.source.as_ref().context("a clone needs --source")?;
        Ok(CloneControl {
            device,
            recorder,
            setup: &plan.setup,
            source: source.display().to_string(),
            no_settings: plan.no_settings,
            random: StdRng::seed_from_u64(plan.setup.seed),
        })
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

impl Control for CloneControl<'_> {
    /// It does not hydrate by itself.
    fn table(&mut self) -> (&'static str, String) {
        let settings = if self.no_settings {
            String::new()
        } else {
            format!(
                " 4 hydration_threshold {} hydration_batch_size {}",
                self.random.random_range(1..=8),
                self.random.random_range(1..=4),
            )
        };
        let region = self.setup.region();
        let words = format!(
            "{OWN} {DATA} {} {region} 1 no_hydration{settings}",
            self.source
        );
        ("clone", words)
    }

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
                let (name, words) = self.table();
                self.recorder.note("load");
                self.device.load(self.setup.sectors, name, &words)?;
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

    /// Hydrates to the end, and waits for the event that tells so.
    fn come_to_an_end(&mut self) -> Result<()> {
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
}
