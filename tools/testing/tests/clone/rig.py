# SPDX-License-Identifier: GPL-2.0
"""A clone whose three devices a test can hold, slow down and break, each on its own."""

import collections
import contextlib
import time

from lab import patience
from lab.disks import sysfs

Progress = collections.namedtuple("Progress", "hydrated regions in_flight mode")

MODEL = "/tmp/model"  # what iomodel knows between two runs of one test
SOURCE_TAG = 1  # what iomodel stamps the source with
DEADLINE = 60


class Part:
    """One of the three devices: a device-mapper device over a disk, `linear` unless a test says otherwise."""

    def __init__(self, guest, name, disk, sectors):
        self.guest = guest
        self.name = name
        self.disk = disk
        self.sectors = sectors
        self.path = f"/dev/mapper/{name}"

    def __str__(self):
        return self.path

    def hold(self):
        """Lets no I/O through from now on, until release(); what comes has to wait."""
        self.guest.run(f"dmsetup suspend --noflush --nolockfs {self.name}")

    def release(self):
        """Lets everything through that hold() has kept back."""
        self.guest.run(f"dmsetup resume {self.name}")

    def become(self, table=None):
        """Changes what the device does with I/O; table uses DISK for what lies beneath. None: linear again."""
        table = table or f"0 {self.sectors} linear DISK 0"
        self.guest.run(
            f"dmsetup load {self.name} && dmsetup suspend --noflush --nolockfs {self.name}"
            f" && dmsetup resume {self.name}",
            stdin=table.replace("DISK", self.disk),
        )

    def break_all(self):
        """Every I/O fails."""
        self.become(f"0 {self.sectors} error")

    def break_writes(self):
        """Every write fails; reads are served."""
        self.become(f"0 {self.sectors} flakey DISK 0 0 3600 1 error_writes")

    def break_flushes(self):
        """Every flush fails; all else is served. The last 4 KiB may not be used."""
        end = self.sectors - 8
        # A flush goes to all parts of a table. The disk must have a cache, or there are no flushes.
        self.become(f"0 {end} linear DISK 0\n{end} 8 flakey DISK {end} 0 3600 1 error_writes")

    def slow_down(self, milliseconds):
        """Every I/O takes so long."""
        self.become(f"0 {self.sectors} delay DISK 0 {milliseconds}")

    def writes(self):
        """How many writes there were."""
        return int(self.guest.output(f"awk '{{ print $5 }}' {sysfs(self.path)}/stat"))


class Rig:
    """The disks of a clone; create() puts the clone on top. The source is stamped unless stamp=False."""

    def __init__(self, guest, dm, paths, sectors, region, stamp=True):
        self.guest = guest
        self.dm = dm
        self.sectors = sectors
        self.region = region
        self.regions = -(-sectors // region)
        self.clone = None
        sizes = [int(size) for size in guest.output("\n".join(f"blockdev --getsz {path}" for path in paths)).split()]
        self.metadata, self.dest, self.source = (
            Part(guest, name, path, size)
            for name, path, size in zip(("metadata", "dest", "source"), paths, sizes, strict=True)
        )
        parts = (self.metadata, self.dest, self.source)
        guest.run("set -e\n" + "\n".join(
            f"dmsetup create {part.name} --table '0 {part.sectors} linear {part.disk} 0'" for part in parts
        ) + (f"\nrm -f {MODEL}\niomodel stamp {self.source} --sectors {sectors} {SOURCE_TAG}" if stamp else ""))

    def table(self, words="", start=0):
        """The clone's line in a table; words follow the region size."""
        return f"{start} {self.sectors} clone {self.metadata} {self.dest} {self.source} {self.region} {words}".rstrip()

    def create(self, words=""):
        """Creates the clone."""
        self.clone = self.dm.create("clone", self.table(words))
        return self.clone

    def number(self):
        """The clone's device number, as the kernel writes it."""
        return self.guest.output(f"cat {sysfs(self.clone)}/dev")

    # -- I/O on the clone -----------------------------------------------------------------------

    def write(self, sector, sectors, tag, check=True):
        """Writes stamps of a tag, and flushes."""
        return self.guest.run(f"iomodel stamp {self.clone} --first {sector} --sectors {sectors} {tag}", check=check)

    @contextlib.contextmanager
    def under_load(self, words):
        """Random I/O as modelled is under way meanwhile."""
        self.guest.run("touch /tmp/load")
        load = self.guest.start(
            f"iomodel run {self.clone} --source {SOURCE_TAG} --state {MODEL} --while /tmp/load {words}"
        )
        assert load.stdout.readline().startswith("seed")
        yield
        self.guest.run("rm /tmp/load")
        said, _ = load.communicate()
        assert load.returncode == 0, said

    def holds(self, sector, sectors, tag, device=None):
        """Fails unless there are the stamps that write() writes, or those of the source."""
        device = device or self.clone
        if tag == SOURCE_TAG:
            # Its stamps count from the start of the device.
            self.guest.run(f"cmp -n {sectors * 512} -i {sector * 512} {device} {self.source.disk}")
        else:
            self.guest.run(f"iomodel verify {device} --first {sector} --sectors {sectors} --source {tag}")

    def discarded(self, sector, sectors):
        """Fails unless a part of the destination, which returns zeroes for that, has been discarded."""
        part = f"bs=1M iflag=direct,skip_bytes,count_bytes skip={sector * 512} count={sectors * 512} status=none"
        self.guest.run(f"dd if={self.dest} {part} | cmp -n {sectors * 512} - /dev/zero")

    def write_behind(self, sector, sectors, tag, waiting=1):
        """Starts a write; returns when it has ended, or so many wait inside the clone. Its process: .wait()"""
        self.guest.run("rm -f /tmp/write.ended")
        writer = self.guest.start(
            f"iomodel stamp {self.clone} --first {sector} --sectors {sectors} {tag}; echo $? > /tmp/write.ended"
        )
        # A target may account for I/O that it keeps back or not; where the writer sleeps tells it for all.
        self.guest.run(
            "stacks() { pgrep -x iomodel | sed 's,.*,/proc/&/stack,'; }\n"
            "writing() { stacks | xargs -r grep -ls blkdev_write_iter | wc -l; }\n"
            f"until [ -s /tmp/write.ended ] || [ $(writing) = {waiting} ]; do sleep 0.05; done"
        )
        return writer

    # -- progress -------------------------------------------------------------------------------

    def progress(self, *options):
        """What the status tells."""
        args = self.clone.status(*options)[0].args
        hydrated, _, regions = args[3].partition("/")
        return Progress(int(hydrated), int(regions), int(args[4]), args[-1])

    def stats(self):
        """What the message `stats` tells: {key: value}."""
        lines = self.clone.message("stats").stdout.splitlines()
        return {key: value if value == "unknown" else int(value) for key, value in (line.split() for line in lines)}

    def wait(self, condition, seconds=DEADLINE):
        """Looks at the progress, without causing a commit, until condition(progress) is true."""
        end = time.monotonic() + patience.seconds(seconds)
        while not condition(progress := self.progress("--noflush")):
            assert time.monotonic() < end, f"at its limit still {progress}"
        return progress

    def hydrate(self, threshold=64, batch=16):
        """Hydrates to the end, and waits for the event that says so."""
        self.clone.message("hydration_threshold", threshold)
        self.clone.message("hydration_batch_size", batch)
        self.clone.message("enable_hydration")
        self.clone.wait_until(lambda status: status.args[3] == f"{self.regions}/{self.regions}")
