// SPDX-License-Identifier: GPL-2.0

//! Transactions on a disk that is judged block by block: after each crash and each fault there is
//! the state of one transaction, whole, and every block is accounted for.

use proptest::{
    collection::vec,
    prelude::*,
    test_runner::TestCaseResult, //
};
use pure::clone::{
    block::{
        self,
        get_u32,
        get_u64,
        put_u32,
        put_u64,
        Kind,
        ARRAY_VALUES,
        WORDS_PER_BLOCK,
        WORD_SIZE, //
    },
    format::{
        self,
        Superblock,
        BLOCK_SIZE, //
    },
    platform::crc32c,
    region_map::word_count,
    space_map::{
        bitmap_count,
        OpenError,
        Root, //
    },
    store::{
        needed_to_format,
        Changes,
        CommitError,
        Disk,
        Done,
        Store, //
    },
    uncommitted::block_count, //
};
use rand::{
    rngs::StdRng,
    seq::IndexedRandom,
    Rng,
    SeedableRng, //
};
use std::{
    cell::RefCell,
    collections::{
        BTreeMap,
        BTreeSet, //
    },
    panic::{
        catch_unwind,
        resume_unwind,
        AssertUnwindSafe, //
    }, //
};

type Block = Vec<u8>;
type Image = Vec<Block>;
/// What array blocks hold: a number for each, which is in all of its values.
type Content = Vec<u64>;

const BITMAP_BLOCKS: u64 = 16320;

/// One write to the disk, as it came.
#[derive(Clone)]
enum Write {
    Block(u64, Block),
    Superblock(Block),
}

/// A disk in memory that notes what is written to it, and may fail.
struct Model {
    image: RefCell<Image>,
    writes: RefCell<Vec<Write>>,
    /// After so many calls the disk fails.
    calls_left: RefCell<usize>,
}

#[derive(Debug, PartialEq)]
struct Failed;

impl Model {
    fn new(image: Image) -> Self {
        Model {
            image: RefCell::new(image),
            writes: RefCell::new(Vec::new()),
            calls_left: RefCell::new(usize::MAX),
        }
    }

    fn call(&self) -> Result<(), Failed> {
        let mut left = self.calls_left.borrow_mut();
        *left = left.checked_sub(1).ok_or(Failed)?;
        Ok(())
    }
}

impl Disk for &Model {
    type Error = Failed;

    fn blocks(&self) -> u64 {
        self.image.borrow().len() as u64
    }

    fn read(&self, block: u64, into: &mut [u8]) -> Result<(), Failed> {
        self.call()?;
        let end = block.checked_add((into.len() / BLOCK_SIZE) as u64);
        assert!(
            end.is_some_and(|end| end <= self.blocks()),
            "read past the end"
        );
        for (number, into) in (block as usize..).zip(into.chunks_exact_mut(BLOCK_SIZE)) {
            into.copy_from_slice(self.image.borrow().get(number).ok_or(Failed)?);
        }
        Ok(())
    }

    fn write(&self, blocks: &mut dyn Iterator<Item = (u64, &[u8])>) -> Result<(), Failed> {
        for (at, bytes) in blocks {
            self.call()?;
            for (number, bytes) in (at..).zip(bytes.chunks_exact(BLOCK_SIZE)) {
                self.image.borrow_mut()[number as usize] = bytes.to_vec();
                let write = Write::Block(number, bytes.to_vec());
                self.writes.borrow_mut().push(write);
            }
        }
        Ok(())
    }

    fn write_superblock(&self, block: &[u8]) -> Result<(), Failed> {
        self.call()?;
        self.image.borrow_mut()[0] = block.to_vec();
        let write = Write::Superblock(block.to_vec());
        self.writes.borrow_mut().push(write);
        Ok(())
    }
}

/// What a test commits: array blocks get new content.
struct Edit {
    content: BTreeMap<usize, u64>,
    flushed: bool,
}

impl Edit {
    fn new(content: impl IntoIterator<Item = (usize, u64)>) -> Self {
        Edit {
            content: content.into_iter().collect(),
            flushed: false,
        }
    }
}

impl Changes for Edit {
    type Error = Failed;

    fn next(&mut self, from: usize) -> Option<usize> {
        self.content.range(from..).next().map(|(&block, _)| block)
    }

    fn take(&mut self, block: usize, values: &mut [u8]) {
        assert!(!self.flushed, "taken after the flush that should cover it");
        let value = self.content.remove(&block).unwrap();
        for bytes in values.chunks_exact_mut(WORD_SIZE) {
            bytes.copy_from_slice(&value.to_le_bytes());
        }
    }

    fn flush(&mut self) -> Result<(), Failed> {
        self.flushed = true;
        Ok(())
    }
}

/// Metadata as a formatter leaves it, with `fan` entries in a node of the tree.
fn format_image(regions: u64, blocks: u64, fan: usize) -> Image {
    let mut image: Image = vec![vec![0; BLOCK_SIZE]; blocks as usize];
    let bitmaps = bitmap_count(blocks);
    let mut next = 3 + bitmaps;
    let mut level: Vec<(u64, u64)> = Vec::new();
    for number in 0..block_count(regions) {
        let array = &mut image[next as usize];
        let count = (word_count(regions) - number * WORDS_PER_BLOCK).min(WORDS_PER_BLOCK);
        block::begin_array(array, count);
        block::seal(Kind::Array, array, next);
        level.push((number as u64, next));
        next += 1;
    }
    let mut flags = 2;
    loop {
        let mut above = Vec::new();
        for children in level.chunks(fan) {
            let node = &mut image[next as usize];
            put_u32(node, 4, flags);
            put_u32(node, 16, children.len() as u32);
            put_u32(node, 20, 252);
            put_u32(node, 24, 8);
            for (entry, &(key, at)) in children.iter().enumerate() {
                put_u64(node, 32 + 8 * entry, key);
                put_u64(node, 2048 + 8 * entry, at);
            }
            block::seal(Kind::Node, node, next);
            above.push((children[0].0, next));
            next += 1;
        }
        level = above;
        flags = 1;
        if level.len() == 1 {
            break;
        }
    }
    for bitmap in 0..bitmaps {
        let used = next
            .saturating_sub(bitmap * BITMAP_BLOCKS)
            .min(BITMAP_BLOCKS);
        let image_of = &mut image[3 + bitmap as usize];
        for entry in 0..used as usize {
            image_of[16 + entry / 4] |= 0b10 << (2 * (entry % 4));
        }
        block::seal(Kind::Bitmap, image_of, 3 + bitmap);
        let entry = 16 + 16 * bitmap as usize;
        put_u64(&mut image[1], entry, 3 + bitmap);
        put_u32(&mut image[1], entry + 8, (BITMAP_BLOCKS - used) as u32);
        put_u32(&mut image[1], entry + 12, used as u32);
    }
    block::seal(Kind::Index, &mut image[1], 1);
    let mut superblock = Superblock {
        space_map_root: [0; 128],
        region_sectors: 8,
        target_sectors: regions * 8,
        bitset_root: level[0].1,
    };
    let root = Root {
        blocks,
        allocated: next,
        index: 1,
        counts: 2,
    };
    root.encode(&mut superblock.space_map_root);
    superblock.encode(&mut image[0]);
    format::seal(&mut image[0], 0, crc32c);
    image
}

/// Reads an image without the code under test, and checks that exactly the blocks that something
/// refers to are in use.
fn audit(image: &Image, regions: u64) -> Content {
    format::check(&image[0], 0, crc32c).expect("superblock");
    let superblock = Superblock::decode(&image[0]);
    let root = Root::decode(&superblock.space_map_root);
    let mut used = BTreeSet::from([0, root.index, root.counts]);
    let mut refer = |number| assert!(used.insert(number), "{number} is used twice");
    let check = |kind, number: u64| {
        let block = &image[number as usize];
        block::check(kind, block, number).unwrap_or_else(|damage| panic!("{damage}"));
        block
    };

    let mut content = Content::new();
    let mut todo = vec![superblock.bitset_root];
    while let Some(number) = todo.pop() {
        let node = check(Kind::Node, number);
        refer(number);
        let entries = get_u32(node, 16) as usize;
        let values: Vec<u64> = (0..entries).map(|i| get_u64(node, 2048 + 8 * i)).collect();
        if get_u32(node, 4) == 1 {
            todo.extend(values.iter().rev());
            continue;
        }
        for (entry, &at) in values.iter().enumerate() {
            assert_eq!(get_u64(node, 32 + 8 * entry), content.len() as u64, "key");
            let array = check(Kind::Array, at);
            refer(at);
            let count = get_u32(array, 8) as usize;
            let value = get_u64(array, ARRAY_VALUES);
            for i in 0..WORDS_PER_BLOCK {
                let expected = if i < count { value } else { 0 };
                assert_eq!(get_u64(array, ARRAY_VALUES + WORD_SIZE * i), expected);
            }
            content.push(value);
        }
    }
    assert_eq!(content.len(), block_count(regions));

    let index = check(Kind::Index, root.index);
    let mut counted = BTreeSet::new();
    for bitmap in 0..bitmap_count(root.blocks) {
        let entry = 16 + 16 * bitmap as usize;
        let at = get_u64(index, entry);
        refer(at);
        let bits = check(Kind::Bitmap, at);
        let counts = (0..BITMAP_BLOCKS as usize).map(|i| bits[16 + i / 4] >> (2 * (i % 4)) & 3);
        let counts: Vec<u8> = counts.collect();
        let free = counts.iter().filter(|&&count| count == 0).count();
        assert_eq!(get_u32(index, entry + 8) as usize, free, "free entries");
        let none_before = get_u32(index, entry + 12) as usize;
        assert!(counts.iter().take(none_before).all(|&count| count != 0));
        for (entry, count) in (bitmap * BITMAP_BLOCKS..).zip(counts) {
            assert!(count == 0 || count == 0b10, "a count other than 0 and 1");
            if count != 0 {
                counted.insert(entry);
            }
        }
    }
    assert_eq!(root.allocated, counted.len() as u64);
    assert_eq!(counted, used, "in use, and referred to");
    content
}

/// Opens and reads an image as the module does.
fn open(model: &Model, regions: u64) -> Result<(Store<&Model>, Content), OpenError<Failed>> {
    let superblock = Superblock::decode(&model.image.borrow()[0]);
    let mut store = Store::open(model, superblock, regions)?;
    let mut content = Content::new();
    store.load(|block, values| {
        assert_eq!(block, content.len());
        content.push(get_u64(values, 0));
    })?;
    Ok((store, content))
}

/// Every state that a crash during these writes may leave, as far as `pick` chooses: of the blocks
/// any may be missing or torn until the superblock flushes them.
fn crash(before: &Image, writes: &[Write], pick: &[u8]) -> (Image, bool) {
    let mut image = before.clone();
    let mut pick = pick.iter().cycle();
    let cut = *pick.next().unwrap() as usize % (writes.len() + 1);
    let last = writes[..cut]
        .iter()
        .rposition(|write| matches!(write, Write::Superblock(_)));
    for (number, write) in writes[..cut].iter().enumerate() {
        match write {
            Write::Superblock(block) => image[0] = block.clone(),
            Write::Block(at, block) => {
                let durable = last.is_some_and(|last| number < last);
                let sectors = if durable { 0xFF } else { *pick.next().unwrap() };
                for sector in (0..8).filter(|sector| sectors >> sector & 1 != 0) {
                    let bytes = sector * 512..(sector + 1) * 512;
                    image[*at as usize][bytes.clone()].copy_from_slice(&block[bytes]);
                }
            }
        }
    }
    (image, last.is_some())
}

/// Regions, fan of the tree, blocks to spare beyond what is needed for a full transaction.
fn shape() -> impl Strategy<Value = (u64, usize, u64)> {
    (
        1u64..40 * 32576,
        prop_oneof![2usize..5, Just(252)],
        prop_oneof![Just(0u64), 1u64..200],
    )
}

fn edits() -> impl Strategy<Value = Vec<BTreeMap<usize, u64>>> {
    let edit = prop_oneof![
        3 => proptest::collection::btree_map(0usize..40, 1u64.., 1..4),
        1 => proptest::collection::btree_map(0usize..40, 1u64.., 1..40),
    ];
    vec(edit, 1..8)
}

/// An image of this shape that has room for one transaction of everything, and `spare` more.
fn image_of((regions, fan, spare): (u64, usize, u64)) -> Image {
    let mut nodes = 0;
    let mut level = block_count(regions);
    loop {
        level = level.div_ceil(fan);
        nodes += level;
        if level == 1 {
            break;
        }
    }
    let bitmaps = 1;
    let blocks = 4 + 2 * (block_count(regions) + nodes + bitmaps) as u64 + spare;
    format_image(regions, blocks, fan)
}

fn try_edits(
    shape: (u64, usize, u64),
    edits: Vec<BTreeMap<usize, u64>>,
    mut judge: impl FnMut(&Image, &Content, &Model, &Content) -> TestCaseResult,
) -> TestCaseResult {
    let regions = shape.0;
    let model = Model::new(image_of(shape));
    let mut content = audit(&model.image.borrow(), regions);
    let (mut store, read) = open(&model, regions).unwrap_or_else(|_| panic!("opened"));
    prop_assert_eq!(&read, &content);
    prop_assert_eq!(store.missing(), 0);
    for edit in edits {
        let edit = edit.into_iter().filter(|&(block, _)| block < content.len());
        let edit: BTreeMap<usize, u64> = edit.collect();
        let before = model.image.borrow().clone();
        let old = content.clone();
        for (&block, &value) in &edit {
            content[block] = value;
        }
        model.writes.borrow_mut().clear();
        prop_assert_eq!(store.commit(0, &mut Edit::new(edit)).unwrap(), Done::All);
        prop_assert_eq!(&audit(&model.image.borrow(), regions), &content);
        let (used, blocks) = store.usage();
        prop_assert!(used <= blocks);
        judge(&before, &old, &model, &content)?;
    }
    let (_, read) = open(&model, regions).unwrap_or_else(|_| panic!("opened again"));
    prop_assert_eq!(read, content);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// After a crash there is one transaction or the other, whole, and it can be opened.
    #[test]
    fn a_crash_leaves_one_transaction(
        shape in shape(),
        edits in edits(),
        picks in vec(vec(any::<u8>(), 1..20), 1..8),
    ) {
        try_edits(shape, edits, |before, old, model, new| {
            for pick in &picks {
                let (image, committed) = crash(before, &model.writes.borrow(), pick);
                let expected = if committed { new } else { old };
                prop_assert_eq!(&audit(&image, shape.0), expected);
            }
            Ok(())
        })?;
    }

    /// When the disk fails, what it has is one transaction or the other.
    #[test]
    fn a_fault_leaves_one_transaction(
        shape in shape(),
        edit in edits(),
        calls in 0usize..50,
    ) {
        let regions = shape.0;
        let model = Model::new(image_of(shape));
        let old = audit(&model.image.borrow(), regions);
        let (mut store, _) = open(&model, regions).unwrap_or_else(|_| panic!("opened"));
        let mut new = old.clone();
        let edit: BTreeMap<_, _> = edit[0].clone().into_iter().filter(|e| e.0 < new.len()).collect();
        for (&block, &value) in &edit {
            new[block] = value;
        }
        *model.calls_left.borrow_mut() = calls;
        let result = store.commit(0, &mut Edit::new(edit));
        let expected = if result.is_ok() { new } else { old };
        prop_assert_eq!(audit(&model.image.borrow(), regions), expected);
    }

    /// Where there is too little room for everything, it is committed in parts.
    #[test]
    fn a_small_disk_takes_parts(arrays in 1usize..30, fan in 2usize..5, missing in 0u64..70) {
        let regions = arrays as u64 * 32576;
        let full = image_of((regions, fan, 0)).len() as u64;
        let image = format_image(regions, full - missing.min(full / 3), fan);
        let model = Model::new(image);
        let Ok((mut store, mut content)) = open(&model, regions) else {
            return Err(TestCaseError::reject("not even room for the format"));
        };
        let mut edit = Edit::new((0..arrays).map(|block| (block, 7)));
        let mut from = 0;
        loop {
            edit.flushed = false;
            match store.commit(from, &mut edit) {
                Ok(Done::All) => break,
                Ok(Done::Part(next)) => {
                    prop_assert!(next > from);
                    from = next;
                    prop_assert!(store.missing() > 0);
                    let now = audit(&model.image.borrow(), regions);
                    prop_assert!(now != content, "no progress");
                    content = now;
                }
                Err(error) => {
                    prop_assert!(matches!(error, CommitError::NoSpace));
                    prop_assert_eq!(audit(&model.image.borrow(), regions), content);
                    return Ok(());
                }
            }
        }
        prop_assert_eq!(audit(&model.image.borrow(), regions), vec![7; arrays]);
    }
}

/// How many damaged images are tried.
const IMAGES: u64 = 100_000;
/// More calls than any of them can take: whoever makes them does not come to an end.
const MANY_CALLS: usize = 1000;
/// What fields have, or nearly; and what arithmetic with them could stumble upon.
const ODD_NUMBERS: &[u64] = &[
    0,
    1,
    2,
    3,
    4,
    63,
    64,
    65,
    126,
    252,
    253,
    254,
    255,
    509,
    510,
    BITMAP_BLOCKS - 1,
    BITMAP_BLOCKS,
    255 * BITMAP_BLOCKS,
    255 * BITMAP_BLOCKS + 1,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 32,
    u64::MAX / 4096,
    1 << 63,
    u64::MAX - 1,
    u64::MAX,
];

/// A good image that will be damaged, and which of its blocks are something.
struct Good {
    regions: u64,
    image: Image,
    kinds: Vec<(usize, Option<Kind>)>,
}

/// An image with room for `spare` blocks more than needed, after some commits; every block of the
/// bitset then has another content.
fn good_image(regions: u64, fan: usize, spare: u64, commits: u64) -> Good {
    let model = Model::new(image_of((regions, fan, spare)));
    let (mut store, content) = open(&model, regions).unwrap_or_else(|_| panic!("opened"));
    for commit in 1..=commits {
        let edit = (0..content.len()).map(|block| (block, 100 * commit + block as u64));
        assert_eq!(store.commit(0, &mut Edit::new(edit)).unwrap(), Done::All);
    }
    let image = model.image.take();
    let kind_of = |number: usize| {
        [Kind::Node, Kind::Array, Kind::Index, Kind::Bitmap]
            .into_iter()
            .find(|&kind| block::check(kind, &image[number], number as u64).is_ok())
    };
    let kinds = (0..image.len()).map(|number| (number, kind_of(number)));
    let kinds = kinds.filter(|&(number, kind)| number == 0 || kind.is_some());
    let kinds = kinds.collect();
    Good {
        regions,
        image,
        kinds,
    }
}

fn odd_number(rng: &mut StdRng) -> u64 {
    match rng.random_range(0..4) {
        0 => rng.random(),
        1 => rng.random_range(0..40),
        _ => *ODD_NUMBERS.choose(rng).unwrap(),
    }
}

/// Puts the checksum of a block right, and the number too that says where it is.
fn reseal(image: &mut Image, number: usize, kind: Option<Kind>) {
    match kind {
        Some(kind) => block::seal(kind, &mut image[number], number as u64),
        None => format::seal(&mut image[number], number as u64, crc32c),
    }
}

/// Does something to an image.
fn damage(rng: &mut StdRng, good: &Good, image: &mut Image) {
    let (number, kind) = *good.kinds.choose(rng).unwrap();
    match rng.random_range(0..10) {
        // A field becomes another number; at the head of the block is what says most.
        0..5 => {
            let at = match (kind, rng.random_range(0..3)) {
                (None, 0..2) => *[44, 52, 60, 68, 172, 180, 188].choose(rng).unwrap(),
                (_, 0) => 4 * rng.random_range(1..20),
                (Some(Kind::Node), 1) => 2048 + 8 * rng.random_range(0..4),
                _ => 4 * rng.random_range(1..BLOCK_SIZE / 4 - 1),
            };
            let value = odd_number(rng);
            if rng.random() {
                put_u64(&mut image[number], at, value);
            } else {
                put_u32(&mut image[number], at, value as u32);
            }
            if rng.random_range(0..8) != 0 {
                reseal(image, number, kind);
            }
        }
        5 | 6 => {
            for _ in 0..*[1, 1, 5, 50].choose(rng).unwrap() {
                image[number][rng.random_range(4..BLOCK_SIZE)] = rng.random();
            }
            if rng.random_range(0..4) != 0 {
                reseal(image, number, kind);
            }
        }
        // A block is where another one should be, and may say so or not.
        7 => {
            let (other, other_kind) = *good.kinds.choose(rng).unwrap();
            image[number] = good.image[other].clone();
            if rng.random() {
                reseal(image, number, if rng.random() { kind } else { other_kind });
            }
        }
        // A part of it was never written.
        8 => {
            let sector = rng.random_range(0..8) * 512;
            image[number][sector..][..512].fill(0);
            if rng.random() {
                reseal(image, number, kind);
            }
        }
        _ => image.truncate(rng.random_range(1..=image.len())),
    }
}

/// What becomes of a damaged image.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Outcome {
    Superblock,
    Refused,
    Worked,
    NoSpace,
}

/// Opens an image as the module does, and commits if it can be opened. What was committed is there
/// when it is opened again.
fn use_image(rng: &mut StdRng, image: Image, regions: u64) -> Outcome {
    if format::check(&image[0], 0, crc32c).is_err() {
        return Outcome::Superblock;
    }
    let superblock = Superblock::decode(&image[0]);
    if (superblock.region_sectors, superblock.target_sectors) != (8, regions * 8) {
        return Outcome::Superblock;
    }
    let model = Model::new(image);
    *model.calls_left.borrow_mut() = MANY_CALLS;
    let (mut store, mut content) = match open(&model, regions) {
        Ok(opened) => opened,
        Err(OpenError::Device(Failed)) => panic!("no end of reading"),
        Err(_) => return Outcome::Refused,
    };
    let mut outcome = Outcome::Worked;
    for _ in 0..rng.random_range(1..4) {
        let edit: BTreeMap<usize, u64> = (0..content.len())
            .map(|block| (block, rng.random::<u64>()))
            .filter(|(_, value)| value % 2 == 0)
            .collect();
        let mut changes = Edit::new(edit.clone());
        match store.commit(0, &mut changes) {
            Ok(_) => {
                for (block, value) in edit {
                    if !changes.content.contains_key(&block) {
                        content[block] = value;
                    }
                }
            }
            Err(CommitError::NoSpace) => {
                outcome = Outcome::NoSpace;
                break;
            }
            Err(_) => panic!("no end of writing"),
        }
    }
    let (_, again) = open(&model, regions).unwrap_or_else(|_| panic!("does not open again"));
    assert_eq!(again, content);
    outcome
}

/// Damage is an error or does not matter; it is no panic and no endless loop.
#[test]
fn damage_is_an_error() {
    let mut good = Vec::new();
    for (blocks, fan) in [(1, 252), (2, 252), (3, 2), (5, 2), (7, 3)] {
        for (spare, commits) in [(0, 0), (0, 3), (20, 2)] {
            good.push(good_image(blocks * 32576 - 77, fan, spare, commits));
        }
    }
    let mut outcomes = BTreeMap::new();
    for seed in 0..IMAGES {
        let mut rng = StdRng::seed_from_u64(seed);
        let good = good.choose(&mut rng).unwrap();
        let mut image = good.image.clone();
        for _ in 0..*[1, 1, 1, 2, 3].choose(&mut rng).unwrap() {
            if image.len() == good.image.len() {
                damage(&mut rng, good, &mut image);
            }
        }
        let used = catch_unwind(AssertUnwindSafe(|| {
            use_image(&mut rng, image, good.regions)
        }));
        let outcome = used.unwrap_or_else(|panic| {
            eprintln!("with image {seed}");
            resume_unwind(panic)
        });
        *outcomes.entry(outcome).or_insert(0) += 1;
    }
    // Each layer has had its share.
    for outcome in [Outcome::Superblock, Outcome::Refused, Outcome::Worked] {
        assert!(outcomes[&outcome] > IMAGES / 50, "{outcomes:?}");
    }
    assert!(outcomes[&Outcome::NoSpace] > 0, "{outcomes:?}");
}

/// What is refused and what is formatted: one block less than needed is too few.
#[test]
fn the_needed_size_is_exact() {
    for arrays in [1, 2, 100, 252] {
        let regions = arrays as u64 * 32576;
        let blocks = needed_to_format(regions, 1 << 10);
        for missing in [0, 1] {
            let model = Model::new(format_image(regions, blocks - missing, 252));
            let (mut store, _) = open(&model, regions).unwrap_or_else(|_| panic!("opened"));
            assert_eq!(store.missing(), missing);
            let mut edit = Edit::new((0..arrays).map(|block| (block, 7)));
            match store.commit(0, &mut edit) {
                Ok(done) => assert_eq!(done == Done::All, missing == 0),
                Err(CommitError::NoSpace) => assert!(arrays == 1 && missing == 1),
                Err(_) => panic!("failed"),
            }
        }
    }
}

/// What one change costs does not depend on the size.
#[test]
fn one_change_writes_one_block_of_each_kind() {
    for (regions, nodes) in [(1, 1), (250 * 32576, 1), (300 * 32576, 2)] {
        let model = Model::new(format_image(regions, 2000, 252));
        let (mut store, _) = open(&model, regions).unwrap_or_else(|_| panic!("opened"));
        store.commit(0, &mut Edit::new([(0, 1)])).unwrap();
        // Array block, nodes, bitmap, index, superblock.
        assert_eq!(model.writes.borrow().len(), 3 + nodes + 1);
    }
}

/// Changes one array block after the other, of so many on a device of so many blocks: what each writes.
fn writes_of_changes(arrays: u64, device_blocks: u64) -> Vec<usize> {
    let regions = arrays * 32576;
    let model = Model::new(format_image(regions, device_blocks, 252));
    let (mut store, _) = open(&model, regions).unwrap_or_else(|_| panic!("opened"));
    let changes = (0..200).map(|turn| {
        let block = turn * 7919 % arrays;
        model.writes.borrow_mut().clear();
        store
            .commit(0, &mut Edit::new([(block as usize, turn)]))
            .unwrap();
        model.writes.borrow().len()
    });
    let writes = changes.collect();
    audit(&model.image.borrow(), regions);
    writes
}

/// However many bitmaps there are, a change is in two at most: that of the old array block, and that
/// of everything new.
#[test]
fn one_change_writes_few_bitmaps() {
    let arrays = 2 * BITMAP_BLOCKS + 1000;
    for (turn, writes) in writes_of_changes(arrays, arrays + 3000).iter().enumerate() {
        // Array block, two levels of nodes, bitmaps, index, superblock. At first the space map itself
        // leaves the places that the format has given it.
        let most = if turn < 8 { 8 } else { 7 };
        assert!(*writes <= most, "in turn {turn}");
    }
}

/// A clone whose blocks have room in one bitmap stays there, however large the device is.
#[test]
fn one_change_on_a_large_device_writes_one_bitmap() {
    for (turn, writes) in writes_of_changes(1000, 3 * BITMAP_BLOCKS)
        .iter()
        .enumerate()
    {
        // As above, with one bitmap.
        let most = if turn < 8 { 8 } else { 6 };
        assert!(*writes <= most, "in turn {turn}");
    }
}
