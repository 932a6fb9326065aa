// SPDX-License-Identifier: GPL-2.0

//! Where a file is on its device.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use rustix::fs::FileType;
use rustix::fs::Mode;
use rustix::fs::OFlags;

use crate::ioctl;
use crate::ioctl::Kind;
use crate::ranges::Ranges;
use crate::Devno;
use crate::Error;
use crate::Result;

const SECTOR: u64 = 512;

/// How many extents one request asks for: more than nearly all files have.
const BATCH: usize = 16_384;
const HEADER: usize = 32;
const EXTENT: usize = 56;

const SYNC: u32 = 1;

const LAST: u32 = 1;
const UNKNOWN: u32 = 2;
const DELALLOC: u32 = 4;
const ENCODED: u32 = 8;
const NOT_ALIGNED: u32 = 0x100;
const INLINE: u32 = 0x200;
const TAIL: u32 = 0x400;
const SHARED: u32 = 0x2000;

const REALTIME: u32 = 1;

const XFS: u64 = 0x5846_5342;
const F2FS: u64 = 0xf2f5_2010;
/// What an f2fs keeps for itself at its beginning, at least: its superblocks, and what aligns the rest.
const F2FS_HEAD: u64 = 2 << 20;

/// File systems that have no places on the device to tell, or not those of this device.
const REFUSED: [(u64, &str); 5] = [
    (
        0x9123_683e,
        "btrfs does not provide physical FIEMAP extent data.",
    ),
    (
        0xca45_1a4e,
        "bcachefs does not provide physical FIEMAP extent data of one device.",
    ),
    (
        0x794c_7630,
        "overlayfs has no device; map the file in the layer below.",
    ),
    (0x0102_1994, "tmpfs keeps files in memory, not on a device."),
    (
        0x2fc1_2fc1,
        "zfs does not provide physical FIEMAP extent data.",
    ),
];

/// An extent as the file system tells it, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawExtent {
    /// Where in the file.
    pub logical: u64,
    /// Where on the device.
    pub physical: u64,
    /// How long.
    pub len: u64,
    /// Its flags.
    pub flags: u32,
}

/// What the group of a file is called if nobody says otherwise: a link is the file that it leads to.
pub fn name(path: &Path) -> OsString {
    let whole = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    whole.file_name().unwrap_or_default().to_owned()
}

/// Where a file is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extents {
    /// Places on the device, ascending, never adjacent: first sector and sectors.
    pub places: Vec<(u64, u64)>,
    /// How many extents have no place yet, or none that can be told.
    pub skipped: usize,
    /// How many of these will have one when they are written.
    pub pending: usize,
    /// Whether other files share some of it.
    pub shared: bool,
}

impl Extents {
    /// The places of these extents. What is side by side on the device is one place, whatever the file
    /// system makes of it.
    pub fn new(raw: &[RawExtent]) -> Self {
        let mut extents = Self::default();
        let mut places = Vec::with_capacity(raw.len());
        for extent in raw {
            let nowhere = UNKNOWN | DELALLOC | ENCODED | NOT_ALIGNED | INLINE | TAIL;
            let end = extent
                .physical
                .checked_add(extent.len)
                .map(|end| end.div_ceil(SECTOR));
            match end {
                Some(end) if extent.flags & nowhere == 0 && end > extent.physical / SECTOR => {
                    places.push((extent.physical / SECTOR, end));
                    extents.shared |= extent.flags & SHARED != 0;
                }
                _ => {
                    extents.skipped += 1;
                    extents.pending += usize::from(extent.flags & (UNKNOWN | DELALLOC) != 0);
                }
            }
        }
        extents.places = places.into_iter().collect::<Ranges>().places();
        extents
    }

    /// How many sectors there are in all.
    pub fn sectors(&self) -> u64 {
        self.places.iter().map(|(_, len)| len).sum()
    }
}

/// The extents of a file, asked for in as many batches as it needs. `fetch` gives those from a byte on.
fn gather(mut fetch: impl FnMut(u64) -> Result<Vec<RawExtent>>) -> Result<Vec<RawExtent>> {
    let mut all: Vec<RawExtent> = Vec::new();
    let mut from = 0;
    loop {
        let batch = fetch(from)?;
        let Some(last) = batch.last().copied() else {
            return Ok(all);
        };
        all.extend(batch);
        let next = last.logical.saturating_add(last.len);
        if last.flags & LAST != 0 || next <= from {
            return Ok(all);
        }
        from = next;
    }
}

fn file_error(what: &str, errno: rustix::io::Errno) -> Error {
    match errno {
        rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOTTY => {
            Error::File("its file system does not provide extent data (FIEMAP).".into())
        }
        _ => Error::Io {
            what: what.into(),
            source: io::Error::from(errno),
        },
    }
}

fn fetch(file: &File, from: u64, sync: bool) -> Result<Vec<RawExtent>> {
    let mut buffer = vec![0; HEADER + BATCH * EXTENT];
    ioctl::put(&mut buffer, 0, &from.to_ne_bytes());
    ioctl::put(&mut buffer, 8, &(u64::MAX - from).to_ne_bytes());
    ioctl::put(
        &mut buffer,
        16,
        &(if sync { SYNC } else { 0 }).to_ne_bytes(),
    );
    ioctl::put(&mut buffer, 24, &(BATCH as u32).to_ne_bytes());
    ioctl::call(file, Kind::Fiemap, &mut buffer).map_err(|errno| file_error("FIEMAP", errno))?;
    let count = (ioctl::get_u32(&buffer, 20) as usize).min(BATCH);
    let extents = (0..count).map(|index| {
        let at = HEADER + index * EXTENT;
        RawExtent {
            logical: ioctl::get_u64(&buffer, at),
            physical: ioctl::get_u64(&buffer, at + 8),
            len: ioctl::get_u64(&buffer, at + 16),
            flags: ioctl::get_u32(&buffer, at + 40),
        }
    });
    Ok(extents.collect())
}

/// Why files of this file system cannot be mapped.
fn refusal(magic: u64) -> Option<&'static str> {
    REFUSED
        .iter()
        .find(|(refused, _)| *refused == magic)
        .map(|(_, why)| *why)
}

/// Opens what a path names, without a trace: it is not read, and nobody who has a lease is asked.
pub(crate) fn glance(path: &Path) -> io::Result<File> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?.into())
}

/// Opens a file to be mapped. What is none, as a pipe, is not to be waited for: it is open by `O_PATH` only, and
/// [`device_of`] refuses it. But who has a lease on a file is: he gives it up soon, and `O_NONBLOCK` would fail.
pub fn open(path: &Path) -> io::Result<File> {
    let seen = glance(path)?;
    match seen.metadata()?.is_file() {
        true => File::open(format!("/proc/self/fd/{}", seen.as_raw_fd())),
        false => Ok(seen),
    }
}

/// The number of the device that a file is on, if files on it can be mapped.
pub fn device_of(file: &File) -> Result<Devno> {
    let info = rustix::fs::fstat(file).map_err(|errno| file_error("fstat", errno))?;
    if FileType::from_raw_mode(info.st_mode) != FileType::RegularFile {
        return Err(Error::File("not a regular file.".into()));
    }
    // Some have a device of their own, which says nothing: so this comes before it is asked for.
    let system = rustix::fs::fstatfs(file).map_err(|errno| file_error("fstatfs", errno))?;
    let kind = system.f_type as u64 & 0xffff_ffff;
    if let Some(why) = refusal(kind) {
        return Err(Error::File(why.into()));
    }
    let devno = Devno {
        major: rustix::fs::major(info.st_dev),
        minor: rustix::fs::minor(info.st_dev),
    };
    if kind == XFS && is_realtime(file) {
        return Err(Error::File(
            "it is on the realtime device of its XFS, not on its data device.".into(),
        ));
    }
    let room = system.f_blocks.saturating_mul(system.f_frsize as u64);
    if kind == F2FS && has_several_devices(room, bytes_of(devno)) {
        return Err(Error::File(
            "its f2fs has several devices, and does not tell on which of them a file is.".into(),
        ));
    }
    Ok(devno)
}

/// Whether a file of an XFS is on its realtime device.
fn is_realtime(file: &File) -> bool {
    let mut attributes = vec![0; 28];
    let known = ioctl::call(file, Kind::Attributes, &mut attributes).is_ok();
    known && ioctl::get_u32(&attributes, 0) & REALTIME != 0
}

/// Whether an f2fs with room for so many bytes has more devices than the one of this size on which it begins: the
/// places of its files count on from one to the next.
fn has_several_devices(room: u64, device: Option<u64>) -> bool {
    device.is_none_or(|device| room.saturating_add(F2FS_HEAD) > device)
}

/// The size of a device; none if there is none of this number.
fn bytes_of(devno: Devno) -> Option<u64> {
    let sectors = std::fs::read_to_string(format!("/sys/dev/block/{devno}/size")).ok()?;
    sectors.trim().parse::<u64>().ok()?.checked_mul(SECTOR)
}

/// Where a file is. With `sync` what is in memory is written first; else it is skipped, as it has no place.
pub fn of_file(file: &File, sync: bool) -> Result<Extents> {
    Ok(Extents::new(&gather(|from| fetch(file, from, sync))?))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::Ordering;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use proptest::prelude::*;

    fn raw(logical: u64, physical: u64, len: u64, flags: u32) -> RawExtent {
        RawExtent {
            logical: logical * 4096,
            physical: physical * 4096,
            len: len * 4096,
            flags,
        }
    }

    #[test]
    fn a_link_has_the_name_of_its_file() {
        let folder = std::env::temp_dir().join(format!("dmstats-name-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("f"), "").unwrap();
        std::os::unix::fs::symlink("f", folder.join("link")).unwrap();
        assert_eq!(name(&folder.join("link")), "f");
        assert_eq!(name(&folder.join("f")), "f");
        assert_eq!(name(&folder.join("none")), "none");
        assert_eq!(name(Path::new("/")), "");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a20_one_extent_is_one_place() {
        assert_eq!(
            Extents::new(&[raw(0, 100, 2048, LAST)]).places,
            [(800, 16_384)]
        );
    }

    #[test]
    fn a26_what_is_side_by_side_on_the_device_is_one_place() {
        let unwritten = 0x800;
        let parts = [
            raw(0, 100, 120, unwritten),
            raw(120, 220, 16, 0),
            raw(136, 236, 120, unwritten | LAST),
        ];
        assert_eq!(Extents::new(&parts).places, [(800, 2048)]);
        let apart = [raw(0, 100, 1, 0), raw(1, 102, 1, 0), raw(2, 99, 1, LAST)];
        assert_eq!(Extents::new(&apart).places, [(792, 16), (816, 8)]);
    }

    #[test]
    fn a16_what_has_no_place_yet_is_skipped() {
        for flag in [
            DELALLOC | UNKNOWN,
            UNKNOWN,
            INLINE | NOT_ALIGNED,
            ENCODED,
            TAIL,
        ] {
            let extents = Extents::new(&[raw(0, 0, 4, flag), raw(4, 10, 1, LAST)]);
            assert_eq!((extents.places, extents.skipped), (vec![(80, 8)], 1));
        }
        let wild = RawExtent {
            logical: 0,
            physical: u64::MAX,
            len: 4096,
            flags: 0,
        };
        assert_eq!(Extents::new(&[wild]).skipped, 1);
    }

    #[test]
    fn f18_shared_blocks_are_noticed() {
        assert!(Extents::new(&[raw(0, 1, 1, SHARED | LAST)]).shared);
        assert!(!Extents::new(&[raw(0, 1, 1, LAST)]).shared);
    }

    #[test]
    fn a23_the_size_of_a_batch_makes_no_difference() {
        let file: Vec<RawExtent> = (0..5000)
            .map(|index| {
                raw(
                    index * 2,
                    100 + index * 3,
                    1,
                    if index == 4999 { LAST } else { 0 },
                )
            })
            .collect();
        for size in [1, 36, 65_536] {
            let mut calls = 0;
            let gathered = gather(|from| {
                calls += 1;
                Ok(file
                    .iter()
                    .filter(|extent| extent.logical >= from)
                    .take(size)
                    .copied()
                    .collect())
            });
            assert_eq!(Extents::new(&gathered.unwrap()).places.len(), 5000);
            assert_eq!(calls, 5000usize.div_ceil(size));
        }
    }

    #[test]
    fn a_file_system_that_goes_in_circles_ends() {
        let mut calls = 0;
        let gathered = gather(|_| {
            calls += 1;
            Ok(vec![raw(0, 5, 0, 0)])
        });
        assert_eq!((gathered.unwrap().len(), calls), (1, 1));
    }

    #[test]
    fn a46_each_refused_file_system_has_its_own_sentence() {
        assert_eq!(
            refusal(0x9123_683e),
            Some("btrfs does not provide physical FIEMAP extent data.")
        );
        let mut said: Vec<_> = REFUSED.iter().map(|(_, why)| why).collect();
        said.sort_unstable();
        said.dedup();
        assert_eq!(said.len(), REFUSED.len());
        // ext4, XFS and f2fs are not among them.
        assert_eq!([0xef53, XFS, F2FS].map(refusal), [None; 3]);
    }

    #[test]
    fn an_f2fs_on_one_device_has_less_room_than_that() {
        const MIB: u64 = 1 << 20;
        assert!(!has_several_devices(398 * MIB, Some(400 * MIB)));
        for (room, device) in [
            (400 * MIB, Some(400 * MIB)),
            (798 * MIB, Some(400 * MIB)),
            (398 * MIB, None),
        ] {
            assert!(has_several_devices(room, device));
        }
    }

    #[test]
    fn who_has_a_lease_on_a_file_is_waited_for() {
        let path = std::env::temp_dir().join(format!("dmstats-lease-{}", std::process::id()));
        std::fs::write(&path, "").unwrap();
        let asked = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(libc::SIGIO, Arc::clone(&asked)).unwrap();
        let holder = File::options().write(true).open(&path).unwrap();
        let lease = |kind: libc::c_int| {
            // SAFETY: the descriptor is open, and there are no pointers.
            #[allow(unsafe_code)]
            let set = unsafe { libc::fcntl(holder.as_raw_fd(), libc::F_SETLEASE, kind) };
            assert_eq!(set, 0, "{}", io::Error::last_os_error());
        };
        lease(libc::F_WRLCK);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !asked.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                lease(libc::F_UNLCK);
            });
            let mut text = String::new();
            open(&path).unwrap().read_to_string(&mut text).unwrap();
        });
        std::fs::remove_file(&path).unwrap();
        // What is no file is seen, and not opened.
        let null = open(Path::new("/dev/null")).unwrap();
        assert!(device_of(&null).is_err() && (&null).read(&mut [0]).is_err());
    }

    proptest! {
        #[test]
        fn a27_places_have_every_sector_once(extents in proptest::collection::vec((0u64..60, 1u64..9), 0..20)) {
            let raws: Vec<RawExtent> = extents.iter().map(|(at, len)| raw(0, *at, *len, 0)).collect();
            let found = Extents::new(&raws);
            let mut blocks: Vec<u64> = extents.iter().flat_map(|(at, len)| *at..at + len).collect();
            blocks.sort_unstable();
            blocks.dedup();
            prop_assert_eq!(found.sectors(), blocks.len() as u64 * 8);
            prop_assert!(found.places.windows(2).all(|pair| pair[0].0 + pair[0].1 < pair[1].0));
            for block in blocks {
                prop_assert!(found.places.iter().any(|(at, len)| *at <= block * 8 && block * 8 + 8 <= at + len));
            }
        }
    }
}
