# SPDX-License-Identifier: GPL-2.0
"""fragmented.py FILE BLOCKS [FROM]: makes a file of so many blocks of 4 KiB, every second of them a hole, from the
FROM'th on; what is before it stays."""

import ctypes
import os
import sys

BLOCK = 4096
KEEP_SIZE_AND_PUNCH_HOLE = 3

path, blocks = sys.argv[1], int(sys.argv[2])
first = int(sys.argv[3]) if len(sys.argv) > 3 else 0
fallocate = ctypes.CDLL(None, use_errno=True).fallocate
fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]

file = os.open(path, os.O_RDWR | os.O_CREAT)
for block in range(2 * first, 2 * blocks, 256):
    os.pwrite(file, os.urandom(BLOCK * min(256, 2 * blocks - block)), block * BLOCK)
os.fsync(file)
for block in range(2 * first, 2 * blocks, 2):
    if fallocate(file, KEEP_SIZE_AND_PUNCH_HOLE, block * BLOCK, BLOCK):
        raise OSError(ctypes.get_errno(), path)
os.fsync(file)
