# SPDX-License-Identifier: GPL-2.0
"""How large the metadata device must be, and what happens when it is not."""

import pytest

from lab import modules
from lab.disks import sysfs
from tests.clone.tables import try_tables

OURS = pytest.mark.parametrize("clone_module", ["rs"], indirect=True)
BLOCK = 8  # sectors
# Superblock, index, counts; twice: array blocks, a node above them, a bitmap; the index once more.
ARRAYS = 3
REGIONS = ARRAYS * 32576
NEEDED = 3 + 2 * (ARRAYS + 1 + 1) + 1


@pytest.fixture
def parts(guest, dm, disks):
    """(metadata of so many blocks, the words of a table after it)"""
    (ram,) = disks.ram(4)
    dest, source = (dm.create(name, f"0 {REGIONS * 8} zero") for name in ("dest", "source"))

    def make(blocks):
        guest.run(f"blkdiscard -fz {ram}")
        metadata = dm.create("metadata", f"0 {blocks * BLOCK} linear {ram} 0")
        return metadata, f"{metadata} {dest} {source} 8 2 no_hydration no_discard_passdown"

    return make


@pytest.mark.c_fails("takes it, and cannot commit later")
def test_refuses_what_is_too_small(clone_module, guest, parts):
    assert clone_module
    metadata, words = parts(NEEDED - 1)
    (tried,) = try_tables(guest, [(REGIONS * 8, words)])
    assert tried.reason == "Failed to load metadata (-ENOSPC)"
    expected = f"expected at least {NEEDED * BLOCK} sectors for {REGIONS} regions, has {(NEEDED - 1) * BLOCK}"
    assert expected in tried.log[0]
    # Nothing was written to it.
    guest.run(f"cmp -n {(NEEDED - 1) * 4096} {metadata} /dev/zero")


@OURS
def test_commits_everything_at_once_on_the_smallest_device(clone_module, guest, dm, parts):
    """No block to spare, and each is written in one transaction."""
    assert clone_module
    metadata, words = parts(NEEDED)
    clone = dm.create("clone", f"0 {REGIONS * 8} clone {words}")
    writes = f"awk '{{ print $5 }}' {sysfs(metadata)}/stat"
    where = guest.console_size()
    for turn in range(2):
        clone.status()
        before = int(guest.output(writes))
        # One discard, that all is in one transaction: it leaves out the last region.
        last = (REGIONS - 2 + turn) * 4096
        guest.run(f"blkdiscard -l {last} {clone}")
        assert clone.status()[0].args[-1] == "rw"
        assert clone.status()[0].args[1] == f"{3 + ARRAYS + 2}/{NEEDED}"
        assert int(guest.output(writes)) - before <= ARRAYS + 1 + 1 + 1 + 1
    assert "full" not in guest.console(where)
    clone.remove()
    print(guest.output(f"crash audit {metadata} {REGIONS}"))


@pytest.mark.c_fails("says nothing until a commit fails")
def test_uses_what_the_stock_module_formatted_too_small(clone_module, guest, dm, parts):
    """It warns once, raises an event, and commits in parts."""
    metadata, words = parts(NEEDED - 2)
    with modules.stock_clone(guest, clone_module):
        dm.create("clone", f"0 {REGIONS * 8} clone {words}").remove()

    where = guest.console_size()
    clone = dm.create("clone", f"0 {REGIONS * 8} clone {words}")
    assert guest.wait_for_console(f"nearly full: {2 * BLOCK} sectors are missing", where, 10)
    assert clone.events() == 1
    guest.run(f"blkdiscard -l {(REGIONS - 1) * 4096} {clone}")
    args = clone.status()[0].args
    assert (args[3], args[-1]) == (f"{REGIONS - 1}/{REGIONS}", "rw")
    clone.remove()
    print(guest.output(f"crash audit {metadata} {REGIONS}"))
