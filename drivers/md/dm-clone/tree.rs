// SPDX-License-Identifier: GPL-2.0

//! The tree that says where the blocks of the region bitset are, in memory and on disk. Pure.
//!
//! It is a B-tree with the number of an array block as key and its place as value. The keys never
//! change once the metadata is formatted, only the places do: so it is kept in memory whole, and a
//! place is replaced where it stands. An inner node has the places of its children as values.

use super::{
    block::{
        self,
        get_u32,
        get_u64,
        put_u64,
        Damage,
        Kind, //
    },
    format::BLOCK_SIZE,
    platform::{
        push,
        with_room,
        Array,
        NoMemory, //
    },
    space_map::{
        OpenError,
        SpaceMap, //
    }, //
};

const FLAGS: usize = 4;
const ENTRIES: usize = 16;
const MOST_ENTRIES: usize = 20;
const VALUE_SIZE: usize = 24;
const KEYS: usize = 32;

const INNER: u32 = 1;
const LEAF: u32 = 2;

/// How many levels a tree may have. With 126 entries a node, two are enough for 2^31 regions and
/// more; a damaged tree may have any number.
const MOST_LEVELS: usize = 8;

struct Node {
    at: u64,
    image: Array<u8>,
    /// The node above, and which of its entries this node is.
    parent: Option<(u32, u32)>,
    /// The transaction has changed it.
    changed: bool,
}

impl Node {
    fn entries(&self) -> usize {
        get_u32(&self.image, ENTRIES) as usize
    }

    fn is_leaf(&self) -> bool {
        get_u32(&self.image, FLAGS) == LEAF
    }

    fn value_at(&self, entry: usize) -> usize {
        KEYS + 8 * (get_u32(&self.image, MOST_ENTRIES) as usize + entry)
    }

    fn value(&self, entry: usize) -> u64 {
        get_u64(&self.image, self.value_at(entry))
    }

    fn key(&self, entry: usize) -> u64 {
        get_u64(&self.image, KEYS + 8 * entry)
    }

    fn set(&mut self, entry: usize, value: u64) {
        let at = self.value_at(entry);
        put_u64(&mut self.image, at, value);
    }

    /// Checks what the functions above rely on.
    fn check(&self) -> Result<(), Damage> {
        block::check(Kind::Node, &self.image, self.at)?;
        let damage = |reason| {
            Err(Damage {
                block: self.at,
                kind: Kind::Node,
                reason,
            })
        };
        let most = get_u32(&self.image, MOST_ENTRIES);
        if get_u32(&self.image, VALUE_SIZE) != 8 {
            return damage("has values of another size");
        }
        if most as usize > (BLOCK_SIZE - KEYS) / 16 {
            return damage("is too large");
        }
        if !(1..=most).contains(&get_u32(&self.image, ENTRIES)) {
            return damage("has an impossible number of entries");
        }
        if ![INNER, LEAF].contains(&get_u32(&self.image, FLAGS)) {
            return damage("is neither leaf nor inner node");
        }
        Ok(())
    }
}

/// The tree, with what a transaction has changed of it.
pub struct Tree {
    /// The root is the first; children come after their parents.
    nodes: Array<Node>,
    /// The leaves from left to right: the first key of each, and which node it is.
    leaves: Array<(u64, u32)>,
    /// How many nodes there are from the root to a leaf, at most.
    levels: usize,
    /// Nodes that the transaction has changed.
    changed: Array<u32>,
}

impl Tree {
    /// Reads the tree at `root`, which has the places of `blocks` array blocks, and claims all of
    /// them. `read` reads a block.
    pub fn open<E>(
        root: u64,
        blocks: usize,
        space: &mut SpaceMap,
        mut read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<Self, OpenError<E>> {
        let mut tree = Tree {
            nodes: with_room(1)?,
            leaves: with_room(1)?,
            levels: 1,
            changed: with_room(0)?,
        };
        let mut read_node = |at, parent, space: &mut SpaceMap| {
            space.claim(at, Kind::Node)?;
            let mut image = block::zeroed(1)?;
            read(at, &mut image).map_err(OpenError::Device)?;
            let node = Node {
                at,
                image,
                parent,
                changed: false,
            };
            node.check()?;
            Ok::<_, OpenError<E>>(node)
        };
        push(&mut tree.nodes, read_node(root, None, space)?)?;

        // The way down to the node that is looked at: the node, and its entry to look at next.
        let mut path = [(0, 0); MOST_LEVELS];
        let mut level = 0;
        let mut next = 0;
        loop {
            let (number, entry) = path[level];
            let node = &tree.nodes[number as usize];
            let wrong = |reason| Damage {
                block: node.at,
                kind: Kind::Node,
                reason,
            };
            if node.is_leaf() {
                push(&mut tree.leaves, (next, number))?;
                for entry in 0..node.entries() {
                    if node.key(entry) != next || next >= blocks as u64 {
                        return Err(wrong("has the wrong keys").into());
                    }
                    space.claim(node.value(entry), Kind::Array)?;
                    next += 1;
                }
            } else if entry < node.entries() {
                if level + 1 == MOST_LEVELS {
                    return Err(wrong("is too deep in the tree").into());
                }
                let child = tree.nodes.len() as u32;
                let parent = Some((number, entry as u32));
                let node = read_node(node.value(entry), parent, space)?;
                push(&mut tree.nodes, node)?;
                path[level].1 += 1;
                level += 1;
                path[level] = (child, 0);
                tree.levels = tree.levels.max(level + 1);
                continue;
            }
            // The node is done.
            if level == 0 {
                break;
            }
            level -= 1;
        }
        if next != blocks as u64 {
            let damage = Damage {
                block: root,
                kind: Kind::Node,
                reason: "has too few entries below it",
            };
            return Err(damage.into());
        }
        tree.changed = with_room(tree.nodes.len())?;
        Ok(tree)
    }

    /// Where the root is, as of the transaction.
    pub fn root(&self) -> u64 {
        self.nodes[0].at
    }

    /// How many nodes there are.
    pub fn nodes(&self) -> u64 {
        self.nodes.len() as u64
    }

    /// How many nodes the change of one place changes, at most.
    pub fn levels(&self) -> u64 {
        self.levels as u64
    }

    /// Where an array block is.
    pub fn place(&self, block: usize) -> u64 {
        let (node, entry) = self.find(block);
        self.nodes[node].value(entry)
    }

    /// Replaces the place of an array block, and returns the old one.
    pub fn replace(&mut self, block: usize, at: u64) -> Result<u64, NoMemory> {
        let (node, entry) = self.find(block);
        let old = self.nodes[node].value(entry);
        self.nodes[node].set(entry, at);
        let mut changed = Some(node);
        while let Some(number) = changed.filter(|&number| !self.nodes[number].changed) {
            self.nodes[number].changed = true;
            push(&mut self.changed, number as u32)?;
            changed = self.nodes[number].parent.map(|(parent, _)| parent as usize);
        }
        Ok(old)
    }

    /// The leaf and the entry of an array block.
    fn find(&self, block: usize) -> (usize, usize) {
        let after = self
            .leaves
            .partition_point(|&(first, _)| first <= block as u64);
        let (first, node) = self.leaves[after.saturating_sub(1)];
        (node as usize, block - first as usize)
    }

    /// Gives new places to the nodes that have changed, and completes them for
    /// [`changed`](Self::changed). None if there is no room.
    pub fn relocate(&mut self, space: &mut SpaceMap) -> Option<()> {
        for &number in self.changed.iter() {
            let number = number as usize;
            let at = space.allocate()?;
            space.release(self.nodes[number].at).ok()?;
            self.nodes[number].at = at;
            if let Some((parent, entry)) = self.nodes[number].parent {
                self.nodes[parent as usize].set(entry as usize, at);
            }
        }
        for &number in self.changed.iter() {
            let node = &mut self.nodes[number as usize];
            block::seal(Kind::Node, &mut node.image, node.at);
        }
        Some(())
    }

    /// The nodes that [`relocate`](Self::relocate) has completed, and where they go.
    pub fn changed(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let nodes = self
            .changed
            .iter()
            .map(|&number| &self.nodes[number as usize]);
        nodes.map(|node| (node.at, &node.image[..]))
    }

    /// The transaction is durable.
    pub fn end_transaction(&mut self) {
        for &number in self.changed.iter() {
            self.nodes[number as usize].changed = false;
        }
        self.changed.clear();
    }
}
