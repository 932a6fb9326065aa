// SPDX-License-Identifier: GPL-2.0

//! A file, seen again and again without having it open in between: it can be removed and its file system be
//! unmounted as if nobody looked.

use std::fs;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::SystemTime;

use rustix::fs::OFlags;

use crate::extents;
use crate::ffi::Handle;
use crate::projection::Word;
use crate::Devno;
use crate::Error;
use crate::Result;

use super::Mode;

/// What tells at no cost that a file may have changed. Not all changes show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Its length.
    pub size: u64,
    /// How much room it has.
    pub blocks: u64,
    /// When it changed: seconds and nanoseconds.
    pub changed: (i64, i64),
}

/// What a look found.
#[derive(Debug)]
pub enum Look<T> {
    /// The file.
    Here(T),
    /// There is no file of this name, at this moment.
    Missing,
    /// The file is no more.
    Gone,
    /// The file is on another device.
    Elsewhere,
    /// Its file system is not mounted any more.
    Unmounted,
}

/// A file under its path, or by its inode.
pub struct View {
    /// What it is called; with [`Mode::Inode`] what it was called at first.
    pub path: PathBuf,
    /// Which of the two it is that is seen.
    pub mode: Mode,
    /// The device that it is on.
    pub devno: Devno,
    handle: Handle,
    /// Where its file system was mounted when that was last needed.
    mount: PathBuf,
    other: bool,
}

fn io_error(what: &str, path: &Path, source: io::Error) -> Error {
    Error::Io {
        what: format!("Cannot {what} {}", path.display()),
        source,
    }
}

/// Where file systems of this device are mounted, as `/proc/self/mountinfo` tells it.
fn mounts(table: &[u8], devno: Devno) -> Vec<PathBuf> {
    let device = devno.to_string();
    let lines = table.split(|byte| *byte == b'\n');
    let points = lines.filter_map(|line| {
        let mut words = line.split(|byte| *byte == b' ').skip(2);
        let ours = words.next()? == device.as_bytes();
        let point = words.nth(1)?;
        ours.then(|| PathBuf::from(std::ffi::OsString::from_vec(unescaped(point))))
    });
    points.collect()
}

/// A word of mountinfo's, in which `\040` is a space.
fn unescaped(word: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(word.len());
    let mut at = 0;
    while let Some(byte) = word.get(at) {
        let digits = word.get(at + 1..at + 4).filter(|_| *byte == b'\\');
        let octal = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        out.push(octal.unwrap_or(*byte));
        at += if octal.is_some() { 4 } else { 1 };
    }
    out
}

fn device(info: &fs::Metadata) -> Devno {
    Devno {
        major: rustix::fs::major(info.dev()),
        minor: rustix::fs::minor(info.dev()),
    }
}

/// Why a file cannot be followed of which the first look finds this. What has no name at this moment may have one in
/// the next, as when a log is replaced: the looks that follow tell.
fn refusal<T>(seen: &Look<T>) -> Option<&'static str> {
    match seen {
        Look::Here(_) | Look::Missing | Look::Gone => None,
        Look::Elsewhere => {
            Some("the path names a file on another device by now, or none that is regular.")
        }
        Look::Unmounted => Some("its file system is not mounted where this program can see it."),
    }
}

impl View {
    /// Sees this file from now on, which must be one that can be mapped.
    pub fn new(file: &File, path: &Path, mode: Mode) -> Result<Self> {
        let devno = extents::device_of(file)?;
        let handle =
            Handle::of(file).map_err(|source| io_error("get the handle of", path, source))?;
        let mut view = View {
            path: path.to_owned(),
            mode,
            devno,
            handle,
            mount: PathBuf::new(),
            other: false,
        };
        let seen = view
            .open(OFlags::PATH)
            .map_err(|source| io_error("open the handle of", path, source))?;
        refusal(&seen).map_or(Ok(view), |why| Err(Error::File(why.into())))
    }

    /// The file that was seen before, when this was written down.
    pub fn known(word: Word, devno: Devno) -> Self {
        View {
            path: word.path,
            mode: word.mode,
            devno,
            handle: word.handle,
            mount: PathBuf::new(),
            other: false,
        }
    }

    /// What is written down of it, for those who see it later.
    pub fn word(&self) -> Word {
        Word {
            mode: self.mode,
            handle: self.handle.clone(),
            path: self.path.clone(),
        }
    }

    /// Anything open on the file system, if it is mounted.
    fn anchor(&mut self) -> io::Result<Option<File>> {
        let open = |path: &Path| {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let file: File = rustix::fs::open(path, flags, rustix::fs::Mode::empty())
                .ok()?
                .into();
            (device(&file.metadata().ok()?) == self.devno).then_some(file)
        };
        if let Some(file) = open(&self.mount) {
            return Ok(Some(file));
        }
        for point in mounts(&fs::read("/proc/self/mountinfo")?, self.devno) {
            if let Some(file) = open(&point) {
                self.mount = point;
                return Ok(Some(file));
            }
        }
        Ok(None)
    }

    /// Takes what has the path by now for the file.
    fn name(&mut self) -> io::Result<Look<()>> {
        let file = match extents::glance(&self.path) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(Look::Missing)
            }
            other => other?,
        };
        let info = file.metadata()?;
        if !info.is_file() || device(&info) != self.devno {
            return Ok(Look::Elsewhere);
        }
        let handle = Handle::of(&file)?;
        self.other |= handle != self.handle;
        self.handle = handle;
        Ok(Look::Here(()))
    }

    fn open(&mut self, flags: OFlags) -> io::Result<Look<File>> {
        let named = match self.mode {
            Mode::Path => self.name()?,
            Mode::Inode => Look::Here(()),
        };
        // A file system that is unmounted takes its names along long before it says so, if it has much to write.
        let Some(anchor) = self.anchor()? else {
            return Ok(Look::Unmounted);
        };
        match named {
            Look::Here(()) => {}
            Look::Elsewhere => return Ok(Look::Elsewhere),
            _ => return Ok(Look::Missing),
        }
        match self.handle.open(&anchor, flags) {
            Ok(file) => Ok(Look::Here(file)),
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::STALE.raw_os_error()) => {
                Ok(match self.mode {
                    Mode::Path => Look::Missing,
                    Mode::Inode => Look::Gone,
                })
            }
            Err(error) => Err(error),
        }
    }

    fn look<T>(&mut self, flags: OFlags, see: impl FnOnce(&File) -> Result<T>) -> Result<Look<T>> {
        match self
            .open(flags)
            .map_err(|source| io_error("look at", &self.path, source))?
        {
            Look::Here(file) => Ok(Look::Here(see(&file)?)),
            Look::Missing => Ok(Look::Missing),
            Look::Gone => Ok(Look::Gone),
            Look::Elsewhere => Ok(Look::Elsewhere),
            Look::Unmounted => Ok(Look::Unmounted),
        }
    }

    /// Its stamp, and how long ago it was written to.
    pub fn stamp(&mut self) -> Result<Look<(Stamp, Duration)>> {
        let path = self.path.clone();
        self.look(OFlags::PATH, |file| {
            let info = file
                .metadata()
                .map_err(|source| io_error("look at", &path, source))?;
            let stamp = Stamp {
                size: info.size(),
                blocks: info.blocks(),
                changed: (info.ctime(), info.ctime_nsec()),
            };
            let age = info
                .modified()
                .ok()
                .and_then(|time| SystemTime::now().duration_since(time).ok());
            Ok((stamp, age.unwrap_or_default()))
        })
    }

    /// Where it is. Nothing is written for it.
    pub fn extents(&mut self) -> Result<Look<extents::Extents>> {
        self.look(OFlags::RDONLY, |file| {
            // Another file may be one that cannot be mapped.
            extents::device_of(file)?;
            extents::of_file(file, false)
        })
    }

    /// A watch on the file itself, whatever its name.
    pub(super) fn watch<T>(&mut self, add: impl FnOnce(&Path) -> Result<T>) -> Result<Look<T>> {
        use std::os::fd::AsRawFd;
        self.look(OFlags::PATH, |file| {
            add(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())))
        })
    }

    /// Whether it is another file than when this was last asked.
    pub fn take_other(&mut self) -> bool {
        std::mem::take(&mut self.other)
    }

    /// The folder and the name in it, where another file may take the place of this.
    pub fn place(&self) -> Option<(&Path, &[u8])> {
        let folder = self.path.parent().filter(|_| self.mode == Mode::Path)?;
        Some((folder, self.path.file_name()?.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_found_by_their_device() {
        let table = b"22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
            30 22 253:3 / /srv/a\\040b\\134 rw - ext4 /dev/mapper/d rw\n\
            31 22 253:30 / /srv/c rw - xfs /dev/mapper/e rw\n\
            32 22 253:3 /sub /srv/d rw - ext4 /dev/mapper/d rw\nrubbish\n";
        let devno = Devno {
            major: 253,
            minor: 3,
        };
        assert_eq!(
            mounts(table, devno),
            [PathBuf::from("/srv/a b\\"), PathBuf::from("/srv/d")]
        );
        assert_eq!(mounts(b"", devno), Vec::<PathBuf>::new());
    }

    #[test]
    fn a_name_that_is_missing_for_a_moment_is_no_file_system_that_is_not_mounted() {
        let said = [
            Look::Here(()),
            Look::Missing,
            Look::Elsewhere,
            Look::Unmounted,
        ]
        .map(|seen| {
            let why = refusal(&seen)?;
            why.split(' ').nth(1)
        });
        assert_eq!(said, [None, None, Some("path"), Some("file")]);
    }
}
