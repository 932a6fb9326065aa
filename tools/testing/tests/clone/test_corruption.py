# SPDX-License-Identifier: GPL-2.0
"""Damaged metadata: never an oops, always a clear error, and nothing stays broken afterwards."""

import base64
import collections
import json

import pytest

from lab import modules, places
from lab.udev import without_udev
from tests.clone import images
from tests.clone.damage import damaged_images
from tests.clone.tables import try_tables
from tests.scripts import run_script

pytestmark = pytest.mark.any_kernel("metadata are read by our code alone")

REGIONS = 40000  # two blocks of the bitset, and so a tree above them
LENGTH = REGIONS * 8
METADATA = 512
WORKERS = 5  # they mostly wait for each other's tables to go
IMAGES = 2000 if places.is_default() else 500


@pytest.mark.limit(400)
def test_damaged_images(guest, dm, disks):
    modules.load_clone(guest, "rs")
    (ram,) = disks.ram(4)
    metadata = dm.create("metadata", f"0 {METADATA} linear {ram} 0")
    source = dm.create("source", f"0 {LENGTH} zero")
    dest = dm.create("dest", f"0 {LENGTH} zero")
    table = f"0 {LENGTH} clone {metadata} {dest} {source} 8 1 no_hydration"
    clone = dm.create("clone", table)
    guest.run(f"blkdiscard --length {REGIONS // 2 * 4096} {clone}")
    half = clone.status_text()
    assert f" {REGIONS // 2}/{REGIONS} " in half
    clone.remove()

    good = base64.b64decode(guest.output(f"dd if={metadata} bs=256k count=1 iflag=direct status=none | base64"))
    assert len(good) == METADATA * 512
    for worker in range(1, WORKERS + 1):
        guest.run(f"dd of={ram} bs=256k seek={worker} iflag=fullblock oflag=direct status=none", stdin=good)
        images = damaged_images(good, worker, IMAGES // WORKERS)
        guest.run(f"cat > /tmp/images.{worker}", stdin=json.dumps(images))
    with without_udev(guest):
        said = run_script(guest, "clone/try_images.py", "$worker", LENGTH, ram, f"$((worker * {METADATA}))", METADATA,
                          dest, source, "< /tmp/images.$worker", parallel=range(1, WORKERS + 1))
    results = [json.loads(line) for line in said.splitlines()]
    outcomes = sum((collections.Counter(result["outcomes"]) for result in results), collections.Counter())
    print(dict(outcomes))
    assert [unclear for result in results for unclear in result["unclear"]] == []
    assert outcomes.total() == IMAGES
    # Each layer has had its share: superblock and space map, bitset, data that may be anything.
    assert min(outcomes[outcome] for outcome in ("refused", "not resumed", "worked")) >= IMAGES // 250
    assert dm.create("clone", table).status_text() == half


def test_refuses_an_impossible_space_map(guest, dm, disks):
    """There is no room in the index for so many bitmaps. For one block less there would be, but they are not there."""
    modules.load_clone(guest, "rs")
    metadata, dest, source = disks.ram(4, 3)
    table = f"0 8192 clone {metadata} {dest} {source} 8 1 no_hydration"
    dm.create("clone", table).remove()
    superblock = base64.b64decode(guest.output(f"dd if={metadata} bs=4k count=1 iflag=direct status=none | base64"))
    blocks = 255 * 16320
    for number, errno, says in (
        (blocks + 1, "EINVAL", f"The space map has {blocks + 1} blocks, more than the {blocks} that are possible"),
        (blocks, "EILSEQ", "Block 0 is no valid space map bitmap: wrong checksum"),
    ):
        block = images.seal(images.put(superblock, (44, 8), number), images.SUPERBLOCK)
        guest.run(f"dd of={metadata} bs=4k oflag=direct iflag=fullblock status=none", stdin=block)
        (one,) = try_tables(guest, [(8192, table.removeprefix("0 8192 clone "))])
        assert one.reason == f"Failed to load metadata (-{errno})"
        assert says in one.log[0]
