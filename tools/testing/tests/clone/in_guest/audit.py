# SPDX-License-Identifier: GPL-2.0
"""Accounts for every block of a clone's metadata; see tests/clone/test_interop.py.

arguments: METADATA REGIONS
Every block must have its checksum and its number, exactly the blocks that something refers to must be in
use, each once, and the tree must have every block of the bitset. stdout: the number of hydrated regions.
"""

import sys

import images
from disk import Disk
from images import ARRAY_BLOCK, BITMAP, BTREE_NODE, INDEX, SUPERBLOCK, get

BITMAP_BLOCKS = 16320
ARRAY_WORDS = 509


class Audit:
    """The metadata as read, and the blocks that something has referred to."""

    def __init__(self, path):
        self.disk = Disk(path)
        self.used = set()

    def block(self, number, tag):
        """A block that something refers to, checked."""
        assert number not in self.used, f"block {number} is used twice"
        self.used.add(number)
        block = self.disk.read(number * images.BLOCK, images.BLOCK)
        assert images.checksum(block, tag) == get(block, (0, 4)), f"checksum of block {number}, kind {tag}"
        at = 16 if tag == ARRAY_BLOCK else 8
        assert get(block, (at, 8)) == number, f"number of block {number}, kind {tag}"
        return block

    def tree(self, number):
        """(key, value) of all leaves below a node."""
        node = self.block(number, BTREE_NODE)
        flags, entries, most = get(node, (4, 4)), get(node, (16, 4)), get(node, (20, 4))
        keys = [get(node, (32 + 8 * entry, 8)) for entry in range(entries)]
        values = [get(node, (32 + 8 * (most + entry), 8)) for entry in range(entries)]
        if flags == 2:
            yield from zip(keys, values, strict=True)
            return
        for key, value in zip(keys, values, strict=True):
            below = list(self.tree(value))
            assert below[0][0] == key, f"key of node {value}"
            yield from below

    def bitset(self, root, regions):
        """How many regions are hydrated."""
        words = -(-regions // 64)
        hydrated = 0
        blocks = list(self.tree(root))
        assert [key for key, _ in blocks] == list(range(-(-words // ARRAY_WORDS))), "keys of the bitset"
        for key, number in blocks:
            block = self.block(number, ARRAY_BLOCK)
            count = min(words - key * ARRAY_WORDS, ARRAY_WORDS)
            assert [get(block, (at, 4)) for at in (4, 8, 12)] == [ARRAY_WORDS, count, 8], f"array block {key}"
            bits = int.from_bytes(block[24:24 + 8 * count], "little")
            assert bits >> (regions - key * ARRAY_WORDS * 64) == 0, "bits past the last region"
            hydrated += bin(bits).count("1")
        return hydrated

    def space_map(self, blocks, index):
        """The blocks that are in use."""
        index = self.block(index, INDEX)
        used = set()
        for number in range(-(-blocks // BITMAP_BLOCKS)):
            entry = 16 + 16 * number
            at, free, none_before = (get(index, field) for field in ((entry, 8), (entry + 8, 4), (entry + 12, 4)))
            bitmap = self.block(at, BITMAP)
            entries = [bitmap[16 + entry // 4] >> 2 * (entry % 4) & 3 for entry in range(BITMAP_BLOCKS)]
            assert set(entries) <= {0, 2}, f"counts in bitmap {number}"
            assert entries.count(0) == free, f"free blocks in bitmap {number}"
            assert all(entries[:none_before]), f"first free block in bitmap {number}"
            used.update(number * BITMAP_BLOCKS + entry for entry, count in enumerate(entries) if count)
        return used


def main():
    """Reads everything, then compares what is used with what is said to be."""
    audit, regions = Audit(sys.argv[1]), int(sys.argv[2])
    superblock = audit.disk.read(0, images.BLOCK)
    assert images.checksum(superblock, SUPERBLOCK) == get(superblock, (0, 4)), "checksum of the superblock"
    audit.used.add(0)
    blocks, allocated, index, counts = (get(superblock, (44 + 8 * field, 8)) for field in range(4))
    hydrated = audit.bitset(get(superblock, images.BITSET_ROOT), regions)
    # Blocks are never shared: the tree of counts above 2 is empty.
    assert get(audit.block(counts, BTREE_NODE), (16, 4)) == 0
    in_use = audit.space_map(blocks, index)
    assert in_use == audit.used, in_use ^ audit.used
    assert allocated == len(in_use)
    print(hydrated)


main()
