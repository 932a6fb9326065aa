# SPDX-License-Identifier: GPL-2.0
"""All power cuts of a recorded use of a target: the program `crash` (tools/testing/crash), in guests and here."""

import dataclasses
import subprocess

from lab import modules, places
from lab.udev import without_udev

WORKERS = 4  # they mostly wait for each other's tables to go
MIB = 2048  # sectors
# The smallest cache device, and a backing device of 2 MiB.
SMALL_CACHE = {"region": 0, "sectors": 4096, "own_sectors": 2048 + 33 * 1032}


@dataclasses.dataclass
class Use:
    """How a target is used while it is recorded: a clone, or a cache if there are no regions."""

    region: int  # sizes in sectors
    sectors: int
    operations: int
    own_sectors: int = 512  # of the metadata device, or the cache device
    options: str = ""  # more words for `crash record`
    seed: int = 1

    @property
    def source(self):
        """The option for a clone's source."""
        return "--source /dev/ram0" if self.region else ""

    def load(self, guest, module):
        """Loads the target, of ours ("rs") or of the stock module ("c")."""
        if self.region:
            modules.load_clone(guest, module)
        else:
            modules.load(guest, "dm_lc_rs")

    def name(self, module):
        """The module's name."""
        return {"rs": "dm_clone_rs" if self.region else "dm_lc_rs", "c": "dm_clone"}[module]


class PowerCuts:
    """Records, checks and opens; files are in a folder of this machine."""

    def __init__(self, guest, folder):
        self.guest = guest
        self.folder = folder

    def record(self, use, module=None):
        """Uses a target, of our module or of this file, on disks that record; returns the record."""
        self._disks(use)
        self.guest.run("modprobe nbd nbds_max=2")
        if module:
            self.guest.put(module, "/tmp/spoilt.ko")
            self.guest.run("/lab/load /tmp/spoilt.ko")
        else:
            use.load(self.guest, "rs")
        with without_udev(self.guest):
            self.guest.run(
                f"crash record {use.source} --seed {use.seed} --operations {use.operations}"
                f" --sectors {use.sectors} --region {use.region} --own-sectors {use.own_sectors}"
                f" {use.options} /tmp/record"
            )
        self.guest.run(f"rmmod nbd brd; rmmod {use.name('rs')}")
        record = self.folder / f"record-{use.region}-{use.seed}"
        self.guest.get("/tmp/record", record)
        return record

    def check(self, record, *options):
        """Judges what all power cuts leave. Returns whether there is no flaw, and what was said."""
        ran = subprocess.run(
            [places.program("crash"), "check", record, *map(str, options)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )
        print(ran.stdout)
        return ran.returncode == 0, ran.stdout

    def open(self, use, states, module):
        """Lets a module open the states in a file that check() has chosen."""
        self._disks(use)
        use.load(self.guest, module)
        self.guest.put(states, "/tmp/states")
        disks = " ".join(f"/dev/ram{number}" for number in range(1, 2 * WORKERS + 1))
        with without_udev(self.guest):
            said = self.guest.output(f"crash open /tmp/states {use.source} {disks}", timeout=3600)
        print(f"{module}: {said}")
        self.guest.run(f"rmmod {use.name(module)}; rmmod brd")

    def all_of(self, name, use, opened, say):
        """Records a use, judges all its power cuts, and lets each module of the target open so many states."""
        record = self.record(use)
        states = record.with_suffix(".states")
        right, said = self.check(record, "--seed", use.seed, "--choose", opened, "--states", states)
        say(f"{name}: {said}")
        assert right, said
        for module in ("c", "rs") if use.region else ("rs",):
            self.open(use, states, module)
            say(f"{name}: opened by {module}")

    def notice(self, use, module):
        """Whether there is a flaw in one of three records of this module, which has a fault: it needs its moment."""
        seeds = range(use.seed, use.seed + 3)
        records = (self.record(dataclasses.replace(use, seed=seed), module) for seed in seeds)
        return any(not self.check(record)[0] for record in records)

    def _disks(self, use):
        """A clone's source, and two disks for each worker."""
        mib = -(-max(use.sectors, use.own_sectors) // MIB)
        self.guest.run(f"modprobe brd rd_nr={2 * WORKERS + 1} rd_size={mib * 1024} && /lab/settle")
