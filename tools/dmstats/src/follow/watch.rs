// SPDX-License-Identifier: GPL-2.0

//! Signs that files have changed: one inotify instance for all of them. A watch keeps neither a file nor its
//! file system.

use std::collections::BTreeMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify;
use rustix::fs::inotify::ReadFlags;
use rustix::fs::inotify::WatchFlags;
use rustix::io::Errno;

use crate::Devno;
use crate::Error;
use crate::Result;

/// So many signs are read at once: what comes meanwhile, maybe faster than it can be read, is left for the next time.
/// It is as many as the kernel keeps if nothing else is said (`fs.inotify.max_queued_events`).
const MOST: usize = 16_384;

/// What a sign means to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// It may have changed.
    Touched,
    /// It has no name any more. Somebody may have it open still, but it is watched no more.
    Gone,
    /// Its file system was unmounted.
    Unmounted,
}

/// A sign, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Of the file of this number.
    File(usize, Sign),
    /// Somebody changed groups of this device, and told so.
    Groups(Devno),
    /// Signs were lost: of any of the files.
    Lost,
}

/// Who wants to know.
enum Subject {
    /// A file of this number, of itself.
    File(usize),
    /// A file of this number, of its name in a folder.
    Name(usize, Vec<u8>),
    /// Of changes to groups.
    Locks,
}

/// All watches.
pub struct Watches {
    inotify: OwnedFd,
    subjects: BTreeMap<i32, Vec<Subject>>,
}

fn error(path: &Path, errno: Errno) -> Error {
    let hint = match errno {
        Errno::NOSPC => " (see fs.inotify.max_user_watches)",
        _ => "",
    };
    Error::Io {
        what: format!("Cannot watch {}{hint}", path.display()),
        source: io::Error::from(errno),
    }
}

/// The device whose lock has this name.
fn device(name: &[u8]) -> Option<Devno> {
    let (major, minor) = std::str::from_utf8(name).ok()?.split_once(':')?;
    Some(Devno {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
    })
}

impl Watches {
    /// None so far, but on the folder of the locks.
    pub fn new(locks: &Path) -> Result<Self> {
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let inotify = inotify::init(flags).map_err(|errno| Error::Io {
            what: "Cannot watch files (see fs.inotify.max_user_instances)".into(),
            source: io::Error::from(errno),
        })?;
        let mut watches = Watches {
            inotify,
            subjects: BTreeMap::new(),
        };
        watches.add(
            locks,
            WatchFlags::CLOSE_WRITE | WatchFlags::ONLYDIR,
            Subject::Locks,
        )?;
        Ok(watches)
    }

    fn add(&mut self, path: &Path, flags: WatchFlags, subject: Subject) -> Result<()> {
        // The same inode may be watched for several files already, maybe as both a folder and a file.
        let flags = flags | WatchFlags::MASK_ADD;
        let watch =
            inotify::add_watch(&self.inotify, path, flags).map_err(|errno| error(path, errno))?;
        self.subjects.entry(watch).or_default().push(subject);
        Ok(())
    }

    /// Watches a file.
    pub fn file(&mut self, number: usize, path: &Path) -> Result<()> {
        let flags = WatchFlags::MODIFY
            | WatchFlags::ATTRIB
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF;
        self.add(path, flags, Subject::File(number))
    }

    /// Watches for other files of this name in a folder.
    pub fn name(&mut self, number: usize, folder: &Path, name: &[u8]) -> Result<()> {
        let flags = WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::ONLYDIR;
        self.add(folder, flags, Subject::Name(number, name.to_vec()))
    }

    /// Watches nothing for this file any more.
    pub fn forget(&mut self, number: usize) {
        let inotify = &self.inotify;
        self.subjects.retain(|watch, subjects| {
            subjects.retain(|subject| match subject {
                Subject::File(of) | Subject::Name(of, _) => *of != number,
                Subject::Locks => true,
            });
            if subjects.is_empty() {
                // It fails if the file has gone, and the watch with it.
                let _ = inotify::remove_watch(inotify, *watch);
            }
            !subjects.is_empty()
        });
    }

    /// The signs since the last call, without waiting.
    pub fn read(&mut self) -> Result<Vec<Event>> {
        self.read_most(MOST)
    }

    /// The first signs since the last call: so many, and those that the kernel has told with them.
    fn read_most(&mut self, most: usize) -> Result<Vec<Event>> {
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.inotify, &mut space);
        let mut events = Vec::new();
        let mut count = 0;
        loop {
            // What is in the reader would be lost with it.
            if count >= most && reader.is_buffer_empty() {
                return Ok(events);
            }
            count += 1;
            let event = match reader.next() {
                Err(Errno::AGAIN) => return Ok(events),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(error(Path::new("files"), errno)),
                Ok(event) => event,
            };
            let flags = event.events();
            if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                events.push(Event::Lost);
            }
            let sign = if flags.contains(ReadFlags::UNMOUNT) {
                Sign::Unmounted
            } else if flags.contains(ReadFlags::DELETE_SELF) {
                Sign::Gone
            } else {
                Sign::Touched
            };
            let name = event.file_name().map(|name| name.to_bytes());
            for subject in self.subjects.get(&event.wd()).into_iter().flatten() {
                let event = match subject {
                    Subject::File(number) => Some(Event::File(*number, sign)),
                    Subject::Name(number, watched) if name.is_none_or(|name| name == watched) => {
                        // What happens to a folder happens to it, not to the file.
                        let sign = if sign == Sign::Unmounted {
                            sign
                        } else {
                            Sign::Touched
                        };
                        Some(Event::File(*number, sign))
                    }
                    Subject::Name(..) => None,
                    Subject::Locks => name.and_then(device).map(Event::Groups),
                };
                events.extend(event.filter(|event| events.last() != Some(event)));
            }
            if flags.contains(ReadFlags::IGNORED) {
                self.subjects.remove(&event.wd());
            }
        }
    }
}

impl AsFd for Watches {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn folder(name: &str) -> std::path::PathBuf {
        let folder = std::env::temp_dir().join(format!("dmstats-{name}-{}", std::process::id()));
        fs::create_dir_all(folder.join("locks")).unwrap();
        folder
    }

    #[test]
    fn files_and_names_have_signs_of_their_own() {
        let folder = folder("watch");
        let (one, two) = (folder.join("1"), folder.join("2"));
        fs::write(&one, "1").unwrap();
        fs::write(&two, "2").unwrap();
        let mut watches = Watches::new(&folder.join("locks")).unwrap();
        watches.file(1, &one).unwrap();
        watches.file(2, &two).unwrap();
        watches.name(2, &folder, b"2").unwrap();
        assert_eq!(watches.read().unwrap(), []);
        fs::write(&one, "more").unwrap();
        assert_eq!(watches.read().unwrap(), [Event::File(1, Sign::Touched)]);
        fs::rename(&one, &two).unwrap();
        let events = watches.read().unwrap();
        assert!(
            events.contains(&Event::File(2, Sign::Touched))
                && events.contains(&Event::File(2, Sign::Gone))
        );
        watches.forget(1);
        fs::write(folder.join("locks/253:1"), "").unwrap();
        fs::write(folder.join("locks/253:1.7"), "").unwrap();
        fs::write(&two, "of nobody").unwrap();
        assert_eq!(
            watches.read().unwrap(),
            [Event::Groups(Devno {
                major: 253,
                minor: 1
            })]
        );
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn signs_that_come_without_end_are_read_in_parts_and_none_is_lost() {
        let folder = folder("parts");
        let files = [folder.join("1"), folder.join("2")];
        let mut watches = Watches::new(&folder.join("locks")).unwrap();
        for (number, file) in files.iter().enumerate() {
            fs::write(file, "").unwrap();
            watches.file(number, file).unwrap();
        }
        // Each has two signs or three, of which those of the same file are one.
        (0..1000).for_each(|index| fs::write(&files[index % 2], "more").unwrap());
        let mut parts = Vec::new();
        loop {
            let part = watches.read_most(10).unwrap();
            if part.is_empty() {
                break;
            }
            parts.push(part.len());
        }
        let all: usize = parts.iter().sum();
        assert!(all >= 1000 && parts.len() > 4, "{parts:?}");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn f3_another_file_under_a_name_takes_no_other_instance() {
        let folder = folder("again");
        let file = folder.join("f");
        fs::write(&file, "").unwrap();
        let mut watches = Watches::new(&folder.join("locks")).unwrap();
        let instances = || {
            let open = fs::read_dir("/proc/self/fd").unwrap();
            open.filter(|fd| {
                fs::read_link(fd.as_ref().unwrap().path())
                    .is_ok_and(|to| to.ends_with("anon_inode:inotify"))
            })
            .count()
        };
        let before = instances();
        for _ in 0..300 {
            watches.forget(1);
            watches.file(1, &file).unwrap();
        }
        assert_eq!(
            (watches.subjects.len(), instances() <= before + 1),
            (2, true)
        );
        fs::remove_dir_all(&folder).unwrap();
    }
}
