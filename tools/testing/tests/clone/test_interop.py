# SPDX-License-Identifier: GPL-2.0
"""Metadata that the stock C module wrote, used by ours, and the reverse."""

import json
import os

import pytest

from lab import modules
from tests.scripts import run_script

LENGTH = 8189  # the last region is short
REGIONS = 1024


@pytest.fixture
def alternate(guest, dm, disks):
    """Has modules take turns on one clone. The destination is slow, so that hydration can be stopped midway."""
    metadata, dest, source = disks.ram(4, 3)
    slow = dm.create("slow", f"0 8192 delay {dest} 0 0 {dest} 0 4")
    for disk in (dest, source):
        guest.run(f"dd if=/dev/urandom of={disk} bs=1M count=4 oflag=direct status=none")

    def run(seed, step, *names):
        parts = (metadata, slow, dest, source)
        return json.loads(run_script(guest, "clone/alternate.py", seed, LENGTH, *parts, step, *names))

    return run


@pytest.mark.parametrize("first, second", [("c", "rs"), ("rs", "c")])
def test_opens_the_other_at_thirty_percent(alternate, first, second):
    turns = alternate(1, 120, first, second)
    print(turns)
    assert REGIONS * 2 // 10 < turns[0][2] < REGIONS * 6 // 10
    assert turns[1][1] == turns[0][2]


@pytest.mark.limit(240)
def test_ten_alternations(alternate):
    turns = alternate(2, 40, *(["c", "rs"] * 5), "c")
    print(turns)
    for last, this in zip(turns, turns[1:], strict=False):
        assert this[1] == last[2], turns


# (sectors of metadata, regions): around a word of the bitset, around one of its blocks, around one
# bitmap of the space map, the largest tree of one node and the smallest of two levels, more levels of splitting.
SLICES = [
    (128, 63), (128, 64), (128, 65), (256, 32576), (256, 32577), (2048, 65153), (2048, 1 << 20),
    (16320 * 8, 32577), (16321 * 8, 100), (8192, 252 * 32576), (8192, 252 * 32576 + 1), (16384, 1 << 24),
    (262144, 1000),
]


def visit_slices(guest, by, ram, commits=0, seed=0):
    """Opens or formats each slice with a module, and has it commit a few discards."""
    modules.load_clone(guest, by)
    run_script(guest, "clone/format_slices.py", ram, commits, seed, stdin=json.dumps(SLICES))
    guest.run("rmmod dm_clone_rs || rmmod dm_clone")


@pytest.mark.limit(240)
@pytest.mark.any_kernel("the stock modules of all of them have one format")
def test_formats_what_c_formats(guest, dm, disks):
    """The same bytes on the whole device; then each goes on with what the other has made."""
    by_c, by_ours = disks.ram(sum(sectors for sectors, _ in SLICES) // 2048 + 1, 2)
    for name in ("zeroes", "more-zeroes"):
        dm.create(name, f"0 {8 * max(regions for _, regions in SLICES)} zero")
    visit_slices(guest, "c", by_c)
    visit_slices(guest, "rs", by_ours)
    guest.run(f"blockdev --flushbufs {by_c} {by_ours} && cmp {by_c} {by_ours}")
    # Neither is blank.
    assert guest.run(f"cmp -s -n 65536 {by_c} /dev/zero", check=False).returncode == 1

    visit_slices(guest, "rs", by_c, 4, 1)
    visit_slices(guest, "c", by_c, 4, 2)
    visit_slices(guest, "c", by_ours, 4, 1)
    visit_slices(guest, "rs", by_ours, 4, 2)
    hydrated = [audit_slices(guest, ram) for ram in (by_c, by_ours)]
    assert hydrated[0] == hydrated[1]
    assert min(hydrated[0]) > 0


def audit_slices(guest, ram):
    """How many regions are hydrated on each slice, every block of which is accounted for."""
    audits, first = [], 0
    for sectors, regions in SLICES:
        audits.append(f"crash audit {ram} {regions} --first {first} --sectors {sectors}")
        first += sectors
    return [int(line) for line in guest.output("set -e\n" + "\n".join(audits)).splitlines()]


COMMITS = int(os.environ.get("DM_COMMITS") or 1000)
MANY_REGIONS = 1 << 17


@pytest.mark.limit(120 + COMMITS // 20)
def test_accounts_for_every_block_after_many_commits(guest, dm, disks):
    """Half of them by each module, in four turns; DM_COMMITS=100000 makes so many."""
    (metadata,) = disks.ram(2)
    length = MANY_REGIONS * 8
    dest, source = (dm.create(name, f"0 {length} zero") for name in ("zeroes", "more-zeroes"))
    turn = COMMITS // 4
    for number, module in enumerate(["c", "rs"] * 2):
        modules.load_clone(guest, module)
        clone = dm.create("clone", f"0 {length} clone {metadata} {dest} {source} 8 1 no_hydration")
        run_script(guest, "clone/write_and_flush.py", clone, MANY_REGIONS, number * turn, turn)
        clone.remove()
        guest.run("rmmod dm_clone_rs || rmmod dm_clone")
        assert int(guest.output(f"crash audit {metadata} {MANY_REGIONS}")) == (number + 1) * turn
