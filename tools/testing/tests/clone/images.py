# SPDX-License-Identifier: GPL-2.0
"""Metadata of `clone` as bytes, to be damaged on purpose."""

BLOCK = 4096

# What a checksum is combined with, by kind of block.
SUPERBLOCK, BTREE_NODE, ARRAY_BLOCK, INDEX, BITMAP = 257649492, 121107, 595846735, 160478, 240779

# Fields of the superblock: (offset, bytes).
BLOCK_NUMBER, MAGIC, VERSION = (8, 8), (32, 8), (40, 4)
SPACE_MAP_ROOT, REGION_SIZE, TARGET_SIZE, BITSET_ROOT = (44, 128), (172, 8), (180, 8), (188, 8)


def _crc_table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_CRC = _crc_table()


def checksum(block, tag):
    """The checksum that a block of a kind must have."""
    crc = 0xFFFFFFFF
    for byte in block[4:]:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 0xFF]
    return crc ^ tag


def seal(block, tag):
    """The block with its checksum put right."""
    return checksum(block, tag).to_bytes(4, "little") + bytes(block[4:])


def get(block, field):
    """The number in a field."""
    offset, size = field
    return int.from_bytes(block[offset:offset + size], "little")


def put(block, field, value):
    """The block with another number in a field; its checksum is not put right."""
    offset, size = field
    return bytes(block[:offset]) + value.to_bytes(size, "little") + bytes(block[offset + size:])
