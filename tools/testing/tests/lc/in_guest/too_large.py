# SPDX-License-Identifier: GPL-2.0
"""Has more memory than its control group gives it, and looks at all of it again and again; see tests/lc/test_swap.py.

arguments: GROUP_PROCS MIBS
"""

import mmap
import os
import random
import sys

PAGE = 4096
ROUNDS = 3


def content(page, version):
    """What a page holds."""
    return (page << 16 | version).to_bytes(8, "little") * (PAGE // 8)


def main():
    """Writes, then reads and changes in another order each time."""
    procs, mibs = sys.argv[1], int(sys.argv[2])
    with open(procs, "w", encoding="ascii") as file:
        file.write(str(os.getpid()))
    pages = mibs << 20 >> 12
    memory = mmap.mmap(-1, pages * PAGE)
    for page in range(pages):
        memory[page * PAGE:(page + 1) * PAGE] = content(page, 0)
    order = list(range(pages))
    for version in range(1, ROUNDS + 1):
        random.Random(version).shuffle(order)
        for page in order:
            place = slice(page * PAGE, (page + 1) * PAGE)
            assert memory[place] == content(page, version - 1), page
            memory[place] = content(page, version)


main()
