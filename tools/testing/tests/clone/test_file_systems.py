# SPDX-License-Identifier: GPL-2.0
"""File systems on a clone that is being hydrated: used hard, checked, and compared file by file."""

import pytest

from lab.modules import load_clone
from tests.clone.rig import Rig
from tests.file_systems import KINDS
from tests.scripts import run_script

MIB = 2048  # sectors
FILES = 40  # that are there before the clone
CHURN = 250  # operations while it is hydrated


@pytest.mark.limit(180)
@pytest.mark.parametrize("kind", KINDS)
def test_file_system_in_use_while_it_is_cloned(guest, dm, disks, kind):
    """What was on the source, and what was done to it since, is there after a mount of the destination alone."""
    mkfs, mib, check = KINDS[kind]
    load_clone(guest, "rs")
    dest, source = disks.scratch(2)
    (metadata,) = disks.ram(8)
    rig = Rig(guest, dm, [metadata, dest, source], mib * MIB, 128, stamp=False)
    guest.run(f"""set -e
        rm -f /tmp/record* && mkdir -p /mnt/fs
        dmsetup create small --table '0 {mib * MIB} linear {source} 0'
        {mkfs} /dev/mapper/small
        mount /dev/mapper/small /mnt/fs""")
    run_script(guest, "clone/churn.py", "make", "/mnt/fs", FILES, "/tmp/record")
    guest.run("umount /mnt/fs && dmsetup remove small")

    # A minute and more.
    rig.source.slow_down(40)
    clone = rig.create("0 4 hydration_threshold 1 hydration_batch_size 1")
    guest.run(f"mount -o discard {clone} /mnt/fs")
    run_script(guest, "clone/churn.py", "change", "/mnt/fs", CHURN, "/tmp/record")
    hydrated = rig.progress("--noflush").hydrated
    assert hydrated < rig.regions, "it was all copied before the files were used"
    run_script(guest, "clone/churn.py", "compare", "/mnt/fs", 0, "/tmp/record")
    guest.run("umount /mnt/fs")
    guest.run(f"{check} {clone}")

    rig.source.become()
    rig.hydrate(256, 16)
    clone.reload(f"0 {mib * MIB} linear {rig.dest} 0")
    guest.run(f"{check} {clone} && mount {clone} /mnt/fs")
    run_script(guest, "clone/churn.py", "compare", "/mnt/fs", 0, "/tmp/record")
    guest.run("umount /mnt/fs")
