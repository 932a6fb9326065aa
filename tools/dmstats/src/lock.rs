// SPDX-License-Identifier: GPL-2.0

//! Locks between processes: who follows a group, and who changes the groups of a device.
//!
//! They are files in one folder, locked by `flock`: a process that dies lets go. The files of devices stay. Each
//! change ends when one that is open for writing is closed: daemons watch the folder for that. Whoever can open a file
//! can lock it, and have all others wait: so the folder is closed to other users.
//!
//! Order: 1. the lock on following a group, 2. the lock on changes of its device.

use std::fs;
use std::fs::File;
use std::io;
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use rustix::fs::FlockOperation;

use crate::projection;
use crate::Devno;
use crate::Error;
use crate::Result;

/// Between two looks whether a lock is free.
const AGAIN: Duration = Duration::from_millis(10);

/// Where the locks of all programs are.
pub const FOLDER: &str = "/run/dmfilemapd";

fn error(path: &Path, source: io::Error) -> Error {
    Error::Io {
        what: format!("Cannot lock {}", path.display()),
        source,
    }
}

/// Makes a folder for locks, if it is not there.
pub fn make_folder(path: &Path) -> Result<()> {
    let make = || {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(path)?;
        if fs::metadata(path)?.permissions().mode() & 0o077 != 0 {
            fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
        }
        io::Result::Ok(())
    };
    make().map_err(|source| Error::Io {
        what: format!("Cannot make {}", path.display()),
        source,
    })
}

fn open(path: &Path) -> io::Result<File> {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

/// Opens what is there so that nobody is told of a change when it is closed.
fn open_quietly(path: &Path) -> io::Result<File> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => open(path),
        other => other,
    }
}

/// The right to change the groups of a device, until it is dropped.
pub struct Changes {
    _file: File,
    /// What tells of the change at its end, where the file above is not open for writing.
    _tells: Option<File>,
}

/// What `lock` makes of the path of the file by which the groups of a device are locked.
fn of_device<T>(
    folder: &Path,
    devno: Devno,
    lock: impl FnOnce(&Path) -> io::Result<T>,
) -> Result<T> {
    make_folder(folder)?;
    let path = folder.join(devno.to_string());
    lock(&path).map_err(|source| error(&path, source))
}

/// Waits for the right to change the groups of a device.
pub fn changes(folder: &Path, devno: Devno) -> Result<Changes> {
    of_device(folder, devno, |path| {
        let file = open(path)?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
        Ok(Changes {
            _file: file,
            _tells: None,
        })
    })
}

/// The right to change the groups of a device, if it is free within some time: whoever has it may be
/// stopped, or wait for I/O that does not end.
pub fn changes_within(folder: &Path, devno: Devno, patience: Duration) -> Result<Option<Changes>> {
    let until = Instant::now() + patience;
    of_device(folder, devno, |path| {
        let file = open_quietly(path)?;
        while let Err(errno) = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if errno != rustix::io::Errno::WOULDBLOCK {
                return Err(errno.into());
            }
            if Instant::now() >= until {
                return Ok(None);
            }
            std::thread::sleep(AGAIN);
        }
        Ok(Some(Changes {
            _tells: Some(open(path)?),
            _file: file,
        }))
    })
}

/// Keeps others from changing groups of a device, until it is dropped.
pub struct Still {
    _file: File,
}

/// Keeps others from changing groups of a device, if nobody does so. Of this nobody is told, so that several
/// can have it at once: none of them would be told when another has had it.
pub fn still(folder: &Path, devno: Devno) -> Result<Option<Still>> {
    of_device(folder, devno, |path| {
        let file = open_quietly(path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            other => {
                other?;
                Ok(Some(Still { _file: file }))
            }
        }
    })
}

/// What stands behind the process in the lock of a group that it has made itself. The path of the file comes last.
const MADE: &str = "map";

/// The right to follow a group, until it is dropped.
pub struct Following {
    path: PathBuf,
    made: Option<PathBuf>,
    keep: bool,
    _file: File,
}

impl Following {
    /// Lets go of it as a process does that is killed: the file stays, and says whose group there still is.
    pub fn leave(mut self) {
        self.keep = true;
    }

    /// Writes down that it is this process.
    pub fn sign(&self) {
        let mut text = std::process::id().to_string().into_bytes();
        if let Some(file) = &self.made {
            text.extend(format!(" {MADE} ").bytes());
            projection::escape(file, &mut text);
        }
        text.push(b'\n');
        // It is for the eyes of others only.
        let _ = fs::write(&self.path, text);
    }
}

/// The lock of a group.
fn path_of(folder: &Path, devno: Devno, group: u32) -> PathBuf {
    folder.join(format!("{devno}.{group}"))
}

/// Takes the right to follow a group; an error, if another process has it. `made` is the file if the group is the process's
/// own, and of no use to anybody without it.
pub fn following(
    folder: &Path,
    devno: Devno,
    group: u32,
    made: Option<&Path>,
) -> Result<Following> {
    make_folder(folder)?;
    let path = path_of(folder, devno, group);
    let taken = || loop {
        let mut file = open(&path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut text = String::new();
                file.read_to_string(&mut text)?;
                let pid = text.split_whitespace().next().unwrap_or_default();
                return Ok(Err(pid.to_owned()));
            }
            other => other?,
        }
        // Whoever had it may have removed the file between our open and our lock.
        let current = fs::metadata(&path).map(|info| info.ino());
        if current.is_ok_and(|inode| file.metadata().is_ok_and(|info| info.ino() == inode)) {
            return io::Result::Ok(Ok(file));
        }
    };
    match taken().map_err(|source| error(&path, source))? {
        Ok(file) => {
            let lock = Following {
                path,
                made: made.map(Path::to_owned),
                keep: false,
                _file: file,
            };
            lock.sign();
            Ok(lock)
        }
        Err(pid) => Err(Error::Followed { group, pid }),
    }
}

/// The file of a group whose lock says that the process which has it has made it.
fn made_of(lock: &Path) -> Option<PathBuf> {
    // It may have gone by now.
    let text = fs::read_to_string(lock).unwrap_or_default();
    let mut words = text.split_whitespace().skip(1);
    let made = words.next() == Some(MADE);
    let file = words.next().filter(|_| made)?;
    projection::unescaped(file.as_bytes())
}

/// Forgets whoever followed a group that had this id before, which was made anew. If he was killed, his lock is still
/// there, and the group would be taken for what he has left.
pub fn made_anew(folder: &Path, devno: Devno, group: u32) {
    // To take the lock where there is none would keep it from whoever follows the group under its new id.
    if made_of(&path_of(folder, devno, group)).is_some() {
        // If another process has it, that is no more than it was.
        drop(following(folder, devno, group, None));
    }
}

/// The groups of a device whose locks say that the process which has them has made them, and the paths of their files:
/// if nobody has one any more, that was killed.
pub fn made(folder: &Path, devno: Devno) -> Result<Vec<(u32, PathBuf)>> {
    let prefix = format!("{devno}.");
    let list = || {
        let mut groups = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let group = name.to_str().and_then(|name| name.strip_prefix(&prefix));
            let Some(group) = group.and_then(|group| group.parse().ok()) else {
                continue;
            };
            if let Some(file) = made_of(&entry.path()) {
                groups.push((group, file));
            }
        }
        groups.sort_unstable();
        io::Result::Ok(groups)
    };
    list().map_err(|source| Error::Io {
        what: format!("Cannot read {}", folder.display()),
        source,
    })
}

impl Drop for Following {
    fn drop(&mut self) {
        if !self.keep {
            // Should it fail, an empty file stays, which locks nothing.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn f9_a_group_has_one_follower() {
        let folder = std::env::temp_dir().join(format!("dmstats-lock-{}", std::process::id()));
        let devno = Devno {
            major: 253,
            minor: 7,
        };
        let first = following(&folder, devno, 1, None).unwrap();
        let said = following(&folder, devno, 1, None)
            .err()
            .unwrap()
            .to_string();
        assert_eq!(
            said,
            format!(
                "Group ID 1 is followed by process {} already",
                std::process::id()
            )
        );
        let file = Path::new("/srv/a b\n");
        let other = following(&folder, devno, 2, Some(file)).unwrap();
        let said = following(&folder, devno, 2, Some(file))
            .err()
            .unwrap()
            .to_string();
        assert!(said.ends_with(&format!("process {} already", std::process::id())));
        assert_eq!(made(&folder, devno).unwrap(), [(2, file.to_owned())]);
        // Whoever lives is not forgotten; who was killed is.
        made_anew(&folder, devno, 2);
        let killed = folder.join("253:7.3");
        fs::write(&killed, "123 map /srv/f\n").unwrap();
        assert_eq!(made(&folder, devno).unwrap().len(), 2);
        made_anew(&folder, devno, 3);
        assert!(!killed.exists());
        assert_eq!(made(&folder, devno).unwrap().len(), 1);
        // It takes no lock which somebody could want at this moment, not even for as long as it looks.
        let folder_file = File::open(&folder).unwrap();
        folder_file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        made_anew(&folder, devno, 3);
        let changed = folder_file.metadata().unwrap().modified().unwrap();
        assert_eq!(changed, SystemTime::UNIX_EPOCH);
        drop(first);
        drop(following(&folder, devno, 1, None).unwrap());
        drop(other);
        let changed = changes(&folder, devno).unwrap();
        let busy = changes_within(&folder, devno, 2 * AGAIN).unwrap();
        assert!(busy.is_none() && still(&folder, devno).unwrap().is_none());
        drop(changed);
        let still = [(); 2].map(|()| still(&folder, devno).unwrap());
        assert!(still.iter().all(Option::is_some));
        let busy = changes_within(&folder, devno, Duration::ZERO).unwrap();
        assert!(busy.is_none());
        drop(still);
        let free = changes_within(&folder, devno, Duration::ZERO).unwrap();
        assert!(free.is_some());
        // What is left is the file that tells of changes.
        let left: Vec<_> = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["253:7"]);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn nobody_else_can_lock() {
        let folder = std::env::temp_dir().join(format!("dmstats-locks-{}", std::process::id()));
        let devno = Devno {
            major: 253,
            minor: 7,
        };
        // As an older version left it.
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        let _changes = changes(&folder, devno).unwrap();
        let _following = following(&folder, devno, 1, None).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder), 0o700);
        assert_eq!(mode(&folder.join("253:7")), 0o600);
        assert_eq!(mode(&folder.join("253:7.1")), 0o600);
        fs::remove_dir_all(&folder).unwrap();
    }
}
