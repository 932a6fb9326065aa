// SPDX-License-Identifier: GPL-2.0

//! A machine with a cache: the module's pure parts over two disks with volatile caches, of which
//! the power can be cut at any request, and what a user may expect of it afterwards.
#![allow(dead_code)]

use pure::lc::{
    batch::{
        self,
        Batch,
        Store,
        ASIDE_SECTORS, //
    },
    checksum::checksum,
    format::{
        find,
        BackingId,
        Due,
        Found,
        Lost,
        Superblock,
        HEADER_BYTES,
        SUPERBLOCK_BYTES,
        SUPERBLOCK_SECTORS, //
    },
    index::{
        parts,
        shard_of,
        Live,
        Part,
        Shard,
        Stored,
        SHARDS, //
    },
    log::{
        Log,
        Place,
        Session, //
    },
    platform::crc32c,
    recovery::{
        self,
        walk,
        Read, //
    },
    space::{
        Space,
        BUFFERS,
        RECORD_SECTORS, //
    }, //
};
use rand::{
    rngs::StdRng,
    Rng, //
};
use std::collections::BTreeMap;

pub const SECTOR: usize = 512;

/// The power is off.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub struct PowerCut;

/// A disk: what is durable, and what was written since the last flush, in order.
#[derive(Clone)]
pub struct Disk {
    pub durable: Vec<u8>,
    pub pending: Vec<(u64, Vec<u8>)>,
    /// How many writes and flushes there were.
    pub requests: u64,
    pub flushes: u64,
    pub sectors_written: u64,
}

impl Disk {
    pub fn new(sectors: u64) -> Self {
        Disk {
            durable: vec![0; sectors as usize * SECTOR],
            pending: Vec::new(),
            requests: 0,
            flushes: 0,
            sectors_written: 0,
        }
    }

    pub fn read(&self, sector: u64, memory: &mut [u8]) {
        let start = sector as usize * SECTOR;
        memory.copy_from_slice(&self.durable[start..start + memory.len()]);
        let end = start + memory.len();
        for (at, bytes) in &self.pending {
            let at = *at as usize * SECTOR;
            let (from, to) = (at.max(start), (at + bytes.len()).min(end));
            if from < to {
                memory[from - start..to - start].copy_from_slice(&bytes[from - at..to - at]);
            }
        }
    }

    fn put(&mut self, sector: u64, bytes: &[u8]) {
        let start = sector as usize * SECTOR;
        self.durable[start..start + bytes.len()].copy_from_slice(bytes);
    }

    fn write_through(&mut self) {
        for (sector, bytes) in std::mem::take(&mut self.pending) {
            self.put(sector, &bytes);
        }
    }

    /// The power goes: each sector that is not durable gets there or not.
    fn lose(&mut self, random: &mut StdRng) {
        let all = random.random_range(0..8);
        for (sector, bytes) in std::mem::take(&mut self.pending) {
            let whole = random.random_bool(0.5);
            for (number, piece) in bytes.chunks(SECTOR).enumerate() {
                let lands = match (all, whole) {
                    (0, _) => false,
                    (1, _) => true,
                    (2..=4, whole) => whole,
                    _ => random.random_bool(0.7),
                };
                if lands {
                    self.put(sector + number as u64, piece);
                }
            }
        }
    }
}

/// Both disks, and how many requests there are until the power goes.
#[derive(Clone)]
pub struct Power {
    pub left: Option<u64>,
}

impl Power {
    fn request(&mut self) -> Result<(), PowerCut> {
        match &mut self.left {
            Some(0) => Err(PowerCut),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

#[derive(Clone)]
pub struct Disks {
    pub cache: Disk,
    pub backing: Disk,
    pub power: Power,
}

impl Disks {
    fn write(
        &mut self,
        on: fn(&mut Disks) -> &mut Disk,
        at: u64,
        bytes: &[u8],
    ) -> Result<(), PowerCut> {
        let left = self.power.request();
        let disk = on(self);
        disk.requests += 1;
        disk.sectors_written += (bytes.len() / SECTOR) as u64;
        disk.pending.push((at, bytes.to_vec()));
        left
    }

    fn flush(&mut self, on: fn(&mut Disks) -> &mut Disk) -> Result<(), PowerCut> {
        self.power.request()?;
        let disk = on(self);
        disk.requests += 1;
        disk.flushes += 1;
        disk.write_through();
        Ok(())
    }

    fn cache(&mut self) -> &mut Disk {
        &mut self.cache
    }

    fn backing(&mut self) -> &mut Disk {
        &mut self.backing
    }
}

impl Read for Disks {
    type Error = PowerCut;

    fn read(&mut self, sector: u64, memory: &mut [u8]) -> Result<(), PowerCut> {
        // So that a device with blocks of 4096 bytes can do it.
        assert!(sector % 8 == 0 && memory.len() % 4096 == 0);
        self.cache.read(sector, memory);
        Ok(())
    }
}

/// A cache in use.
pub struct Machine {
    pub disks: Disks,
    pub superblock: Superblock,
    pub log: Log,
    pub shards: Vec<Shard>,
    memory: Vec<Vec<u8>>,
    pub due: Due,
    pub written: u64,
    pub durable_id: u64,
    pub durable_position: u64,
    batch: Option<Batch>,
    pub window_sectors: usize,
    /// Something was written to the backing disk around the log since the last flush.
    backing_written: bool,
    /// How many blocks outside of the window went along.
    pub aside: u64,
    /// What is written while a batch is: for each of its groups, the tag of what comes, or nothing.
    pub meanwhile: Vec<Option<u64>>,
    /// The blocks that were written then, and their tags.
    pub came: Vec<(u64, u64)>,
    /// What is written, also to the log, while a batch looks for what goes along: first sector, how many,
    /// and tag.
    pub when_looking_aside: Option<(u64, u32, u64)>,
    /// Skip the rule that what is superseded has to be durable: for a test of the test.
    pub break_superseded: bool,
    /// Discards do nothing.
    pub no_discards: bool,
    /// Or the rule that what was copied during a write around the log is forgotten.
    pub break_copies: bool,
    /// Or the rule that what the tail has not passed must not be gone around.
    pub break_around: bool,
}

/// Why a cache does not start.
#[derive(Debug, PartialEq, Eq)]
pub enum NoStart {
    PowerCut,
    Refused,
    Damaged(u64),
}

impl From<PowerCut> for NoStart {
    fn from(_: PowerCut) -> Self {
        NoStart::PowerCut
    }
}

impl Machine {
    /// Opens what is on the disks, or formats them. Gives the disks back when that fails.
    pub fn start(mut disks: Disks, header_sectors: u32) -> Result<Self, Box<(NoStart, Disks)>> {
        match Self::try_start(&mut disks, header_sectors) {
            Ok((superblock, log, shards, due)) => Ok(Machine {
                disks,
                superblock,
                log,
                shards,
                memory: vec![vec![0xee; RECORD_SECTORS as usize * SECTOR]; BUFFERS],
                due,
                written: due.position,
                durable_id: due.id,
                durable_position: due.position,
                batch: Some(Batch::new().unwrap()),
                window_sectors: 3000,
                backing_written: false,
                aside: 0,
                meanwhile: Vec::new(),
                came: Vec::new(),
                when_looking_aside: None,
                break_superseded: false,
                no_discards: false,
                break_copies: false,
                break_around: false,
            }),
            Err(error) => Err(Box::new((error, disks))),
        }
    }

    fn try_start(
        disks: &mut Disks,
        header_sectors: u32,
    ) -> Result<(Superblock, Log, Vec<Shard>, Due), NoStart> {
        let mut copies = [[0u8; SUPERBLOCK_BYTES]; 2];
        for (copy, sector) in copies.iter_mut().zip(SUPERBLOCK_SECTORS) {
            disks.cache.read(sector, copy);
        }
        let cache_sectors = (disks.cache.durable.len() / SECTOR) as u64;
        let mut superblock = match find([&copies[0], &copies[1]]) {
            Found::Cache(superblock) => superblock,
            Found::Refused(_) => return Err(NoStart::Refused),
            Found::Blank => {
                let space = Space::for_device(cache_sectors, header_sectors).unwrap();
                Superblock {
                    uuid: *b"0123456789abcdef",
                    sequence: 0,
                    epoch: 0,
                    space,
                    backing_sectors: (disks.backing.durable.len() / SECTOR) as u64,
                    backing_id: BackingId::UNKNOWN,
                    tail: Due {
                        position: space.first_position(),
                        id: 1,
                        chain: 0,
                    },
                    durable_id: 1,
                    clean: true,
                    ordered: false,
                    lost: Lost::NONE,
                }
            }
        };
        if superblock.space.end() > cache_sectors {
            return Err(NoStart::Refused);
        }
        let entries = superblock.space.sectors() / 8 * 9 / 8 / SHARDS as u64;
        let mut shards: Vec<Shard> = (0..SHARDS).map(|_| Shard::new(entries).unwrap()).collect();
        let mut window = vec![0; 2 * RECORD_SECTORS as usize * SECTOR];
        let found = superblock;
        let mut lost = superblock.lost;
        for (sector, sectors) in found.lost.runs() {
            for part in parts(sector, sectors) {
                let shard = &mut shards[shard_of(part.block)];
                assert!(shard.reserve());
                shard.insert_lost(&part);
            }
        }
        let due = walk(disks, &found, &mut window, |extent, position, data| {
            if data.is_none() {
                assert!(lost.add(extent.sector, extent.sectors));
            }
            for part in parts(extent.sector, extent.sectors) {
                let shard = &mut shards[shard_of(part.block)];
                if extent.discarded {
                    shard.forget(&part, position);
                    continue;
                }
                assert!(shard.reserve());
                let crc = data.map_or(0, |data| crc32c(part.of(data)));
                shard.insert(&part, position, crc, u64::MAX);
                if data.is_none() {
                    shard.lose(&part, position);
                }
            }
        })
        .map_err(|error| match error {
            recovery::Error::Device(PowerCut) => NoStart::PowerCut,
            recovery::Error::Damaged(id) => NoStart::Damaged(id),
        })?;
        superblock.lost = lost
            .filtered(|part| shards[shard_of(part.block)].lost(part))
            .unwrap();
        disks.flush(Disks::cache)?;
        superblock.epoch += 1;
        superblock.durable_id = due.id;
        superblock.clean = false;
        write_superblock(disks, &mut superblock)?;
        let mut log = Log::new(superblock.space).unwrap();
        log.start(superblock.tail.position, due.position);
        Ok((superblock, log, shards, due))
    }

    /// While a batch is written, its next block is overwritten, if there is room in memory.
    fn overwrite_meanwhile(&mut self, sector: u64) {
        let Some(Some(tag)) = self.meanwhile.pop() else {
            return;
        };
        let shard = shard_of(sector / 8);
        if !self.shards[shard].reserve() {
            return;
        }
        match self.log.append(sector, 8) {
            Some(place) if place.sectors == 8 => {
                self.put(&place, sector, tag);
                self.came.push((sector, tag));
            }
            place => {
                assert!(place.is_none(), "a block is divided");
                self.shards[shard].unreserve(1);
            }
        }
    }

    /// Puts sectors with this tag where there is room for them.
    fn put(&mut self, place: &Place, sector: u64, tag: u64) {
        let bytes = content(sector, place.sectors, tag);
        let at = place.offset as usize * SECTOR;
        self.memory[place.buffer][at..at + bytes.len()].copy_from_slice(&bytes);
        for part in parts(sector, place.sectors) {
            let crc = crc32c(part.of(&bytes));
            self.shards[shard_of(part.block)].insert(&part, place.position, crc, self.written);
        }
        self.log.complete(place, checksum(sector, &bytes));
    }

    /// Writes sectors with this tag; may write the log, and write back, when there is no room.
    pub fn write(&mut self, mut sector: u64, mut sectors: u32, tag: u64) -> Result<(), PowerCut> {
        while sectors > 0 {
            let needed = parts(sector, sectors.min(1024));
            let mut reserved = Vec::new();
            let room = needed.into_iter().all(|part| {
                let shard = shard_of(part.block);
                let got = self.shards[shard].reserve();
                if got {
                    reserved.push(shard);
                }
                got
            });
            let place = if room {
                self.log.append(sector, sectors)
            } else {
                None
            };
            let Some(place) = place else {
                for shard in reserved {
                    self.shards[shard].unreserve(1);
                }
                self.write_log()?;
                if !self.make_room(!room) && (!room || self.log.is_full()) {
                    self.write_back()?;
                }
                continue;
            };
            self.put(&place, sector, tag);
            sector += u64::from(place.sectors);
            sectors -= place.sectors;
        }
        Ok(())
    }

    /// Gives up what is clean, as far as there is no room otherwise; whether that made a difference.
    fn make_room(&mut self, index_is_full: bool) -> bool {
        let next = self.log.next_start(index_is_full);
        let sectors = next.map_or(0, |start| start - self.log.start_position());
        if let Some(start) = next {
            for shard in &mut self.shards {
                shard.give_up(start);
            }
            self.log.set_start(start);
        }
        let mut freed = 0;
        for shard in &mut self.shards {
            let count = if index_is_full {
                usize::MAX
            } else {
                sectors as usize / 8
            };
            freed += shard.sweep(count);
        }
        next.is_some() || freed != 0
    }

    /// Discards sectors, of which the backing disk is told as well.
    pub fn discard(&mut self, sector: u64, sectors: u32) -> Result<(), PowerCut> {
        if self.no_discards {
            return Ok(());
        }
        let place = loop {
            match self.log.append_discard(sector, sectors) {
                Some(place) => break place,
                None => {
                    self.write_log()?;
                    if !self.make_room(false) && self.log.is_full() {
                        self.write_back()?;
                    }
                }
            }
        };
        for part in parts(sector, sectors) {
            self.shards[shard_of(part.block)].forget(&part, place.position);
        }
        self.log.complete(&place, 0);
        if self.superblock.ordered {
            return Ok(());
        }
        let rubbish = vec![0xdd; sectors as usize * SECTOR];
        self.disks.write(Disks::backing, sector, &rubbish)?;
        self.forget_clean(sector, sectors);
        Ok(())
    }

    /// Forgets the copies that a recovery would not find. Whether there were no others.
    fn forget_clean(&mut self, sector: u64, sectors: u32) -> bool {
        let tail = if self.break_around {
            u64::MAX
        } else {
            self.log.tail()
        };
        let mut is_clean = true;
        for part in parts(sector, sectors) {
            is_clean &= self.shards[shard_of(part.block)].forget_clean(&part, tail);
        }
        is_clean
    }

    /// A write past the log begins. False if it has to be in the log.
    pub fn begin_around(&mut self, sector: u64, sectors: u32) -> bool {
        self.forget_clean(sector, sectors)
    }

    /// It is on the backing disk.
    pub fn land_around(&mut self, sector: u64, sectors: u32, tag: u64) -> Result<(), PowerCut> {
        let bytes = content(sector, sectors, tag);
        self.disks.write(Disks::backing, sector, &bytes)
    }

    /// It has ended.
    pub fn end_around(&mut self, sector: u64, sectors: u32) {
        self.backing_written = true;
        if self.break_copies || self.forget_clean(sector, sectors) {
            return;
        }
        // Something came into the log meanwhile. No batch is under way.
        let tail = self.log.tail();
        for part in parts(sector, sectors) {
            self.shards[shard_of(part.block)].disturb(&part, tail);
        }
    }

    /// A flush, when the cache device has failed.
    pub fn flush_past_the_cache(&mut self) {
        self.disks.backing.write_through();
    }

    /// Blocks are going to be copied from the backing disk: how many sectors, from the first on.
    pub fn expect(&mut self, sector: u64, sectors: u32) -> u32 {
        let expect = |part: &Part| self.shards[shard_of(part.block)].expect(part);
        parts(sector, sectors).take_while(expect).count() as u32 * 8
    }

    /// This was read from the backing disk, and is put into the log.
    pub fn arrive(&mut self, sector: u64, bytes: &[u8]) {
        let sectors = (bytes.len() / SECTOR) as u32;
        let Some(place) = self.log.append_promoted(sector, sectors) else {
            for part in parts(sector, sectors) {
                self.shards[shard_of(part.block)].cancel(&part);
            }
            return;
        };
        let at = place.offset as usize * SECTOR;
        self.memory[place.buffer][at..at + bytes.len()].copy_from_slice(bytes);
        for part in parts(sector, sectors) {
            let crc = crc32c(part.of(bytes));
            self.shards[shard_of(part.block)].arrive(&part, place.position, crc);
        }
        self.log.complete(&place, checksum(sector, bytes));
    }

    /// Writes sectors to the backing disk, if a recovery would find nothing of them; else to the log.
    pub fn write_around(&mut self, sector: u64, sectors: u32, tag: u64) -> Result<(), PowerCut> {
        if self.superblock.ordered || !self.begin_around(sector, sectors) {
            return self.write(sector, sectors, tag);
        }
        self.land_around(sector, sectors, tag)?;
        self.end_around(sector, sectors);
        Ok(())
    }

    /// Writes what is in memory.
    pub fn write_log(&mut self) -> Result<(), PowerCut> {
        self.log.close();
        let session = Session {
            uuid: self.superblock.uuid,
            epoch: self.superblock.epoch,
        };
        let mut header = vec![0; HEADER_BYTES];
        while let Some(closed) = self.log.take_ready() {
            let memory = &mut self.memory[closed.buffer];
            self.due = closed.seal(
                &session,
                self.durable_id,
                self.due,
                &mut header,
                |at, header| {
                    let at = at as usize * SECTOR;
                    memory[at..at + header.len()].copy_from_slice(header);
                },
            );
            let sector = self.superblock.space.sector(closed.position);
            let bytes = &self.memory[closed.buffer][..closed.sectors as usize * SECTOR];
            self.disks.write(Disks::cache, sector, bytes)?;
            self.written = self.due.position;
            self.log.free(closed);
        }
        Ok(())
    }

    pub fn flush(&mut self) -> Result<(), PowerCut> {
        self.write_log()?;
        if std::mem::take(&mut self.backing_written) {
            self.disks.flush(Disks::backing)?;
        }
        self.disks.flush(Disks::cache)?;
        self.durable_id = self.due.id;
        self.durable_position = self.written;
        Ok(())
    }

    /// Has the log written back in the order of flushes from now on.
    pub fn order(&mut self) -> Result<(), PowerCut> {
        assert_eq!(self.log.used(), 0);
        self.superblock.ordered = true;
        write_superblock(&mut self.disks, &mut self.superblock)
    }

    /// Writes one batch back.
    pub fn write_back(&mut self) -> Result<Option<u64>, PowerCut> {
        let mut batch = self.batch.take().unwrap();
        let window = self.window_sectors * SECTOR;
        let mut memory = vec![0; window + ASIDE_SECTORS as usize * SECTOR];
        let result = batch::write_back(self, &mut batch, &mut memory, window);
        self.batch = Some(batch);
        result.map_err(|error| match error {
            batch::Error::Cache(cut) | batch::Error::Backing(cut) => cut,
            batch::Error::Damaged(id) => panic!("record {id} is damaged"),
        })
    }

    pub fn is_lost(&self, sector: u64) -> bool {
        let part = parts(sector, 1).next().unwrap();
        self.shards[shard_of(part.block)].look(&part).is_lost()
    }

    pub fn read(&self, sector: u64) -> Vec<u8> {
        let mut bytes = vec![0; SECTOR];
        let part = parts(sector, 1).next().unwrap();
        assert!(!self.is_lost(sector), "sector {sector} is lost");
        match self.shards[shard_of(part.block)].look(&part).position {
            None => self.disks.backing.read(sector, &mut bytes),
            Some(position) => match self.log.find(position) {
                Some((buffer, offset)) => {
                    let at = offset as usize * SECTOR;
                    bytes.copy_from_slice(&self.memory[buffer][at..at + SECTOR]);
                }
                None => {
                    assert!(position < self.written, "neither in memory nor written");
                    let sector = self.superblock.space.sector(position);
                    self.disks.cache.read(sector, &mut bytes);
                }
            },
        }
        bytes
    }

    /// The power goes.
    pub fn cut(mut self, random: &mut StdRng) -> Disks {
        self.disks.cache.lose(random);
        self.disks.backing.lose(random);
        self.disks
    }

    /// Shuts down in order.
    pub fn stop(mut self) -> Disks {
        self.disks.power.left = None;
        self.flush().unwrap();
        self.superblock.durable_id = self.durable_id;
        self.superblock.clean = true;
        write_superblock(&mut self.disks, &mut self.superblock).unwrap();
        self.disks
    }
}

pub fn cut(mut disks: Disks, random: &mut StdRng) -> Disks {
    disks.cache.lose(random);
    disks.backing.lose(random);
    disks
}

fn write_superblock(disks: &mut Disks, superblock: &mut Superblock) -> Result<(), PowerCut> {
    superblock.sequence += 1;
    let mut block = [0; SUPERBLOCK_BYTES];
    superblock.encode(&mut block);
    for sector in SUPERBLOCK_SECTORS {
        disks.write(Disks::cache, sector, &block)?;
        // FUA: nothing else becomes durable by it.
        let (sector, bytes) = disks.cache.pending.pop().unwrap();
        disks.cache.put(sector, &bytes);
    }
    Ok(())
}

impl Store for Machine {
    type Error = PowerCut;

    fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    fn written(&self) -> u64 {
        self.written
    }

    fn read(&mut self, position: u64, memory: &mut [u8]) -> Result<(), PowerCut> {
        let sector = self.superblock.space.sector(position);
        self.disks.cache.read(sector, memory);
        Ok(())
    }

    fn live(&self, part: &Part, position: u64) -> Live {
        self.shards[shard_of(part.block)].live(part, position)
    }

    fn whole(&mut self, block: u64) -> Option<Stored> {
        if let Some((sector, sectors, tag)) = self.when_looking_aside.take() {
            self.write(sector, sectors, tag).ok()?;
            self.write_log().ok()?;
        }
        let stored = self.shards[shard_of(block)].whole(block)?;
        (stored.position + 8 <= self.written).then_some(stored)
    }

    fn read_blocks(
        &mut self,
        positions: impl Iterator<Item = u64>,
        memory: &mut [u8],
    ) -> Result<(), PowerCut> {
        for (position, memory) in positions.zip(memory.chunks_exact_mut(8 * SECTOR)) {
            self.aside += 1;
            let sector = self.superblock.space.sector(position);
            self.disks.cache.read(sector, memory);
        }
        Ok(())
    }

    fn lost(&self, part: &Part) -> u8 {
        self.shards[shard_of(part.block)].lost(part)
    }

    fn lose(&mut self, part: &Part, position: u64) {
        self.shards[shard_of(part.block)].lose(part, position);
    }

    fn end(&self) -> u64 {
        self.log.end()
    }

    fn write(&mut self, batch: &Batch, memory: &[u8]) -> Result<u64, PowerCut> {
        let (mut after, mut sectors) = (0, 0);
        for group in batch.groups() {
            let runs = &batch.runs()[group.clone()];
            self.overwrite_meanwhile(runs[0].sector / 8 * 8);
            let newest = |block| self.shards[shard_of(block)].whole(block);
            let is_needed = batch.is_needed(group, newest);
            assert!(runs[0].sector >= after, "not sorted, or overlapping");
            let mut bytes = Vec::new();
            for run in runs {
                let at = run.at as usize * SECTOR;
                bytes.extend_from_slice(&memory[at..at + run.sectors as usize * SECTOR]);
                after = run.sector + u64::from(run.sectors);
            }
            if is_needed {
                sectors += (bytes.len() / SECTOR) as u64;
                self.disks.write(Disks::backing, runs[0].sector, &bytes)?;
            }
        }
        Ok(sectors)
    }

    fn flush_backing(&mut self) -> Result<(), PowerCut> {
        self.disks.flush(Disks::backing)
    }

    fn commit_log(&mut self, end: u64) -> Result<(), PowerCut> {
        if self.durable_position < end && !self.break_superseded {
            self.flush()?;
        }
        Ok(())
    }

    fn write_tail(&mut self, tail: Due, lost: Lost) -> Result<(), PowerCut> {
        self.superblock.tail = tail;
        self.superblock.lost = lost;
        self.superblock.durable_id = self.durable_id.max(tail.id);
        write_superblock(&mut self.disks, &mut self.superblock)
    }

    fn settle(&mut self, part: &Part, position: u64) {
        self.shards[shard_of(part.block)].settle(part, position);
    }

    fn release(&mut self, tail: u64) {
        self.log.set_tail(tail);
    }
}

/// The bytes of sectors with a tag: each tells where it belongs, and which write it is from.
pub fn content(sector: u64, sectors: u32, tag: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(sectors as usize * SECTOR);
    for number in 0..u64::from(sectors) {
        let stamp = [sector + number, tag].map(u64::to_le_bytes).concat();
        for _ in 0..SECTOR / stamp.len() {
            bytes.extend_from_slice(&stamp);
        }
    }
    bytes
}

/// The tag that a sector has; 0 for zeroes.
pub fn tag_of(sector: u64, bytes: &[u8]) -> Option<u64> {
    if bytes.iter().all(|&byte| byte == 0) {
        return Some(0);
    }
    let tag = u64::from_le_bytes(bytes[8..16].try_into().unwrap());
    (bytes == content(sector, 1, tag)).then_some(tag)
}

/// Who is told of what happens, and knows what may be found because of it.
pub trait Oracle {
    /// A write begins: from then on it may be there, acknowledged or not.
    fn wrote(&mut self, sector: u64, sectors: u32, tag: u64);
    /// A discard begins.
    fn discarded(&mut self, sector: u64, sectors: u32);
    /// A flush has ended.
    fn flushed(&mut self);
    /// A batch was written back.
    fn wrote_back(&self, _machine: &Machine) {}
}

/// The sizes of the disks.
pub const CACHE_SECTORS: u64 = 2048 + 33 * 1032;
pub const BACKING_SECTORS: u64 = 4096;

/// Disks on which nothing is.
pub fn disks() -> Disks {
    Disks {
        cache: Disk::new(CACHE_SECTORS),
        backing: Disk::new(BACKING_SECTORS),
        power: Power { left: None },
    }
}

/// One thing that a user, or the cache by itself, does.
pub fn step(
    machine: &mut Machine,
    oracle: &mut impl Oracle,
    random: &mut StdRng,
    tag: &mut u64,
) -> Result<(), PowerCut> {
    let sectors = match random.random_range(0..10) {
        0..5 => 8,
        5..8 => random.random_range(1..16),
        8 => random.random_range(1..300),
        _ => random.random_range(1000..2100),
    };
    let first = random.random_range(0..BACKING_SECTORS - u64::from(sectors));
    let first = if sectors == 8 { first / 8 * 8 } else { first };
    match random.random_range(0..100) {
        0..64 => {
            *tag += 1;
            oracle.wrote(first, sectors, *tag);
            machine.write(first, sectors, *tag)
        }
        64..70 => {
            *tag += 1;
            oracle.wrote(first, sectors, *tag);
            machine.write_around(first, sectors, *tag)
        }
        70..74 => {
            oracle.discarded(first, sectors);
            machine.discard(first, sectors)
        }
        74..80 => machine.write_log(),
        80..90 => {
            machine.flush()?;
            oracle.flushed();
            Ok(())
        }
        _ => {
            // Of each of its groups in turn: whether its first block is overwritten before its turn comes.
            for _ in 0..random.random_range(0..40) {
                let tag = random.random_bool(0.5).then(|| {
                    *tag += 1;
                    *tag
                });
                machine.meanwhile.push(tag);
            }
            let result = machine.write_back();
            machine.meanwhile.clear();
            for (sector, tag) in std::mem::take(&mut machine.came) {
                oracle.wrote(sector, 8, tag);
            }
            result?;
            oracle.wrote_back(machine);
            Ok(())
        }
    }
}

/// What a user may find, sector by sector.
#[derive(Default)]
pub struct Expected {
    sectors: BTreeMap<u64, Tags>,
}

#[derive(Clone, Default)]
struct Tags {
    /// What was written before the last flush, last; 0: nothing.
    durable: u64,
    /// What was written since, in order.
    since: Vec<u64>,
    /// Discarded and not written durably since: anything.
    anything: bool,
    /// Discarded since it was last written.
    discarded: bool,
}

impl Oracle for Expected {
    fn wrote(&mut self, sector: u64, sectors: u32, tag: u64) {
        for sector in sector..sector + u64::from(sectors) {
            let tags = self.sectors.entry(sector).or_default();
            tags.since.push(tag);
            tags.discarded = false;
        }
    }

    fn discarded(&mut self, sector: u64, sectors: u32) {
        for sector in sector..sector + u64::from(sectors) {
            let tags = self.sectors.entry(sector).or_default();
            tags.anything = true;
            tags.discarded = true;
        }
    }

    fn flushed(&mut self) {
        for tags in self.sectors.values_mut() {
            if let Some(last) = tags.since.pop() {
                tags.durable = last;
                tags.since.clear();
            }
            tags.anything = tags.discarded;
        }
    }
}

impl Expected {
    /// While the power is on, the last write is what is read.
    pub fn check_running(&self, machine: &Machine) {
        for (&sector, tags) in &self.sectors {
            if !tags.discarded {
                let last = tags.since.last().copied().unwrap_or(tags.durable);
                assert_eq!(
                    tag_of(sector, &machine.read(sector)),
                    Some(last),
                    "sector {sector}"
                );
            }
        }
    }

    /// What is lost by damage may be anything from now on. Returns how many sectors that are.
    pub fn accept_lost(&mut self, machine: &Machine) -> usize {
        let lost = |sector: &u64| machine.is_lost(*sector);
        let mut count = 0;
        for tags in self.sectors.iter_mut().filter(|(sector, _)| lost(sector)) {
            (tags.1.anything, tags.1.discarded) = (true, true);
            count += 1;
        }
        count
    }

    /// After a cut: what is there has to be allowed, and is durable from now on.
    pub fn check_after_cut(&mut self, machine: &Machine) {
        for (&sector, tags) in &mut self.sectors {
            if machine.is_lost(sector) && tags.anything {
                tags.since.clear();
                continue;
            }
            let got = tag_of(sector, &machine.read(sector));
            if !tags.anything {
                let got = got.unwrap_or_else(|| panic!("sector {sector} has rubbish"));
                assert!(
                    got == tags.durable || tags.since.contains(&got),
                    "sector {sector} has {got}, expected {} or one of {:?}",
                    tags.durable,
                    tags.since
                );
                tags.durable = got;
            } else if let (Some(got), false) = (got, tags.discarded) {
                tags.durable = got;
                tags.anything = false;
            } else {
                tags.discarded = true;
            }
            tags.since.clear();
        }
    }
}
