# SPDX-License-Identifier: GPL-2.0
"""Which flushes and FUA writes need a commit, and how many one commit serves."""

import time

import pytest

from lab.disks import sysfs
from tests.clone.bio_trace import BioTrace
from tests.clone.rig import Rig
from tests.scripts import run_script

pytestmark = pytest.mark.limit(90)

SECTORS = 131072
REGION = 8
FLUSHES = 50


def commits(bios):
    """How many superblocks were written."""
    return sum(
        bio.device == "metadata" and bio.is_write and not bio.completed and bio.sector == 0 for bio in bios
    )


@pytest.fixture
def copying(clone_module, guest, dm, disks):
    """A clone whose background copies take their time; its last region is hydrated durably."""
    assert clone_module
    rig = Rig(guest, dm, disks.ram(64, 3), SECTORS, REGION, stamp=False)
    rig.source.slow_down(10)
    rig.create("1 no_hydration 4 hydration_threshold 1 hydration_batch_size 1")
    guest.run(f"dd if=/dev/urandom of={rig.clone} bs=4k seek={rig.regions - 1} count=1 oflag=direct,dsync status=none")
    return rig


@pytest.mark.c_fails("commits whatever was copied with each flush")
@pytest.mark.parametrize("how", ["flush", "write", "fua"])
def test_copies_alone_wait_for_the_timer(copying, guest, how):
    """Between any two flushes something was copied; what users have written is durable without a commit."""
    trace = BioTrace(guest, {"metadata": copying.metadata})
    copying.clone.message("enable_hydration")
    begin = time.monotonic()
    trace.start()
    statistics = f"{sysfs(copying.dest)}/stat"
    run_script(guest, "clone/flush_loop.py", copying.clone, SECTORS - REGION, how, FLUSHES, statistics)
    bios = trace.stop()
    seconds = time.monotonic() - begin
    copying.clone.message("disable_hydration")
    assert copying.progress().hydrated < copying.regions, "the copying ended before the flushes did"
    # The timer commits a second after the first copy, and so on.
    assert commits(bios) <= seconds + 1


def test_flush_of_a_write_among_copies_commits(copying, guest):
    """The write's own region is not committed."""
    copying.clone.message("enable_hydration")
    trace = BioTrace(guest, {"metadata": copying.metadata})
    trace.start()
    guest.run(f"dd if=/dev/zero of={copying.clone} bs=4k seek=8000 count=1 oflag=direct conv=fsync,notrunc status=none")
    assert commits(trace.stop()) >= 1
    assert copying.progress("--noflush").hydrated >= 2


def test_discard_is_durable_after_a_flush(copying, guest):
    trace = BioTrace(guest, {"metadata": copying.metadata})
    trace.start()
    guest.run(f"blkdiscard -o {8000 * 4096} -l 4096 {copying.clone} && xfs_io -c fsync {copying.clone}")
    assert commits(trace.stop()) >= 1
    assert copying.progress("--noflush").hydrated == 2


def test_one_commit_serves_all_that_came_during_another(copying, guest):
    """Fifteen writers flush while a commit is held up: one more commit is enough for them."""
    clone = copying.clone
    syncing = "grep -ls blkdev_fsync /proc/[0-9]*/stack 2> /dev/null | wc -l"
    write = f"dd if=/dev/zero of={clone} bs=4k seek=$n count=1 oflag=direct conv=fsync,notrunc status=none"
    trace = BioTrace(guest, {"metadata": copying.metadata})
    copying.metadata.hold()
    trace.start()
    guest.run(f"""
        n=1; ({write}) > /dev/null 2>&1 &
        until [ $({syncing}) = 1 ]; do sleep 0.05; done
        for n in $(seq 2 16); do ({write}) > /dev/null 2>&1 & done
        until [ $({syncing}) = 16 ]; do sleep 0.05; done
        dmsetup resume metadata
        wait""")
    bios = trace.stop()
    assert commits(bios) == 2
    assert copying.progress("--noflush").hydrated == 17
