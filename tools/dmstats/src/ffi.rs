// SPDX-License-Identifier: GPL-2.0

//! What of the system no crate has in a safe form: files by handle, a descriptor that was inherited by its
//! number, and the way into the background.

use std::ffi::c_int;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;

use rustix::fs::OFlags;

const MAX_HANDLE: usize = 128;

/// A file's name for life, whatever it is called: its file system finds it by this, as long as the file exists.
/// To have it keeps neither the file nor its file system.
#[repr(C)]
#[derive(Clone, PartialEq, Eq)]
pub struct Handle {
    bytes: u32,
    kind: i32,
    data: [u8; MAX_HANDLE],
}

fn result(value: c_int) -> io::Result<c_int> {
    if value < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(value)
    }
}

impl Handle {
    /// The handle of an open file, which may be open by `O_PATH`.
    pub fn of(file: &File) -> io::Result<Self> {
        let mut handle = Handle {
            bytes: MAX_HANDLE as u32,
            kind: 0,
            data: [0; MAX_HANDLE],
        };
        let mut mount = 0;
        // SAFETY: the path is a string that ends; `handle` has the layout of `struct file_handle`, followed by as
        // many bytes as `bytes` says; `mount` is one int. All live until the call is over.
        let called = unsafe {
            libc::name_to_handle_at(
                file.as_raw_fd(),
                c"".as_ptr(),
                (&raw mut handle).cast(),
                &raw mut mount,
                libc::AT_EMPTY_PATH,
            )
        };
        result(called)?;
        Ok(handle)
    }

    /// Reads what [`Display`](fmt::Display) writes.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, digits) = text.split_once('.')?;
        let mut handle = Handle {
            bytes: u32::try_from(digits.len() / 2).ok()?,
            kind: kind.parse().ok()?,
            data: [0; MAX_HANDLE],
        };
        let bytes = handle.data.get_mut(..digits.len() / 2)?;
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(digits.get(index * 2..index * 2 + 2)?, 16).ok()?;
        }
        (digits.len() % 2 == 0).then_some(handle)
    }

    /// Opens the file. `mount` is anything on its file system that is open, but not by `O_PATH`. `ESTALE` says that
    /// the file is no more: it has no name, and nobody has it open.
    pub fn open(&self, mount: &File, flags: OFlags) -> io::Result<File> {
        let mut handle = self.clone();
        let flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK;
        // SAFETY: `handle` has the layout of `struct file_handle`, followed by as many bytes as `bytes` says, and no
        // more than there is room for.
        let called = unsafe {
            libc::open_by_handle_at(
                mount.as_raw_fd(),
                (&raw mut handle).cast(),
                flags.bits() as c_int,
            )
        };
        // SAFETY: the kernel has just opened it for us, so nobody else owns it.
        result(called).map(|fd| unsafe { File::from_raw_fd(fd) })
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.", self.kind)?;
        let bytes = self.data.iter().take(self.bytes as usize);
        bytes
            .into_iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn null() -> io::Result<File> {
    File::options().read(true).write(true).open("/dev/null")
}

/// Has a standard stream lead elsewhere.
fn lead(stream: c_int, to: &File) -> io::Result<()> {
    // SAFETY: both are numbers of open files; the standard library expects the second to be open, and it stays.
    result(unsafe { libc::dup2(to.as_raw_fd(), stream) }).map(drop)
}

/// Takes what was inherited under this number, and closes all else that was, but the standard streams.
///
/// # Safety
///
/// Nothing may be open yet but what was inherited: this closes it under its owner's feet.
pub unsafe fn inherited(fd: c_int) -> io::Result<File> {
    // SAFETY: this makes a copy of a descriptor, or fails if there is none of this number.
    let copy = result(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) })?;
    // SAFETY: the copy was just made.
    let file = File::from(unsafe { OwnedFd::from_raw_fd(copy) });
    if fd <= 2 {
        // The number stays taken: what is opened later must not become a standard stream.
        lead(fd, &null()?)?;
    }
    let copy = copy as libc::c_uint;
    for (first, last) in [(3, copy - 1), (copy + 1, libc::c_uint::MAX)] {
        if first <= last {
            // SAFETY: the caller promises that nobody owns what is closed here.
            result(unsafe { libc::close_range(first, last, 0) })?;
        }
    }
    Ok(file)
}

/// Goes on in the background, in a session of its own; the process that was in the foreground ends with success.
/// Standard streams become `/dev/null`, but for stderr if that is to be kept: of the others nothing is written, and
/// whoever reads what the caller writes would wait for its end. There must be no other threads.
pub fn background(keep_stderr: bool) -> io::Result<()> {
    let null = null()?;
    for stream in [libc::STDIN_FILENO, libc::STDOUT_FILENO] {
        lead(stream, &null)?;
    }
    // SAFETY: this forks, and takes no pointer. The caller says that there are no threads which would be lost.
    result(unsafe { libc::daemon(0, 1) })?;
    if keep_stderr {
        return Ok(());
    }
    lead(libc::STDERR_FILENO, &null)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn in_the_background_nobody_waits_for_what_is_not_written() {
        const FILE: &str = "DMSTATS_BACKGROUND";
        // It is this test, started once more, that goes there: its threads are lost.
        if let Some(path) = std::env::var_os(FILE) {
            background(true).unwrap();
            let stream = |fd| std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
            std::fs::write(path, format!("{:?}", [0, 1, 2].map(stream))).unwrap();
            std::process::exit(0);
        }
        let path = std::env::temp_dir().join(format!("dmstats-streams-{}", std::process::id()));
        // It returns when all have closed its stderr, which is a pipe.
        let test = "ffi::tests::in_the_background_nobody_waits_for_what_is_not_written";
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test])
            .env(FILE, &path)
            .output()
            .unwrap();
        let streams = std::fs::read_to_string(&path).unwrap();
        assert!(
            streams.starts_with("[\"/dev/null\", \"/dev/null\", \"pipe:"),
            "{streams}"
        );
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_handle_tells_files_apart_and_is_the_same_under_another_name() {
        let folder = std::env::temp_dir().join(format!("dmstats-handle-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (one, two, moved) = (folder.join("1"), folder.join("2"), folder.join("3"));
        std::fs::write(&one, "1").unwrap();
        std::fs::write(&two, "2").unwrap();
        let of = |path| Handle::of(&File::open(path).unwrap());
        // Some file systems have no handles; then nothing can be followed there, which is an error and no more.
        if let Ok(first) = of(&one) {
            assert!(first != of(&two).unwrap());
            std::fs::rename(&one, &moved).unwrap();
            assert!(first == of(&moved).unwrap());
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
