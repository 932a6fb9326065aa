// SPDX-License-Identifier: GPL-2.0

//! Which blocks of the metadata device are in use: the space map, in memory and on disk. Pure.
//!
//! On disk it is an index block and up to 255 bitmaps, with two bits for each block: 0 for a free
//! one, 1 for one in use. (2 and 3 are for blocks that are shared, which this format never has.)
//! It is kept in memory whole: a bitmap stands for 64 MiB of metadata.
//!
//! The blocks of the last commit are never written: a transaction puts everything that it changes
//! into free blocks, the bitmaps and the index too. A block that it releases stays as it is, and
//! becomes free with the transaction.
//!
//! Blocks are taken from one bitmap as long as it has any: each bitmap that a transaction changes
//! is one more block to write.

use super::{
    block::{
        self,
        get_u64,
        put_u32,
        put_u64,
        Damage,
        Kind, //
    },
    format::{
        BLOCK_SIZE,
        MAX_BLOCKS, //
    },
    platform::{
        array,
        push,
        with_room,
        Array,
        NoMemory, //
    },
    region_map::word_count, //
};

/// Where the entries of a bitmap begin.
const ENTRIES: usize = 16;
/// How many blocks a bitmap accounts for.
const BITMAP_BLOCKS: u64 = (BLOCK_SIZE as u64 - ENTRIES as u64) * 4;
/// How many entries are looked at together.
const WORD_ENTRIES: u64 = 32;
/// The lower bit of each entry in a word.
const EACH: u64 = 0x5555_5555_5555_5555;
/// An entry of a block in use: the first of its bits is the higher one.
const IN_USE: u64 = 0b10;

/// What is in the superblock of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Root {
    /// How many blocks there are.
    pub blocks: u64,
    /// How many are in use.
    pub allocated: u64,
    /// The index block.
    pub index: u64,
    /// The tree of counts above 2. It is always empty, and never changes.
    pub counts: u64,
}

impl Root {
    /// Reads the root from its bytes in the superblock.
    pub fn decode(bytes: &[u8]) -> Self {
        Root {
            blocks: get_u64(bytes, 0),
            allocated: get_u64(bytes, 8),
            index: get_u64(bytes, 16),
            counts: get_u64(bytes, 24),
        }
    }

    /// Writes the root to its bytes in the superblock.
    pub fn encode(&self, bytes: &mut [u8]) {
        put_u64(bytes, 0, self.blocks);
        put_u64(bytes, 8, self.allocated);
        put_u64(bytes, 16, self.index);
        put_u64(bytes, 24, self.counts);
    }
}

struct Bitmap {
    at: u64,
    image: Array<u8>,
    /// Entries that are 0, also those past the last block.
    free: u32,
    /// No entry before this one is 0.
    first_free: u32,
    /// The transaction has changed it.
    changed: bool,
    /// The transaction has given it a new place.
    moved: bool,
}

/// The space map, with what a transaction has changed of it.
pub struct SpaceMap {
    root: Root,
    /// Blocks from here on are not on the device.
    end: u64,
    index: Array<u8>,
    bitmaps: Array<Bitmap>,
    /// Blocks are taken from this one of the bitmaps, of which there is always one: what has no
    /// blocks is not opened.
    current: usize,
    /// Blocks of the last commit that the transaction does not need any more.
    released: Array<u64>,
    /// Blocks that were claimed, a bit each, while there is something to claim.
    claimed: Array<u64>,
}

/// How many bitmaps a device of `blocks` blocks has.
pub fn bitmap_count(blocks: u64) -> u64 {
    let blocks = blocks.min(MAX_BLOCKS);
    blocks / BITMAP_BLOCKS + u64::from(blocks % BITMAP_BLOCKS != 0)
}

fn damage(block: u64, kind: Kind, reason: &'static str) -> Damage {
    Damage {
        block,
        kind,
        reason,
    }
}

/// Why it could not be opened.
pub enum OpenError<E> {
    /// There was not enough memory.
    NoMemory(NoMemory),
    /// A block is not what it should be.
    Damage(Damage),
    /// The device failed.
    Device(E),
}

impl<E> From<NoMemory> for OpenError<E> {
    fn from(error: NoMemory) -> Self {
        OpenError::NoMemory(error)
    }
}

impl<E> From<Damage> for OpenError<E> {
    fn from(error: Damage) -> Self {
        OpenError::Damage(error)
    }
}

impl SpaceMap {
    /// Reads the space map at `root`, of a device of `device_blocks` blocks; `read` reads a block.
    pub fn open<E>(
        root: Root,
        device_blocks: u64,
        mut read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<Self, OpenError<E>> {
        let mut index = block::zeroed(1)?;
        let wrong_root = |reason| damage(root.index, Kind::Index, reason);
        if root.blocks == 0 || root.blocks > MAX_BLOCKS {
            return Err(wrong_root("impossible number of blocks").into());
        }
        let mut map = SpaceMap {
            root,
            end: root.blocks.min(device_blocks),
            index: with_room(0)?,
            bitmaps: with_room(bitmap_count(root.blocks) as usize)?,
            current: 0,
            released: with_room(0)?,
            claimed: array(word_count(root.blocks), 0)?,
        };
        if root.index >= map.end {
            return Err(wrong_root("beyond the end of the device").into());
        }
        read(root.index, &mut index).map_err(OpenError::Device)?;
        block::check(Kind::Index, &index, root.index)?;

        let mut allocated = 0;
        for number in 0..bitmap_count(root.blocks) as usize {
            let at = get_u64(&index, index_entry(number));
            let mut image = block::zeroed(1)?;
            if at >= map.end {
                return Err(damage(at, Kind::Bitmap, "beyond the end of the device").into());
            }
            read(at, &mut image).map_err(OpenError::Device)?;
            block::check(Kind::Bitmap, &image, at)?;
            // Counted, not believed: what the index says of a bitmap is only there to be faster.
            let (used, first_free) = count(&image, at)?;
            allocated += u64::from(used);
            let bitmap = Bitmap {
                at,
                image,
                free: BITMAP_BLOCKS as u32 - used,
                first_free,
                changed: false,
                moved: false,
            };
            push(&mut map.bitmaps, bitmap)?;
        }
        map.root.allocated = allocated;
        map.index = index;
        map.current = map.next_bitmap();

        map.claim(0, Kind::Index)?;
        map.claim(root.index, Kind::Index)?;
        map.claim(root.counts, Kind::Index)?;
        for number in 0..map.bitmaps.len() {
            map.claim(map.bitmaps[number].at, Kind::Bitmap)?;
        }
        Ok(map)
    }

    /// Checks that a block which something refers to is in use, and referred to only once.
    pub fn claim(&mut self, number: u64, kind: Kind) -> Result<(), Damage> {
        if number >= self.end {
            return Err(damage(number, kind, "beyond the end of the device"));
        }
        let (bitmap, entry) = place(number);
        if entry_of(&self.bitmaps[bitmap].image, entry) != IN_USE {
            return Err(damage(number, kind, "the space map has it as free"));
        }
        let (word, bit) = ((number / 64) as usize, number % 64);
        if self.claimed[word] >> bit & 1 != 0 {
            return Err(damage(number, kind, "in use twice"));
        }
        self.claimed[word] |= 1 << bit;
        Ok(())
    }

    /// Everything was claimed. A transaction will not release more than `most` blocks, apart from
    /// those of the space map.
    pub fn end_claims(&mut self, most: usize) -> Result<(), NoMemory> {
        self.claimed = with_room(0)?;
        self.released = with_room(most + self.bitmaps.len() + 1)?;
        Ok(())
    }

    /// The root, as of the transaction.
    pub fn root(&self) -> Root {
        self.root
    }

    /// How many blocks a transaction that has not begun yet may allocate.
    pub fn free(&self) -> u64 {
        self.end.saturating_sub(self.root.allocated)
    }

    /// How many blocks the space map itself may need in a transaction.
    pub fn own_blocks(&self) -> u64 {
        self.bitmaps.len() as u64 + 1
    }

    /// Takes a block that is free, and was so before the transaction.
    pub fn allocate(&mut self) -> Option<u64> {
        if self.room_in(self.current) == 0 {
            self.current = self.next_bitmap();
        }
        let end = self.entries_in(self.current);
        let bitmap = &mut self.bitmaps[self.current];
        let entry = find_free(&bitmap.image, u64::from(bitmap.first_free), end)?;
        set_entry(&mut bitmap.image, entry, IN_USE);
        bitmap.free -= 1;
        bitmap.first_free = entry as u32 + 1;
        bitmap.changed = true;
        self.root.allocated += 1;
        Some(self.current as u64 * BITMAP_BLOCKS + entry)
    }

    /// How many entries of a bitmap are for blocks that the device has.
    fn entries_in(&self, bitmap: usize) -> u64 {
        let first = bitmap as u64 * BITMAP_BLOCKS;
        self.end.saturating_sub(first).min(BITMAP_BLOCKS)
    }

    /// How many blocks can be taken from a bitmap.
    fn room_in(&self, bitmap: usize) -> u64 {
        let beyond = BITMAP_BLOCKS - self.entries_in(bitmap);
        u64::from(self.bitmaps[bitmap].free).saturating_sub(beyond)
    }

    /// The bitmap to take blocks from: the first that has room for a while, since most of what is
    /// released is in the first ones; else the one with most room.
    fn next_bitmap(&self) -> usize {
        let all = 0..self.bitmaps.len();
        all.clone()
            .find(|&bitmap| self.room_in(bitmap) >= BITMAP_BLOCKS / 4)
            .or_else(|| all.max_by_key(|&bitmap| self.room_in(bitmap)))
            .unwrap_or(0)
    }

    /// Gives back a block of the last commit.
    pub fn release(&mut self, number: u64) -> Result<(), NoMemory> {
        self.bitmaps[place(number).0].changed = true;
        push(&mut self.released, number)
    }

    /// Ends the changes of a transaction: gives new places to the bitmaps that have changed and to
    /// the index, and completes them for [`changed`](Self::changed). None if there is no room.
    pub fn relocate(&mut self) -> Option<()> {
        let index = self.allocate()?;
        self.release(self.root.index).ok()?;
        self.root.index = index;
        // To move a bitmap may change another one.
        while let Some(number) = self.bitmaps.iter().position(|b| b.changed && !b.moved) {
            let at = self.allocate()?;
            self.release(self.bitmaps[number].at).ok()?;
            self.bitmaps[number].at = at;
            self.bitmaps[number].moved = true;
        }
        for &number in self.released.iter() {
            let (bitmap, entry) = place(number);
            let bitmap = &mut self.bitmaps[bitmap];
            set_entry(&mut bitmap.image, entry, 0);
            bitmap.free += 1;
            bitmap.first_free = bitmap.first_free.min(entry as u32);
            self.root.allocated -= 1;
        }
        self.released.clear();
        for (number, bitmap) in self.bitmaps.iter_mut().enumerate() {
            if bitmap.moved {
                block::seal(Kind::Bitmap, &mut bitmap.image, bitmap.at);
                let entry = index_entry(number);
                put_u64(&mut self.index, entry, bitmap.at);
                put_u32(&mut self.index, entry + 8, bitmap.free);
                put_u32(&mut self.index, entry + 12, bitmap.first_free);
            }
        }
        block::seal(Kind::Index, &mut self.index, self.root.index);
        Some(())
    }

    /// The blocks that [`relocate`](Self::relocate) has completed, and where they go.
    pub fn changed(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let bitmaps = self.bitmaps.iter().filter(|bitmap| bitmap.moved);
        bitmaps
            .map(|bitmap| (bitmap.at, &bitmap.image[..]))
            .chain(core::iter::once((self.root.index, &self.index[..])))
    }

    /// The transaction is durable.
    pub fn end_transaction(&mut self) {
        for bitmap in self.bitmaps.iter_mut() {
            bitmap.changed = false;
            bitmap.moved = false;
        }
    }
}

/// The bitmap that a block is in, and its entry there.
fn place(number: u64) -> (usize, u64) {
    ((number / BITMAP_BLOCKS) as usize, number % BITMAP_BLOCKS)
}

/// Where the index has its entry of a bitmap.
fn index_entry(number: usize) -> usize {
    16 + 16 * number
}

fn word_at(entry: u64) -> usize {
    ENTRIES + (entry / WORD_ENTRIES) as usize * 8
}

fn entry_of(image: &[u8], entry: u64) -> u64 {
    get_u64(image, word_at(entry)) >> (2 * (entry % WORD_ENTRIES)) & 0b11
}

fn set_entry(image: &mut [u8], entry: u64, value: u64) {
    let shift = 2 * (entry % WORD_ENTRIES);
    let word = get_u64(image, word_at(entry)) & !(0b11 << shift) | value << shift;
    put_u64(image, word_at(entry), word);
}

/// The first entry from `from` on and before `end` that is 0.
fn find_free(image: &[u8], from: u64, end: u64) -> Option<u64> {
    let mut entry = from;
    while entry < end {
        let word = get_u64(image, word_at(entry));
        let skipped = u64::MAX << (2 * (entry % WORD_ENTRIES));
        let free = !(word | word >> 1) & EACH & skipped;
        let first = entry - entry % WORD_ENTRIES;
        if free != 0 {
            let found = first + u64::from(free.trailing_zeros() / 2);
            return (found < end).then_some(found);
        }
        entry = first + WORD_ENTRIES;
    }
    None
}

/// How many entries are in use, and which is the first that is not. None may be shared.
fn count(image: &[u8], at: u64) -> Result<(u32, u32), Damage> {
    let mut used = 0;
    for word in (0..BITMAP_BLOCKS).step_by(WORD_ENTRIES as usize) {
        let entries = get_u64(image, word_at(word));
        if entries & EACH != 0 {
            return Err(damage(at, Kind::Bitmap, "has blocks that are shared"));
        }
        used += entries.count_ones();
    }
    let first = find_free(image, 0, BITMAP_BLOCKS).unwrap_or(BITMAP_BLOCKS);
    Ok((used, first as u32))
}
