// SPDX-License-Identifier: GPL-2.0

//! New regions, of devices and of files.

use std::fs::File;
use std::os::unix::ffi::OsStrExt;

use dmstats::cost;
use dmstats::extents;
use dmstats::extents::Extents;
use dmstats::ffi::Handle;
use dmstats::follow::Mode;
use dmstats::projection::Plan;
use dmstats::projection::Word;
use dmstats::projection::MANY_EXTENTS;
use dmstats::projection::REGIONS;
use dmstats::Find;
use dmstats::RegionSpec;
use dmstats::Step;
use dmstats::Transport;
use serde_json::json;

use super::args::Args;
use super::failed;
use super::progress;
use super::say;
use super::say_problems;
use super::Command;
use super::Result;
use super::Stop;
use super::Subject;

/// How group messages name the alias.
pub fn with_alias(args: &Args) -> String {
    args.alias.as_deref().map_or_else(String::new, |alias| {
        format!(" with alias {}", alias.to_string_lossy())
    })
}

/// Says how a file is counted by areas, and what is not certain then.
fn say_plan(path: &str, extents: &Extents, plan: &Plan) {
    let bytes = plan.step.saturating_mul(512);
    let certain = if plan.foreign == 0 {
        "each of them the file's or not".to_owned()
    } else {
        let all = plan.foreign.saturating_add(extents.sectors());
        let percent = plan.foreign as f64 * 100.0 / all as f64;
        format!("of which those of the file have {percent:.1}% of other data")
    };
    say(&format!(
        "{path}: {} extents are counted by areas of {bytes} bytes, {certain}.",
        extents.places.len()
    ));
}

impl<'a> Command<'a> {
    fn check_create(&self) -> Result<()> {
        if self.program.is_empty() && !self.args.force {
            return failed("Creating a region with no program id requires --force.");
        }
        if self.args.userdata.as_deref().is_some_and(|data| {
            data.as_bytes()
                .windows(10)
                .any(|window| window == b"DMS_GROUP=")
        }) {
            return failed("User data must not have DMS_GROUP= in it, which is for groups.");
        }
        if self.args.alias.is_some() && self.args.nogroup {
            return failed("Cannot set alias with --nogroup.");
        }
        if self.args.allregions {
            return failed("Cannot use --allregions with create.");
        }
        if self.args.allprograms {
            return failed("Cannot use --allprograms with create.");
        }
        Ok(())
    }

    /// What all new regions have in common.
    fn like(&self) -> RegionSpec {
        let args = self.args;
        RegionSpec {
            range: None,
            step: match (args.areas, args.areasize) {
                (_, Some(sectors)) if sectors > 0 => Step::Sectors(sectors),
                (Some(areas), _) => Step::Areas(areas.max(1)),
                _ => Step::Areas(1),
            },
            precise: args.precise,
            bounds: args
                .bounds
                .clone()
                .map(|bounds| bounds.0)
                .unwrap_or_default(),
            aux: args
                .userdata
                .as_deref()
                .unwrap_or_default()
                .as_bytes()
                .to_vec(),
        }
    }

    /// Tells what would be made and what it would cost; `most` is how many regions there will ever be, if that is known.
    /// True if that was all that was asked for.
    fn plan(&mut self, name: &str, specs: &[RegionSpec], most: Option<usize>) -> Result<bool> {
        if !self.args.plan {
            return Ok(false);
        }
        let cpus = cost::possible_cpus();
        let len = |spec: &RegionSpec| spec.range.map_or(0, |(_, len)| len);
        let areas: u64 = specs
            .iter()
            .map(|spec| cost::areas(len(spec), spec.step))
            .sum();
        let bytes = specs.iter().fold(0u64, |sum, spec| {
            sum.saturating_add(cost::memory(len(spec), spec, cpus))
        });
        let account = self.kernel.memory();
        let limit = account.map_or_else(String::new, |memory| {
            format!(", {} of {} are in use", memory.used, memory.limit)
        });
        let fits = account.is_none_or(|memory| bytes <= memory.limit.saturating_sub(memory.used));
        let verdict = if fits {
            ""
        } else {
            "\n  the kernel would refuse: too much memory"
        };
        let regions = specs.len() as u64;
        let pass = regions.saturating_mul(cost::PASS_INSTRUCTIONS);
        let later = match most {
            Some(most) if most > specs.len() => format!(" ({most} at most as the file changes)"),
            _ => String::new(),
        };
        let text = format!(
            "{name}: would create {regions} region(s){later} with {areas} area(s)\n  kernel memory: {bytes} bytes{limit}\n  \
             each I/O of the device would take some {pass} instructions more to pass them{verdict}",
        );
        let value = json!({
            "name": name, "regions": regions, "regions_at_most": most, "areas": areas, "kernel_bytes": bytes, "fits": fits,
            "instructions_for_each_io": pass,
            "kernel_bytes_used": account.map(|memory| memory.used), "kernel_bytes_limit": account.map(|memory| memory.limit),
        });
        self.tell(&text, value)?;
        Ok(true)
    }

    pub fn create(&mut self) -> Result<()> {
        self.check_create()?;
        let subjects = self.chosen()?;
        self.each(&subjects, |command, subject| command.create_on(subject))
    }

    fn create_on(&mut self, subject: &Subject<'_>) -> Result<()> {
        let args = self.args;
        let name = subject.shown();
        let expect = subject.info().map_or(1, |info| info.targets);
        let targets = self.kernel.targets(subject.devno(), expect)?;
        let size = targets
            .iter()
            .map(|target| target.start.saturating_add(target.len))
            .max()
            .unwrap_or(0);
        let like = self.like();
        let specs: Vec<RegionSpec> = if args.segments {
            targets
                .iter()
                .map(|target| RegionSpec {
                    range: Some((target.start, target.len)),
                    ..like.clone()
                })
                .collect()
        } else {
            let start = args.start.unwrap_or(0);
            let len = args
                .length
                .filter(|len| *len > 0)
                .unwrap_or_else(|| size.saturating_sub(start));
            if len == 0 {
                return failed(format!(
                    "{name}: the region would begin at sector {start}, but the device has {size}"
                ));
            }
            vec![RegionSpec {
                range: Some((start, len)),
                ..like.clone()
            }]
        };
        if self.plan(&name, &specs, Some(specs.len()))? {
            return Ok(());
        }
        let mut bar = progress(specs.len(), "creating");
        // Until there is a group nobody is to delete what it will name: others would get the ids.
        let changes = args.segments.then(|| subject.changes()).transpose()?;
        let made = subject.device.create_all(&specs, &mut bar);
        let ids = made.or_else(|error| {
            failed(format!(
                "{error}\n{name}: Could not create statistics region."
            ))
        })?;
        let mut group = None;
        if args.segments && !args.nogroup {
            let alias = args.alias.as_deref().unwrap_or_default().as_bytes();
            group = subject.device.group_new(ids.clone(), alias, &like)?.group;
            subject.made(group);
        }
        drop(changes);
        drop(bar);
        for (id, spec) in ids.iter().zip(&specs) {
            let areas = cost::areas(spec.range.map_or(0, |(_, len)| len), spec.step);
            let text = format!("{name}: Created new region with {areas} area(s) as region ID {id}");
            self.tell(
                &text,
                json!({ "device": name, "region_id": id, "areas": areas, "group_id": group }),
            )?;
        }
        if let (Some(group), false) = (group, args.json) {
            let members: Vec<String> = ids.iter().map(u32::to_string).collect();
            super::print(
                format!(
                    "Grouped regions {} as group ID {group}{}\n",
                    members.join(","),
                    with_alias(args)
                )
                .as_bytes(),
            )?;
        }
        Ok(())
    }

    fn open(&self, name: &std::ffi::OsStr) -> Result<(File, String)> {
        let shown = name.to_string_lossy().into_owned();
        match extents::open(name.as_ref()) {
            Ok(file) => Ok((file, shown)),
            Err(error) => failed(format!("Could not open file {shown}: {error}")),
        }
    }

    /// The device that a file is on, and where.
    fn locate(&self, file: &File) -> dmstats::Result<(Subject<'a>, Extents)> {
        let devno = extents::device_of(file)?;
        let subject = Subject::find(self.kernel, &self.program, &Find::Devno(devno))
            .map_err(|_| dmstats::Error::File("not a device-mapper device.".into()))?;
        let extents = extents::of_file(file, !self.args.nosync)?;
        Ok((subject, extents))
    }

    fn files(&self) -> Result<&[std::ffi::OsString]> {
        let args = self.args;
        if args.alldevices || args.uuid.is_some() || args.major.is_some() {
            return failed("Files are not named with --alldevices, --uuid, --major and --minor.");
        }
        Ok(&args.names)
    }

    pub fn create_files(&mut self) -> Result<()> {
        let args = self.args;
        self.check_create()?;
        if args.segments {
            return failed("--filemap and --segments are incompatible.");
        }
        if args.start.is_some() || args.length.is_some() {
            return failed("--filemap is incompatible with --start and --length.");
        }
        if args.areas.is_some() || args.areasize.is_some() {
            return failed("--filemap is incompatible with --areas and --areasize.");
        }
        if args.userdata.is_some() {
            return failed("--userdata is not yet supported with --filemap.");
        }
        if args.projected && args.nogroup {
            return failed(
                "--projected is incompatible with --nogroup: it is a group that is projected.",
            );
        }
        let mode = args.follow.unwrap_or(Mode::Inode);
        let files = self.files()?.to_vec();
        if files.is_empty() {
            return failed("--filemap requires a file path argument");
        }
        if args.foreground && (files.len() > 1 || args.nogroup || args.nomonitor) {
            return failed(
                "--foreground is for one file, and is incompatible with --nogroup and --nomonitor.",
            );
        }
        for name in files {
            let (file, path) = self.open(&name)?;
            let could_not = |error: dmstats::Error| {
                Stop::Failed(format!(
                    "{error}\nCould not create regions from file {path}."
                ))
            };
            let (subject, extents) = self.locate(&file).map_err(could_not)?;
            self.say_extents(&path, &extents);
            let like = self.like();
            if args.plan {
                let plan = self.projection(&subject, &extents, &like);
                let plan = plan.map_err(could_not)?;
                let (places, step) = match &plan {
                    Some(plan) => (&plan.regions, Step::Sectors(plan.step)),
                    None => (&extents.places, like.step),
                };
                let specs: Vec<_> = places
                    .iter()
                    .map(|place| RegionSpec {
                        range: Some(*place),
                        step,
                        ..like.clone()
                    })
                    .collect();
                self.plan(&path, &specs, plan.as_ref().map(|_| REGIONS))?;
                continue;
            }
            let named = extents::name(name.as_ref());
            let alias = args.alias.as_deref().unwrap_or(&named);
            let alias = (!args.nogroup).then_some(alias.as_bytes());
            let mut bar;
            let changes = subject.changes()?;
            // It may have changed while others were waited for.
            let extents = extents::of_file(&file, false).map_err(could_not)?;
            let plan = self.projection(&subject, &extents, &like);
            let plan = plan.map_err(could_not)?;
            bar = progress(plan.as_ref().map_or(extents.places.len(), |_| 0), "mapping");
            let map = match &plan {
                Some(plan) => {
                    let word = self.word(&file, &name, mode)?;
                    let alias = alias.unwrap_or_default();
                    subject.device.project_file(plan, &like, alias, &word)
                }
                None => {
                    let places = &extents.places;
                    subject.device.map_file(places, &like, alias, &mut bar)
                }
            };
            let map = map.map_err(could_not)?;
            subject.made(map.group);
            // The daemon that is started takes it too.
            drop(changes);
            drop(bar);
            if let Some(plan) = &plan {
                say_plan(&path, &extents, plan);
            }
            let count = map.regions.len();
            let members: dmstats::IdSet = map.regions.iter().copied().collect();
            let text = match map.group {
                Some(group) => {
                    format!("{path}: Created new group with {count} region(s) as group ID {group}.")
                }
                None if count == 1 => {
                    format!("{path}: Created new region with 1 area as region ID {members}.")
                }
                None => format!("{path}: Created new regions with 1 area as region IDs {members}."),
            };
            let value = json!({ "file": path, "device": subject.shown(), "group_id": map.group, "regions": members.to_string() });
            let told = self.tell(&text, value);
            self.monitor(&file, &name, map.group, mode, "create", told)?;
        }
        Ok(())
    }

    /// The regions that are to lie over a file at these places, if each of these is not to have one.
    fn projection(
        &self,
        subject: &Subject<'a>,
        extents: &Extents,
        like: &RegionSpec,
    ) -> dmstats::Result<Option<Plan>> {
        let args = self.args;
        let wanted = args.projected || extents.places.len() > MANY_EXTENTS;
        if !wanted || args.perextent || args.nogroup {
            return Ok(None);
        }
        subject.device.plan(&extents.places, like)
    }

    /// Starts the daemon that follows a file, unless that is not wanted; if that was asked for, it takes the
    /// place of this process. Without it the map is what was asked for all the same. The group is followed
    /// even if nobody reads what was `told` of it, which is given back.
    fn monitor(
        &mut self,
        file: &File,
        name: &std::ffi::OsStr,
        group: Option<u32>,
        mode: Mode,
        command: &str,
        mut told: Result<()>,
    ) -> Result<()> {
        let args = self.args;
        let Some(group) = group else {
            return told;
        };
        if args.foreground {
            told = told.and_then(|()| self.answer(command));
        }
        if args.nomonitor {
            return told;
        }
        let verbose = args.verbose.min(3);
        let started = std::path::absolute(name)
            .map_err(|error| error.to_string())
            .and_then(|path| {
                dmstats::start::filemapd(file, group, &path, mode, args.foreground, verbose)
                    .map_err(|error| error.to_string())
            });
        if let Err(error) = started {
            say(&format!(
                "Failed to start filemap monitoring daemon: {error}"
            ));
        }
        told
    }

    /// What is written down of a file that is projected.
    fn word(&self, file: &File, name: &std::ffi::OsStr, mode: Mode) -> Result<Word> {
        let handle = Handle::of(file).and_then(|handle| Ok((handle, std::path::absolute(name)?)));
        match handle {
            Ok((handle, path)) => Ok(Word { mode, handle, path }),
            Err(error) => failed(format!("{}: {error}", name.to_string_lossy())),
        }
    }

    /// Says what the counts of a file's regions will not tell.
    fn say_extents(&self, path: &str, extents: &Extents) {
        if extents.shared {
            say(&format!(
                "{path}: shares blocks with other files, whose I/O to them is counted too."
            ));
        }
        if extents.skipped > 0 {
            say(&format!(
                "{path}: {} extent(s) have no place on the device yet, and are left out.",
                extents.skipped
            ));
        }
    }

    pub fn update_filemap(&mut self) -> Result<()> {
        let Some(group) = self.args.groupid else {
            return failed("--groupid is required to update a filemap group.");
        };
        let files = self.files()?.to_vec();
        let [name] = files.as_slice() else {
            return failed("update_filemap requires a file path argument");
        };
        let (file, path) = self.open(name)?;
        let could_not = |error: dmstats::Error| {
            Stop::Failed(format!(
                "{error}\nCould not update regions from file {path}"
            ))
        };
        let (subject, extents) = self.locate(&file).map_err(could_not)?;
        self.say_extents(&path, &extents);
        let mut bar;
        let changes = subject.changes()?;
        // Who was waited for may have made the group fit the file as it has become meanwhile.
        let extents = extents::of_file(&file, false).map_err(could_not)?;
        // Of all programs: another may have the id of a member by now. But the group must be ours.
        let snapshot = subject.device.list()?;
        let leader = snapshot.group(group).and_then(|_| snapshot.region(group));
        if !leader.is_ok_and(|leader| self.is_ours(leader)) {
            return Err(could_not(dmstats::Error::NoGroup(group)));
        }
        let before = snapshot.projected(group);
        let known = before.as_ref().map(|word| word.mode);
        let mode = self.args.follow.or(known).unwrap_or(Mode::Inode);
        let word = match before {
            Some(_) => Some(self.word(&file, name, mode)?),
            None => None,
        };
        let places = &extents.places;
        bar = progress(places.len(), "mapping");
        let update = subject
            .device
            .update_file(&snapshot, group, places, word.as_ref(), &mut bar);
        let made = update.as_ref().ok().and_then(|update| update.group);
        subject.made(made.filter(|now| *now != group));
        drop(changes);
        drop(bar);
        say_problems(&snapshot);
        let update = update.map_err(could_not)?;
        let count = update.kept + update.created;
        let text = match update.group {
            Some(now) if now != group => {
                format!("{path}: Updated group ID {group} with {count} region(s): its ID is {now} from now on.")
            }
            Some(now) => format!("{path}: Updated group ID {now} with {count} region(s)."),
            None => format!("{path}: Removed group ID {group}: the file has no allocated extents."),
        };
        let value = json!({
            "file": path, "device": subject.shown(), "group_id": update.group, "old_group_id": group,
            "kept": update.kept, "created": update.created, "removed": update.removed,
        });
        let told = self.tell(&text, value);
        self.monitor(&file, name, update.group, mode, "update_filemap", told)
    }
}
