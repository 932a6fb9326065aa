# SPDX-License-Identifier: GPL-2.0
"""A disk as scripts in guests use it."""

import fcntl
import mmap
import os
import struct

BLKDISCARD = 0x1277


class Disk:
    """A device that is read and written past the page cache."""

    def __init__(self, path):
        self.file = os.open(path, os.O_RDWR | os.O_DIRECT)
        self.buffer = mmap.mmap(-1, 1 << 20)

    def read(self, at, size):
        """Reads a mebibyte at most."""
        return self.buffer[:os.preadv(self.file, [memoryview(self.buffer)[:size]], at)]

    def write(self, at, data):
        """Writes a mebibyte at most."""
        self.buffer[:len(data)] = data
        os.pwritev(self.file, [memoryview(self.buffer)[:len(data)]], at)

    def discard(self, at, size):
        """Discards what is there."""
        fcntl.ioctl(self.file, BLKDISCARD, struct.pack("=QQ", at, size))

    def flush(self):
        """Makes durable what was written."""
        os.fsync(self.file)

    def close(self):
        """Closes the device."""
        os.close(self.file)
