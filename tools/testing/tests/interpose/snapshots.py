# SPDX-License-Identifier: GPL-2.0
"""Snapshots of an `interpose` device's original, and raw writers whose order of writes can be told from them."""

import contextlib
import pathlib

# Sectors that are copied at a time.
CHUNK = 64

WRITER = pathlib.Path(__file__).parent / "in_guest/raw_writer.py"


class Snapshots:
    """A snapshot `snap` and its origin `origin` on an `interpose` device."""

    def __init__(self, rig, guest):
        self.rig, self.guest = rig, guest

    def make(self, low, store):
        """The snapshot first, then its origin: the latter learns of the former when it is resumed."""
        low.top("snap", "snapshot", after=f"{store} P {CHUNK}")
        low.top("origin", "snapshot-origin", after="")

    def content(self, name="snap"):
        """What the snapshot has, as a sum."""
        return self.guest.output(f"dd if=/dev/mapper/{name} bs=1M iflag=direct status=none | sha256sum").split()[0]

    @contextlib.contextmanager
    def writers(self, disk, count):
        """So many writers, each with an area of its own: each waits for one write before it does the next."""
        self.guest.put(WRITER, "/tmp/raw_writer.py")
        self.guest.run("rm -f /tmp/writer.*")
        runs = [self.guest.start(f"python3 /tmp/raw_writer.py write {disk} {number}") for number in range(count)]
        self.guest.run(f"for n in $(seq 0 {count - 1}); do until [ -s /tmp/writer.$n ]; do sleep 0.01; done; done")
        try:
            yield
            self.guest.run("touch /tmp/writer.stop")
            for run in runs:
                said = run.communicate()[0]
                assert run.returncode == 0, said
        finally:
            for run in runs:
                run.kill()

    def wait_for_writes(self, count):
        """Until the first writer has done so many more."""
        self.guest.run(f"n=$(($(wc -c < /tmp/writer.0) + {count}));"
                       " until [ $(wc -c < /tmp/writer.0) -ge $n ]; do sleep 0.01; done")

    def check_prefixes(self, count, name="snap"):
        """The snapshot has the first so many writes of each writer and no other."""
        for number in range(count):
            self.guest.run(f"python3 /tmp/raw_writer.py check /dev/mapper/{name} {number}")
