// SPDX-License-Identifier: GPL-2.0

//! Files that are followed as they change, so that their groups fit them all the time.
//!
//! ```text
//! Watches --signs--> Pace --when--> View --where--> Followed --messages--> kernel
//! (inotify)                      (by handle)        (a group)
//! ```
//!
//! One loop does so for any number of files. It has none of them open while it waits, so that they can be removed
//! and their file systems be unmounted; it writes nothing of them to disk; while nothing happens it asks
//! device-mapper nothing. What no sign tells is found by a look at all files from time to time.

mod group;
mod pace;
mod view;
mod watch;

use std::collections::btree_map;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::path::Path;
use std::path::PathBuf;
use std::rc::Rc;
use std::str::FromStr;
use std::time::Duration;
use std::time::Instant;

use rustix::event::epoll;
use rustix::event::epoll::EventData;
use rustix::event::epoll::EventFlags;
use rustix::fs::Timespec;
use rustix::io::Errno;

use crate::extents::Extents;
use crate::lock;
use crate::projection::Word;
use crate::Device;
use crate::Devno;
use crate::Error;
use crate::IdSet;
use crate::RegionSpec;
use crate::Result;
use crate::Snapshot;
use crate::Transport;

use group::Fate;
use group::Followed;
use pace::Pace;
use view::Look;
use view::Stamp;
use view::View;
use watch::Event;
use watch::Sign;
use watch::Watches;

/// While signs come, they are read this often at most.
const QUANTUM: Duration = Duration::from_millis(100);
/// How long a path may name nothing, as when a file is replaced in two steps.
const GRACE: Duration = Duration::from_secs(1);
/// How long to wait for others who change groups of the device, where there is no later.
const PATIENCE: Duration = Duration::from_secs(3);
/// At each look of so many, the groups are asked for, although nothing tells that somebody has changed them: each five
/// minutes, if it is each ten seconds.
const GROUPS: u64 = 30;
/// At each look of so many, files are asked where they are, although nothing tells that they have changed.
const FILES: u64 = 360;
/// At this level it says what the kernel was told.
pub const SENT: u8 = 3;
/// What is waited for: the end, and signs.
const STOP: u64 = 0;
const SIGNS: u64 = 1;

/// What is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The file, whatever it is called, until it is no more.
    Inode,
    /// What has the path.
    Path,
}

impl FromStr for Mode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "inode" => Ok(Mode::Inode),
            "path" => Ok(Mode::Path),
            _ => Err(Error::Invalid(format!(
                "Could not parse dmfilemapd mode: {text}"
            ))),
        }
    }
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Mode::Inode => "inode",
            Mode::Path => "path",
        })
    }
}

/// Where the file of a projected group is now, without writing anything of it; none if it cannot be seen any more.
pub fn places(word: Word, devno: Devno) -> Result<Option<Extents>> {
    match View::known(word, devno).extents()? {
        Look::Here(extents) => Ok(Some(extents)),
        _ => Ok(None),
    }
}

/// When to delete the group of a file that is not followed any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleanup {
    /// Never.
    Never,
    /// When the file is gone.
    Gone,
    /// Whatever the reason.
    Always,
}

/// Why a file is not followed any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Removed,
    Gone,
    Elsewhere,
    Unmounted,
    NoDevice,
    Stopped,
    Failed,
}

impl End {
    fn text(self) -> &'static str {
        match self {
            End::Removed => "Filemap group removed",
            End::Gone => "File removed",
            End::Elsewhere => "The path names a file on another device, or none that is regular",
            End::Unmounted => "File system unmounted",
            End::NoDevice => "Device removed",
            End::Stopped => "Asked to stop",
            End::Failed => "Cannot be followed",
        }
    }
}

struct Entry {
    view: View,
    group: Followed,
    pace: Pace,
    stamp: Option<Stamp>,
    missing: Option<Instant>,
    /// Whether nothing had its name when it was to be watched.
    unwatched: bool,
    lock: Option<lock::Following>,
    /// Whether the group was made here.
    made: bool,
}

impl Entry {
    /// Takes the lock of its group under an id.
    fn lock_of(&self, locks: &Path, id: u32) -> Result<lock::Following> {
        let file = self.made.then_some(self.view.path.as_path());
        lock::following(locks, self.group.devno, id, file)
    }
}

/// What a [`Follower`] says, by how much it matters: 1 what it did, 2 what it sees, [`SENT`] each message.
pub type Say<'a> = &'a dyn Fn(u8, &str);

/// Says what the kernel was told, when no lock is held that others wait for: who reads it may be slow, or stopped.
fn say_sent(kernel: &impl Transport, say: Say<'_>) {
    let sent = kernel.take_sent();
    sent.iter().for_each(|message| say(SENT, message));
}

/// Follows files.
pub struct Follower<'a, T: Transport> {
    kernel: &'a T,
    files: BTreeMap<usize, Entry>,
    next: usize,
    watches: Watches,
    locks: PathBuf,
    interval: Duration,
    cleanup: Cleanup,
    /// Whether files are followed already: then others who change groups of a device are waited for at an end only.
    runs: bool,
    /// When the files began to be mapped, or this turn of the loop: others are waited for once for all of its files.
    since: Instant,
    say: Say<'a>,
    /// The groups of devices that processes had made before this one, which may have been killed, and their files.
    made: BTreeMap<Devno, Vec<(u32, PathBuf)>>,
    /// The kernel's account of memory for statistics: it tells for nothing that regions came or went.
    account: Option<u64>,
}

impl<'a, T: Transport> Follower<'a, T> {
    /// Follows nothing so far. `locks` is the folder of the locks, `interval` the time between two looks at files of
    /// which there was no sign.
    pub fn new(
        kernel: &'a T,
        locks: &Path,
        interval: Duration,
        cleanup: Cleanup,
        say: Say<'a>,
    ) -> Result<Self> {
        lock::make_folder(locks)?;
        Ok(Follower {
            kernel,
            files: BTreeMap::new(),
            next: 0,
            watches: Watches::new(locks)?,
            locks: locks.to_owned(),
            interval,
            cleanup,
            runs: false,
            since: Instant::now(),
            say,
            made: BTreeMap::new(),
            account: None,
        })
    }

    /// How many files are followed.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Follows a file that has a group. Only one process may follow a group.
    pub fn add(&mut self, file: &File, path: &Path, mode: Mode, group: u32) -> Result<()> {
        let view = View::new(file, path, mode)?;
        let lock = self.lock_in_time(view.devno, group)?;
        let followed = Followed::new(self.kernel, view.devno, group);
        say_sent(self.kernel, self.say);
        let followed = followed?;
        let (number, seen) = self.insert(view, followed, Some(lock), false);
        seen.inspect_err(|_| {
            self.watches.forget(number);
            self.files.remove(&number);
        })
    }

    /// Takes the lock of a group. Who follows another that had its id before may not have seen yet that it was deleted.
    fn lock_in_time(&self, devno: Devno, group: u32) -> Result<lock::Following> {
        loop {
            match lock::following(&self.locks, devno, group, None) {
                Err(Error::Followed { .. }) if self.since.elapsed() < PATIENCE => {
                    std::thread::sleep(QUANTUM);
                }
                other => return other,
            }
        }
    }

    /// Follows a file that has no group, which is made now, or when the file has some place on the device. If a process
    /// that had made one was killed, that is followed.
    pub fn add_new(
        &mut self,
        file: &File,
        path: &Path,
        mode: Mode,
        program: &[u8],
        alias: &[u8],
        like: &RegionSpec,
    ) -> Result<()> {
        let mut view = View::new(file, path, mode)?;
        self.kernel
            .info(&crate::Find::Devno(view.devno))
            .map_err(|_| Error::File("not a device-mapper device.".into()))?;
        let (group, lock) = match self.orphan(&mut view, program)? {
            Some((id, group, lock)) => {
                let text = format!("{}: group ID {id} was left by another", path.display());
                (self.say)(1, &text);
                (group, Some(lock))
            }
            None => {
                let group = Followed::none(view.devno, program, alias, like.clone());
                (group, None)
            }
        };
        self.begin(view, group, lock)
    }

    /// Follows a file whose group is ours. If that cannot be, the group ends as others do: nobody would follow it any
    /// more if it was left by another.
    fn begin(&mut self, view: View, group: Followed, lock: Option<lock::Following>) -> Result<()> {
        let (number, seen) = self.insert(view, group, lock, true);
        let looked = seen.and_then(|()| self.look(number, Instant::now()));
        looked.inspect_err(|_| self.end(number, End::Failed))
    }

    /// The group of a file that a process has made which was killed, and its lock.
    fn orphan(
        &mut self,
        view: &mut View,
        program: &[u8],
    ) -> Result<Option<(u32, Followed, lock::Following)>> {
        // There may be many files, all of which will have locks.
        let devno = view.devno;
        if let btree_map::Entry::Vacant(unknown) = self.made.entry(devno) {
            unknown.insert(lock::made(&self.locks, devno)?);
        }
        if self.made.get(&devno).is_none_or(Vec::is_empty) {
            return Ok(None);
        }
        match view.extents()? {
            Look::Here(extents) => self.orphan_at(devno, program, &view.word(), &extents.places),
            _ => Ok(None),
        }
    }

    fn orphan_at(
        &self,
        devno: Devno,
        program: &[u8],
        word: &Word,
        places: &[(u64, u64)],
    ) -> Result<Option<(u32, Followed, lock::Following)>> {
        let listed = Device::new(self.kernel, devno, program).list();
        say_sent(self.kernel, self.say);
        let snapshot = listed?;
        let made = self.made.get(&devno).into_iter().flatten();
        for (id, _) in made.filter(|(_, file)| *file == word.path) {
            let id = *id;
            if Followed::is_of_file(&snapshot, id, program, word, places) {
                let group = Followed::of(&snapshot, devno, id)?;
                match lock::following(&self.locks, devno, id, Some(&word.path)) {
                    // It lives.
                    Err(Error::Followed { .. }) => {}
                    other => return other.map(|lock| Some((id, group, lock))),
                }
            }
        }
        Ok(None)
    }

    /// Adds a file; gives back its number, and whether it can be watched and seen.
    fn insert(
        &mut self,
        mut view: View,
        group: Followed,
        lock: Option<lock::Following>,
        made: bool,
    ) -> (usize, Result<()>) {
        let number = self.next;
        let watched = self.watch(number, &mut view);
        let unwatched = matches!(watched, Ok(false));
        let (stamp, age, seen) = match watched.and_then(|_| view.stamp()) {
            Ok(Look::Here((stamp, age))) => (Some(stamp), age, Ok(())),
            Ok(_) => (None, Duration::ZERO, Ok(())),
            Err(error) => (None, Duration::ZERO, Err(error)),
        };
        let entry = Entry {
            view,
            group,
            pace: Pace::new(Instant::now(), age),
            stamp,
            missing: None,
            unwatched,
            lock,
            made,
        };
        self.next += 1;
        self.files.insert(number, entry);
        (number, seen)
    }

    /// Watches a file and its name; whether there was a file of that.
    fn watch(&mut self, number: usize, view: &mut View) -> Result<bool> {
        self.watches.forget(number);
        let seen = view.watch(|path| self.watches.file(number, path))?;
        if let Some((folder, name)) = view.place() {
            self.watches.name(number, folder, name)?;
        }
        Ok(matches!(seen, Look::Here(())))
    }

    /// Follows the files until all have ended, or `stop` can be read. `ready` is called when the groups of all that
    /// have not ended fit them.
    pub fn run(&mut self, stop: impl AsFd, ready: impl FnOnce()) -> Result<()> {
        let mut ready = Some(ready);
        // It may have gone into the background since it took its locks.
        let locks = self.files.values().filter_map(|entry| entry.lock.as_ref());
        locks.for_each(lock::Following::sign);
        self.account = self.kernel.memory_used();
        self.runs = true;
        let mut looks = 0;
        let mut routine = Instant::now() + self.interval;
        let wait_error = |errno: Errno| Error::Io {
            what: "Cannot wait for files to change".into(),
            source: io::Error::from(errno),
        };
        let signs = EventFlags::IN | EventFlags::ONESHOT;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(wait_error)?;
        epoll::add(&epoll, &stop, EventData::new_u64(STOP), EventFlags::IN).map_err(wait_error)?;
        epoll::add(&epoll, &self.watches, EventData::new_u64(SIGNS), signs).map_err(wait_error)?;
        // When signs are waited for again, after some came.
        let mut deaf: Option<Instant> = None;
        while !self.files.is_empty() {
            if self.files.values().all(|entry| entry.group.fits_still()) {
                if let Some(ready) = ready.take() {
                    ready();
                }
            }
            let now = Instant::now();
            if deaf.is_some_and(|until| until <= now) {
                epoll::modify(&epoll, &self.watches, EventData::new_u64(SIGNS), signs)
                    .map_err(wait_error)?;
                deaf = None;
            }
            let due = self.files.values().filter_map(|entry| entry.pace.due());
            let until = due.chain(deaf).fold(routine, Instant::min);
            let wait = until.saturating_duration_since(now);
            let timeout = Timespec {
                tv_sec: wait.as_secs().try_into().unwrap_or(i64::MAX),
                tv_nsec: wait.subsec_nanos().into(),
            };
            let mut space = [MaybeUninit::uninit(); 2];
            let (events, _) = match epoll::wait(&epoll, &mut space, Some(&timeout)) {
                Err(Errno::INTR) => continue,
                other => other.map_err(wait_error)?,
            };
            let now = Instant::now();
            self.since = now;
            if events.iter().any(|event| event.data.u64() == STOP) {
                self.stop();
                return Ok(());
            }
            if events.iter().any(|event| event.data.u64() == SIGNS) {
                deaf = Some(now + QUANTUM);
                self.signs(now)?;
            }
            if now >= routine {
                routine = now + self.interval;
                looks += 1;
                self.routine(now, looks);
            }
            let ready = |entry: &Entry| entry.pace.due().is_some_and(|due| due <= now);
            let due: Vec<usize> = self
                .files
                .iter()
                .filter(|(_, entry)| ready(entry))
                .map(|(number, _)| *number)
                .collect();
            for number in due {
                if let Err(error) = self.look(number, now) {
                    self.failed(number, now, &error);
                }
            }
        }
        Ok(())
    }

    /// Follows nothing any more.
    pub fn stop(&mut self) {
        self.since = Instant::now();
        let all: Vec<usize> = self.files.keys().copied().collect();
        all.into_iter()
            .for_each(|number| self.end(number, End::Stopped));
    }

    fn failed(&mut self, number: usize, now: Instant, error: &Error) {
        if matches!(error, Error::NoDevice(_)) {
            return self.end(number, End::NoDevice);
        }
        if let Some(entry) = self.files.get_mut(&number) {
            entry.pace.failed(now);
            (self.say)(0, &format!("{}: {error}", entry.view.path.display()));
        }
    }

    fn signs(&mut self, now: Instant) -> Result<()> {
        let mut changed = BTreeSet::new();
        for event in self.watches.read()? {
            match event {
                Event::Lost => {
                    for entry in self.files.values_mut() {
                        entry.pace.touch(now);
                        changed.insert(entry.view.devno);
                    }
                }
                Event::Groups(devno) => drop(changed.insert(devno)),
                Event::File(number, Sign::Unmounted) => self.end(number, End::Unmounted),
                Event::File(number, sign) => {
                    let Some(entry) = self.files.get_mut(&number) else {
                        continue;
                    };
                    if sign == Sign::Gone && entry.view.mode == Mode::Inode {
                        // Of a file that had two names this may come while it is open: the look tells.
                        self.watch_again(number);
                    } else {
                        entry.pace.touch(now);
                    }
                }
            }
        }
        for devno in changed {
            self.groups(devno, now);
        }
        Ok(())
    }

    /// Looks for changes that had no sign, for the so-manieth time.
    fn routine(&mut self, now: Instant, looks: u64) {
        let mut failed = Vec::new();
        for (number, entry) in &mut self.files {
            match entry.view.stamp() {
                Ok(Look::Here((stamp, _))) if entry.stamp.replace(stamp) == Some(stamp) => {
                    if looks % FILES == 0 {
                        entry.pace.again(now, Duration::ZERO);
                    }
                }
                Ok(_) => entry.pace.touch(now),
                Err(error) => failed.push((*number, error)),
            }
        }
        failed
            .into_iter()
            .for_each(|(number, error)| self.failed(number, now, &error));
        self.lock_again();
        let account = self.kernel.memory_used();
        if looks % GROUPS == 0 || account.is_none() || account != self.account {
            self.account = account;
            let devices: BTreeSet<Devno> =
                self.files.values().map(|entry| entry.view.devno).collect();
            devices
                .into_iter()
                .for_each(|devno| self.groups(devno, now));
        }
    }

    /// Takes the locks that it could not when groups got their ids: another may have had such a group before, and have
    /// seen by now that it was deleted.
    fn lock_again(&mut self) {
        for entry in self.files.values_mut() {
            if let (Some(id), None) = (entry.group.id, &entry.lock) {
                entry.lock = entry.lock_of(&self.locks, id).ok();
            }
        }
    }

    /// Looks for the groups of a device again, because somebody may have changed them.
    fn groups(&mut self, devno: Devno, now: Instant) {
        let of_device = self
            .files
            .iter()
            .filter(|(_, entry)| entry.view.devno == devno);
        let numbers: Vec<usize> = of_device.map(|(number, _)| *number).collect();
        if numbers.is_empty() {
            return;
        }
        let device = Device::new(self.kernel, devno, b"");
        let listed = device.list();
        say_sent(self.kernel, self.say);
        let lost = self.recognise(&numbers, &listed, now);
        if lost.is_empty() {
            return;
        }
        // While a group is changed there is a moment at which it has neither its id nor its places.
        match lock::still(&self.locks, devno) {
            Ok(Some(still)) => {
                let listed = device.list();
                drop(still);
                say_sent(self.kernel, self.say);
                self.recognise(&lost, &listed, now)
                    .into_iter()
                    .for_each(|number| self.end(number, End::Removed));
            }
            // Whoever changes groups tells when he has done so.
            Ok(None) => {}
            Err(error) => lost
                .into_iter()
                .for_each(|number| self.failed(number, now, &error)),
        }
    }

    /// Looks for the groups of some files in a list; gives back those that it does not find.
    fn recognise(
        &mut self,
        numbers: &[usize],
        listed: &Result<Snapshot>,
        now: Instant,
    ) -> Vec<usize> {
        let mut lost = Vec::new();
        let ids = listed.as_ref().map_or_else(|_| IdSet::new(), Snapshot::ids);
        let ids = Rc::new(ids);
        for number in numbers.iter().copied() {
            let Some(entry) = self.files.get_mut(&number) else {
                continue;
            };
            match listed {
                Err(error) => self.failed(number, now, error),
                Ok(snapshot) => {
                    let before = entry.group.id;
                    if entry.group.recognise(snapshot) == Fate::Removed {
                        lost.push(number);
                        continue;
                    }
                    entry.group.saw(&ids);
                    if !entry.group.fits_still() {
                        entry.pace.touch(now);
                    }
                    self.renamed(number, before, false);
                }
            }
        }
        lost
    }

    /// Says that a group's id is another, and takes the lock of that. If it was not us who gave it that id, and
    /// somebody else has the lock, it is not ours, but another group of the same file.
    fn renamed(&mut self, number: usize, before: Option<u32>, by_us: bool) {
        let Some(entry) = self.files.get_mut(&number) else {
            return;
        };
        let id = entry.group.id;
        if id == before {
            return;
        }
        let lock = id.map(|id| entry.lock_of(&self.locks, id)).transpose();
        if !by_us && matches!(lock, Err(Error::Followed { .. })) {
            return self.end(number, End::Removed);
        }
        if let (Some(before), Some(id)) = (before, id) {
            (self.say)(
                1,
                &format!(
                    "{}: group_id changed from {before} to {id}",
                    entry.view.path.display()
                ),
            );
        }
        entry.lock = lock.unwrap_or_else(|error| {
            (self.say)(0, &error.to_string());
            None
        });
    }

    /// Looks at a file, and makes its group fit it.
    fn look(&mut self, number: usize, now: Instant) -> Result<()> {
        let Some(entry) = self.files.get_mut(&number) else {
            return Ok(());
        };
        let end = match entry.view.extents()? {
            Look::Here(extents) => {
                entry.missing = None;
                let path = entry.view.path.display().to_string();
                if entry.view.take_other() {
                    entry.group.has_another_file();
                    (self.say)(1, &format!("{path}: the path names another file"));
                    self.watch_again(number);
                } else if entry.unwatched {
                    self.watch_again(number);
                }
                let found = (extents.places.len(), extents.skipped);
                (self.say)(
                    2,
                    &format!("{path}: {} place(s), {} without", found.0, found.1),
                );
                return self.fit(number, now, &extents);
            }
            Look::Missing => {
                let since = *entry.missing.get_or_insert(now);
                if now.saturating_duration_since(since) < GRACE {
                    entry.pace.again(now, GRACE);
                    return Ok(());
                }
                End::Gone
            }
            Look::Gone => End::Gone,
            Look::Elsewhere => End::Elsewhere,
            Look::Unmounted => End::Unmounted,
        };
        self.end(number, end);
        Ok(())
    }

    /// Makes a group fit its file, which is where these are.
    fn fit(&mut self, number: usize, now: Instant, extents: &Extents) -> Result<()> {
        let Some(entry) = self.files.get_mut(&number) else {
            return Ok(());
        };
        let before = entry.group.id;
        if !entry.group.fits(&extents.places) {
            let account = self.kernel.memory_used();
            let word = entry.view.word();
            let patience = match self.runs {
                true => Duration::ZERO,
                false => PATIENCE.saturating_sub(self.since.elapsed()),
            };
            let fitted =
                entry
                    .group
                    .fit(self.kernel, &extents.places, &word, &self.locks, patience);
            say_sent(self.kernel, self.say);
            match fitted? {
                Fate::Removed => {
                    self.end(number, End::Removed);
                    return Ok(());
                }
                Fate::Fitted(created, removed) => (self.say)(
                    1,
                    &format!(
                        "{}: {created} region(s) created, {removed} removed",
                        entry.view.path.display()
                    ),
                ),
                Fate::Moved => {
                    entry.pace.again(now, Duration::ZERO);
                    self.renamed(number, before, false);
                    return Ok(());
                }
                Fate::Busy => {
                    entry.pace.again(now, QUANTUM);
                    return Ok(());
                }
                Fate::Same => {}
            }
            // What has changed before it is somebody else's, and the next routine is to notice that.
            if account == self.account {
                self.account = self.kernel.memory_used();
            }
        }
        entry.pace.looked(now, extents.pending > 0);
        self.renamed(number, before, true);
        Ok(())
    }

    /// Watches the file that has the path by now. Without a watch it is only looked at from time to time.
    fn watch_again(&mut self, number: usize) {
        let Some(mut entry) = self.files.remove(&number) else {
            return;
        };
        let watched = self.watch(number, &mut entry.view);
        entry.unwatched = matches!(watched, Ok(false));
        if let Err(error) = watched {
            (self.say)(0, &error.to_string());
        }
        // What was done to it before it was watched had no sign.
        entry.pace.touch(Instant::now());
        self.files.insert(number, entry);
    }

    fn end(&mut self, number: usize, end: End) {
        self.watches.forget(number);
        let Some(mut entry) = self.files.remove(&number) else {
            return;
        };
        let rest = if self.files.is_empty() {
            ": exiting."
        } else {
            "."
        };
        (self.say)(
            1,
            &format!("{}: {}{rest}", entry.view.path.display(), end.text()),
        );
        let delete = match end {
            End::Removed | End::NoDevice => false,
            End::Gone | End::Elsewhere => self.cleanup != Cleanup::Never,
            End::Unmounted | End::Stopped | End::Failed => self.cleanup == Cleanup::Always,
        };
        if delete {
            let patience = PATIENCE.saturating_sub(self.since.elapsed());
            let deleted = entry.group.delete(self.kernel, &self.locks, patience);
            say_sent(self.kernel, self.say);
            if let Err(error) = deleted {
                (self.say)(0, &format!("{}: {error}", entry.view.path.display()));
                // It is still there: whoever maps the file next is to find it.
                if let Some(lock) = entry.lock.take() {
                    lock.leave();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::inotify;

    use super::*;
    use crate::fake::Fake;

    const D: Devno = Devno { major: 0, minor: 0 };

    fn word(path: &Path) -> Word {
        Word {
            mode: Mode::Inode,
            handle: crate::ffi::Handle::parse("1.00").unwrap(),
            path: path.to_owned(),
        }
    }

    /// A follower of group 0, which is that of a file at the first eight sectors, and its folder of locks.
    fn follower<'a, T: Transport>(kernel: &'a T, test: &str) -> (Follower<'a, T>, PathBuf) {
        let locks = std::env::temp_dir().join(format!("dmstats-{test}-{}", std::process::id()));
        let device = Device::new(kernel, D, b"dmstats");
        device
            .map_file(&[(0, 8)], &RegionSpec::whole(), Some(b"f"), |_| ())
            .unwrap();
        let interval = Duration::from_secs(10);
        let mut follower =
            Follower::new(kernel, &locks, interval, Cleanup::Always, &|_, _| ()).unwrap();
        let entry = Entry {
            view: View::known(word(&locks.join("f")), D),
            group: Followed::new(kernel, D, 0).unwrap(),
            pace: Pace::new(Instant::now(), Duration::ZERO),
            stamp: None,
            missing: None,
            unwatched: false,
            lock: Some(lock::following(&locks, D, 0, Some(&locks.join("f"))).unwrap()),
            made: true,
        };
        follower.files.insert(0, entry);
        follower.next = 1;
        follower.fit(0, Instant::now(), &at_first()).unwrap();
        (follower, locks)
    }

    /// Where the file is.
    fn at_first() -> Extents {
        Extents {
            places: vec![(0, 8)],
            ..Extents::default()
        }
    }

    /// Another group of the file, from before; the one that is followed is deleted.
    fn other_group(fake: &Fake) -> u32 {
        let device = Device::new(fake, D, b"dmstats");
        let other = device
            .map_file(&[(0, 8)], &RegionSpec::whole(), Some(b"f"), |_| ())
            .unwrap();
        device
            .delete_group(&device.list().unwrap(), 0, |_| ())
            .unwrap();
        other.group.unwrap()
    }

    #[test]
    fn a_group_that_another_process_follows_is_not_taken_for_a_lost_one() {
        // Noticed when somebody says that groups have changed, at a look at the file, and when that ends.
        for look in 0..3 {
            let fake = Fake::new(10_000);
            let (mut follower, locks) = follower(&fake, &format!("another-{look}"));
            let other = other_group(&fake);
            let theirs = lock::following(&locks, D, other, None).unwrap();
            let now = Instant::now();
            let places = vec![(0, 8), (64, 8)];
            fake.take_log();
            match look {
                0 => follower.groups(D, now),
                1 => {
                    let grown = Extents {
                        places,
                        ..at_first()
                    };
                    follower.fit(0, now, &grown).unwrap();
                }
                _ => follower.end(0, End::Gone),
            }
            assert!(follower.is_empty());
            assert_eq!(fake.take_log(), ["@stats_list"]);
            drop(theirs);
            std::fs::remove_dir_all(&locks).unwrap();
        }
    }

    #[test]
    fn a8_a_group_that_nobody_else_follows_is_found_again_and_locked_before_it_is_changed() {
        let fake = Fake::new(10_000);
        let (mut follower, locks) = follower(&fake, "found");
        let other = other_group(&fake);
        let now = Instant::now();
        let grown = Extents {
            places: vec![(0, 8), (64, 8)],
            ..at_first()
        };
        fake.take_log();
        follower.fit(0, now, &grown).unwrap();
        assert_eq!(fake.take_log(), ["@stats_list"]);
        assert!(matches!(
            lock::following(&locks, D, other, None),
            Err(Error::Followed { .. })
        ));
        assert_eq!(follower.files[&0].pace.due(), Some(now));
        follower.fit(0, now, &grown).unwrap();
        assert!(follower.files[&0].group.fits(&grown.places));
        std::fs::remove_dir_all(&locks).unwrap();
    }

    #[test]
    fn whoever_changes_groups_and_does_not_end_is_not_waited_for_without_end() {
        let fake = Fake::new(10_000);
        let (mut follower, locks) = follower(&fake, "busy");
        let theirs = lock::changes(&locks, D).unwrap();
        let now = Instant::now();
        let grown = Extents {
            places: vec![(0, 16)],
            ..at_first()
        };
        follower.runs = true;
        fake.take_log();
        follower.fit(0, now, &grown).unwrap();
        assert_eq!(fake.take_log().len(), 0);
        assert_eq!(follower.files[&0].pace.due(), Some(now + QUANTUM));
        drop(theirs);
        follower.fit(0, now, &grown).unwrap();
        assert!(follower.files[&0].group.fits(&grown.places));
        // At the end there is no later.
        fake.take_log();
        let theirs = lock::changes(&locks, D).unwrap();
        let said = std::cell::RefCell::new(Vec::new());
        let say = |_: u8, text: &str| said.borrow_mut().push(text.to_owned());
        follower.say = &say;
        follower.since = now.checked_sub(PATIENCE).unwrap();
        follower.end(0, End::Stopped);
        let [_, error] = &said.borrow()[..] else {
            panic!("{said:?}");
        };
        assert!(error.ends_with("being changed by another process, which does not end"));
        assert_eq!(fake.take_log().len(), 0);
        drop(theirs);
        // The next that maps the file finds what was left.
        follower.made = [(D, lock::made(&locks, D).unwrap())].into();
        let left = follower.orphan_at(D, b"dmstats", &word(&locks.join("f")), &[(0, 16)]);
        assert_eq!(left.unwrap().map(|(id, ..)| id), Some(0));
        std::fs::remove_dir_all(&locks).unwrap();
    }

    #[test]
    fn a7_what_the_kernel_is_told_is_said_when_nobody_waits_for_a_lock() {
        let fake = Fake::new(10_000);
        let logged = crate::Logged::new(&fake, true);
        let (mut follower, locks) = follower(&logged, "sent");
        let said = std::cell::RefCell::new(Vec::new());
        let say = |level: u8, text: &str| {
            let free = lock::changes_within(&locks, D, Duration::ZERO).unwrap();
            assert!(free.is_some(), "{text}");
            if level == SENT {
                said.borrow_mut().push(text.to_owned());
            }
        };
        follower.say = &say;
        let now = Instant::now();
        let grown = Extents {
            places: vec![(0, 8), (64, 8)],
            ..at_first()
        };
        follower.fit(0, now, &grown).unwrap();
        assert_eq!(said.borrow().len(), 3, "{said:?}");
        assert!(said.borrow()[1].starts_with("0:0: @stats_create 64+8 "));
        // It is looked for twice before it is said to have been removed.
        fake.message(D, b"@stats_delete 0", 64).unwrap();
        follower.groups(D, now);
        assert_eq!(said.borrow()[3..], ["0:0: @stats_list", "0:0: @stats_list"]);
        std::fs::remove_dir_all(&locks).unwrap();
    }

    #[test]
    fn whoever_changes_groups_is_waited_for_once_for_all_files() {
        let fake = Fake::new(10_000);
        let (mut follower, locks) = follower(&fake, "once");
        let known = word(&locks.join("f"));
        for number in 0..4 {
            let entry = Entry {
                view: View::known(known.clone(), D),
                group: Followed::none(D, b"dmstats", b"g", RegionSpec::whole()),
                pace: Pace::new(Instant::now(), Duration::ZERO),
                stamp: None,
                missing: None,
                unwatched: false,
                lock: None,
                made: true,
            };
            follower.files.insert(number, entry);
        }
        let theirs = lock::changes(&locks, D).unwrap();
        let left = Duration::from_millis(200);
        let begin = || Instant::now().checked_sub(PATIENCE - left).unwrap();
        let before = Instant::now();
        // So many are mapped, and then end.
        follower.since = begin();
        for number in 0..4 {
            follower.fit(number, before, &at_first()).unwrap();
            let group = &mut follower.files.get_mut(&number).unwrap().group;
            assert_eq!(group.id.replace(7), None);
        }
        follower.since = begin();
        (0..4).for_each(|number| follower.end(number, End::Unmounted));
        let waited = before.elapsed();
        assert!(waited >= 2 * left && waited < PATIENCE, "{waited:?}");
        drop(theirs);
        std::fs::remove_dir_all(&locks).unwrap();
    }

    #[test]
    fn a_group_that_is_being_changed_is_not_taken_for_removed() {
        let fake = Fake::new(10_000);
        let (mut follower, locks) = follower(&fake, "middle");
        let say = |text: &str| fake.message(D, text.as_bytes(), 64).unwrap();
        // Somebody updates it after its file has moved as a whole, and gives it back its id at last.
        let theirs = lock::changes(&locks, D).unwrap();
        say("@stats_create 64+8 8 dmstats DMS_GROUP=\"f\":1#-");
        say("@stats_delete 0");
        follower.groups(D, Instant::now());
        say("@stats_create 64+8 8 dmstats DMS_GROUP=\"f\":0#-");
        say("@stats_delete 1");
        drop(theirs);
        follower.groups(D, Instant::now());
        let group = &follower.files[&0].group;
        assert_eq!((group.id, group.fits_still()), (Some(0), false));
        // What nobody is about to make again was removed.
        say("@stats_delete 0");
        follower.groups(D, Instant::now());
        assert!(follower.is_empty());
        std::fs::remove_dir_all(&locks).unwrap();
    }

    #[test]
    fn f9_a_lock_that_another_held_for_too_long_is_taken_later() {
        let fake = Fake::new(10_000);
        let (mut follower, locks) = follower(&fake, "late");
        let late = lock::following(&locks, D, 1, None).unwrap();
        let group = Followed::none(D, b"dmstats", b"g", RegionSpec::whole());
        let mut entry = follower.files.remove(&0).unwrap();
        entry.lock = None;
        follower.files.insert(0, Entry { group, ..entry });
        let now = Instant::now();
        follower.fit(0, now, &at_first()).unwrap();
        assert_eq!(follower.files[&0].group.id, Some(1));
        follower.routine(now, 1);
        assert!(follower.files[&0].lock.is_none());
        drop(late);
        follower.routine(now, 2);
        assert!(matches!(
            lock::following(&locks, D, 1, None),
            Err(Error::Followed { .. })
        ));
        std::fs::remove_dir_all(&locks).unwrap();
    }

    #[test]
    fn who_has_not_seen_that_his_group_was_deleted_is_waited_for() {
        let fake = Fake::new(10_000);
        let (mut follower, locks) = follower(&fake, "unseen");
        let theirs = lock::following(&locks, D, 7, None).unwrap();
        // He lets go of it when it was asked for in vain: its file is closed then.
        let tries = inotify::init(inotify::CreateFlags::CLOEXEC).unwrap();
        let flags = inotify::WatchFlags::CLOSE_WRITE;
        inotify::add_watch(&tries, locks.join(format!("{D}.7")), flags).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut space = [MaybeUninit::uninit(); 256];
                inotify::Reader::new(&tries, &mut space).next().unwrap();
                drop(theirs);
            });
            assert!(follower.lock_in_time(D, 7).is_ok());
        });
        // But if he stays, he is not waited for without end.
        let _theirs = lock::following(&locks, D, 7, None).unwrap();
        follower.since = follower.since.checked_sub(PATIENCE).unwrap();
        let refused = follower.lock_in_time(D, 7);
        assert!(matches!(refused, Err(Error::Followed { .. })));
        std::fs::remove_dir_all(&locks).unwrap();
    }

    #[test]
    fn a_group_that_a_killed_process_has_made_is_followed_again() {
        let fake = Fake::new(10_000);
        let (mut follower, locks) = follower(&fake, "killed");
        let file = locks.join("f");
        let mut find = |program: &[u8], at, word: &Word| {
            follower.made = [(D, lock::made(&locks, D).unwrap())].into();
            let found = follower.orphan_at(D, program, word, &[(at, 8)]);
            found.unwrap().map(|(id, ..)| id)
        };
        let known = word(&file);
        // Its process lives.
        assert_eq!(find(b"dmstats", 4, &known), None);
        let device = Device::new(&fake, D, b"dmstats");
        let killed = format!("123 map {}\n", file.display());
        for (id, text) in [(1, &*killed), (2, "123\n"), (7, &*killed)] {
            let like = RegionSpec::whole();
            if id < 7 {
                // What it is called is what its path has led to then.
                let made = device.map_file(&[(0, 8), (16 * id, 8)], &like, Some(b"g"), |_| ());
                assert_eq!(made.unwrap().group, Some(2 * id as u32 - 1));
            }
            let name = format!("{D}.{}", if id < 7 { 2 * id - 1 } else { id });
            std::fs::write(locks.join(name), text).unwrap();
        }
        // Another program's, one that is elsewhere, another of its name.
        assert_eq!(find(b"other", 4, &known), None);
        assert_eq!(find(b"dmstats", 800, &known), None);
        assert_eq!(find(b"dmstats", 4, &word(Path::new("/srv/f"))), None);
        // That of group 3 was not made by its process.
        assert_eq!(find(b"dmstats", 32, &known), None);
        assert_eq!(find(b"dmstats", 4, &known), Some(1));
        // One that is projected says whose it is, by its path or its handle.
        let renamed = word(Path::new("/srv/f"));
        let replaced = Word {
            handle: crate::ffi::Handle::parse("1.01").unwrap(),
            ..known.clone()
        };
        let another = Word {
            handle: crate::ffi::Handle::parse("1.01").unwrap(),
            ..renamed.clone()
        };
        for (is_its, written) in [(true, renamed), (true, replaced), (false, another)] {
            let mut text = b"@stats_set_aux 1 DMS_GROUP=\"g\":1#".to_vec();
            text.extend(written.format());
            fake.message(D, &text, 0).unwrap();
            std::fs::write(locks.join(format!("{D}.1")), &killed).unwrap();
            assert_eq!(find(b"dmstats", 4, &known), is_its.then_some(1));
        }
        std::fs::remove_dir_all(&locks).unwrap();
    }

    #[test]
    fn a_group_that_was_left_and_cannot_be_followed_is_not_left_again() {
        for (cleanup, groups) in [(Cleanup::Always, 0), (Cleanup::Gone, 1)] {
            let fake = Fake::new(10_000);
            let (mut follower, locks) = follower(&fake, &format!("left-{groups}"));
            let entry = follower.files.remove(&0).unwrap();
            follower.cleanup = cleanup;
            // There is no folder in which it could be watched.
            let word = Word {
                mode: Mode::Path,
                path: locks.join("none/f"),
                ..entry.view.word()
            };
            let view = View::known(word, D);
            assert!(follower.begin(view, entry.group, entry.lock).is_err());
            assert!(follower.is_empty());
            let left = Device::new(&fake, D, b"").list().unwrap().groups.len();
            assert_eq!(left, groups);
            assert_eq!(lock::made(&locks, D).unwrap(), []);
            std::fs::remove_dir_all(&locks).unwrap();
        }
    }

    #[test]
    fn what_others_change_is_noticed_however_busy_a_file_is() {
        let fake = Fake::new(10_000);
        let (mut follower, locks) = follower(&fake, "account");
        follower.account = fake.memory_used();
        let now = Instant::now();
        let fit = |follower: &mut Follower<'_, Fake>, len: u64| {
            let grown = Extents {
                places: vec![(0, len)],
                ..at_first()
            };
            follower.fit(0, now, &grown).unwrap();
            fake.take_log();
            follower.routine(now, 1);
            fake.take_log().len()
        };
        // Its own changes are no news.
        assert_eq!(fit(&mut follower, 16), 0);
        fake.message(D, b"@stats_create - /1", 64).unwrap();
        assert_eq!(fit(&mut follower, 24), 1);
        assert_eq!(fit(&mut follower, 32), 0);
        std::fs::remove_dir_all(&locks).unwrap();
    }

    #[test]
    fn f2_a_file_that_loses_its_names_is_looked_at_before_it_is_said_to_be_gone() {
        let fake = Fake::new(10_000);
        let (mut follower, locks) = follower(&fake, "names");
        let path = locks.join("f");
        std::fs::write(&path, "").unwrap();
        follower.watches.file(0, &path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let now = Instant::now();
        follower.files.get_mut(&0).unwrap().pace.looked(now, false);
        follower.signs(now).unwrap();
        let soon = now + Duration::from_secs(1);
        assert!(follower.files[&0].pace.due().is_some_and(|due| due < soon));
        std::fs::remove_dir_all(&locks).unwrap();
    }

    #[test]
    fn a13_if_signs_were_lost_groups_are_looked_for_too() {
        let fake = Fake::new(10_000);
        let (mut follower, locks) = follower(&fake, "lost");
        let paths = [locks.join("f"), locks.join("g")];
        for path in &paths {
            std::fs::write(path, "").unwrap();
            follower.watches.file(0, path).unwrap();
        }
        follower.signs(Instant::now()).unwrap();
        let most = std::fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
        let most: usize = most.trim().parse().unwrap();
        for index in 0..most {
            std::fs::write(&paths[index % 2], "more").unwrap();
        }
        let device = Device::new(&fake, D, b"dmstats");
        device
            .delete_group(&device.list().unwrap(), 0, |_| ())
            .unwrap();
        // All signs that there are, and that there were more.
        for _ in 0..=most / 1000 {
            follower.signs(Instant::now()).unwrap();
        }
        assert!(follower.is_empty());
        std::fs::remove_dir_all(&locks).unwrap();
    }

    #[test]
    fn it_is_ready_when_all_groups_fit_their_files() {
        for fits in [true, false] {
            let fake = Fake::new(10_000);
            let (mut follower, locks) = follower(&fake, &format!("ready-{fits}"));
            if !fits {
                let entry = follower.files.get_mut(&0).unwrap();
                entry.group.has_another_file();
            }
            let (stop, mut stopper) = std::os::unix::net::UnixStream::pair().unwrap();
            std::io::Write::write_all(&mut stopper, b"x").unwrap();
            let mut ready = false;
            follower.run(&stop, || ready = true).unwrap();
            assert_eq!(ready, fits);
            std::fs::remove_dir_all(&locks).unwrap();
        }
    }

    #[test]
    fn a5_a11_modes_have_names() {
        assert_eq!("inode".parse::<Mode>().unwrap(), Mode::Inode);
        assert_eq!("path".parse::<Mode>().unwrap(), Mode::Path);
        for text in ["", "Inode", "bogus"] {
            let error = text.parse::<Mode>().unwrap_err().to_string();
            assert_eq!(error, format!("Could not parse dmfilemapd mode: {text}"));
        }
    }
}
