# SPDX-License-Identifier: GPL-2.0
"""Waits for an event of a clone and copies its metadata at once; see tests/clone/test_status.py.

arguments: NAME EVENT METADATA SIZE COPY
"""

import pathlib
import sys

from disk import Disk
from dm_ioctl import Device


def main():
    """All that can be done beforehand is."""
    name, event, metadata, size, copy = sys.argv[1:]
    device, disk = Device(name, create=False), Disk(metadata)
    device.message("enable_hydration")
    device.wait(int(event))
    pathlib.Path(copy).write_bytes(disk.read(0, int(size)))


main()
