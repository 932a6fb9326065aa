# SPDX-License-Identifier: GPL-2.0
"""random_files.py FOLDER DEVICE PROGRAM SEED STEPS: changes a file at random while dmfilemapd follows its path, and
another program takes and frees region ids. After every few steps the group must come to be where filefrag sees the
file, and no region of the other program may have changed. Ends with a line of what was done."""

import collections
import mmap
import os
import random
import re
import subprocess
import sys
import time

BLOCK = 4096
LARGEST = 64
LIMIT = 60


def run(*words, check=True):
    return subprocess.run(words, check=check, capture_output=True, text=True).stdout


def merged(runs):
    out = []
    for start, end in sorted(runs):
        if out and out[-1][1] >= start:
            out[-1][1] = max(out[-1][1], end)
        else:
            out.append([start, end])
    return out


def places(path):
    found = re.findall(r"^\s*\d+:\s*\d+\.\.\s*\d+:\s*(\d+)\.\.\s*(\d+):", run("filefrag", "-v", "-b512", path), re.M)
    return merged((int(start), int(end) + 1) for start, end in found)


class Walk:
    def __init__(self, folder, device, program, seed):
        self.path, self.device, self.program = f"{folder}/f", device, program
        self.random = random.Random(seed)
        self.rivals = {}
        self.done = collections.Counter()
        self.users = []
        with open(self.path, "wb") as file:
            file.write(os.urandom(8 * BLOCK))
        os.sync()

    def message(self, *words):
        return run("dmsetup", "message", self.device, "0", *words)

    def file(self):
        return open(self.path, "r+b")

    def span(self):
        start = self.random.randrange(LARGEST)
        return start * BLOCK, self.random.randint(1, 8) * BLOCK

    def append(self):
        with self.file() as file:
            file.seek(0, 2)
            if file.tell() < LARGEST * BLOCK:
                file.write(os.urandom(self.random.randint(1, 8) * BLOCK))

    def write(self):
        start, length = self.span()
        with self.file() as file:
            file.seek(start)
            file.write(os.urandom(length))

    def punch(self):
        start, length = self.span()
        run("fallocate", "-p", "-o", str(start), "-l", str(length), self.path)

    def allocate(self):
        start, length = self.span()
        run("fallocate", "-o", str(start), "-l", str(length), self.path)

    def truncate(self):
        os.truncate(self.path, self.random.choice([0, 1, 3, 17, 40]) * BLOCK)

    def rename_over(self):
        with open(self.path + ".new", "wb") as file:
            file.write(os.urandom(self.random.randint(1, 20) * BLOCK))
        os.rename(self.path + ".new", self.path)

    def unlink_while_open(self):
        user = self.file()
        self.users.append(user)
        if len(self.users) > 3:
            self.users.pop(0).close()
        os.unlink(self.path)
        with open(self.path, "wb") as file:
            file.write(os.urandom(self.random.randint(0, 20) * BLOCK))

    def reflink(self):
        # Only some file systems can; on others nothing is done.
        run("cp", "--reflink=always", self.path, self.path + ".copy", check=False)

    def map_memory(self):
        with self.file() as file:
            size = os.fstat(file.fileno()).st_size
            if size:
                memory = mmap.mmap(file.fileno(), 0)
                memory[self.random.randrange(size)] = 1
                memory.flush()

    def defragment(self):
        run("e4defrag", self.path, check=False)

    def rival(self):
        """Another program takes an id, or frees one."""
        if self.rivals and self.random.random() < 0.5:
            number = self.random.choice(list(self.rivals))
            del self.rivals[number]
            self.message("@stats_delete", number)
        else:
            start = self.random.randrange(1000)
            number = self.message("@stats_create", f"{start}+8", "/1", "0", "rival", "-").strip()
            self.rivals[number] = f"{start}+8"

    def listed(self):
        """The regions of ours, merged, and those of the rival; none while a list is being changed."""
        ours, rivals = [], {}
        for line in self.message("@stats_list").splitlines():
            number, span, _, program = line.split()[:4]
            start, length = map(int, span.split("+"))
            if program == self.program:
                ours.append((start, start + length))
            else:
                rivals[number.rstrip(":")] = span
        return merged(ours), sum(end - start for start, end in ours), rivals

    def settle(self, step):
        end = time.monotonic() + LIMIT
        while True:
            os.sync()
            wanted = places(self.path)
            ours, sectors, rivals = self.listed()
            if rivals != self.rivals:
                sys.exit(f"{step}: regions of another program: {rivals}, should be {self.rivals}")
            # The sum tells of regions that lie over each other.
            if ours == wanted and sectors == sum(last - first for first, last in wanted):
                return
            if time.monotonic() > end:
                sys.exit(f"{step}: regions {ours}, file {wanted}")
            time.sleep(0.02)

    def step(self, number):
        names = ["append", "write", "punch", "allocate", "truncate", "rename_over", "unlink_while_open", "reflink",
                 "map_memory", "defragment", "rival", "rival", "rival"]
        name = self.random.choice(names)
        self.done[name] += 1
        getattr(self, name)()
        # Several in a row may be too fast to be seen one by one.
        if self.random.random() < 0.2:
            self.settle(f"step {number}, {name}")


def main():
    folder, device, program, seed, steps = sys.argv[1:]
    walk = Walk(folder, device, program, int(seed))
    run("dmstats", "create", "--filemap", "--follow", "path", "--perextent", "--programid", program, walk.path)
    for number in range(int(steps)):
        walk.step(number)
    walk.settle("the end")
    print(" ".join(f"{name}={count}" for name, count in sorted(walk.done.items())))


main()
