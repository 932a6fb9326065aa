# SPDX-License-Identifier: GPL-2.0
"""Files and the regions that should be where they are."""

from tests.dmstats.in_guest import extents
from tests.scripts import run_script

LVM2 = "/usr/sbin/dmstats"
# Who changes the groups of d has the lock of this file.
LOCK = "/run/dmfilemapd/$(dmsetup info -c --noheadings --separator : -o major,minor d)"


def places(guest, path):
    """The sectors where filefrag sees a file, side by side extents as one: runs (start, end)."""
    return extents.places(guest.output(f"filefrag -v -b512 {path}"))


def regions(guest, group):
    """The sectors of a group's regions, side by side ones as one, as the kernel has them."""
    words = f"-S group_id={group} --noheadings --units s -o region_start,region_len"
    listed = [map(int, line.split(":")) for line in guest.output(f"dmstats list --region {words} d").splitlines()]
    return extents.merged((start, start + length) for start, length in listed)


def fragmented(guest, path, blocks, first=0):
    """A file of so many blocks of 4 KiB, every second of them a hole; from block `first` on."""
    run_script(guest, "dmstats/fragmented.py", path, blocks, first)
