# SPDX-License-Identifier: GPL-2.0
"""Hydrates regions of a clone one by one, and flushes after each; see tests/clone/test_interop.py.

arguments: CLONE REGIONS FIRST COUNT
REGIONS, of 4 KiB, are a power of two; they are written in an order in which neighbours are far apart, COUNT
of them from the FIRST in this order on.
"""

import sys

from disk import Disk

STEP = 40503  # odd


def main():
    """A write that covers its region needs no copy."""
    regions, first, count = (int(word) for word in sys.argv[2:])
    disk = Disk(sys.argv[1])
    data = bytes(4096)
    for number in range(first, first + count):
        disk.write(number * STEP % regions * 4096, data)
        disk.flush()


main()
