# SPDX-License-Identifier: GPL-2.0
"""Flushes a clone again and again, each time after something was copied; see tests/clone/test_group_commit.py.

arguments: CLONE SECTOR HOW COUNT STATISTICS
HOW is what is done: flush, write (and flush), or fua (a FUA write); writes go to SECTOR.
STATISTICS is the file in /sys with those of the destination.
"""

import os
import pathlib
import sys
import time

from disk import Disk


def writes(statistics):
    """How many writes have ended."""
    return int(pathlib.Path(statistics).read_text(encoding="ascii").split()[4])


def main():
    """A write of the destination more, and the one before has landed."""
    path, sector, how, count, statistics = sys.argv[1:]
    disk = Disk(path)
    fua = os.open(path, os.O_RDWR | os.O_DIRECT | os.O_DSYNC)
    for _ in range(int(count)):
        before = writes(statistics)
        while writes(statistics) < before + 2:
            time.sleep(0.001)
        if how == "write":
            disk.write(int(sector) * 512, bytes(4096))
        if how == "fua":
            os.pwritev(fua, [memoryview(disk.buffer)[:4096]], int(sector) * 512)
        else:
            disk.flush()


main()
