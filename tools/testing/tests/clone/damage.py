# SPDX-License-Identifier: GPL-2.0
"""Ways to damage metadata of `clone`."""

import random

from tests.clone import images

NUMBER_AT = {images.ARRAY_BLOCK: (16, 8)}
SPACE_MAP_FIELDS = [(44, 8), (52, 8), (60, 8), (68, 8)]
OTHER_FIELDS = [images.REGION_SIZE, images.TARGET_SIZE, images.BITSET_ROOT]
SHORT = [8, 16, 32, 48, 56, 64, 72, 80]
HEADER_FIELDS = [(4, 4), (8, 4), (8, 8), (12, 4), (16, 4), (16, 8), (20, 4), (24, 4), (24, 8), (32, 8), (2048, 8)]
ODD_NUMBERS = [
    0, 1, 2, 3, 5, 6, 63, 64, 65, 252, 253, 254, 509, 510, 625,
    1 << 14, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 63,
]


def kinds(blocks):
    """{number of a block: what it is}, by its checksum. Blocks that are not in use may be there, too."""
    tags = (images.SUPERBLOCK, images.BTREE_NODE, images.ARRAY_BLOCK, images.INDEX, images.BITMAP)
    return {
        number: tag for number, block in enumerate(blocks) if any(block)
        for tag in tags if images.checksum(block, tag) == images.get(block, (0, 4))
    }


class Damage:
    """An image, and the ways to damage it: each changes self.image and says what it did."""

    def __init__(self, blocks, tags, rng):
        self.image, self.tags, self.rng = [*blocks], tags, rng

    def _change(self, number, block, seal):
        self.image[number] = images.seal(block, self.tags[number]) if seal else bytes(block)

    def _odd(self, size):
        number = self.rng.choice([*ODD_NUMBERS, self.rng.getrandbits(64), self.rng.randrange(70)])
        return number & ((1 << 8 * size) - 1)

    def bit_of_superblock(self, seal):
        """Flips a bit."""
        bit = self.rng.randrange(32, 8 * 200)
        block = bytearray(self.image[0])
        block[bit // 8] ^= 1 << bit % 8
        self._change(0, block, seal)
        return f"bit {bit} of the superblock, sealed {seal}"

    def field_of_superblock(self):
        """Puts another number where one is."""
        field = self.rng.choice(SPACE_MAP_FIELDS + OTHER_FIELDS)
        number = self._odd(8)
        self._change(0, images.put(self.image[0], field, number), True)
        return f"field {field[0]} of the superblock: {number}"

    def field_of_block(self):
        """The same in another block, at its head, where the structure is, or anywhere."""
        number = self.rng.choice([number for number in self.tags if number])
        field = self.rng.choice(HEADER_FIELDS)
        if self.rng.random() < 0.3:
            field = (self.rng.randrange(4, images.BLOCK - 8) // 8 * 8, 8)
        value = self._odd(field[1])
        self._change(number, images.put(self.image[number], field, value), True)
        return f"block {number} of kind {self.tags[number]}: {value} at {field[0]}"

    def bytes_of_block(self, seal):
        """Random bytes in random places."""
        number = self.rng.choice(list(self.tags))
        block = bytearray(self.image[number])
        for _ in range(self.rng.choice([1, 3, 50])):
            block[self.rng.randrange(4, images.BLOCK)] = self.rng.randrange(256)
        self._change(number, block, seal)
        return f"bytes of block {number} of kind {self.tags[number]}, sealed {seal}"

    def swap_blocks(self, seal):
        """Two blocks change places, and may know it."""
        one, other = self.rng.sample(list(self.tags), 2)
        image = [*self.image]
        for place, origin in ((one, other), (other, one)):
            block = self.image[origin]
            if seal:
                block = images.put(block, NUMBER_AT.get(self.tags[origin], (8, 8)), place)
                block = images.seal(block, self.tags[origin])
            image[place] = block
        self.image = image
        return f"blocks {one} and {other} swapped, sealed {seal}"

    def any(self):
        """One of the ways, or two of them."""
        ways = [
            lambda: self.bit_of_superblock(False), lambda: self.bit_of_superblock(True),
            self.field_of_superblock, self.field_of_superblock,
            self.field_of_block, self.field_of_block, self.field_of_block, self.field_of_block,
            lambda: self.bytes_of_block(True), lambda: self.bytes_of_block(False),
            lambda: self.swap_blocks(True), lambda: self.swap_blocks(False),
        ]
        return ", ".join(way() for way in self.rng.sample(ways, self.rng.choice([1, 1, 1, 2])))


def changes(good, damaged):
    """[[offset, bytes in base 16]...]: what makes of the good bytes the damaged ones, in pieces of 64."""
    return [
        [at, damaged[at:at + 64].hex()]
        for at in range(0, len(good), 64) if good[at:at + 64] != damaged[at:at + 64]
    ]


def damaged_images(good, seed, count):
    """Images as in_guest/try_images.py takes them. good: the bytes of the whole device."""
    blocks = [good[at:at + images.BLOCK] for at in range(0, len(good), images.BLOCK)]
    tags = kinds(blocks)
    made = []
    for number in range(count):
        rng = random.Random(f"{seed} {number}")
        if rng.random() < 0.03:
            size = rng.choice(SHORT)
            made.append([f"the device has {size} sectors", size, []])
            continue
        damage = Damage(blocks, tags, rng)
        how = damage.any()
        made.append([how, None, changes(good, b"".join(damage.image))])
    return made
