# SPDX-License-Identifier: GPL-2.0
"""Files and the regions that should be where they are."""

import re

import pytest

LVM2 = "/usr/sbin/dmstats"

both = pytest.mark.parametrize("mounted", ["ext4", "xfs"], indirect=True)


def places(guest, path):
    """Where filefrag sees a file: sectors in all, and the first of each run of extents that are side by side."""
    runs = []
    for line in guest.output(f"filefrag -v -b512 {path}").splitlines():
        found = re.match(r"\s*\d+:\s*\d+\.\.\s*\d+:\s*(\d+)\.\.\s*(\d+):", line)
        # What has no place yet is said to be at block 0.
        if found and "unknown_loc" not in line:
            runs.append((int(found[1]), int(found[2]) + 1))
    merged = []
    for start, end in sorted(runs):
        if merged and merged[-1][1] == start:
            merged[-1][1] = end
        else:
            merged.append([start, end])
    return [tuple(run) for run in merged]


def regions(guest, group):
    """The sectors of a group's regions, side by side ones as one, as the kernel has them."""
    words = f"-S group_id={group} --noheadings --units s -o region_start,region_len"
    text = guest.output(f"dmstats list --region {words} d")
    merged = []
    for start, length in sorted(tuple(map(int, line.split(":"))) for line in text.splitlines()):
        if merged and merged[-1][1] == start:
            merged[-1][1] += length
        else:
            merged.append([start, start + length])
    return [tuple(run) for run in merged]


def fragmented(guest, path, blocks):
    """A file of so many blocks of 4 KiB, every second of them a hole."""
    punch = f"for i in $(seq 0 2 {2 * blocks - 1}); do fallocate -p -o $((i * 4096)) -l 4096 {path}; done"
    guest.run(f"dd if=/dev/urandom of={path} bs=8k count={blocks} status=none && sync {path} && {punch} && sync {path}")
