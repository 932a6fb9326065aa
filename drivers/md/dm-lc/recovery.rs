// SPDX-License-Identifier: GPL-2.0

//! Reading the log from its tail to its end. Pure.
//!
//! The rules are those of Documentation/admin-guide/device-mapper/dm-lc-rs-format.rst.

use super::{
    checksum::checksum,
    format::{
        Due,
        Extent,
        RecordHeader,
        Superblock, //
    },
    space::{
        BUFFERS,
        RECORD_SECTORS, //
    }, //
};
use core::fmt;

/// What reads the cache device.
pub trait Read {
    /// Why it could not.
    type Error;

    /// Reads from a sector on, until `memory` is full.
    fn read(&mut self, sector: u64, memory: &mut [u8]) -> Result<(), Self::Error>;
}

/// Why a log is not used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error<E> {
    /// The device could not be read.
    Device(E),
    /// The record with this id was durable, and is damaged.
    Damaged(u64),
}

/// A record that continues the log.
pub struct Record<'a> {
    header: RecordHeader<'a>,
    data_position: u64,
    /// What follows the header.
    data: &'a [u8],
    next: Due,
    epoch: u64,
    durable_id: u64,
}

impl<'a> Record<'a> {
    /// The record that is due, at the beginning of `bytes`. None if it is not there, or if it is
    /// longer than `bytes`. Does not look at the data.
    pub fn parse(bytes: &'a [u8], due: &Due, superblock: &Superblock) -> Option<Self> {
        let space = &superblock.space;
        let header = RecordHeader::decode(bytes, superblock)?;
        let says = header.header();
        if says.at != *due || says.epoch > superblock.epoch {
            return None;
        }
        let data_position = due.position + (header.bytes() >> 9) as u64;
        let data_sectors = header.data_sectors();
        let data = bytes.get(header.bytes()..)?;
        Some(Record {
            header,
            data_position,
            data: data.get(..(data_sectors as usize) << 9)?,
            next: Due {
                position: space.next_record(data_position + data_sectors),
                id: due.id + 1,
                chain: header.crc(),
            },
            epoch: says.epoch,
            durable_id: says.durable_id,
        })
    }

    /// What follows it.
    pub fn next(&self) -> Due {
        self.next
    }

    /// Whether all before it was flushed before it was written.
    pub fn follows_flush(&self) -> bool {
        self.durable_id + 1 == self.next.id
    }

    /// The position behind it.
    pub fn end(&self) -> u64 {
        self.data_position + ((self.data.len() >> 9) as u64)
    }

    /// Its extents, each with the position of its data and the data.
    pub fn extents(&self) -> impl Iterator<Item = (Extent, u64, &'a [u8])> + '_ {
        let mut at = 0usize;
        self.header.extents().map(move |extent| {
            let position = self.data_position + at as u64;
            let end = at + extent.data_sectors() as usize;
            let data = self.data.get(at << 9..end << 9).unwrap_or(&[]);
            at = end;
            (extent, position, data)
        })
    }

    /// Whether all data is as it was written.
    pub fn is_whole(&self) -> bool {
        self.extents()
            .all(|(extent, _, data)| is_whole(&extent, data))
    }
}

/// Whether the data of an extent is as it was written.
pub fn is_whole(extent: &Extent, data: &[u8]) -> bool {
    extent.discarded || checksum(extent.sector, data) == extent.crc
}

/// Goes through the log from the tail that the superblock names, and calls `apply` with each extent
/// in it, the position of its data, and the data; None if that was durable and is damaged. What was
/// promoted does not count: the backing device may have been written since. Returns what follows the
/// last record.
///
/// `window` is memory for twice [`RECORD_SECTORS`] at least.
pub fn walk<R: Read>(
    device: &mut R,
    superblock: &Superblock,
    window: &mut [u8],
    mut apply: impl FnMut(&Extent, u64, Option<&[u8]>),
) -> Result<Due, Error<R::Error>> {
    let mut due = superblock.tail;
    let mut durable_id = superblock.durable_id;
    let mut epoch = 0;
    let mut filled = Filled::default();
    loop {
        let bytes = filled
            .from(device, superblock, window, due.position)
            .map_err(Error::Device)?;
        let Some(record) = Record::parse(bytes, &due, superblock) else {
            break;
        };
        if record.epoch < epoch || runs_into_tail(&record, superblock) {
            break;
        }
        if due.id >= durable_id && !record.is_whole() {
            // Torn, or damaged: what comes later may know.
            durable_id = durable_by_later(device, superblock, window, &due)?;
            if durable_id <= due.id {
                return Ok(due);
            }
            filled = Filled::default();
            continue;
        }
        for (extent, position, data) in record.extents().filter(|(extent, ..)| !extent.promoted) {
            let data = is_whole(&extent, data).then_some(data);
            apply(&extent, position, data);
        }
        epoch = record.epoch;
        due = record.next();
    }
    if due.id < durable_id || due.id < durable_by_later(device, superblock, window, &due)? {
        return Err(Error::Damaged(due.id));
    }
    Ok(due)
}

/// What a check has found: displays as words for people.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Checked {
    /// How many records there are.
    pub records: u64,
    /// How many sectors of data are in them.
    pub sectors: u64,
    /// How many extents are not as they were written.
    pub damaged: u64,
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Checked {
            records,
            sectors,
            damaged,
        } = self;
        write!(f, "{records} records, {sectors} sectors, {damaged} damaged")
    }
}

/// Goes through the log from its tail to `end`, which is where a record begins, and calls `report`
/// with the id of the record and with each extent of it whose data is damaged. A damaged header is
/// an error: what is behind it cannot be read.
///
/// `window` is as for [`walk`].
pub fn check<R: Read>(
    device: &mut R,
    superblock: &Superblock,
    window: &mut [u8],
    end: u64,
    mut report: impl FnMut(u64, &Extent),
) -> Result<Checked, Error<R::Error>> {
    let mut due = superblock.tail;
    let mut filled = Filled::default();
    let mut checked = Checked::default();
    while due.position < end {
        let bytes = filled
            .from(device, superblock, window, due.position)
            .map_err(Error::Device)?;
        let record = Record::parse(bytes, &due, superblock).ok_or(Error::Damaged(due.id))?;
        for (extent, _, data) in record.extents().filter(|(extent, ..)| !extent.discarded) {
            checked.sectors += u64::from(extent.sectors);
            if !is_whole(&extent, data) {
                checked.damaged += 1;
                report(due.id, &extent);
            }
        }
        checked.records += 1;
        due = record.next();
    }
    Ok(checked)
}

/// Reads begin and end at multiples of so many sectors, which suits each block size that a device may have:
/// what is looked for may be at any sector.
const ALIGNMENT: u64 = 8;

/// What of the log is in the window.
#[derive(Default)]
struct Filled {
    position: u64,
    sectors: u64,
}

impl Filled {
    /// The bytes from `position` on: as many as a record may have, or as there are to the end of the
    /// log.
    fn from<'a, R: Read>(
        &mut self,
        device: &mut R,
        superblock: &Superblock,
        window: &'a mut [u8],
        position: u64,
    ) -> Result<&'a [u8], R::Error> {
        let space = &superblock.space;
        let wanted = RECORD_SECTORS.min(space.left(position));
        let end = self.position + self.sectors;
        if position < self.position || position + wanted > end {
            self.position = position / ALIGNMENT * ALIGNMENT;
            self.sectors = ((window.len() >> 9) as u64).min(space.left(self.position));
            let memory = &mut window[..(self.sectors as usize) << 9];
            device.read(space.sector(self.position), memory)?;
        }
        let from = ((position - self.position) as usize) << 9;
        let to = (self.sectors as usize) << 9;
        Ok(window.get(from..to).unwrap_or(&[]))
    }
}

/// Whether a record ends behind where the log may.
fn runs_into_tail(record: &Record<'_>, superblock: &Superblock) -> bool {
    record.next().position > superblock.tail.position + superblock.space.sectors()
}

/// What was under way at the same time begins so far behind a header at most.
const REACH: u64 = (BUFFERS as u64 + 1) * RECORD_SECTORS;

/// All records with lower ids were durable, by what the headers behind the record say that is due. Any number of
/// records may be written between two flushes, so what says so may be far behind it; but the next header is in
/// reach of the one before, whatever of what was under way has landed. So all that any of them leads to is looked
/// at, and who asks again for a record behind this one learns nothing new.
fn durable_by_later<R: Read>(
    device: &mut R,
    superblock: &Superblock,
    window: &mut [u8],
    due: &Due,
) -> Result<u64, Error<R::Error>> {
    let mut filled = Filled::default();
    let mut durable_id = 0;
    let mut position = due.position;
    let mut end = position + REACH;
    while position < end {
        let bytes = filled
            .from(device, superblock, window, position)
            .map_err(Error::Device)?;
        let header = RecordHeader::decode(bytes, superblock).map(|header| header.header());
        // At each sector: some may be of a session before, with newer ones in what was their data.
        if let Some(header) = header.filter(|header| header.at.position == position) {
            durable_id = durable_id.max(header.durable_id);
            end = position + REACH;
        }
        position += 1;
    }
    Ok(durable_id)
}
