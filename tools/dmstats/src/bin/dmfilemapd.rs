// SPDX-License-Identifier: GPL-2.0

//! `dmfilemapd`: keeps the regions of files where the files are.
//!
//! It takes the command line of LVM2's program of this name, and one of its own for many files in one process.

#![deny(unsafe_code)]

use std::ffi::OsStr;
use std::ffi::OsString;
use std::io;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use clap::ValueEnum;
use dmstats::extents;
use dmstats::ffi;
use dmstats::follow::Cleanup;
use dmstats::follow::Follower;
use dmstats::follow::Mode;
use dmstats::follow::SENT;
use dmstats::Kernel;
use dmstats::Logged;
use dmstats::RegionSpec;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::fs::Timespec;
use sd_notify::NotifyState;

/// Errors are sentences for stderr.
type Result<T> = std::result::Result<T, String>;

#[derive(Clone, Copy, Debug, ValueEnum)]
enum When {
    /// Keep groups, whatever happens
    Never,
    /// Delete the group of a file that is gone
    Gone,
    /// Delete all groups at the end, whatever ends it
    Always,
}

fn seconds(text: &str) -> Result<f64> {
    let seconds = text
        .parse()
        .ok()
        .filter(|seconds: &f64| (0.1..=86_400.0).contains(seconds));
    seconds.ok_or_else(|| "not a number of seconds from 0.1 to 86400".into())
}

/// Keeps the regions of files where the files are
///
/// FD is an open descriptor of a file that `dmstats create --filemap` has mapped, GROUP_ID its group, PATH its absolute
/// path, MODE `inode` or `path`. FOREGROUND is 1 not to go into the background, LOG_LEVEL from 0 to 3.
#[derive(Parser, Debug)]
#[command(
    name = "dmfilemapd",
    version,
    max_term_width = 100,
    allow_negative_numbers = true,
    override_usage = "dmfilemapd [OPTIONS] FD GROUP_ID PATH MODE [FOREGROUND [LOG_LEVEL]]\n       \
    dmfilemapd [OPTIONS] --map FILE..."
)]
struct Args {
    #[arg(hide = true)]
    words: Vec<OsString>,
    /// Map these files and follow them all, in the foreground; delete their groups at the end
    #[arg(long)]
    map: bool,
    /// With --map: follow the file whatever its name, or what has the path
    #[arg(long, value_name = "inode|path", default_value = "inode")]
    follow: Mode,
    /// When to delete groups [default: gone; with --map always]
    #[arg(long, value_enum)]
    cleanup: Option<When>,
    /// Between two looks at files of which there was no sign
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    interval: f64,
    /// With --map: say what is done; twice, what is seen; three times, what the kernel is told
    #[arg(long, short, action = clap::ArgAction::Count)]
    verbose: u8,
}

/// Says something on stderr; if that is closed, nobody wanted to know.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "dmfilemapd: {text}");
}

/// What LVM2's command line says.
struct Lvm2 {
    fd: i32,
    group: u32,
    path: PathBuf,
    mode: Mode,
    foreground: bool,
    verbose: u8,
}

impl Lvm2 {
    fn parse(words: &[OsString]) -> Result<Self> {
        if !(4..=6).contains(&words.len()) {
            return Err("Wrong number of arguments.".into());
        }
        let number = |index: usize, what: &str, last: u32| {
            let Some(word) = words.get(index) else {
                return Ok(0);
            };
            let number = word
                .to_str()
                .and_then(|word| word.parse().ok())
                .filter(|number| *number <= last);
            number.ok_or_else(|| {
                format!(
                    "Could not parse {what}: {} is not from 0 to {last}",
                    word.to_string_lossy()
                )
            })
        };
        let path = PathBuf::from(&words[2]);
        if !path.is_absolute() {
            return Err(format!(
                "Path argument must specify an absolute path: {}",
                path.display()
            ));
        }
        Ok(Lvm2 {
            fd: number(0, "file descriptor", i32::MAX as u32)? as i32,
            group: number(1, "group identifier", dmstats::ids::MAX_ID)?,
            path,
            mode: words[3]
                .to_string_lossy()
                .parse()
                .map_err(|error: dmstats::Error| error.to_string())?,
            foreground: number(4, "foreground argument", 1)? > 0,
            verbose: number(5, "log level", 3)? as u8,
        })
    }
}

/// Something that can be read from when the program was asked to stop.
fn stop() -> Result<UnixStream> {
    let register = || {
        let (reader, writer) = UnixStream::pair()?;
        for signal in [
            signal_hook::consts::SIGTERM,
            signal_hook::consts::SIGINT,
            signal_hook::consts::SIGHUP,
        ] {
            signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
        }
        io::Result::Ok(reader)
    };
    register().map_err(|error| format!("Cannot wait for signals: {error}"))
}

/// Whether it was asked to stop.
fn asked(stop: &UnixStream) -> bool {
    let mut fds = [PollFd::new(stop, PollFlags::IN)];
    rustix::event::poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

/// Goes where no file system is that could not be unmounted then.
fn leave_folder() -> Result<()> {
    std::env::set_current_dir("/").map_err(|error| format!("Cannot go to /: {error}"))
}

fn cleanup(when: When) -> Cleanup {
    match when {
        When::Never => Cleanup::Never,
        When::Gone => Cleanup::Gone,
        When::Always => Cleanup::Always,
    }
}

/// Follows files as a service. The first form is no service of its own: what its environment has of one is that of
/// whoever has started `dmstats`.
fn serve(follower: &mut Follower<'_, Logged<'_, Kernel>>, stop: UnixStream) -> Result<()> {
    let status = format!("Following {} file(s)", follower.len());
    // It fails if there is a service manager that does not listen, which is no reason to stop.
    let tell = |states: &[NotifyState<'_>]| drop(sd_notify::notify(states));
    let ready = || tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
    let ended = follower.run(stop, ready);
    tell(&[NotifyState::Stopping]);
    ended.map_err(text)
}

fn text(error: dmstats::Error) -> String {
    error.to_string()
}

fn run(args: &Args) -> Result<()> {
    let interval = Duration::from_secs_f64(args.interval);
    let lvm2 = (!args.map).then(|| Lvm2::parse(&args.words)).transpose()?;
    let verbose = lvm2.as_ref().map_or(args.verbose, |lvm2| lvm2.verbose);
    let report = |level: u8, text: &str| {
        if level <= verbose {
            say(text);
        }
    };
    if let Some(lvm2) = lvm2 {
        // SAFETY: nothing has been opened by this process yet.
        #[allow(unsafe_code)]
        let file = unsafe { ffi::inherited(lvm2.fd) }
            .map_err(|error| format!("Could not use file descriptor {}: {error}", lvm2.fd))?;
        let kernel = Kernel::open().map_err(text)?;
        let kernel = Logged::new(&kernel, verbose >= SENT);
        let cleanup = cleanup(args.cleanup.unwrap_or(When::Gone));
        let locks = Path::new(dmstats::lock::FOLDER);
        let mut follower =
            Follower::new(&kernel, locks, interval, cleanup, &report).map_err(text)?;
        follower
            .add(&file, &lvm2.path, lvm2.mode, lvm2.group)
            .map_err(text)?;
        drop(file);
        leave_folder()?;
        if !lvm2.foreground {
            ffi::background(verbose > 0)
                .map_err(|error| format!("Cannot go into the background: {error}"))?;
        }
        return follower.run(stop()?, || ()).map_err(text);
    }
    if args.words.is_empty() {
        return Err("--map requires files.".into());
    }
    let kernel = Kernel::open().map_err(text)?;
    let kernel = Logged::new(&kernel, verbose >= SENT);
    let cleanup = cleanup(args.cleanup.unwrap_or(When::Always));
    let locks = Path::new(dmstats::lock::FOLDER);
    let mut follower = Follower::new(&kernel, locks, interval, cleanup, &report).map_err(text)?;
    let mut files = || {
        // The groups of files that were mapped before a signal are to be deleted too.
        let stop = stop()?;
        let paths: io::Result<Vec<PathBuf>> = args.words.iter().map(std::path::absolute).collect();
        let paths = paths.map_err(|error| error.to_string())?;
        leave_folder()?;
        for (word, path) in args.words.iter().zip(&paths) {
            if asked(&stop) {
                return Ok(());
            }
            map(&mut follower, word, path, args.follow)?;
        }
        serve(&mut follower, stop)
    };
    let done = files();
    // Of some files that were mapped before another could not be, or before a signal.
    follower.stop();
    done
}

fn map(
    follower: &mut Follower<'_, Logged<'_, Kernel>>,
    word: &OsStr,
    path: &Path,
    mode: Mode,
) -> Result<()> {
    let could_not = |error: &dyn std::fmt::Display| format!("{}: {error}", word.to_string_lossy());
    let file = extents::open(path).map_err(|error| could_not(&error))?;
    let alias = extents::name(path);
    let (alias, like) = (alias.as_bytes(), RegionSpec::whole());
    let added = follower.add_new(&file, path, mode, b"dmstats", alias, &like);
    added.map_err(|error| could_not(&error))
}

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&error);
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_known_between_two_files() {
        let stop = stop().unwrap();
        assert!(!asked(&stop));
        signal_hook::low_level::raise(signal_hook::consts::SIGHUP).unwrap();
        assert!(asked(&stop) && asked(&stop));
    }
}
