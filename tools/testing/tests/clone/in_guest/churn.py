# SPDX-License-Identifier: GPL-2.0
"""Uses a file system as many programs do, and keeps a record of it; see tests/clone/test_file_systems.py.

arguments: make|change|compare FOLDER COUNT RECORD
make writes so many files; change does so many things to them, from two processes; compare fails unless the files
are those of the record: names, sizes, content. Content is not kept, but the seed that it comes from.
"""

import json
import os
import pathlib
import random
import sys

WORKERS = 2
LARGEST = 200_000


def content(seed, size):
    """What a file has that was written with this seed."""
    return random.Random(seed).randbytes(size)


class Churn:
    """The files of one worker, each a list of pieces [seed, size] one after the other."""

    def __init__(self, folder, worker, record):
        self.folder = pathlib.Path(folder) / str(worker)
        self.folder.mkdir(exist_ok=True)
        self.files = record.setdefault(str(worker), {})
        self.rng = random.Random(f"{worker} {len(self.files)}")

    def create(self):
        """A new file, in a folder that may be new, too."""
        name = f"{self.rng.randrange(8)}/{self.rng.getrandbits(40):x}"
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        piece = [self.rng.getrandbits(40), self.rng.choice([1, 700, 5000, LARGEST])]
        path.write_bytes(content(*piece))
        self.files[name] = [piece]

    def append(self, name):
        """More at its end, perhaps made durable at once."""
        piece = [self.rng.getrandbits(40), self.rng.randrange(1, 20_000)]
        with open(self.folder / name, "ab") as file:
            file.write(content(*piece))
            if self.rng.random() < 0.2:
                file.flush()
                os.fsync(file.fileno())
        self.files[name].append(piece)

    def rewrite(self, name):
        """Other bytes in the same place."""
        size = sum(size for _, size in self.files[name])
        piece = [self.rng.getrandbits(40), size]
        with open(self.folder / name, "r+b") as file:
            file.write(content(*piece))
        self.files[name] = [piece]

    def replace(self, name):
        """As editors save."""
        piece = [self.rng.getrandbits(40), self.rng.randrange(1, 60_000)]
        path = self.folder / "new"
        with open(path, "wb") as file:
            file.write(content(*piece))
            file.flush()
            os.fsync(file.fileno())
        path.rename(self.folder / name)
        self.files[name] = [piece]

    def delete(self, name):
        """Away with it."""
        (self.folder / name).unlink()
        del self.files[name]

    def change(self):
        """Something happens to some file."""
        name = self.rng.choice([*self.files, None])
        if name is None or self.rng.random() < 0.25:
            self.create()
            return
        self.rng.choice([self.append, self.append, self.rewrite, self.replace, self.delete])(name)

    def compare(self):
        """Fails unless all is as it was written."""
        there = {str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()}
        assert there == set(self.files), there ^ set(self.files)
        for name, pieces in self.files.items():
            expected = b"".join(content(*piece) for piece in pieces)
            assert (self.folder / name).read_bytes() == expected, f"{name} has other content"


def main():
    """Each worker is a process of its own."""
    what, folder, count, path = sys.argv[1:]
    records = [pathlib.Path(f"{path}.{worker}") for worker in range(WORKERS)]
    children = []
    for worker, file in enumerate(records):
        child = os.fork()
        if not child:
            record = json.loads(file.read_text(encoding="ascii")) if file.exists() else {}
            churn = Churn(folder, worker, record)
            if what == "compare":
                churn.compare()
            for _ in range(int(count) // WORKERS):
                (churn.create if what == "make" else churn.change)()
            file.write_text(json.dumps(record), encoding="ascii")
            sys.stdout.flush()
            os._exit(0)
        children.append(child)
    if any([os.waitpid(child, 0)[1] for child in children]):
        sys.exit("a worker failed: its words are above")
    print("same" if what == "compare" else "done")


main()
