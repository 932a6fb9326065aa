// SPDX-License-Identifier: GPL-2.0

//! The commands.

mod args;
mod create;
mod fields;
mod names;
mod report;
mod select;
mod subject;
mod units;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::io::BufWriter;
use std::io::IsTerminal;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;
use std::time::Duration;
use std::time::Instant;

use clap::CommandFactory;
use clap::Parser;
use dmstats::Count;
use dmstats::Devno;
use dmstats::Find;
use dmstats::IdSet;
use dmstats::Kernel;
use dmstats::Sample;
use dmstats::Snapshot;
use dmstats::Transport;
use serde_json::json;
use serde_json::Value;

use args::Args;
use args::Headings;
use fields::Object;
use fields::Row;
use fields::Section;
use fields::Style;
use fields::View;
use report::Layout;
use select::Selection;
use subject::Subject;
use units::Units;

/// What can be done.
const COMMANDS: [&str; 12] = [
    "clear",
    "completion",
    "create",
    "delete",
    "group",
    "help",
    "list",
    "print",
    "report",
    "ungroup",
    "update_filemap",
    "version",
];

/// From so many operations on, a terminal shows how far they are.
const LONG: usize = 500;
/// How often it does.
const TICK: Duration = Duration::from_millis(100);
/// How many bytes of a report are written at once.
const OUTPUT: usize = 64 << 10;

const LIST: &str =
    "stats_name,group_id,region_id,obj_type,region_start,region_len,area_count,area_len,program_id";
const LIST_VERBOSE: &str =
    "stats_name,group_id,region_id,obj_type,region_start,region_len,area_count,area_id,area_start,area_len,program_id";
const LIST_HISTOGRAM: &str =
    "stats_name,group_id,region_id,obj_type,region_start,region_len,area_count,area_len,hist_bins,hist_bounds";
const LIST_VERBOSE_HISTOGRAM: &str =
    "stats_name,group_id,region_id,obj_type,region_start,region_len,area_count,area_id,area_start,area_len,hist_bins,hist_bounds";
const REPORT: &str = "stats_name,group_id,region_id,obj_type,area_id,area_start,area_len,reads_merged_per_sec,\
writes_merged_per_sec,reads_per_sec,writes_per_sec,read_size_per_sec,write_size_per_sec,avg_request_size,queue_size,util,\
await,read_await,write_await";
const REPORT_RAW: &str = "stats_name,group_id,region_id,obj_type,area_id,area_start,area_len,read_count,reads_merged_count,\
read_sector_count,read_time,read_ticks,write_count,writes_merged_count,write_sector_count,write_time,write_ticks,\
in_progress_count,io_ticks,queue_ticks";
const REPORT_HISTOGRAM: &str =
    "stats_name,group_id,region_id,obj_type,region_start,region_len,area_count,area_len,util,await";

/// Why a command ends early.
pub enum Stop {
    /// What was asked for makes no sense.
    Usage(String),
    /// It failed.
    Failed(String),
    /// It failed, and was said to.
    Said,
    /// Nobody reads on.
    Closed,
}

impl From<dmstats::Error> for Stop {
    fn from(error: dmstats::Error) -> Self {
        Stop::Failed(error.to_string())
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Stop::Closed,
            _ => Stop::Failed(error.to_string()),
        }
    }
}

type Result<T> = std::result::Result<T, Stop>;

fn failed<T>(text: impl Into<String>) -> Result<T> {
    Err(Stop::Failed(text.into()))
}

/// Says something on stderr; if that is closed, nobody wanted to know.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Says what is wrong with what other programs have left with the regions.
fn say_problems(snapshot: &Snapshot) {
    for problem in &snapshot.problems {
        say(&problem.to_string());
    }
}

/// A command that runs.
struct Command<'a> {
    args: &'a Args,
    kernel: &'a Kernel,
    program: Vec<u8>,
    /// What was done, for `--json`.
    results: Vec<Value>,
    /// Whether that was told.
    answered: bool,
    last: Option<Instant>,
}

/// Runs the program.
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) if !error.use_stderr() => {
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            let _ = error.print();
            say("Couldn't process command line.");
            return ExitCode::FAILURE;
        }
    };
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop::Closed) => ExitCode::FAILURE,
        Err(Stop::Usage(text)) => {
            say(&text);
            ExitCode::FAILURE
        }
        Err(Stop::Failed(text)) => {
            say(&text);
            say("Command failed.");
            ExitCode::FAILURE
        }
        Err(Stop::Said) => {
            say("Command failed.");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let name = match args.command.as_deref() {
        _ if args.version => "version",
        Some(name) => name,
        None => return Err(Stop::Usage(Args::command().render_help().to_string())),
    };
    match name {
        "help" => return help(args),
        "completion" => return completion(args),
        "list" | "report" => {
            if let Some(text) = help_text(args) {
                return print(text.as_bytes());
            }
        }
        name if COMMANDS.contains(&name) => {}
        _ => {
            return failed(format!(
                "Unknown stats command: {name}\n{}",
                Args::command().render_usage()
            ))
        }
    }
    let kernel = Kernel::open()?;
    let program = program(args);
    let mut command = Command {
        args,
        kernel: &kernel,
        program,
        results: Vec::new(),
        answered: false,
        last: None,
    };
    let done = match name {
        "version" => command.version(),
        "create" if args.filemap => command.create_files(),
        "create" => command.create(),
        "update_filemap" => command.update_filemap(),
        "delete" => command.delete(),
        "clear" => command.clear(),
        "print" => command.print(),
        "group" => command.group(),
        "ungroup" => command.ungroup(),
        "list" => command.list(),
        _ => command.report(),
    };
    // These two print objects of their own.
    if !matches!(name, "list" | "report") {
        command.answer(name)?;
    }
    if args.verbose >= 2 {
        say(&format!("{} requests to the kernel", kernel.requests()));
    }
    done
}

/// In whose name regions are made and found. The kernel has `-` for none, and so have lists.
fn program(args: &Args) -> Vec<u8> {
    match args.programid.as_deref().map(OsStr::as_bytes) {
        None => b"dmstats".to_vec(),
        Some(b"-") => Vec::new(),
        Some(id) => id.to_vec(),
    }
}

fn print(text: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text)?;
    Ok(out.flush()?)
}

/// What `-o help` or `-S help` asks for.
fn help_text(args: &Args) -> Option<String> {
    let asks = |text: &Option<String>| {
        text.as_deref()
            .is_some_and(|text| matches!(text, "help" | "?"))
    };
    if asks(&args.select) {
        return Some(fields::help(true) + SELECTION_HELP);
    }
    asks(&args.options).then(|| fields::help(false))
}

const SELECTION_HELP: &str = "Selections
----------
  FIELD =  VALUE    equal (numbers, sizes, percentages, text); != differs
  FIELD >= VALUE    and > <= < (numbers, sizes, percentages)
  FIELD =~ REGEX    matches; !~ does not; in quotes if it has white space, ), comma, #, && or ||
  A && B    A, B    both
  A || B    A # B   one of them
  !(A)              not
  Sizes are mebibytes, or have one of the units bskmgtpe (1024) or BSKMGTPE (1000).
";

fn help(args: &Args) -> Result<()> {
    let text = match help_text(args) {
        Some(text) => text,
        None if args.columns => format!(
            "{}\n{}",
            Args::command().render_long_help(),
            fields::help(false)
        ),
        None => Args::command().render_long_help().to_string(),
    };
    print(text.as_bytes())
}

fn completion(args: &Args) -> Result<()> {
    let shell = args
        .names
        .first()
        .and_then(|name| name.to_str())
        .and_then(|name| name.parse::<clap_complete::Shell>().ok());
    let Some(shell) = shell else {
        return failed("completion requires a shell: bash, elvish, fish, powershell or zsh");
    };
    let mut text = Vec::new();
    let mut command = Args::command().mut_arg("command", |arg| arg.value_parser(COMMANDS));
    clap_complete::generate(shell, &mut command, "dmstats", &mut text);
    print(&text)
}

/// Shows how far a long task is, on a terminal, until it is dropped. A thread of its own does so: the terminal may be
/// stopped, and others wait for the end of the task. So it is to be dropped after the lock that they wait for.
fn progress(count: usize, what: &'static str) -> impl FnMut(usize) {
    let bar = (count >= LONG && io::stderr().is_terminal()).then(|| {
        let style = indicatif::ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}");
        let bar = indicatif::ProgressBar::new(count as u64).with_message(what);
        let bar = match style {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        };
        bar.enable_steady_tick(TICK);
        bar
    });
    move |done| {
        if let Some(bar) = &bar {
            bar.set_position(done as u64);
        }
    }
}

/// Does something with each device. The first of some that fails is the last; of all devices, the others are done too.
fn on_each<D>(
    devices: impl IntoIterator<Item = D>,
    all: bool,
    name: impl Fn(&D) -> String,
    mut act: impl FnMut(D) -> Result<()>,
) -> Result<()> {
    let mut done = Ok(());
    for device in devices {
        let name = name(&device);
        match act(device) {
            Err(Stop::Failed(text)) if all => {
                say(&format!("{name}: {text}"));
                done = Err(Stop::Said);
            }
            other => other?,
        }
    }
    done
}

impl<'a> Command<'a> {
    /// Tells what was done.
    fn tell(&mut self, text: &str, value: Value) -> Result<()> {
        if self.args.json {
            self.results.push(value);
            return Ok(());
        }
        print(format!("{text}\n").as_bytes())
    }

    /// Tells once all that was done, for `--json`.
    fn answer(&mut self, name: &str) -> Result<()> {
        if !self.args.json || std::mem::replace(&mut self.answered, true) {
            return Ok(());
        }
        let value = json!({ "command": name, "results": self.results });
        print(format!("{value}\n").as_bytes())
    }

    fn verbose(&self, text: &str) {
        if self.args.verbose >= 2 {
            say(text);
        }
    }

    fn subject(&self, find: &Find) -> Result<Subject<'a>> {
        Ok(Subject::find(self.kernel, &self.program, find)?)
    }

    fn find(name: &OsStr) -> Find {
        let name = name.as_bytes();
        if let Some(mapped) = name.strip_prefix(b"/dev/mapper/") {
            return Find::Name(names::mangled(mapped));
        }
        if name.starts_with(b"/") {
            if let Ok(info) = rustix::fs::stat(name) {
                return Find::Devno(Devno {
                    major: rustix::fs::major(info.st_rdev),
                    minor: rustix::fs::minor(info.st_rdev),
                });
            }
        }
        Find::Name(names::mangled(name))
    }

    /// The devices that were named; none if none were.
    fn named(&self) -> Result<Vec<Subject<'a>>> {
        let args = self.args;
        let mut finds: Vec<Find> = args.names.iter().map(|name| Self::find(name)).collect();
        if finds.is_empty() {
            if let Some(uuid) = &args.uuid {
                finds.push(Find::Uuid(uuid.as_bytes().to_vec()));
            } else if let (Some(major), Some(minor)) = (args.major, args.minor) {
                finds.push(Find::Devno(Devno { major, minor }));
            }
        }
        finds.iter().map(|find| self.subject(find)).collect()
    }

    /// The devices that were named, or all. One that goes meanwhile is left out.
    fn named_or_all(&self) -> Result<Vec<Subject<'a>>> {
        let named = self.named()?;
        if !named.is_empty() {
            return Ok(named);
        }
        let all = self.kernel.devices()?.into_iter();
        Ok(all
            .map(|(devno, name)| Subject::new(self.kernel, &self.program, devno, name))
            .collect())
    }

    /// The devices that were named, or all if that was said.
    fn chosen(&self) -> Result<Vec<Subject<'a>>> {
        let named = if self.args.alldevices {
            self.named_or_all()?
        } else {
            self.named()?
        };
        if named.is_empty() && !self.args.alldevices {
            return failed("Please specify device(s) or use --alldevices.");
        }
        Ok(named)
    }

    /// Does something with each of the devices.
    fn each(
        &mut self,
        subjects: &[Subject<'a>],
        mut act: impl FnMut(&mut Self, &Subject<'a>) -> Result<()>,
    ) -> Result<()> {
        let all = self.of_all();
        on_each(
            subjects,
            all,
            |subject| subject.shown(),
            |subject| act(self, subject),
        )
    }

    /// Whether no devices were named.
    fn of_all(&self) -> bool {
        let args = self.args;
        args.names.is_empty() && args.uuid.is_none() && args.major.is_none()
    }

    /// What a device has of all programs.
    fn all(&self, subject: &Subject<'_>) -> Result<Snapshot> {
        let snapshot = subject.device.list()?;
        say_problems(&snapshot);
        Ok(snapshot)
    }

    /// What a device has of our program, or of all.
    fn snapshot(&self, subject: &Subject<'_>) -> Result<Snapshot> {
        Ok(self.ours(self.all(subject)?))
    }

    /// Whether a region is of our program, if not all are asked for.
    fn is_ours(&self, region: &dmstats::Region) -> bool {
        self.args.allprograms || *region.program == *self.program
    }

    /// What of a device is of our program, if not all is asked for.
    fn ours(&self, all: Snapshot) -> Snapshot {
        if self.args.allprograms {
            all
        } else {
            all.of_program(&self.program)
        }
    }

    fn version(&mut self) -> Result<()> {
        let (major, minor, patch) = self.kernel.version()?;
        let ours = env!("CARGO_PKG_VERSION");
        let driver = format!("{major}.{minor}.{patch}");
        let text = format!("Library version:   {ours}\nDriver version:    {driver}");
        self.tell(&text, json!({ "library": ours, "driver": driver }))
    }

    fn one_of_regions(&self, group: bool) -> Result<()> {
        let args = self.args;
        if args.allregions && args.regionid.is_some() {
            return failed("Please supply one of --allregions and --regionid");
        }
        if group && args.groupid.is_some() && (args.regionid.is_some() || args.allregions) {
            return failed("Please use one of --regionid, --allregions and --groupid.");
        }
        if args.allregions || args.regionid.is_some() || (group && args.groupid.is_some()) {
            return Ok(());
        }
        failed(if group {
            "Please specify a --regionid or --groupid, or use --allregions."
        } else {
            "Please specify a --regionid or use --allregions."
        })
    }

    fn delete(&mut self) -> Result<()> {
        self.one_of_regions(true)?;
        let subjects = self.chosen()?;
        self.each(&subjects, |command, subject| command.delete_on(subject))
    }

    fn delete_on(&mut self, subject: &Subject<'_>) -> Result<()> {
        let args = self.args;
        // Nothing is told while others wait: that may take as long as its reader wants.
        let mut bar;
        let changes = subject.changes()?;
        let all = subject.device.list()?;
        let name = subject.shown();
        if let Some(group) = args.groupid {
            let snapshot = self.ours(all);
            bar = progress(snapshot.group(group)?.members.len() as usize, "deleting");
            subject.device.delete_group(&snapshot, group, &mut bar)?;
            drop(changes);
            drop(bar);
            self.tell(
                &format!("Deleted statistics group {group}."),
                json!({ "device": name, "group_id": group }),
            )?;
            return Ok(());
        }
        let ids: IdSet = match args.regionid {
            Some(id) if !self.is_ours(all.region(id)?) => {
                return Err(dmstats::Error::NoRegion(id).into())
            }
            Some(id) => IdSet::from_iter([id]),
            None => {
                let ours = all.regions.values().filter(|region| self.is_ours(region));
                ours.map(|region| region.id).collect()
            }
        };
        bar = progress(ids.len() as usize, "deleting");
        // Groups of other programs may have these regions too.
        subject.device.delete_all(&all, &ids, &mut bar)?;
        drop(changes);
        drop(bar);
        if args.json {
            self.results
                .push(json!({ "device": name, "regions": ids.to_string() }));
        }
        self.verbose(&format!("Deleted statistics regions {ids}."));
        Ok(())
    }

    /// The region that was asked for, or all.
    fn region_ids(&self, snapshot: &Snapshot) -> Result<Vec<u32>> {
        match self.args.regionid {
            Some(id) if !snapshot.regions.contains_key(&id) => {
                failed(format!("No such region: {id}."))
            }
            Some(id) => Ok(vec![id]),
            None => Ok(snapshot.regions.keys().copied().collect()),
        }
    }

    fn clear(&mut self) -> Result<()> {
        self.one_of_regions(false)?;
        let subjects = self.named_or_all()?;
        self.each(&subjects, |command, subject| command.clear_on(subject))
    }

    fn clear_on(&mut self, subject: &Subject<'_>) -> Result<()> {
        let args = self.args;
        let ids = self.region_ids(&self.snapshot(subject)?)?;
        for id in ids {
            match subject.device.clear(id) {
                Err(dmstats::Error::NoRegion(_)) if args.regionid.is_none() => continue,
                Err(dmstats::Error::NoRegion(id)) => {
                    return failed(format!("No such region: {id}."))
                }
                other => other?,
            }
            self.verbose(&format!("Cleared statistics region {id}."));
            if args.json {
                self.results
                    .push(json!({ "device": subject.shown(), "region_id": id }));
            }
        }
        Ok(())
    }

    fn print(&mut self) -> Result<()> {
        self.one_of_regions(false)?;
        let subjects = self.named_or_all()?;
        self.each(&subjects, |command, subject| command.print_on(subject))
    }

    fn print_on(&mut self, subject: &Subject<'_>) -> Result<()> {
        let args = self.args;
        let snapshot = self.snapshot(subject)?;
        for id in self.region_ids(&snapshot)? {
            let rows = match subject.device.print(snapshot.region(id)?, args.clear) {
                // Somebody deleted it since it was listed.
                Err(dmstats::Error::NoRegion(_)) if args.regionid.is_none() => continue,
                other => other?,
            };
            if args.json {
                let rows: Vec<String> = String::from_utf8_lossy(&rows)
                    .lines()
                    .map(str::to_owned)
                    .collect();
                self.results
                    .push(json!({ "device": subject.shown(), "region_id": id, "rows": rows }));
            } else {
                print(&rows)?;
            }
        }
        Ok(())
    }

    fn group(&mut self) -> Result<()> {
        let args = self.args;
        let Some(text) = &args.regions else {
            return failed("Group requires --regions.");
        };
        let Some(members) = IdSet::parse(text.as_bytes()) else {
            return failed(format!("Could not parse list: '{text}'"));
        };
        let subjects = self.chosen()?;
        self.each(&subjects, |command, subject| {
            command.group_on(subject, text, &members)
        })
    }

    fn group_on(&mut self, subject: &Subject<'_>, text: &str, members: &IdSet) -> Result<()> {
        let args = self.args;
        let alias = args.alias.as_deref().unwrap_or_default().as_bytes();
        let changes = subject.changes()?;
        // One of ours may be in a group of another program's.
        let snapshot = subject.device.list()?;
        let name = subject.shown();
        let theirs = members
            .regions(&snapshot.regions)
            .find(|region| !self.is_ours(region));
        let group = match theirs {
            Some(region) => Err(dmstats::Error::NoRegion(region.id)),
            None => subject.device.group(&snapshot, members, alias),
        };
        subject.made(group.as_ref().ok().copied());
        drop(changes);
        say_problems(&snapshot);
        let group = group.or_else(|error| {
            failed(format!("{error}\nCould not create group on {name}: {text}"))
        })?;
        let precise = members
            .regions(&snapshot.regions)
            .filter(|region| region.precise)
            .count() as u64;
        if precise > 0 && precise < members.len() {
            say(
                "WARNING: Grouping regions with different clock resolution: precision may be lost.",
            );
        }
        self.say_overlap(&snapshot, members);
        self.tell(
            &format!(
                "Grouped regions {text} as group ID {group}{} on {name}",
                create::with_alias(args)
            ),
            json!({ "device": name, "group_id": group, "regions": members.to_string() }),
        )?;
        Ok(())
    }

    /// Warns if regions share sectors, whose I/O counts twice in their group.
    fn say_overlap(&self, snapshot: &Snapshot, members: &IdSet) {
        let mut regions: Vec<_> = members.regions(&snapshot.regions).collect();
        regions.sort_by_key(|region| (region.start, region.id));
        let overlap = regions
            .windows(2)
            .find(|pair| pair[1].start < pair[0].start + pair[0].len);
        if let Some([one, other]) = overlap {
            let (low, high) = (one.id.min(other.id), one.id.max(other.id));
            say(&format!(
                "WARNING: region IDs {low} and {high} overlap. Some events will be counted twice."
            ));
        }
    }

    fn ungroup(&mut self) -> Result<()> {
        let Some(group) = self.args.groupid else {
            return failed("Please specify group id.");
        };
        let subjects = self.chosen()?;
        self.each(&subjects, |command, subject| {
            command.ungroup_on(subject, group)
        })
    }

    fn ungroup_on(&mut self, subject: &Subject<'_>, group: u32) -> Result<()> {
        let changes = subject.changes()?;
        let snapshot = self.ours(subject.device.list()?);
        let name = subject.shown();
        let done = subject.device.ungroup(&snapshot, group);
        drop(changes);
        say_problems(&snapshot);
        done.or_else(|error| {
            failed(format!(
                "{error}\nCould not delete group {group} on {name}."
            ))
        })?;
        self.tell(
            &format!("Removed group ID {group} on {name}"),
            json!({ "device": name, "group_id": group }),
        )?;
        Ok(())
    }

    fn layout(&self, default: &str, all: &[Section]) -> Result<Layout> {
        let args = self.args;
        let usage = |text: String| Stop::Usage(text);
        let headings = match args.headings {
            _ if args.noheadings => Headings::None,
            headings => headings.unwrap_or(Headings::Abbrev),
        };
        let plain = args.noheadings || args.nameprefixes || args.rows;
        let separator = args
            .separator
            .clone()
            .or_else(|| plain.then(|| if args.noheadings { ":" } else { " " }.to_owned()));
        Ok(Layout {
            fields: report::parse_fields(args.options.as_deref(), default, all).map_err(usage)?,
            sort: report::parse_sort(args.sort.as_deref()).map_err(usage)?,
            selection: Selection::parse(args.select.as_deref().unwrap_or_default())
                .map_err(usage)?,
            headings,
            separator,
            prefixes: args.nameprefixes,
            quoted: !args.unquoted,
            transposed: args.rows,
            style: Style {
                units: args.units.unwrap_or(Units::Human {
                    decimal: false,
                    mark: false,
                }),
                padded: !args.noheadings,
                time_suffix: !args.notimesuffix,
            },
        })
    }

    fn list(&mut self) -> Result<()> {
        let args = self.args;
        let default = match (args.verbose, args.histogram) {
            (0, true) => LIST_HISTOGRAM,
            (_, true) => LIST_VERBOSE_HISTOGRAM,
            (0, _) => LIST,
            _ => LIST_VERBOSE,
        };
        let layout = self.layout(default, &[Section::Region])?;
        let shown = Shown::new(args, args.verbose > 0, true);
        let (interval, count) = self.times();
        let mut number = 0;
        loop {
            let (views, listed) = self.views(self.named_or_all()?);
            if listed.is_ok() || !views.is_empty() {
                self.show(&layout, &views, &shown, None)?;
            }
            listed?;
            number += 1;
            if number == count {
                return Ok(());
            }
            if !args.json {
                print(b"\n")?;
            }
            std::thread::sleep(interval);
        }
    }

    /// How long it is from one report to the next, and how many there are; 0 for no end.
    fn times(&self) -> (Duration, u64) {
        let args = self.args;
        let count = match args.count {
            None if args.interval.is_some() => 0,
            None => 1,
            Some(count) => count,
        };
        (Duration::from_secs_f64(args.interval.unwrap_or(1.0)), count)
    }

    /// What devices have, and whether all could be asked.
    fn views(&self, subjects: Vec<Subject<'a>>) -> (Vec<View<'a>>, Result<()>) {
        let mut views = Vec::new();
        let listed = on_each(subjects, self.of_all(), Subject::shown, |subject| {
            match self.snapshot(&subject) {
                Ok(snapshot) => views.push(View::new(subject, snapshot)),
                Err(Stop::Failed(text))
                    if self.args.names.is_empty() && text.ends_with("not found") => {}
                Err(stop) => return Err(stop),
            }
            Ok(())
        });
        (views, listed)
    }

    fn report(&mut self) -> Result<()> {
        let args = self.args;
        let histogram = format!(
            "{REPORT_HISTOGRAM},{}",
            if args.relative {
                "hist_percent_bounds"
            } else {
                "hist_count_bounds"
            }
        );
        let default = match (args.raw, args.histogram) {
            (_, true) => &histogram,
            (true, _) => REPORT_RAW,
            _ => REPORT,
        };
        let layout = self.layout(default, &[Section::Stats, Section::Region])?;
        let (nominal, count) = self.times();
        let shown = Shown::new(args, true, false);
        let mut earlier: BTreeMap<Devno, Sample> = BTreeMap::new();
        let mut next = Instant::now();
        let mut number = 0;
        // Without clearing, the first sample is what the next is compared with.
        if args.keep {
            let (views, listed) = self.views(self.named_or_all()?);
            let (_, counted) = self.count(views, &mut earlier, &shown);
            listed.and(counted)?;
            self.last = Some(Instant::now());
            next += nominal;
            std::thread::sleep(nominal);
        }
        loop {
            let (views, listed) = self.views(self.named_or_all()?);
            let (mut views, counted) = self.count(views, &mut earlier, &shown);
            let done = listed.and(counted);
            let now = Instant::now();
            let interval = self.last.map_or(nominal, |last| now - last);
            self.last = Some(now);
            let interval_ns = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
            for view in &mut views {
                view.interval_ns = interval_ns;
            }
            // What was counted has been cleared: it is shown, whatever failed on another device.
            if done.is_ok() || !views.is_empty() {
                self.show(&layout, &views, &shown, Some((number, interval_ns)))?;
            }
            done?;
            number += 1;
            if number == count {
                return Ok(());
            }
            if !args.json {
                print(b"\n")?;
            }
            next = (next + nominal).max(Instant::now());
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }

    /// Tells views what was counted since the last time in what is shown. Those of which nothing can be known
    /// are left out, and that is told.
    fn count(
        &self,
        views: Vec<View<'a>>,
        earlier: &mut BTreeMap<Devno, Sample>,
        shown: &Shown,
    ) -> (Vec<View<'a>>, Result<()>) {
        let mut known = Vec::new();
        let name = |view: &View<'a>| view.subject.shown();
        let counted = on_each(views, self.of_all(), name, |mut view| {
            let counted = self.count_on(&mut view, earlier, shown);
            if counted.is_ok() || view.sample.is_some() {
                known.push(view);
            }
            counted
        });
        (known, counted)
    }

    /// Does so with one. A device that has gone since has no counts; after an error it has those that could be
    /// read.
    fn count_on(
        &self,
        view: &mut View<'a>,
        earlier: &mut BTreeMap<Devno, Sample>,
        shown: &Shown,
    ) -> Result<()> {
        let (subject, snapshot) = (&view.subject, &view.snapshot);
        // Before the counters are cleared: what could not be attributed would be lost.
        let files = self.files_of(subject, snapshot, shown);
        let unseen = |region: &dmstats::Region| {
            let of_group = region.group.and_then(|group| files.get(&group));
            of_group.is_some_and(Option::is_none)
        };
        let keep = self.args.keep;
        let wanted =
            |region: &dmstats::Region| shown.counts(snapshot, region) && (keep || !unseen(region));
        let (mut sample, done) = subject.device.sample_some(snapshot, !keep, wanted);
        if done.as_ref().is_err_and(|error| error.is_missing()) {
            view.unread = snapshot.ids();
            return Ok(());
        }
        let unread =
            |region: &&dmstats::Region| wanted(region) && !sample.regions.contains_key(&region.id);
        let unread = snapshot.regions.values().filter(unread);
        view.unread = unread.map(|region| region.id).collect();
        let mut told = if keep {
            let mut before = earlier.remove(&subject.devno()).unwrap_or_default();
            // What cannot be told now is told when the file is seen again, or the region can be read.
            let later =
                |region: &&dmstats::Region| unseen(region) || view.unread.contains(region.id);
            for region in snapshot.regions.values().filter(later) {
                let id = region.id;
                if let Some(then) = before.regions.get(&id) {
                    sample.regions.insert(id, then.clone());
                } else if let Some(now) = sample.regions.get(&id) {
                    before.regions.insert(id, now.clone());
                }
            }
            let difference = sample.since(snapshot, &before);
            earlier.insert(subject.devno(), sample);
            difference
        } else {
            sample
        };
        for (id, places) in &files {
            if let Some(places) = places {
                self.project(snapshot, &mut told, *id, places);
            }
        }
        view.sample = Some(told);
        Ok(done?)
    }

    /// Where the files are that groups which are shown lie over, by the ids of these; none of one that cannot be seen.
    fn files_of(
        &self,
        subject: &Subject<'_>,
        snapshot: &Snapshot,
        shown: &Shown,
    ) -> BTreeMap<u32, Option<Vec<(u64, u64)>>> {
        let mut files = BTreeMap::new();
        for id in snapshot.groups.keys().filter(|id| shown.has_group(**id)) {
            let Some(word) = snapshot.projected(*id) else {
                continue;
            };
            let path = word.path.display().to_string();
            let places = match dmstats::follow::places(word, subject.devno()) {
                Ok(Some(extents)) => Some(extents.places),
                Ok(None) => {
                    say(&format!("{path}: the file of group ID {id} has gone"));
                    None
                }
                Err(error) => {
                    say(&format!("{path}: {error}"));
                    None
                }
            };
            files.insert(*id, places);
        }
        files
    }

    /// Attributes what was counted over a file to it.
    fn project(&self, snapshot: &Snapshot, sample: &mut Sample, id: u32, places: &[(u64, u64)]) {
        sample.project(snapshot, id, places);
        let error = sample.errors.get(&id).copied().unwrap_or_default();
        let Some(group) = snapshot.groups.get(&id).filter(|_| error > 0.0) else {
            return;
        };
        let name = String::from_utf8_lossy(&group.name()).into_owned();
        say(&format!(
            "{name}: {:.1}% of what is counted is estimated: it has areas in common with other data",
            error * 100.0
        ));
    }

    /// Shows what there is; `report` is the number of one that tells what was counted, and in how many nanoseconds.
    fn show(
        &self,
        layout: &Layout,
        views: &[View<'a>],
        shown: &Shown,
        report: Option<(u64, u64)>,
    ) -> Result<()> {
        let mut rows = Vec::new();
        for view in views {
            shown.rows(view, &mut rows);
        }
        if !self.args.json {
            let mut out = BufWriter::with_capacity(OUTPUT, io::stdout().lock());
            layout.write(rows, &mut out)?;
            return Ok(out.flush()?);
        }
        let rows_json = layout.json(rows, report.is_some());
        let value = match report {
            Some((number, interval_ns)) => {
                json!({ "report": number, "interval_ns": interval_ns, "rows": rows_json })
            }
            None => json!({ "rows": rows_json }),
        };
        print(format!("{value}\n").as_bytes())
    }
}

/// How many areas of a region have rows: none if there are more than can be, of which only the sum is shown.
fn shown_areas(region: &dmstats::Region) -> u64 {
    let areas = region.areas();
    if areas <= dmstats::reply::MAX_AREAS {
        return areas;
    }
    let id = region.id;
    say(&format!(
        "Region ID {id} has {areas} areas, which are too many to be shown."
    ));
    0
}

/// What has rows in a report.
struct Shown {
    areas: bool,
    regions: bool,
    groups: bool,
    /// Not the region that is its only area.
    skip_single: bool,
    /// Also of the regions that lie over files, of which only what is the file's is of interest.
    over_files: bool,
    region: Option<u32>,
    group: Option<u32>,
}

impl Shown {
    fn new(args: &Args, areas: bool, list: bool) -> Self {
        let asked = args.area || args.region || args.group;
        Shown {
            areas: if asked { args.area } else { areas },
            regions: if asked { args.region } else { true },
            groups: if asked { args.group } else { true },
            skip_single: !asked && areas,
            over_files: asked || list,
            // The list has always shown all.
            region: args.regionid.filter(|_| !list),
            group: args.groupid.filter(|_| !list),
        }
    }

    /// Whether a region is not excluded by its id or that of its group.
    fn is_asked(&self, region: &dmstats::Region) -> bool {
        self.region.is_none_or(|id| id == region.id)
            && self.group.is_none_or(|id| region.group == Some(id))
    }

    /// Whether a region has rows of its own, if it is asked for.
    fn has_rows(&self, snapshot: &Snapshot, region: &dmstats::Region) -> bool {
        let of_file = |id| snapshot.projected(id).is_some();
        self.over_files || !region.group.is_some_and(of_file)
    }

    /// Whether anything that is shown tells what was counted in a region.
    fn counts(&self, snapshot: &Snapshot, region: &dmstats::Region) -> bool {
        // Without a certain region groups are shown, and have the counts of those without rows.
        self.is_asked(region) && (self.region.is_none() || self.has_rows(snapshot, region))
    }

    fn has_group(&self, id: u32) -> bool {
        self.region.is_none() && self.group.is_none_or(|group| group == id)
    }

    /// The regions with rows. Those that could not be read have none, which would say that nothing was counted.
    fn regions<'r>(
        &'r self,
        snapshot: &'r Snapshot,
        unread: &'r IdSet,
    ) -> impl Iterator<Item = &'r dmstats::Region> {
        snapshot.regions.values().filter(move |region| {
            self.is_asked(region) && self.has_rows(snapshot, region) && !unread.contains(region.id)
        })
    }

    /// The groups with rows; none if no region of it could be read.
    fn groups<'r>(
        &'r self,
        snapshot: &'r Snapshot,
        unread: &'r IdSet,
    ) -> impl Iterator<Item = (u32, &'r dmstats::Group)> {
        let groups = snapshot.groups.iter().filter(move |(id, group)| {
            let mut members = group.members.among(&snapshot.regions);
            self.has_group(**id) && !members.all(|id| unread.contains(id))
        });
        groups.map(|(id, group)| (*id, group))
    }

    fn rows<'r>(&'r self, view: &'r View<'r>, rows: &mut Vec<Row<'r>>) {
        static NOTHING: Count = Count::NOTHING;
        let (snapshot, sample) = (&view.snapshot, view.sample.as_ref());
        let row = |object, count: Option<&'r Count>| Row {
            view,
            object,
            count: count.unwrap_or(&NOTHING),
        };
        let regions = || self.regions(snapshot, &view.unread);
        rows.reserve(snapshot.regions.len());
        for region in regions().filter(|_| self.areas) {
            let counts = sample.and_then(|sample| sample.regions.get(&region.id));
            rows.extend((0..shown_areas(region)).map(|area| {
                let count = counts.and_then(|counts| counts.areas.get(usize::try_from(area).ok()?));
                row(Object::Area(region, area), count)
            }));
        }
        for region in
            regions().filter(|region| self.regions && (!self.skip_single || region.areas() > 1))
        {
            let counts = sample.and_then(|sample| sample.regions.get(&region.id));
            rows.push(row(
                Object::Region(region),
                counts.map(|counts| &counts.total),
            ));
        }
        if self.groups {
            let groups = self.groups(snapshot, &view.unread);
            rows.extend(groups.map(|(id, group)| {
                let count = sample.and_then(|sample| sample.groups.get(&id));
                row(Object::Group(id, group), count)
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_device_that_fails_keeps_no_other_of_all_from_being_done() {
        for (all, count) in [(true, 3), (false, 2)] {
            let mut done = Vec::new();
            let result = on_each([1, 2, 3], all, i32::to_string, |device| {
                done.push(device);
                match device {
                    2 => failed("no"),
                    _ => Ok(()),
                }
            });
            assert_eq!(done.len(), count);
            assert_eq!(matches!(result, Err(Stop::Said)), all);
            assert!(result.is_err());
        }
        // Nobody reads what is said of the others.
        let closed = on_each([1, 2], true, i32::to_string, |_| Err(Stop::Closed));
        assert!(matches!(closed, Err(Stop::Closed)));
    }

    #[test]
    fn no_program_is_found_by_what_it_was_made_with() {
        for (word, empty) in [("-", true), ("", true), ("a", false)] {
            let args = Args::parse_from(["dmstats", "list", "--programid", word]);
            let snapshot = Snapshot::parse(b"0: 0+8 8 - -\n", None).unwrap();
            let found = snapshot.of_program(&program(&args));
            assert_eq!(found.regions.len(), usize::from(empty));
        }
        let args = Args::parse_from(["dmstats", "list"]);
        assert_eq!(program(&args), b"dmstats");
    }

    #[test]
    fn areas_of_which_there_are_too_many_are_not_shown() {
        let list = b"0: 0+8388608 1 a -\n1: 0+1152921504606846976 1 a -\n";
        let snapshot = Snapshot::parse(list, None).unwrap();
        let areas: Vec<u64> = snapshot.regions.values().map(shown_areas).collect();
        assert_eq!(areas, [8_388_608, 0]);
    }

    #[test]
    fn what_is_not_shown_is_not_counted() {
        let list = b"0: 0+8 8 a DMS_GROUP=:0-1#-\n1: 8+8 8 a -\n2: 16+8 8 a -\n\
            3: 24+8 8 a DMS_GROUP=:3#FILE=inode,1.00,/f\n";
        let snapshot = Snapshot::parse(list, None).unwrap();
        for (options, counted) in [
            ("", &[0, 1, 2, 3][..]),
            ("--group", &[0, 1, 2, 3]),
            ("--regionid=1", &[1]),
            ("--regionid=7", &[]),
            ("--groupid=0", &[0, 1]),
            ("--groupid=3", &[3]),
            ("--groupid=0 --regionid=2", &[]),
            // Of a file only the group is shown, unless regions are asked for.
            ("--regionid=3", &[]),
            ("--regionid=3 --region", &[3]),
        ] {
            let words = ["dmstats", "report"].into_iter();
            let args = Args::parse_from(words.chain(options.split_whitespace()));
            let shown = Shown::new(&args, true, false);
            let regions = snapshot.regions.values();
            let found: Vec<u32> = regions
                .filter(|region| shown.counts(&snapshot, region))
                .map(|region| region.id)
                .collect();
            assert_eq!(found, counted, "{options}");
            assert_eq!(
                shown.has_group(3),
                matches!(options, "" | "--group" | "--groupid=3")
            );
        }
    }

    #[test]
    fn what_could_not_be_read_has_no_row() {
        let list = b"0: 0+8 8 a DMS_GROUP=:0-1#-\n1: 8+8 8 a -\n2: 16+8 8 a DMS_GROUP=:2#-\n";
        let snapshot = Snapshot::parse(list, None).unwrap();
        let args = Args::parse_from(["dmstats", "report"]);
        let shown = Shown::new(&args, true, false);
        for (unread, regions, groups) in [
            (&[][..], &[0, 1, 2][..], &[0, 2][..]),
            (&[1], &[0, 2], &[0, 2]),
            (&[0, 1], &[2], &[2]),
        ] {
            let unread = unread.iter().copied().collect();
            let found = shown.regions(&snapshot, &unread);
            let found: Vec<u32> = found.map(|region| region.id).collect();
            assert_eq!(found, regions);
            let found = shown.groups(&snapshot, &unread);
            let found: Vec<u32> = found.map(|(id, _)| id).collect();
            assert_eq!(found, groups);
        }
    }
}
