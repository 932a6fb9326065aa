# SPDX-License-Identifier: GPL-2.0
"""Files that are changed at random while they are followed; filefrag tells where they are."""

import os
import pathlib

import pytest

pytestmark = pytest.mark.any_kernel("its kernel side is in test_interop.py and test_targets.py")

SCRIPTS = pathlib.Path(__file__).parent / "in_guest"
# `make test-files` has more of both.
STEPS = int(os.environ.get("DM_STEPS", "40"))
SEED = int(os.environ.get("DM_SEED", "1"))


@pytest.mark.limit(120 + 3 * STEPS)
def test_a1_a9_regions_are_where_the_file_is_whatever_becomes_of_it(guest, mounted):
    guest.run("dmstats delete --allregions --programid other d")
    for script in SCRIPTS.glob("*.py"):
        guest.put(script, f"/tmp/{script.name}")
    # What waits in memory has no place yet: it does not wait long here.
    guest.run("cd /proc/sys/vm; echo 20 > dirty_expire_centisecs; echo 20 > dirty_writeback_centisecs")
    said = guest.output(f"python3 /tmp/random_files.py /mnt d dmstats {SEED} {STEPS}")
    guest.run("cd /proc/sys/vm; echo 3000 > dirty_expire_centisecs; echo 500 > dirty_writeback_centisecs")
    assert "rename_over=" in said
    # Nobody has noticed that it has ended if it had.
    guest.run("rm /mnt/f*; while pidof dmfilemapd > /dev/null; do sleep 0.05; done")
    assert guest.output("dmstats list --noheadings -o region_id d") == ""
