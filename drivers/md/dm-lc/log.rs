// SPDX-License-Identifier: GPL-2.0

//! The head of the log: what is being put together in memory before it is written. Pure.
//!
//! There are [`BUFFERS`] buffers. One at most is *open*: writes [append](Log::append) to it. Each
//! gets a place for its data, copies it there without any lock, and says so by
//! [`complete`](Log::complete). A buffer that is *closed*, because it is full or because somebody
//! wants it durable, is *ready* when all data is in place: [`take_ready`](Log::take_ready) hands
//! out its [`Closed`] part, from which [`seal`](Closed::seal) makes the headers. It is then
//! written, and [freed](Log::free).
//!
//! Buffers are used, written and freed in the order of the log.
//!
//! As long as buffers become full before somebody wants them durable, a record has a header that ends
//! where a block of 4 KiB of the device does: then blocks of users are blocks of the device too.
//! Else it has the smallest.
//!
//! ```text
//!      start          tail                    end
//!   free | clean copies | what is not written back | free
//! ```
//!
//! What is written back stays for reads until the head needs its place: then the start moves on. It
//! never passes the tail.

use super::{
    format::{
        extents_in,
        Due,
        Extent,
        Header,
        Uuid, //
    },
    index::BLOCK_SECTORS,
    platform::{
        push,
        with_room,
        Array,
        NoMemory, //
    },
    space::{
        Space,
        BUFFERS,
        DATA_SECTORS,
        RECORD_SECTORS, //
    }, //
};
use core::mem::size_of;

/// The most room that is kept free for writes to come, in sectors.
const MAX_ROOM: u64 = 64 * RECORD_SECTORS;
/// How many extents there may be in a buffer.
const EXTENTS: usize = 1024;
/// How many records. The smallest that does not end a buffer has all the extents it can have.
const RECORDS: usize = EXTENTS / 28 + 2;

/// The place that a write was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The buffer.
    pub buffer: usize,
    /// The extent in the buffer.
    extent: usize,
    /// Where in the buffer's memory the data belongs, in sectors.
    pub offset: u32,
    /// Where in the log it is.
    pub position: u64,
    /// For how many sectors there is room; all or the first of those that were asked for.
    pub sectors: u32,
    /// How many discards had a place.
    discards: u64,
}

/// A record in a buffer.
#[derive(Clone, Copy)]
struct Record {
    /// The sector of its header in the buffer.
    offset: u32,
    /// The number of its first extent.
    first: usize,
    /// How many sectors its header has.
    header: u32,
}

/// What a buffer holds, for its headers.
pub struct Content {
    records: Array<Record>,
    extents: Array<Extent>,
}

impl Content {
    fn new() -> Result<Self, NoMemory> {
        Ok(Content {
            records: with_room(RECORDS)?,
            extents: with_room(EXTENTS)?,
        })
    }

    fn clear(&mut self) {
        self.records.clear();
        self.extents.clear();
    }
}

struct Buffer {
    /// None while it is being written.
    content: Option<Content>,
    /// Its first position.
    position: u64,
    /// The sectors in use.
    used: u32,
    /// Data that is being copied.
    in_flight: u32,
}

/// A buffer that is to be written.
pub struct Closed {
    /// Which one.
    pub buffer: usize,
    /// The position it belongs at.
    pub position: u64,
    /// How many sectors of it.
    pub sectors: u32,
    content: Content,
}

impl Closed {
    /// How many sectors it has of what was written, and of what was promoted.
    pub fn data_sectors(&self) -> (u64, u64) {
        let (mut written, mut promoted) = (0, 0);
        for extent in self.content.extents.iter() {
            let sectors = u64::from(extent.data_sectors());
            if extent.promoted {
                promoted += sectors;
            } else {
                written += sectors;
            }
        }
        (written, promoted)
    }

    /// Makes the headers. `store` is given each, with the sector of the buffer where it belongs.
    ///
    /// `due` is what the first record has to be; returned is what follows the last one. `memory` is
    /// for the largest.
    pub fn seal(
        &self,
        session: &Session,
        durable_id: u64,
        mut due: Due,
        memory: &mut [u8],
        mut store: impl FnMut(u32, &[u8]),
    ) -> Due {
        let Content { records, extents } = &self.content;
        for (number, record) in records.iter().enumerate() {
            let end = records.get(number + 1).map_or(extents.len(), |r| r.first);
            let extents = extents.get(record.first..end).unwrap_or(&[]);
            due.position = self.position + u64::from(record.offset);
            let says = Header {
                uuid: session.uuid,
                at: due,
                epoch: session.epoch,
                durable_id,
            };
            let (header, _) = memory.split_at_mut((record.header as usize) << 9);
            let crc = says.encode(extents.iter().copied(), header);
            store(record.offset, header);
            due = Due {
                position: due.position,
                id: due.id + 1,
                chain: crc,
            };
        }
        due.position = self.position + u64::from(self.sectors);
        due
    }
}

/// What all records of a session have in common.
#[derive(Clone, Copy)]
pub struct Session {
    /// The cache.
    pub uuid: Uuid,
    /// The number of the session.
    pub epoch: u64,
}

/// The buffers.
pub struct Log {
    space: Space,
    buffers: Array<Buffer>,
    /// The open buffer, if one is open: it is the one behind the closed ones.
    is_open: bool,
    /// The buffer before was closed because it was full.
    streams: bool,
    /// The oldest buffer in use, and how many are: being written, closed, open.
    oldest: usize,
    writing: usize,
    closed: usize,
    /// The position where the next buffer begins.
    head: u64,
    /// What is at lower positions is written back.
    tail: u64,
    /// What is at lower positions is free to be overwritten.
    start: u64,
    /// The position behind the last write or discard.
    last_change: u64,
    /// How many discards were given a place.
    discards: u64,
}

impl Log {
    /// Buffers in which nothing is. May sleep.
    pub fn new(space: Space) -> Result<Self, NoMemory> {
        let mut buffers = with_room(BUFFERS)?;
        for _ in 0..BUFFERS {
            let content = Some(Content::new()?);
            let _ = push(
                &mut buffers,
                Buffer {
                    content,
                    position: 0,
                    used: 0,
                    in_flight: 0,
                },
            );
        }
        Ok(Log {
            space,
            buffers,
            is_open: false,
            streams: false,
            oldest: 0,
            writing: 0,
            closed: 0,
            head: space.first_position(),
            tail: space.first_position(),
            start: space.first_position(),
            last_change: 0,
            discards: 0,
        })
    }

    /// How many bytes of memory it has.
    pub fn bytes() -> usize {
        BUFFERS * (EXTENTS * size_of::<Extent>() + RECORDS * size_of::<Record>())
    }

    /// Says where the log is after recovery.
    pub fn start(&mut self, tail: u64, head: u64) {
        self.tail = tail;
        self.start = tail;
        self.head = head;
    }

    /// How many sectors of the log are not written back.
    pub fn used(&self) -> u64 {
        // The tail is where the next record begins, perhaps behind a gap.
        self.end().saturating_sub(self.tail)
    }

    /// How many sectors more may be written before something has to be written back.
    #[inline]
    pub fn room(&self) -> u64 {
        self.space.sectors().saturating_sub(self.used())
    }

    /// The position behind all that was appended.
    pub fn end(&self) -> u64 {
        match self.open() {
            Some(buffer) => {
                let buffer = &self.buffers[buffer];
                buffer.position + u64::from(buffer.used)
            }
            None => self.head,
        }
    }

    /// What is at lower positions is written back.
    pub fn tail(&self) -> u64 {
        self.tail
    }

    /// Notes that what is before `tail` is written back.
    pub fn set_tail(&mut self, tail: u64) {
        self.tail = tail;
    }

    /// Where the log should start, so that it has room enough; None if it has, or if all the rest
    /// has to be written back first. `more`: whether a quarter of the log is to be given up at any
    /// rate.
    pub fn next_start(&self, more: bool) -> Option<u64> {
        let sectors = self.space.sectors();
        let enough = (sectors / 16).clamp(2 * RECORD_SECTORS, MAX_ROOM);
        let end = self.space.next_record(self.end());
        let wanted = if more {
            self.start + sectors / 4
        } else if self.start + sectors < end + enough {
            // For a while.
            (end + 2 * enough).saturating_sub(sectors)
        } else {
            return None;
        };
        let start = wanted.min(self.tail);
        (start > self.start).then_some(start)
    }

    /// What is at lower positions is free.
    pub fn start_position(&self) -> u64 {
        self.start
    }

    /// Gives what is before `start` free: nobody reads it any more.
    pub fn set_start(&mut self, start: u64) {
        self.start = start;
    }

    fn nth(&self, number: usize) -> usize {
        (self.oldest + number) % BUFFERS
    }

    fn open(&self) -> Option<usize> {
        self.is_open.then(|| self.nth(self.writing + self.closed))
    }

    /// The position behind the last write or discard that was appended: of this session, else 0.
    pub fn last_change(&self) -> u64 {
        self.last_change
    }

    /// A place for a write of `sectors` sectors from `sector` on. None if there is no room at the
    /// moment, in memory or on the device.
    ///
    /// [`complete`](Self::complete) is owed for the place.
    #[inline]
    pub fn append(&mut self, sector: u64, sectors: u32) -> Option<Place> {
        let extent = Extent {
            sector,
            sectors: sectors.min(DATA_SECTORS),
            crc: 0,
            discarded: false,
            promoted: false,
        };
        self.add(extent)
    }

    /// A place for a note that sectors are discarded; as [`append`](Self::append).
    pub fn append_discard(&mut self, sector: u64, sectors: u32) -> Option<Place> {
        let extent = Extent {
            sector,
            sectors,
            crc: 0,
            discarded: true,
            promoted: false,
        };
        self.add(extent)
    }

    /// A place for a copy of what the backing device has; as [`append`](Self::append). None as well
    /// when it would take room that writes may need soon: half of the buffers, and the last quarter
    /// of the log, are theirs.
    pub fn append_promoted(&mut self, sector: u64, sectors: u32) -> Option<Place> {
        let is_busy = self.writing + self.closed >= BUFFERS / 2;
        if is_busy || self.room() < self.space.sectors() / 4 || sectors > DATA_SECTORS {
            return None;
        }
        self.add(Extent {
            sector,
            sectors,
            crc: 0,
            discarded: false,
            promoted: true,
        })
    }

    #[inline]
    fn add(&mut self, extent: Extent) -> Option<Place> {
        if let Some(open) = self.open() {
            if let Some(place) = self.add_to(open, extent) {
                return Some(place);
            }
            self.close();
            self.streams = true;
        }
        let open = self.open_next()?;
        self.add_to(open, extent)
    }

    fn add_to(&mut self, number: usize, extent: Extent) -> Option<Place> {
        let buffer = self.buffers.get_mut(number)?;
        let content = buffer.content.as_mut()?;
        let last = content.records.last();
        let needs_header = last.is_none_or(|last| {
            content.extents.len() - last.first >= extents_in((last.header as usize) << 9)
        });
        let smallest = self.space.header_sectors();
        let header = if self.streams {
            let position = buffer.position + u64::from(buffer.used);
            smallest.max((BLOCK_SECTORS - position % BLOCK_SECTORS) as u32)
        } else {
            smallest
        };
        let at = buffer.used + if needs_header { header } else { 0 };
        let end = at + extent.data_sectors();
        if u64::from(end) > RECORD_SECTORS || content.extents.len() == EXTENTS {
            return None;
        }
        if needs_header {
            // A record may begin here only if a reader looks for it here.
            let position = buffer.position + u64::from(buffer.used);
            if self.space.next_record(position) != position {
                return None;
            }
            let record = Record {
                offset: buffer.used,
                first: content.extents.len(),
                header,
            };
            push(&mut content.records, record).ok()?;
        }
        self.discards += u64::from(extent.discarded);
        let place = Place {
            buffer: number,
            extent: content.extents.len(),
            offset: at,
            position: buffer.position + u64::from(at),
            sectors: extent.sectors,
            discards: self.discards,
        };
        push(&mut content.extents, extent).ok()?;
        buffer.used = end;
        buffer.in_flight += 1;
        if !extent.promoted {
            self.last_change = buffer.position + u64::from(end);
        }
        Some(place)
    }

    fn open_next(&mut self) -> Option<usize> {
        let in_use = self.writing + self.closed;
        let position = self.space.next_record(self.head);
        let limit = self.start + self.space.sectors();
        if in_use == BUFFERS || position + RECORD_SECTORS > limit {
            return None;
        }
        let number = self.nth(in_use);
        let buffer = self.buffers.get_mut(number)?;
        buffer.content.as_mut()?.clear();
        buffer.position = position;
        buffer.used = 0;
        self.is_open = true;
        Some(number)
    }

    /// Closes the open buffer, if there is one. Returns the position behind all that was appended.
    pub fn close(&mut self) -> u64 {
        self.head = self.end();
        self.streams = false;
        self.closed += usize::from(self.is_open);
        self.is_open = false;
        self.head
    }

    /// The data is at its place, and the index knows. Whether it was the last for a buffer that
    /// waits to be written.
    #[inline]
    pub fn complete(&mut self, place: &Place, crc: u32) -> bool {
        let open = self.open();
        let Some(buffer) = self.buffers.get_mut(place.buffer) else {
            return false;
        };
        let content = buffer.content.as_mut();
        if let Some(extent) = content.and_then(|content| content.extents.get_mut(place.extent)) {
            extent.crc = crc;
        }
        buffer.in_flight -= 1;
        buffer.in_flight == 0 && open != Some(place.buffer)
    }

    /// Whether a discard was given a place after this one.
    #[inline]
    pub fn has_discarded_since(&self, place: &Place) -> bool {
        self.discards != place.discards
    }

    /// Whether the device has no room for another buffer, unless something is written back.
    pub fn is_full(&self) -> bool {
        let position = self.space.next_record(self.end());
        position + RECORD_SECTORS > self.tail + self.space.sectors()
    }

    /// Whether a buffer was opened for this place.
    #[inline]
    pub fn is_first(place: &Place) -> bool {
        place.extent == 0
    }

    /// Takes the next closed buffer, unless data is being copied to it.
    pub fn take_ready(&mut self) -> Option<Closed> {
        if self.closed == 0 {
            return None;
        }
        let number = self.nth(self.writing);
        let buffer = self.buffers.get_mut(number)?;
        if buffer.in_flight != 0 {
            return None;
        }
        let content = buffer.content.take()?;
        self.closed -= 1;
        self.writing += 1;
        Some(Closed {
            buffer: number,
            position: buffer.position,
            sectors: buffer.used,
            content,
        })
    }

    /// Gives back the oldest buffer that was taken, when it is written and nobody reads it.
    pub fn free(&mut self, closed: Closed) {
        if let Some(buffer) = self.buffers.get_mut(closed.buffer) {
            buffer.content = Some(closed.content);
        }
        self.oldest = (self.oldest + 1) % BUFFERS;
        self.writing -= 1;
    }

    /// The buffer that a position is in, and the sector in its memory.
    #[inline]
    pub fn find(&self, position: u64) -> Option<(usize, u32)> {
        let in_use = self.writing + self.closed + usize::from(self.is_open);
        (0..in_use).find_map(|number| {
            let number = self.nth(number);
            let buffer = &self.buffers[number];
            let offset = position.checked_sub(buffer.position)?;
            (offset < buffer.used.into()).then_some((number, offset as u32))
        })
    }
}
