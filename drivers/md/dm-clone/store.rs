// SPDX-License-Identifier: GPL-2.0

//! The metadata on disk, read once and then changed in transactions. Pure.
//!
//! A transaction writes array blocks anew, in free places, then the nodes of the tree that lead to
//! them, the bitmaps and the index of the space map, in free places too; and last the superblock,
//! which makes all of it valid at once. A crash therefore leaves the state of this transaction or
//! of the one before.
//!
//! All that is needed for a transaction is in memory, apart from the values, which the region map
//! has: nothing is read, nor allocated, and the work does not depend on how many regions there are.

use super::{
    block::{
        self,
        Kind,
        ARRAY_VALUES,
        WORDS_PER_BLOCK,
        WORD_SIZE, //
    },
    format::{
        Superblock,
        BLOCK_SIZE,
        SUPERBLOCK_LOCATION, //
    },
    platform::{
        array,
        crc32c,
        Array,
        NoMemory, //
    },
    region_map::word_count,
    space_map::{
        bitmap_count,
        OpenError,
        Root,
        SpaceMap, //
    },
    tree::Tree,
    uncommitted::block_count, //
};

/// How many array blocks are written, and read, together.
const TOGETHER: usize = 64;

/// The metadata device, seen as blocks. Its functions return when the device is done.
pub trait Disk {
    /// How it fails.
    type Error;

    /// How many blocks it has.
    fn blocks(&self) -> u64;

    /// Reads neighbouring blocks from `block` on, until `into` is full.
    fn read(&self, block: u64, into: &mut [u8]) -> Result<(), Self::Error>;

    /// Writes blocks, in any order. They need not be durable.
    fn write(&self, blocks: &mut dyn Iterator<Item = (u64, &[u8])>) -> Result<(), Self::Error>;

    /// Makes everything durable that was written before, then writes the superblock, and makes
    /// that durable.
    fn write_superblock(&self, block: &[u8]) -> Result<(), Self::Error>;
}

/// What a transaction commits.
pub trait Changes {
    /// How the destination fails.
    type Error;

    /// The first array block from `from` on that has something to commit.
    fn next(&mut self, from: usize) -> Option<usize>;

    /// Writes the values of a block as they are now to `values`.
    fn take(&mut self, block: usize, values: &mut [u8]);

    /// Everything was taken: makes the data on the destination durable.
    fn flush(&mut self) -> Result<(), Self::Error>;
}

/// Why a transaction failed.
#[derive(Debug)]
pub enum CommitError<E> {
    /// The destination could not be flushed.
    Flush(E),
    /// The metadata device failed.
    Device(E),
    /// There is no room for a transaction.
    NoSpace,
}

/// What a transaction did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Done {
    /// It committed everything.
    All,
    /// It committed what there was room for: all before this block.
    Part(usize),
}

/// The metadata on disk.
pub struct Store<D> {
    disk: D,
    superblock: Superblock,
    regions: u64,
    space: SpaceMap,
    loaded: Option<Loaded>,
}

/// What is needed for transactions, from when the map is read.
struct Loaded {
    tree: Tree,
    /// The superblock as it is written.
    image: Array<u8>,
    /// Array blocks on their way to the disk, and where each goes.
    staged: Array<u8>,
    places: Array<u64>,
}

impl<D: Disk> Store<D> {
    /// Reads the space map of metadata for `regions` regions whose superblock was read before.
    pub fn open(
        disk: D,
        superblock: Superblock,
        regions: u64,
    ) -> Result<Self, OpenError<D::Error>> {
        let root = Root::decode(&superblock.space_map_root);
        let space = SpaceMap::open(root, disk.blocks(), |at, into| disk.read(at, into))?;
        Ok(Store {
            disk,
            superblock,
            regions,
            space,
            loaded: None,
        })
    }

    /// Reads the map: calls `values` with each array block's number and values, in order.
    pub fn load(
        &mut self,
        mut values: impl FnMut(usize, &[u8]),
    ) -> Result<(), OpenError<D::Error>> {
        let blocks = block_count(self.regions);
        let Store { disk, space, .. } = self;
        let read = |at, into: &mut [u8]| disk.read(at, into);
        let tree = Tree::open(self.superblock.bitset_root, blocks, space, read)?;
        let together = blocks.min(TOGETHER);
        let mut staged = block::zeroed(together)?;
        let mut from = 0;
        while from < blocks {
            let at = tree.place(from);
            let most = (blocks - from).min(together);
            let run = (1..most)
                .find(|&next| tree.place(from + next) != at + next as u64)
                .unwrap_or(most);
            let read = &mut staged[..run * BLOCK_SIZE];
            disk.read(at, read).map_err(OpenError::Device)?;
            for (number, block) in (from..).zip(read.chunks_exact(BLOCK_SIZE)) {
                let at = tree.place(number);
                let count = values_in(number, self.regions);
                block::check(Kind::Array, block, at)?;
                block::check_array(block, at, count)?;
                values(number, &block[ARRAY_VALUES..][..count * WORD_SIZE]);
            }
            from += run;
        }
        space.end_claims(blocks + tree.nodes() as usize)?;
        self.loaded = Some(Loaded {
            tree,
            image: block::zeroed(1)?,
            staged,
            places: array(together, 0)?,
        });
        Ok(())
    }

    /// Blocks in use, and blocks in all.
    pub fn usage(&self) -> (u64, u64) {
        let root = self.space.root();
        (root.allocated, root.blocks)
    }

    /// How many blocks are missing for a transaction that changes everything. 0 before the map was
    /// read.
    pub fn missing(&self) -> u64 {
        self.loaded.as_ref().map_or(0, |loaded| {
            let transaction =
                block_count(self.regions) as u64 + loaded.tree.nodes() + self.space.own_blocks();
            transaction.saturating_sub(self.space.free())
        })
    }

    /// How many array blocks a transaction has room for.
    fn room(&self, tree: &Tree) -> u64 {
        let free = self.space.free().saturating_sub(self.space.own_blocks());
        let with_all_nodes = free.saturating_sub(tree.nodes());
        let with_own_nodes = free.checked_div(1 + tree.levels()).unwrap_or(0);
        with_all_nodes.max(with_own_nodes)
    }

    /// Commits changes in one transaction, those from a block on.
    ///
    /// After an error, what is in memory is no longer what is on disk: no further transaction may
    /// follow.
    pub fn commit<C>(&mut self, from: usize, changes: &mut C) -> Result<Done, CommitError<D::Error>>
    where
        C: Changes<Error = D::Error>,
    {
        let Some(mut loaded) = self.loaded.take() else {
            return Err(CommitError::NoSpace);
        };
        let room = self.room(&loaded.tree);
        let result = self.write_transaction(&mut loaded, room, from, changes);
        self.loaded = Some(loaded);
        result
    }

    fn write_transaction<C>(
        &mut self,
        loaded: &mut Loaded,
        mut room: u64,
        mut from: usize,
        changes: &mut C,
    ) -> Result<Done, CommitError<D::Error>>
    where
        C: Changes<Error = D::Error>,
    {
        let Loaded {
            tree,
            image,
            staged,
            places,
        } = loaded;
        if room == 0 {
            return Err(CommitError::NoSpace);
        }
        let mut done = Done::All;
        let mut count = 0;
        while let Some(number) = changes.next(from) {
            if room == 0 {
                done = Done::Part(number);
                break;
            }
            if count == places.len() {
                // Nothing refers to these blocks yet, so it does not matter when they are written.
                let mut blocks = staged_blocks(places, staged);
                self.disk.write(&mut blocks).map_err(CommitError::Device)?;
                count = 0;
            }
            let at = self.space.allocate().ok_or(CommitError::NoSpace)?;
            let old = tree.replace(number, at).map_err(no_room)?;
            self.space.release(old).map_err(no_room)?;

            let block = &mut staged[count * BLOCK_SIZE..][..BLOCK_SIZE];
            let values = values_in(number, self.regions);
            block::begin_array(block, values);
            changes.take(number, &mut block[ARRAY_VALUES..][..values * WORD_SIZE]);
            block::seal(Kind::Array, block, at);
            places[count] = at;
            count += 1;
            room -= 1;
            from = number + 1;
        }
        tree.relocate(&mut self.space).ok_or(CommitError::NoSpace)?;
        self.space.relocate().ok_or(CommitError::NoSpace)?;

        changes.flush().map_err(CommitError::Flush)?;
        self.disk
            .write(
                &mut staged_blocks(&places[..count], staged)
                    .chain(tree.changed())
                    .chain(self.space.changed()),
            )
            .map_err(CommitError::Device)?;

        self.superblock.bitset_root = tree.root();
        self.space
            .root()
            .encode(&mut self.superblock.space_map_root);
        self.superblock.encode(image);
        super::format::seal(image, SUPERBLOCK_LOCATION, crc32c);
        self.disk
            .write_superblock(image)
            .map_err(CommitError::Device)?;
        tree.end_transaction();
        self.space.end_transaction();
        Ok(done)
    }
}

/// The memory for all that a transaction may touch was reserved when the map was read.
fn no_room<E>(_: NoMemory) -> CommitError<E> {
    CommitError::NoSpace
}

/// Staged blocks, and where they go; those that go to neighbouring places together.
fn staged_blocks<'a>(places: &'a [u64], staged: &'a [u8]) -> impl Iterator<Item = (u64, &'a [u8])> {
    let mut from = 0;
    core::iter::from_fn(move || {
        let (&at, others) = places.get(from..)?.split_first()?;
        let neighbours = (at + 1..).zip(others).take_while(|(next, at)| next == *at);
        let begin = from;
        from += 1 + neighbours.count();
        Some((at, &staged[begin * BLOCK_SIZE..from * BLOCK_SIZE]))
    })
}

/// How many values array block `number` has.
fn values_in(number: usize, regions: u64) -> usize {
    let first = number * WORDS_PER_BLOCK;
    word_count(regions)
        .saturating_sub(first)
        .min(WORDS_PER_BLOCK)
}

/// How many blocks a device must have, so that it can be formatted for `regions` regions, and then
/// take a transaction that changes everything, for a device that has `blocks` blocks.
///
/// That is: superblock, index and the empty tree of counts; and twice, once for what is committed
/// and once for what is being written, the array blocks, the nodes that lead to them, the bitmaps,
/// and the index once more.
pub fn needed_to_format(regions: u64, blocks: u64) -> u64 {
    /// A node that was filled from left to right has at least so many entries.
    const FILLED: u64 = 126;
    let arrays = block_count(regions) as u64;
    let mut nodes = 1;
    let mut level = arrays;
    while level > 2 * FILLED {
        level = level / FILLED + 1;
        nodes += level;
    }
    3 + 2 * (arrays + nodes + bitmap_count(blocks)) + 1
}
