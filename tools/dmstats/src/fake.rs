// SPDX-License-Identifier: GPL-2.0

//! A kernel for tests: it answers messages as `dm-stats.c` does, keeps its limits, and counts what it is told.

use std::cell::Cell;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;

use rustix::io::Errno;

use crate::message;
use crate::reply;
use crate::reply::rising;
use crate::Counters;
use crate::DeviceInfo;
use crate::Devno;
use crate::Error;
use crate::Find;
use crate::Memory;
use crate::Result;
use crate::Target;
use crate::Transport;

const MAX_HISTOGRAM_ENTRIES: u64 = 134_217_728;
const REGION_BYTES: u64 = 65_664;
const AREA_BYTES: u64 = 224;

struct Stat {
    start: u64,
    end: u64,
    step: u64,
    precise: bool,
    bounds: Vec<u64>,
    program: Vec<u8>,
    aux: Vec<u8>,
    areas: Vec<Counters>,
    bins: Vec<Vec<u64>>,
    bytes: u64,
}

/// A device of the fake kernel.
struct FakeDevice {
    name: Vec<u8>,
    targets: Vec<Target>,
    stats: BTreeMap<u32, Stat>,
}

/// The fake kernel.
pub struct Fake {
    devices: RefCell<BTreeMap<u32, FakeDevice>>,
    limit: Cell<u64>,
    log: RefCell<Vec<String>>,
    unexpected: Cell<usize>,
    fail: RefCell<Option<(String, usize, Errno)>>,
}

impl Default for Fake {
    fn default() -> Self {
        Fake {
            devices: RefCell::default(),
            limit: Cell::new(1 << 30),
            log: RefCell::default(),
            unexpected: Cell::default(),
            fail: RefCell::default(),
        }
    }
}

fn refused(errno: Errno) -> Error {
    Error::Kernel {
        what: "device-mapper: message ioctl".into(),
        source: io::Error::from(errno),
    }
}

impl Fake {
    /// A kernel with one device, `0:0`, of so many sectors.
    pub fn new(sectors: u64) -> Self {
        let fake = Self::default();
        fake.add("d", &[sectors]);
        fake
    }

    /// Adds a device whose targets have so many sectors.
    pub fn add(&self, name: &str, targets: &[u64]) -> Devno {
        let mut devices = self.devices.borrow_mut();
        let minor = devices.len() as u32;
        let mut start = 0;
        let targets = targets.iter().map(|len| {
            let target = Target { start, len: *len };
            start += len;
            target
        });
        devices.insert(
            minor,
            FakeDevice {
                name: name.into(),
                targets: targets.collect(),
                stats: BTreeMap::new(),
            },
        );
        Devno { major: 0, minor }
    }

    /// Removes a device.
    pub fn remove(&self, devno: Devno) {
        self.devices.borrow_mut().remove(&devno.minor);
    }

    /// Lets statistics have so many bytes.
    pub fn set_limit(&self, bytes: u64) {
        self.limit.set(bytes);
    }

    /// Refuses the `nth` message from now on that begins with this word, counted from 0.
    pub fn fail(&self, word: &str, nth: usize, errno: Errno) {
        *self.fail.borrow_mut() = Some((word.into(), nth, errno));
    }

    /// The messages so far; they are forgotten.
    pub fn take_log(&self) -> Vec<String> {
        self.log.take()
    }

    /// How many answers were longer than was expected: the kernel would have had to begin anew.
    pub fn unexpected(&self) -> usize {
        self.unexpected.get()
    }

    /// A completed request of `sectors`, which took `ns`.
    pub fn account(&self, devno: Devno, write: bool, sector: u64, sectors: u64, ns: u64) {
        let mut devices = self.devices.borrow_mut();
        let Some(device) = devices.get_mut(&devno.minor) else {
            return;
        };
        for stat in device.stats.values_mut() {
            let (first, last) = (sector.max(stat.start), (sector + sectors).min(stat.end));
            let mut at = first;
            while at < last {
                let area = (at - stat.start) / stat.step;
                let end = last.min(stat.start + (area + 1) * stat.step);
                let time = if stat.precise { ns } else { ns / 1_000_000 };
                let index = area as usize;
                let counters = &mut stat.areas[index];
                if write {
                    counters.writes += 1;
                    counters.write_sectors += end - at;
                    counters.write_time += time;
                } else {
                    counters.reads += 1;
                    counters.read_sectors += end - at;
                    counters.read_time += time;
                }
                if let Some(bin) = stat.bins[index]
                    .get_mut(stat.bounds.iter().filter(|bound| **bound <= time).count())
                {
                    *bin += 1;
                }
                at = end;
            }
        }
    }

    fn used(devices: &BTreeMap<u32, FakeDevice>) -> u64 {
        devices
            .values()
            .flat_map(|device| device.stats.values())
            .map(|stat| stat.bytes)
            .sum()
    }

    fn create(&self, minor: u32, words: &[Vec<u8>]) -> std::result::Result<Vec<u8>, Errno> {
        let mut devices = self.devices.borrow_mut();
        let used = Self::used(&devices);
        let device = devices.get_mut(&minor).ok_or(Errno::NXIO)?;
        let mut words = words.iter().skip(1);
        let range = words.next().ok_or(Errno::INVAL)?;
        let (start, len) = if range == b"-" {
            (
                0,
                device
                    .targets
                    .iter()
                    .map(|target| target.len)
                    .sum::<u64>()
                    .max(1),
            )
        } else {
            let mut numbers = range.split(|byte| *byte == b'+').map(reply::number);
            match (numbers.next(), numbers.next(), numbers.next()) {
                (Some(Some(start)), Some(Some(len)), None) => (start, len),
                _ => return Err(Errno::INVAL),
            }
        };
        let end = start
            .checked_add(len)
            .filter(|end| *end > start)
            .ok_or(Errno::INVAL)?;
        let word = words.next().ok_or(Errno::INVAL)?;
        let step = match word.strip_prefix(b"/") {
            Some(areas) => len
                .div_ceil(
                    reply::number(areas)
                        .filter(|areas| *areas > 0)
                        .ok_or(Errno::INVAL)?,
                )
                .max(1),
            None => reply::number(word)
                .filter(|step| *step > 0)
                .ok_or(Errno::INVAL)?,
        };
        let (mut precise, mut bounds) = (false, Vec::new());
        let mut words = words.peekable();
        if let Some(count) = words.peek().and_then(|word| reply::number(word)) {
            words.next();
            for _ in 0..count {
                let option = words.next().ok_or(Errno::INVAL)?.to_ascii_lowercase();
                if option == b"precise_timestamps" {
                    precise = true;
                } else {
                    let list = option
                        .strip_prefix(b"histogram:")
                        .filter(|_| bounds.is_empty())
                        .ok_or(Errno::INVAL)?;
                    let numbers: Option<Vec<u64>> = list
                        .split(|byte| *byte == b',')
                        .map(reply::number)
                        .collect();
                    bounds = numbers
                        .filter(|bounds| rising(bounds))
                        .ok_or(Errno::INVAL)?;
                }
            }
        }
        let mut next = || words.next().cloned().unwrap_or_else(|| b"-".to_vec());
        let (program, aux) = (next(), next());
        if words.next().is_some() {
            return Err(Errno::INVAL);
        }
        let areas = len.div_ceil(step);
        let bins = bounds.len() as u64 + 1;
        if areas > reply::MAX_AREAS || bins * areas > MAX_HISTOGRAM_ENTRIES {
            return Err(Errno::OVERFLOW);
        }
        let bytes = REGION_BYTES + areas * (AREA_BYTES + if bins > 1 { 16 * bins } else { 0 });
        if used + bytes > self.limit.get() {
            return Err(Errno::NOMEM);
        }
        let id = (0..)
            .find(|id| !device.stats.contains_key(id))
            .ok_or(Errno::NFILE)?;
        let stat = Stat {
            start,
            end,
            step,
            precise,
            program,
            aux,
            areas: vec![Counters::default(); areas as usize],
            bins: vec![
                vec![
                    0;
                    if bounds.is_empty() {
                        0
                    } else {
                        bounds.len() + 1
                    }
                ];
                areas as usize
            ],
            bounds,
            bytes,
        };
        device.stats.insert(id, stat);
        Ok(id.to_string().into_bytes())
    }

    fn answer(&self, minor: u32, words: &[Vec<u8>]) -> std::result::Result<Vec<u8>, Errno> {
        let command = words.first().ok_or(Errno::INVAL)?.to_ascii_lowercase();
        if command == b"@stats_create" {
            return self.create(minor, words);
        }
        let mut devices = self.devices.borrow_mut();
        let device = devices.get_mut(&minor).ok_or(Errno::NXIO)?;
        if command == b"@stats_list" {
            let program = words.get(1);
            return if words.len() > 2 {
                Err(Errno::INVAL)
            } else {
                Ok(list(device, program))
            };
        }
        let id = words
            .get(1)
            .and_then(|word| reply::number(word))
            .and_then(|id| u32::try_from(id).ok());
        let id = id
            .filter(|id| *id <= crate::ids::MAX_ID)
            .ok_or(Errno::INVAL)?;
        let count = match command.as_slice() {
            b"@stats_set_aux" => 3,
            b"@stats_delete" | b"@stats_clear" | b"@stats_print" | b"@stats_print_clear" => 2,
            _ => return Err(Errno::INVAL),
        };
        if words.len() != count {
            return Err(Errno::INVAL);
        }
        let stat = device.stats.get_mut(&id).ok_or(Errno::NOENT)?;
        let mut answer = Vec::new();
        match command.as_slice() {
            b"@stats_set_aux" => stat.aux.clone_from(&words[2]),
            b"@stats_delete" => drop(device.stats.remove(&id)),
            b"@stats_clear" => stat.clear(),
            b"@stats_print" => answer = stat.print(),
            _ => {
                answer = stat.print();
                stat.clear();
            }
        }
        Ok(answer)
    }
}

impl Stat {
    fn clear(&mut self) {
        self.areas
            .iter_mut()
            .for_each(|area| *area = Counters::default());
        self.bins.iter_mut().flatten().for_each(|bin| *bin = 0);
    }

    /// The kernel prints the step of the last area too, also where the region ends before.
    fn print(&self) -> Vec<u8> {
        let mut text = String::new();
        for (index, (area, bins)) in self.areas.iter().zip(&self.bins).enumerate() {
            let _ = write!(
                text,
                "{}+{}",
                self.start + index as u64 * self.step,
                self.step
            );
            for value in area.row() {
                let _ = write!(text, " {value}");
            }
            for (bin, count) in bins.iter().enumerate() {
                let _ = write!(text, "{}{count}", if bin == 0 { ' ' } else { ':' });
            }
            text.push('\n');
        }
        text.into_bytes()
    }
}

fn list(device: &FakeDevice, program: Option<&Vec<u8>>) -> Vec<u8> {
    let mut text = Vec::new();
    for (id, stat) in device
        .stats
        .iter()
        .filter(|(_, stat)| program.is_none_or(|program| *program == stat.program))
    {
        text.extend(
            format!(
                "{id}: {}+{} {} ",
                stat.start,
                stat.end - stat.start,
                stat.step
            )
            .bytes(),
        );
        text.extend(&stat.program);
        text.push(b' ');
        text.extend(&stat.aux);
        if stat.precise {
            text.extend(b" precise_timestamps");
        }
        if !stat.bounds.is_empty() {
            let words: Vec<String> = stat.bounds.iter().map(u64::to_string).collect();
            text.extend(format!(" histogram:{}", words.join(",")).bytes());
        }
        text.push(b'\n');
    }
    text
}

impl Transport for Fake {
    fn devices(&self) -> Result<Vec<(Devno, Vec<u8>)>> {
        let devices = self.devices.borrow();
        Ok(devices
            .iter()
            .map(|(minor, device)| {
                (
                    Devno {
                        major: 0,
                        minor: *minor,
                    },
                    device.name.clone(),
                )
            })
            .collect())
    }

    fn info(&self, find: &Find) -> Result<DeviceInfo> {
        let devices = self.devices.borrow();
        let fits = |minor: u32, device: &FakeDevice| match find {
            Find::Name(name) => device.name == *name,
            Find::Uuid(_) => false,
            Find::Devno(devno) => devno.major == 0 && devno.minor == minor,
        };
        let (minor, device) = devices
            .iter()
            .find(|(minor, device)| fits(**minor, device))
            .ok_or_else(|| Error::NoDevice(find.to_string()))?;
        Ok(DeviceInfo {
            devno: Devno {
                major: 0,
                minor: *minor,
            },
            name: device.name.clone(),
            uuid: Vec::new(),
            open: 0,
            targets: device.targets.len() as u32,
            events: 0,
            suspended: false,
            read_only: false,
            live: true,
            inactive: false,
        })
    }

    fn targets(&self, devno: Devno, _: u32) -> Result<Vec<Target>> {
        let devices = self.devices.borrow();
        devices
            .get(&devno.minor)
            .map(|device| device.targets.clone())
            .ok_or_else(|| Error::NoDevice(devno.to_string()))
    }

    fn message(&self, devno: Devno, text: &[u8], expect: usize) -> Result<Vec<u8>> {
        let said = String::from_utf8_lossy(text).into_owned();
        if let Some((word, left, errno)) = &mut *self.fail.borrow_mut() {
            if said.starts_with(word.as_str()) {
                if *left == 0 {
                    return Err(refused(*errno));
                }
                *left -= 1;
            }
        }
        self.log.borrow_mut().push(said);
        if !self.devices.borrow().contains_key(&devno.minor) {
            return Err(Error::NoDevice(devno.to_string()));
        }
        let answer = self
            .answer(devno.minor, &message::split(text))
            .map_err(refused)?;
        if answer.len() > expect {
            self.unexpected.set(self.unexpected.get() + 1);
        }
        Ok(answer)
    }

    fn memory(&self) -> Option<Memory> {
        Some(Memory {
            used: Self::used(&self.devices.borrow()),
            limit: self.limit.get(),
        })
    }
}
