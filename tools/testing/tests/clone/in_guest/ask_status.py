# SPDX-License-Identifier: GPL-2.0
"""ask_status.py CLONE METADATA COUNT: writes the first blocks of 4 KiB, and asks for the status after each.

Prints for each how often the metadata device was written to meanwhile, by a status without a flush and by a plain
one, and what the latter counts as hydrated.
"""

import pathlib
import sys

import dm_ioctl
from disk import Disk


def main(name, metadata, count):
    """All in one process: a clone commits by itself within a second, which a measurement must not take."""
    clone = dm_ioctl.Device(name, create=False)
    numbers = dm_ioctl.Device(metadata, create=False)
    stat = pathlib.Path(f"/sys/block/dm-{numbers.minor}/stat")
    disk = Disk(clone.path)

    def writes():
        return int(stat.read_text(encoding="ascii").split()[4])

    for block in range(count):
        clone.status()
        disk.write(block * 4096, bytes(4096))
        counts = [writes()]
        for flags in (dm_ioctl.NOFLUSH, 0):
            status = clone.status(flags)
            counts.append(writes())
        print(counts[1] - counts[0], counts[2] - counts[1], status.split()[3])


main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
