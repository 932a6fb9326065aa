# SPDX-License-Identifier: GPL-2.0
"""Suspending, resuming and removing a clone that is busy."""

import pathlib

import pytest

from lab import modules
from tests.clone.rig import MODEL, SOURCE_TAG

pytestmark = pytest.mark.limit(60)

LATE_WAKE_UP = pathlib.Path(__file__).parent / "modules/late_wake_up"
CONTENT = f"--source {SOURCE_TAG} --state {MODEL}"


@pytest.mark.parametrize("options", ["", "--noflush --nolockfs"])
def test_suspend_and_resume_under_load(rig, guest, options):
    rig.source.slow_down(10)
    rig.create("0 4 hydration_threshold 4 hydration_batch_size 2")
    with rig.under_load("--threads 4 --overlap"):
        for _ in range(8):
            guest.run(f"dmsetup suspend {options} clone && dmsetup resume --noudevsync clone")
    rig.source.become()
    rig.hydrate()
    guest.run(f"iomodel verify {rig.dest} {CONTENT}")


def test_nothing_is_written_while_suspended(rig, guest):
    clone = rig.create("1 no_hydration 2 hydration_threshold 8")
    rig.source.slow_down(500)
    clone.message("enable_hydration")
    rig.wait(lambda now: now.in_flight > 0)
    clone.suspend()
    assert rig.progress().in_flight == 0
    done = rig.progress().hydrated
    assert done < rig.regions
    before = rig.dest.writes(), rig.metadata.writes()
    clone.message("hydration_threshold", 64)
    # An observation of nothing needs a time to pass: longer than any timer of the clone.
    guest.run("sleep 2")
    assert (rig.dest.writes(), rig.metadata.writes()) == before
    assert rig.progress() == (done, rig.regions, 0, "rw")
    rig.source.become()
    clone.resume()
    rig.hydrate()
    guest.run(f"cmp {rig.dest.disk} {rig.source.disk}")


def test_suspend_waits_for_copies(rig, guest):
    """A copy is held; a suspension begins, and ends only after the copy did."""
    clone = rig.create("1 no_hydration 2 hydration_threshold 1")
    rig.source.hold()
    clone.message("enable_hydration")
    rig.wait(lambda now: now.in_flight > 0)
    suspend = guest.start("dmsetup suspend --nolockfs clone")
    guest.run("until grep -q '^State:.D' /proc/$(pgrep -f '^dmsetup suspend')/status; do sleep 0.02; done")
    rig.source.release()
    assert suspend.wait() == 0
    # The copy landed, and is committed.
    assert rig.progress("--noflush")[::2] == (1, 0)
    clone.resume()
    rig.hydrate()


def test_remove_while_hydrating(rig, guest, dm):
    clone = rig.create("1 no_hydration 2 hydration_threshold 4")
    rig.source.slow_down(300)
    clone.message("enable_hydration")
    rig.wait(lambda now: now.hydrated > 0 and now.in_flight > 0)
    done = rig.progress("--noflush").hydrated
    clone.remove()
    # Nobody holds the parts any more.
    writes = rig.dest.writes()
    rig.source.become()
    clone = rig.create("1 no_hydration")
    assert done <= rig.progress().hydrated < rig.regions
    assert rig.dest.writes() == writes
    rig.hydrate()
    clone.remove()
    guest.run(f"cmp {rig.dest.disk} {rig.source.disk}")
    guest.run("dmsetup remove source dest metadata")
    assert dm.names() == []


@pytest.mark.c_fails("may free the clone while the last write wakes whoever waits for it")
def test_table_lives_until_the_last_write_has_ended(rig, guest):
    """A write has hydrated a region, and stops where it tells of that; a new table takes the place of its own."""
    clone = rig.create("1 no_hydration")
    clone.load(f"0 {rig.sectors} linear {rig.dest} 0")
    with modules.inserted(guest, LATE_WAKE_UP, "comm=dd") as late:
        guest.run(f"""
            dd if=/dev/zero of={clone} bs={rig.region * 512} count=1 oflag=direct conv=notrunc status=none & writer=$!
            until [ $(cat {late}/late) = Y ]; do kill -0 $writer || exit 1; done
            dmsetup suspend --nolockfs clone && dmsetup resume clone && wait $writer""")
        assert guest.output(f"cat {late}/gone") == "N"
