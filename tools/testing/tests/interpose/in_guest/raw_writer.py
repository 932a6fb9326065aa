# SPDX-License-Identifier: GPL-2.0
"""A writer of which a copy of the disk tells how far it was.

arguments: write|check DISK NUMBER
write: numbered blocks, in a sequence that is the same each time, each written when the one before is done, until
/tmp/writer.stop is there; a byte is added to /tmp/writer.NUMBER for each. check: fails unless the disk has the first
so many writes of the sequence, whole, and nothing else.
"""

import mmap
import os
import random
import struct
import sys

BLOCK = 4096
AREA = 256  # blocks, for each writer


def sequence(number):
    """The blocks of the area, in the order in which they are written."""
    rng = random.Random(number)
    while True:
        yield rng.randrange(AREA)


def fill(buffer, number, count):
    """The content of the write of this count."""
    buffer[:] = struct.pack("<QQ", number + 1, count) * (BLOCK // 16)


def write(disk, number):
    """Writes until it is told to stop."""
    file = os.open(disk, os.O_RDWR | os.O_DIRECT)
    buffer = mmap.mmap(-1, BLOCK)
    with open(f"/tmp/writer.{number}", "wb", buffering=0) as progress:
        for count, block in enumerate(sequence(number), 1):
            fill(buffer, number, count)
            os.pwrite(file, buffer, (number * AREA + block) * BLOCK)
            progress.write(b".")
            if os.path.exists("/tmp/writer.stop"):
                return


def check(disk, number):
    """Compares the area with what the first so many writes leave."""
    with open(disk, "rb") as file:
        file.seek(number * AREA * BLOCK)
        area = file.read(AREA * BLOCK)
    seen = {}
    for block in range(AREA):
        content = area[block * BLOCK:(block + 1) * BLOCK]
        if content.strip(b"\0"):
            owner, count = struct.unpack_from("<QQ", content)
            expected = bytearray(BLOCK)
            fill(expected, number, count)
            assert owner == number + 1 and content == bytes(expected), f"block {block} is torn"
            seen[block] = count
    last = max(seen.values(), default=0)
    expected = {}
    for count, block in zip(range(1, last + 1), sequence(number), strict=False):
        expected[block] = count
    assert seen == expected, f"writer {number}: not what its first {last} writes leave"
    assert last > 0, f"writer {number} has written nothing"
    print(last)


if __name__ == "__main__":
    {"write": write, "check": check}[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
