// SPDX-License-Identifier: GPL-2.0

//! Which regions have become hydrated since they were last committed. Pure.
//!
//! A commit writes whole blocks of the on-disk bitset: those in which a region became hydrated
//! since the block was taken by a commit before. It *takes* one block after the other, as the
//! [`RegionMap`] is at that moment, and flushes the destination when it has taken the last one.
//! Every region that it has taken had its data written before the flush, which therefore covers
//! it. What becomes hydrated in a block after that was taken makes the block dirty anew, for the
//! next commit.
//!
//! ```text
//!   mark, mark, | begin | take | take | flush destination | write blocks, superblock | end
//!               ` marks of blocks not taken yet: this commit; all others: the next one
//! ```
//!
//! For each block there is a bit and a count, nothing for a region, so this is small beside the
//! map, and nothing is allocated when something is marked.

use super::{
    block::{
        WORDS_PER_BLOCK,
        WORD_SIZE, //
    },
    block_set::BlockSet,
    platform::{
        array,
        Array,
        NoMemory, //
    },
    region_map::{
        word_count,
        RegionMap, //
    }, //
};
use core::ops::Range;

/// Who made regions hydrated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum By {
    /// A user, by a write or a discard.
    User,
    /// A background copy: the destination holds what the source holds.
    Copy,
}

/// What is not committed, with the counts that go with it. Its users keep it under one lock, which
/// also orders the writers of the [`RegionMap`].
///
/// # Invariants
///
/// - A block is in `dirty` if and only if its count in `new` is not 0.
/// - `hydrated` is the number of regions hydrated in the map; it is `committed`, plus `taken`, plus
///   all of `new`.
pub struct Uncommitted {
    /// Which blocks have regions that no commit has taken.
    dirty: BlockSet,
    /// How many those are, for each block.
    new: Array<u32>,
    /// Which blocks the commit under way has taken.
    taken_blocks: BlockSet,
    /// How many regions it has taken.
    taken: u64,
    committing: bool,
    hydrated: u64,
    committed: u64,
    /// A user's data is in a region that no commit has taken.
    user: bool,
    /// A user's data is in a region that the commit under way makes durable.
    user_taken: bool,
}

impl Uncommitted {
    /// Nothing is hydrated, of `regions` regions.
    pub fn new(regions: u64) -> Result<Self, NoMemory> {
        let blocks = block_count(regions);
        Ok(Uncommitted {
            dirty: BlockSet::new(blocks)?,
            new: array(blocks, 0)?,
            taken_blocks: BlockSet::new(blocks)?,
            taken: 0,
            committing: false,
            hydrated: 0,
            committed: 0,
            user: false,
            user_taken: false,
        })
    }

    /// Gives its memory away, to be freed without the lock, when every region is committed: there is
    /// nothing to mark any more.
    pub fn retire(&mut self) -> impl Sized {
        (
            core::mem::take(&mut self.dirty),
            core::mem::take(&mut self.taken_blocks),
            core::mem::take(&mut self.new),
        )
    }

    /// The map is going to be read; an earlier call that failed may have begun with it.
    pub fn begin_load(&mut self) {
        (self.hydrated, self.committed) = (0, 0);
    }

    /// Takes over the values of a block that was read from disk, where they are committed already.
    pub fn load(&mut self, map: &RegionMap, block: usize, values: &[u8]) {
        let words = values.chunks_exact(WORD_SIZE).map(|bytes| {
            let mut word = [0; WORD_SIZE];
            word.copy_from_slice(bytes);
            u64::from_le_bytes(word)
        });
        let regions = map.load(block * WORDS_PER_BLOCK, words);
        self.hydrated += regions;
        self.committed += regions;
    }

    /// Marks regions as hydrated, those that are not yet. Returns how many those were.
    pub fn mark(&mut self, map: &RegionMap, regions: Range<u64>, by: By) -> u64 {
        let mut marked = 0;
        map.add(regions, |word, new| {
            let block = word / WORDS_PER_BLOCK;
            self.new[block] += new;
            self.dirty.insert(block);
            marked += u64::from(new);
        });
        self.hydrated += marked;
        self.user |= marked != 0 && by == By::User;
        marked
    }

    /// A user writes into regions that are hydrated, but not committed.
    pub fn note_user(&mut self) {
        self.user = true;
    }

    /// Whether anything became hydrated that is not committed.
    pub fn is_dirty(&self) -> bool {
        self.hydrated != self.committed
    }

    /// Whether a user's data is in a region that is not committed. If it is not, a crash loses
    /// nothing but copies, which would be made again.
    pub fn has_user_data(&self) -> bool {
        self.is_dirty() && (self.user || self.user_taken)
    }

    /// How many regions are hydrated.
    pub fn hydrated(&self) -> u64 {
        self.hydrated
    }

    /// How many regions are hydrated durably.
    pub fn committed(&self) -> u64 {
        self.committed
    }

    /// Begins a commit. False if there is nothing to commit, or if an earlier commit has not been
    /// finished: after a failed one there is none any more.
    pub fn begin_commit(&mut self) -> bool {
        if self.committing || !self.is_dirty() {
            return false;
        }
        self.committing = true;
        self.user_taken = core::mem::take(&mut self.user);
        true
    }

    /// The first block from `from` on that has something to commit.
    pub fn next_dirty(&self, from: usize) -> Option<usize> {
        self.dirty.next(from)
    }

    /// Takes a block for the commit under way: writes its values to `values`, which they fill.
    pub fn take(&mut self, map: &RegionMap, block: usize, values: &mut [u8]) {
        map.take(words_of(map, block), values);
        self.dirty.remove(block);
        self.taken_blocks.insert(block);
        self.taken += u64::from(core::mem::take(&mut self.new[block]));
    }

    /// Ends a commit that is durable, as far as the counts go: [`settle`](Self::settle) does the
    /// rest. If it was not of all that was dirty when it began, [another](Self::go_on_with_commit) has to
    /// follow.
    pub fn end_commit(&mut self, of_all: bool) {
        if self.committing {
            self.committed += core::mem::take(&mut self.taken);
            self.user_taken &= !of_all;
            self.committing = false;
        }
    }

    /// Begins the commit of what there was no room for in the one before. What has become dirty since is
    /// for a later one, though this may take some of it.
    pub fn go_on_with_commit(&mut self) {
        self.committing = true;
    }

    /// Forgets the first block from `from` on that a commit had taken, now that it is durable, and
    /// says which. To be called until there is none, before the next commit begins.
    pub fn settle(&mut self, map: &RegionMap, from: usize) -> Option<usize> {
        let block = self.taken_blocks.next(from)?;
        self.taken_blocks.remove(block);
        map.settle(words_of(map, block));
        Some(block)
    }
}

/// How many blocks the bitset of `regions` regions has.
pub fn block_count(regions: u64) -> usize {
    let words = word_count(regions);
    words / WORDS_PER_BLOCK + usize::from(words % WORDS_PER_BLOCK != 0)
}

/// The words of a block.
fn words_of(map: &RegionMap, block: usize) -> Range<usize> {
    let first = block * WORDS_PER_BLOCK;
    first..(first + WORDS_PER_BLOCK).min(map.words())
}
