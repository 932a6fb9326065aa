// SPDX-License-Identifier: GPL-2.0

//! What a disk with a volatile write cache may hold after a power cut.
//!
//! A write is *settled*, and there after every power cut, when it was a FUA write that has ended, or when
//! a flush of this disk has ended that began after the write had ended. Of every other write each sector
//! may be there or not, whatever became of its other sectors and of other writes, and also if the write
//! has not ended yet. Writes to one sector reach it in the order in which they ended.

use std::collections::HashMap;

use crate::log::{Content, Request};

pub struct Cache {
    sectors: Vec<Sector>,
    /// Writes that are in flight or not settled.
    writes: HashMap<u32, Write>,
    /// Those of them that have ended, in this order.
    ended: Vec<u32>,
    /// Those in flight, in the order in which they began.
    begun: Vec<u32>,
    /// Flushes in flight, with the writes that each settles.
    flushes: HashMap<u32, Vec<u32>>,
}

struct Sector {
    settled: Content,
    /// What may be there instead: the later overwrites the earlier.
    unsettled: Vec<Unsettled>,
}

#[derive(Clone, Copy)]
struct Unsettled {
    write: u32,
    content: Content,
    ended: bool,
}

struct Write {
    first: u64,
    sectors: u64,
    fua: bool,
}

impl Cache {
    /// A disk that has held the same in all its sectors for long.
    pub fn new(sectors: u64, content: Content) -> Self {
        let sector = || Sector {
            settled: content,
            unsettled: Vec::new(),
        };
        Cache {
            sectors: std::iter::repeat_with(sector)
                .take(sectors as usize)
                .collect(),
            writes: HashMap::new(),
            ended: Vec::new(),
            begun: Vec::new(),
            flushes: HashMap::new(),
        }
    }

    /// A request has been received.
    pub fn begin(&mut self, id: u32, request: &Request) {
        match request {
            Request::Flush => {
                self.flushes.insert(id, self.ended.clone());
            }
            Request::Write {
                first,
                contents,
                fua,
            } => {
                for (sector, content) in self.sectors[*first as usize..]
                    .iter_mut()
                    .zip(contents.iter())
                {
                    sector.unsettled.push(Unsettled {
                        write: id,
                        content,
                        ended: false,
                    });
                }
                self.begun.push(id);
                let write = Write {
                    first: *first,
                    sectors: contents.len(),
                    fua: *fua,
                };
                self.writes.insert(id, write);
            }
        }
    }

    /// The request has been carried out.
    pub fn end(&mut self, id: u32) {
        if let Some(writes) = self.flushes.remove(&id) {
            writes.into_iter().for_each(|write| self.settle(write));
            return;
        }
        let write = &self.writes[&id];
        for sector in &mut self.sectors[write.range()] {
            let unsettled = &mut sector.unsettled;
            let Some(place) = unsettled.iter().position(|other| other.write == id) else {
                continue;
            };
            let mut own = unsettled.remove(place);
            own.ended = true;
            let place = unsettled.iter().take_while(|other| other.ended).count();
            unsettled.insert(place, own);
        }
        self.begun.retain(|&other| other != id);
        self.ended.push(id);
        if write.fua {
            self.settle(id);
        }
    }

    fn settle(&mut self, id: u32) {
        // Another flush may have done so already.
        let Some(write) = self.writes.remove(&id) else {
            return;
        };
        self.ended.retain(|&other| other != id);
        for sector in &mut self.sectors[write.range()] {
            let place = sector.unsettled.iter().position(|other| other.write == id);
            // None: a later write has been settled here, and hides this one for good.
            if let Some(place) = place {
                sector.settled = sector.unsettled[place].content;
                sector.unsettled.drain(..=place);
            }
        }
    }

    /// The size of the disk.
    pub fn sectors(&self) -> u64 {
        self.sectors.len() as u64
    }

    /// All that a sector may hold.
    pub fn possible(&self, sector: u64) -> impl Iterator<Item = Content> + '_ {
        let sector = &self.sectors[sector as usize];
        std::iter::once(sector.settled).chain(sector.unsettled.iter().map(|one| one.content))
    }

    /// The writes that may be lost, in the order in which they overwrite each other.
    pub fn unsettled(&self) -> impl Iterator<Item = u32> + '_ {
        self.ended.iter().chain(&self.begun).copied()
    }

    /// What the disk holds if of all writes that may be lost those sectors are there for which
    /// `kept(write, sector)` is true.
    pub fn after_cut(&self, mut kept: impl FnMut(u32, u64) -> bool) -> Vec<Content> {
        (0..)
            .zip(&self.sectors)
            .map(|(number, sector)| {
                let newest = sector.unsettled.iter().rev();
                let mut newest = newest.filter(|one| kept(one.write, number));
                newest.next().map_or(sector.settled, |one| one.content)
            })
            .collect()
    }
}

impl Write {
    fn range(&self) -> std::ops::Range<usize> {
        self.first as usize..(self.first + self.sectors) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Contents;

    fn write(first: u64, sectors: u64, content: Content) -> Request {
        Request::Write {
            first,
            contents: Contents::all(sectors, content),
            fua: false,
        }
    }

    fn fua(first: u64, sectors: u64, content: Content) -> Request {
        Request::Write {
            first,
            contents: Contents::all(sectors, content),
            fua: true,
        }
    }

    fn possible(cache: &Cache, sector: u64) -> Vec<Content> {
        cache.possible(sector).collect()
    }

    #[test]
    fn a_write_may_be_there_as_soon_as_it_began() {
        let mut cache = Cache::new(4, 0);
        cache.begin(1, &write(1, 2, 7));
        assert_eq!(possible(&cache, 1), [0, 7]);
        assert_eq!(possible(&cache, 3), [0]);
        cache.end(1);
        assert_eq!(possible(&cache, 2), [0, 7]);
        assert_eq!(cache.after_cut(|_, _| false), [0, 0, 0, 0]);
        assert_eq!(cache.after_cut(|_, sector| sector == 2), [0, 0, 7, 0]);
    }

    #[test]
    fn a_flush_settles_what_had_ended_when_it_began() {
        let mut cache = Cache::new(3, 0);
        cache.begin(1, &write(0, 1, 7));
        cache.end(1);
        cache.begin(2, &write(1, 1, 8));
        cache.begin(3, &Request::Flush);
        cache.end(2);
        cache.begin(4, &write(2, 1, 9));
        assert_eq!(possible(&cache, 0), [0, 7]);
        cache.end(3);
        assert_eq!(possible(&cache, 0), [7]);
        assert_eq!(possible(&cache, 1), [0, 8]);
        assert_eq!(possible(&cache, 2), [0, 9]);
        assert_eq!(cache.unsettled().collect::<Vec<_>>(), [2, 4]);
    }

    #[test]
    fn writes_overwrite_each_other_in_the_order_of_their_ends() {
        let mut cache = Cache::new(1, 0);
        cache.begin(1, &write(0, 1, 7));
        cache.begin(2, &write(0, 1, 8));
        cache.end(2);
        cache.end(1);
        assert_eq!(possible(&cache, 0), [0, 8, 7]);
        assert_eq!(cache.after_cut(|_, _| true), [7]);
        cache.begin(3, &Request::Flush);
        cache.end(3);
        assert_eq!(possible(&cache, 0), [7]);
    }

    #[test]
    fn a_fua_write_settles_itself_and_what_it_hides() {
        let mut cache = Cache::new(2, 0);
        cache.begin(1, &write(0, 2, 7));
        cache.end(1);
        cache.begin(2, &fua(0, 1, 8));
        assert_eq!(possible(&cache, 0), [0, 7, 8]);
        cache.end(2);
        assert_eq!(possible(&cache, 0), [8]);
        assert_eq!(possible(&cache, 1), [0, 7]);
        // The flush settles the rest of the hidden write, and does not bring it back.
        cache.begin(3, &Request::Flush);
        cache.end(3);
        assert_eq!(cache.after_cut(|_, _| true), [8, 7]);
    }

    #[test]
    fn flushes_that_overlap_settle_once() {
        let mut cache = Cache::new(1, 0);
        cache.begin(1, &write(0, 1, 7));
        cache.end(1);
        cache.begin(2, &Request::Flush);
        cache.begin(3, &Request::Flush);
        cache.end(3);
        cache.begin(4, &write(0, 1, 8));
        cache.end(4);
        cache.end(2);
        assert_eq!(possible(&cache, 0), [7, 8]);
    }
}
