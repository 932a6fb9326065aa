# SPDX-License-Identifier: GPL-2.0
"""Formats or opens metadata on slices of a disk, and commits a few discards; see tests/clone/test_interop.py.

arguments: DISK COMMITS SEED; stdin: [[sectors of the slice, regions]...]
"""

import json
import random
import sys

from disk import Disk
from dm_ioctl import Device


def main():
    """Slice after slice. One discard per commit: a timer between them changes nothing then."""
    offset = 0
    for sectors, regions in json.load(sys.stdin):
        rng = random.Random(f"{regions} {sys.argv[3]}")
        metadata, clone = Device("slice"), Device("clone")
        metadata.load(sectors, "linear", f"{sys.argv[1]} {offset}")
        metadata.resume()
        words = f"{metadata.path} /dev/mapper/zeroes /dev/mapper/more-zeroes 8 2 no_hydration no_discard_passdown"
        clone.load(regions * 8, "clone", words)
        clone.resume()
        clone.status()
        disk = Disk(clone.path)
        for _ in range(int(sys.argv[2])):
            start = rng.randrange(regions - 1)
            count = rng.randrange(1, min(regions - start, 3000))
            disk.discard(start * 4096, count * 4096)
            clone.status()
        disk.close()
        clone.remove()
        metadata.remove()
        offset += sectors


main()
