// SPDX-License-Identifier: GPL-2.0

//! What is done to a write cache apart from I/O: it is suspended, its table, its mode and its settings change, and it
//! is written back, by itself and when it is told to.

use std::sync::atomic::AtomicBool;

use anyhow::Result;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::dm;
use crate::log::{Recorder, Setup, Target};
use crate::record::{Control, Plan, DATA, OWN};

pub struct LcControl<'a> {
    device: &'a dm::Device,
    recorder: &'a Recorder,
    setup: &'a Setup,
    no_settings: bool,
    sequential_cutoff: Option<u32>,
    random: StdRng,
}

impl<'a> LcControl<'a> {
    pub fn new(plan: &'a Plan, device: &'a dm::Device, recorder: &'a Recorder) -> Self {
        LcControl {
            device,
            recorder,
            setup: &plan.setup,
            no_settings: plan.no_settings,
            sequential_cutoff: plan.sequential_cutoff,
            random: StdRng::seed_from_u64(plan.setup.seed),
        }
    }

    fn tell(&self, message: &str) -> Result<()> {
        self.recorder.note(message);
        self.device.message(message)
    }

    fn is_ordered(&self) -> bool {
        self.setup.target == Target::Lc { ordered: true }
    }

    /// Else there is one mode: the only one that goes with what is to be judged, or in which nothing else sends
    /// writes around the log.
    fn has_modes(&self) -> bool {
        !self.no_settings && !self.is_ordered() && self.sequential_cutoff.is_none()
    }

    fn load(&mut self) -> Result<()> {
        let (name, words) = self.table();
        self.recorder.note(format!("load {words}"));
        self.device.load(self.setup.sectors, name, &words)
    }
}

impl Control for LcControl<'_> {
    /// It writes back before there is much.
    fn table(&mut self) -> (&'static str, String) {
        let mut settings = Vec::new();
        if !self.no_settings {
            let low = self.random.random_range(0..=2);
            let high = low + self.random.random_range(1..=3);
            settings.extend([
                format!("high_watermark {high}"),
                format!("low_watermark {low}"),
            ]);
        }
        if self.is_ordered() {
            settings.push("prefix_consistent 1".into());
        }
        settings.extend(
            self.sequential_cutoff
                .map(|cutoff| format!("sequential_cutoff {cutoff}")),
        );
        let (count, settings) = (2 * settings.len(), settings.join(" "));
        ("lc", format!("{DATA} {OWN} {count} {settings}"))
    }

    fn act(&mut self, _over: &AtomicBool) -> Result<()> {
        match self.random.random_range(0..12) {
            0 => self.tell("flush"),
            1..4 => self.tell("flush_current_buffer"),
            4 => self.tell("commit_super_block"),
            5 => self.tell("check"),
            6 => {
                self.recorder.note("suspend");
                self.device.suspend()?;
                self.recorder.note("resume");
                self.device.resume()
            }
            7 => {
                self.load()?;
                self.recorder.note("suspend to swap tables");
                self.device.suspend()?;
                self.recorder.note("resume with another table");
                self.device.resume()
            }
            8..10 if self.has_modes() => {
                // The log is what there is to be judged.
                let mode = if self.random.random_bool(0.7) {
                    "writeback"
                } else {
                    let others = ["writethrough", "writearound", "cleaner"];
                    others[self.random.random_range(0..others.len())]
                };
                self.tell(&format!("mode {mode}"))
            }
            10 if !self.no_settings => {
                let allowed = self.random.random_range(0..=1);
                self.tell(&format!("allow_migrate {allowed}"))
            }
            _ => self.device.status(false).map(drop),
        }
    }

    /// Takes it down in order, and opens it again.
    fn come_to_an_end(&mut self) -> Result<()> {
        self.recorder.note("take it down");
        self.device.replace(self.setup.sectors, "error", "")?;
        self.load()?;
        self.device.suspend()?;
        self.recorder.note("open it again");
        self.device.resume()
    }
}
