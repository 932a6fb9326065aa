# SPDX-License-Identifier: GPL-2.0
"""All power cuts of a recorded use of a clone: the program `crash` (tools/testing/crash), in guests and here."""

import dataclasses
import subprocess

from lab import places
from lab.modules import load_clone
from lab.udev import without_udev

WORKERS = 4  # they mostly wait for each other's tables to go
MIB = 2048  # sectors


@dataclasses.dataclass
class Use:
    """How a clone is used while it is recorded."""

    region: int  # sizes in sectors
    sectors: int
    operations: int
    metadata_sectors: int = 512
    options: str = ""  # more words for `crash record`
    seed: int = 1


class PowerCuts:
    """Records, checks and opens; files are in a folder of this machine."""

    def __init__(self, guest, folder):
        self.guest = guest
        self.folder = folder

    def record(self, use, load=load_clone):
        """Uses a clone of the module that load(guest, "rs") loads, on disks that record; returns the record."""
        self._disks(use)
        self.guest.run("modprobe nbd nbds_max=2")
        load(self.guest, "rs")
        with without_udev(self.guest):
            self.guest.run(
                f"crash record --source /dev/ram0 --seed {use.seed} --operations {use.operations}"
                f" --sectors {use.sectors} --region {use.region} --metadata-sectors {use.metadata_sectors}"
                f" {use.options} /tmp/record"
            )
        self.guest.run("rmmod nbd brd; rmmod dm_clone_rs")
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
        load_clone(self.guest, module)
        self.guest.put(states, "/tmp/states")
        disks = " ".join(f"/dev/ram{number}" for number in range(1, 2 * WORKERS + 1))
        with without_udev(self.guest):
            said = self.guest.output(f"crash open /tmp/states --source /dev/ram0 {disks}", timeout=3600)
        print(f"{module}: {said}")
        self.guest.run(f"rmmod {'dm_clone_rs' if module == 'rs' else 'dm_clone'}; rmmod brd")

    def _disks(self, use):
        """The source, and a metadata device and a destination for each worker."""
        mib = -(-max(use.sectors, use.metadata_sectors) // MIB)
        self.guest.run(f"modprobe brd rd_nr={2 * WORKERS + 1} rd_size={mib * 1024} && udevadm settle")
