# SPDX-License-Identifier: GPL-2.0
"""random_files.py FOLDER DEVICE PROGRAM SEED STEPS: changes files at random while a dmfilemapd for each follows its
path, and another program takes and frees region ids. From time to time each group must come to be where filefrag sees
its file, and no region of the other program may have changed. There are the more files the more steps there are, as
the daemons take their time while files change. Ends with a line of what was done."""

import collections
import mmap
import os
import random
import re
import subprocess
import sys
import time

import extents

BLOCK = 4096
LARGEST = 64
LIMIT = 300
# How many steps of a file there are between two looks, about.
UNSEEN = 15


def run(*words, check=True):
    return subprocess.run(words, check=check, capture_output=True, text=True).stdout


def places(path):
    return extents.places(run("filefrag", "-v", "-b512", path))


class Walk:
    def __init__(self, folder, device, program, seed, files):
        self.device, self.program = device, program
        self.paths = [f"{folder}/f{number}" for number in range(files)]
        self.path = self.paths[0]
        self.random = random.Random(seed)
        self.rivals = {}
        self.done = collections.Counter()
        self.users = []
        for path in self.paths:
            with open(path, "wb") as file:
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
        if len(self.users) > 3 * len(self.paths):
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
            self.message("@stats_delete", str(number))
        else:
            start = self.random.randrange(1000)
            number = int(self.message("@stats_create", f"{start}+8", "/1", "0", "rival", "-"))
            self.rivals[number] = f"{start}+8"

    def listed(self):
        """Our regions by the files of their groups, as lists of ranges, and those of the rival."""
        ours, groups, rivals = {}, {}, {}
        for line in self.message("@stats_list").splitlines():
            number, span, _, program, aux = line.split()
            start, length = map(int, span.split("+"))
            number = int(number.rstrip(":"))
            if program != self.program:
                rivals[number] = span
                continue
            ours[number] = (start, start + length)
            if group := re.match(r'DMS_GROUP="(.*)":(.*)#', aux):
                groups[group[1]] = group[2]
        files = collections.defaultdict(list)
        for name, members in groups.items():
            for item in members.split(","):
                first, _, last = item.partition("-")
                for number in range(int(first), int(last or first) + 1):
                    files[name].append(ours.pop(number, None))
        # What is in no group belongs to nobody.
        files[None] = list(ours.values())
        return files, rivals

    def wrong(self):
        """What is not as it should be, now."""
        files, rivals = self.listed()
        if rivals != self.rivals:
            sys.exit(f"regions of another program: {rivals}, should be {self.rivals}")
        if files[None]:
            return f"regions of no group: {files[None]}"
        for path in self.paths:
            wanted, regions = places(path), files[os.path.basename(path)]
            if None in regions or extents.merged(regions) != wanted:
                return f"{path}: regions {regions}, file {wanted}"
        return None

    def settle(self, step):
        end = time.monotonic() + LIMIT
        os.sync()
        while wrong := self.wrong():
            if time.monotonic() > end:
                sys.exit(f"{step}: {wrong}")
            time.sleep(0.1)
            os.sync()

    def step(self, number):
        names = ["append", "write", "punch", "allocate", "truncate", "rename_over", "unlink_while_open", "reflink",
                 "map_memory", "defragment", "rival", "rival", "rival"]
        name = self.random.choice(names)
        self.path = self.random.choice(self.paths)
        self.done[name] += 1
        getattr(self, name)()
        # Several in a row may be too fast to be seen one by one.
        if self.random.random() < 1 / (UNSEEN * len(self.paths)):
            self.settle(f"step {number}, {name}")
            if number > 1000:
                print(f"{number} steps", file=sys.stderr, flush=True)


def main():
    folder, device, program, seed, steps = sys.argv[1:]
    walk = Walk(folder, device, program, int(seed), 1 + min(int(steps) // 500, 19))
    for path in walk.paths:
        run("dmstats", "create", "--filemap", "--follow", "path", "--perextent", "--programid", program, path)
    for number in range(int(steps)):
        walk.step(number)
    walk.settle("the end")
    print(" ".join(f"{name}={count}" for name, count in sorted(walk.done.items())))


main()
