# SPDX-License-Identifier: GPL-2.0
"""Discards: what they hydrate, what they pass down, and that they lose no write."""

import pathlib

import pytest

from lab import modules, places
from lab.counted import CountedGuest
from lab.disks import sysfs
from tests.clone.rig import SOURCE_TAG, Rig

pytestmark = pytest.mark.limit(60)

OURS = pytest.mark.parametrize("clone_module", ["rs"], indirect=True)
HERE = pathlib.Path(__file__).parent
IRQS_OFF = HERE / "modules/irqs_off"
JOB = HERE / "irqs_off_job/main"
PASSDOWN = pytest.mark.parametrize("features", ["1 no_hydration", "2 no_hydration no_discard_passdown"])


def discard(rig, sector, sectors):
    """Discards a part of the clone. -f: without looking first for what is there, which would read."""
    rig.guest.run(f"blkdiscard -f -o {sector * 512} -l {sectors * 512} {rig.clone}")


@PASSDOWN
@pytest.mark.c_fails("marks a region whose copy is in flight: the copy then overwrites what was written since",
                     command="iomodel verify")
def test_late_copy_does_not_overwrite_a_write_after_a_discard(rig, features):
    clone = rig.create(features)
    rig.source.hold()
    clone.message("enable_hydration")
    rig.wait(lambda now: now.in_flight > 0)
    discard(rig, 0, rig.region)
    writer = rig.write_behind(8, 16, 2)
    rig.source.release()
    assert writer.wait() == 0
    rig.hydrate()
    rig.holds(8, 16, 2)
    rig.holds(8, 16, 2, rig.dest)


@OURS
def test_late_copy_for_a_write_does_not_overwrite_a_write_after_a_discard(rig):
    """As above, where the copy is one that a write asked for."""
    rig.create("1 no_hydration")
    rig.source.hold()
    first = rig.write_behind(8, 8, 2)
    discard(rig, 0, rig.region)
    second = rig.write_behind(64, 8, 3, waiting=2)
    rig.source.release()
    assert first.wait() == 0
    assert second.wait() == 0
    rig.holds(8, 8, 2)
    rig.holds(64, 8, 3)


def test_discard_beside_a_copy_in_flight_marks_the_idle_regions(rig):
    clone = rig.create("1 no_hydration 2 hydration_threshold 1")
    rig.source.hold()
    clone.message("enable_hydration")
    rig.wait(lambda now: now.in_flight > 0)
    clone.message("disable_hydration")
    discard(rig, 0, 10 * rig.region)
    assert rig.progress().hydrated >= 9
    rig.source.release()
    rig.wait(lambda now: now.in_flight == 0)
    assert rig.progress().hydrated == 10


def test_discard_of_parts_of_regions_hydrates_whole_ones_only(rig):
    rig.create("1 no_hydration")
    discard(rig, 8, rig.region - 16)
    assert rig.progress().hydrated == 0
    discard(rig, 10 * rig.region + 8, 2 * rig.region)
    assert rig.progress().hydrated == 1
    # What lies in regions that are not covered whole is as it was.
    rig.holds(0, 11 * rig.region, SOURCE_TAG)
    rig.holds(12 * rig.region, rig.sectors - 12 * rig.region, SOURCE_TAG)


def test_discard_reaches_the_destination(rig):
    rig.guest.run(f"iomodel stamp {rig.dest} 9")
    rig.create("1 no_hydration")
    discard(rig, 4 * rig.region, 4 * rig.region)
    rig.discarded(4 * rig.region, 4 * rig.region)
    # And only there.
    rig.guest.run(f"iomodel verify {rig.dest} --sectors {4 * rig.region} --source 9")


def test_no_discard_passdown_leaves_the_destination_alone(rig):
    rig.guest.run(f"iomodel stamp {rig.dest} 9")
    rig.create("2 no_hydration no_discard_passdown")
    discard(rig, 4 * rig.region, 4 * rig.region)
    assert rig.progress().hydrated == 4
    rig.guest.run(f"iomodel verify {rig.dest} --source 9")


def test_discard_of_hydrated_regions_is_passed_down(rig):
    rig.create("1 no_hydration")
    rig.hydrate()
    discard(rig, 2 * rig.region, rig.region)
    rig.discarded(2 * rig.region, rig.region)


@PASSDOWN
@pytest.mark.c_fails("leaves out the last region if it is shorter than the others")
@pytest.mark.usefixtures("clone_module")
def test_discard_of_everything_hydrates_everything(guest, dm, disks, features):
    """With a last region that is shorter than the others."""
    rig = Rig(guest, dm, disks.ram(8, 3), 16384 - 88, 128)
    clone = rig.create(features)
    assert clone.events() == 0
    guest.run(f"blkdiscard -f {clone}")
    assert clone.status()[0].args[3] == "128/128"
    assert clone.events() == 1


def test_discards_are_remembered(rig):
    clone = rig.create("1 no_hydration")
    discard(rig, 0, 64 * rig.region)
    assert rig.progress().hydrated == 64
    clone.remove()
    rig.create("1 no_hydration")
    assert rig.progress().hydrated == 64


@OURS
def test_source_is_not_needed_when_everything_was_discarded(rig):
    rig.source.break_all()
    clone = rig.create("2 no_hydration no_discard_passdown")
    rig.guest.run(f"blkdiscard -f {clone}")
    clone.wait_until(lambda status: status.args[3] == "128/128")


@pytest.mark.c_fails("lets discards be divided within regions, and forgets those")
@pytest.mark.usefixtures("clone_module")
def test_long_discard_loses_no_region_where_it_is_divided(dm, disks, guest):
    """No bio is as long as the device."""
    metadata = disks.ram(8)[0]
    sectors = 20 << 21
    for name in ("dest", "source"):
        dm.create(name, f"0 {sectors} zero")
    line = f"0 {sectors} clone {metadata} /dev/mapper/dest /dev/mapper/source 128 1 no_hydration"
    clone = dm.create("clone", line)
    guest.run(f"blkdiscard -f {clone}")
    assert clone.status()[0].args[3] == f"{sectors // 128}/{sectors // 128}"


@pytest.mark.timeout(600)
@pytest.mark.skipif(places.is_debug(), reason="counts the instructions of a stock kernel")
@pytest.mark.parametrize("clone_module", ["c", "rs"])
@pytest.mark.c_fails("has interrupts off while it marks each region of a discard")
def test_long_discard_lets_interrupts_through(clone_module, tmp_path):
    """Less than a thousandth of a second, on a machine that takes a nanosecond for each instruction."""
    counted = CountedGuest(f"irqs-off-{clone_module}", [JOB, modules.compile(IRQS_OFF, tmp_path)])
    try:
        longest, status = counted.lines()
    finally:
        counted.close()
    assert " 1048575/1048576 " in status
    assert 0 < int(longest) < 1_000_000


@pytest.mark.c_fails("passes whole regions down only", command="cmp")
def test_discard_of_a_part_of_a_hydrated_region_is_passed_down(rig):
    """And that of a part of one that is not hydrated is not."""
    rig.create("1 no_hydration")
    last = f"--first {6 * rig.region} --sectors {rig.region}"
    rig.guest.run(f"iomodel stamp {rig.dest} {last} 9")
    rig.write(4 * rig.region, rig.region, 2)
    discard(rig, 4 * rig.region + 64, 2 * rig.region)
    assert rig.progress().hydrated == 2
    rig.holds(4 * rig.region, 64, 2, rig.dest)
    rig.discarded(4 * rig.region + 64, 2 * rig.region - 64)
    rig.guest.run(f"iomodel verify {rig.dest} {last} --source 9")
    # Within one region.
    discard(rig, 4 * rig.region + 16, 16)
    rig.discarded(4 * rig.region + 16, 16)
    discard(rig, 6 * rig.region + 16, 16)
    rig.guest.run(f"iomodel verify {rig.dest} {last} --source 9")


@OURS
def test_complete_clone_wants_discards_as_its_destination_does(rig):
    """Once it is loaded anew: user space does not expect limits to change before."""
    def granularity():
        return int(rig.guest.output(f"cat {sysfs(rig.clone)}/queue/discard_granularity"))

    rig.create("1 no_hydration")
    assert granularity() == rig.region * 512
    rig.hydrate()
    rig.clone.reload(rig.table())
    assert granularity() == int(rig.guest.output(f"cat {sysfs(rig.dest)}/queue/discard_granularity"))
