# SPDX-License-Identifier: GPL-2.0
"""The background copy: how it goes on, alone, beside others, and past what fails."""

import pathlib

import pytest

from lab import modules, patience
from lab.disks import sysfs
from tests.clone.bio_trace import BioTrace
from tests.clone.rig import MODEL, SOURCE_TAG, Rig

pytestmark = pytest.mark.limit(60)

OURS = pytest.mark.parametrize("clone_module", ["rs"], indirect=True)
NO_MEMORY = pathlib.Path(__file__).parent / "modules/no_memory"


def break_sectors(part, first, sectors):
    """I/O on these sectors fails; the rest works."""
    end = first + sectors
    begin = f"0 {first} linear DISK 0\n" if first else ""
    part.become(f"{begin}{first} {sectors} error\n{end} {part.sectors - end} linear DISK {end}")


def reads(part):
    """How many reads there were."""
    return int(part.guest.output(f"awk '{{ print $1 }}' {sysfs(part)}/stat"))


@pytest.mark.usefixtures("clone_module")
@pytest.mark.c_fails("copies each region by itself unless it is told otherwise")
def test_neighbours_are_copied_together(guest, dm, disks):
    rig = Rig(guest, dm, disks.ram(16, 3), 32768, 8)
    before = reads(rig.source)
    rig.create()
    rig.wait(lambda now: now.hydrated == rig.regions)
    # 16 MiB in pieces of a MiB, and what udev wants to know.
    assert reads(rig.source) - before <= 200
    guest.run(f"cmp -n {rig.sectors * 512} {rig.dest.disk} {rig.source.disk}")


@pytest.mark.usefixtures("clone_module")
def test_given_settings_bind(guest, dm, disks):
    """Threshold and batch size, if they are given, limit what is in flight and what is copied together."""
    rig = Rig(guest, dm, disks.ram(8, 3), 16384, 8)
    clone = rig.create("1 no_hydration 4 hydration_threshold 6 hydration_batch_size 3")
    rig.source.hold()
    clone.message("enable_hydration")
    assert 0 < rig.wait(lambda now: now.in_flight > 0).in_flight <= 6
    before = reads(rig.source)
    rig.source.release()
    rig.wait(lambda now: now.hydrated == rig.regions)
    assert reads(rig.source) - before >= rig.regions // 3


@pytest.mark.usefixtures("clone_module")
@pytest.mark.c_fails("takes memory for each region of a batch before it copies the first")
def test_large_batch_needs_no_memory(guest, dm, disks):
    """A batch of more regions than any reserve has objects for, while there is no other memory."""
    rig = Rig(guest, dm, disks.ram(8, 3), 16384, 8)
    clone = rig.create("1 no_hydration 4 hydration_threshold 1024 hydration_batch_size 1024")
    with modules.inserted(guest, NO_MEMORY) as parameters:
        clone.message("enable_hydration")
        rig.wait(lambda now: now.hydrated == rig.regions, 10)
        assert int(guest.output(f"cat {parameters}/refused")) > 0
    # Whoever waits looks again after a while.
    rig.wait(lambda now: now.hydrated == rig.regions)
    guest.run(f"cmp {rig.dest.disk} {rig.source.disk}")


@OURS
@pytest.mark.usefixtures("clone_module")
@pytest.mark.parametrize("broken", ["source", "dest"])
@pytest.mark.parametrize("region", [8, 128])
def test_copies_that_fail_are_narrowed(guest, dm, disks, region, broken):
    """One bad region in a MiB of good ones: the others are hydrated, and the kernel's log names it."""
    rig = Rig(guest, dm, disks.ram(8, 3), 16384, region)
    bad = 3000 // region
    part = getattr(rig, broken)
    break_sectors(part, bad * region, region)
    where = guest.console_size()
    clone = rig.create()
    events = clone.events()
    rig.wait(lambda now: now.hydrated == rig.regions - 1)
    side = "read from the source" if broken == "source" else "written to the destination"
    assert guest.wait_for_console(f"hydration failed: region {bad} cannot be {side}; trying again in 1 s", where, 10)
    assert clone.events() in (events, events + 1)
    part.become()
    clone.wait_until(lambda status: status.args[3] == f"{rig.regions}/{rig.regions}")
    rig.holds(0, rig.sectors, SOURCE_TAG)


@pytest.mark.c_fails("raises none")
def test_events_tell_of_failed_regions(rig, guest):
    """One with the first region that fails, one when none is left; a write that repairs a region counts."""
    break_sectors(rig.source, 5 * rig.region, 2 * rig.region)
    clone = rig.create("1 no_hydration")
    seen = clone.events()
    clone.message("enable_hydration")
    rig.wait(lambda now: now.hydrated == rig.regions - 2)
    wait = f"timeout {patience.seconds(5)} dmsetup wait {clone.name} {seen}"
    assert guest.run(wait, check=False).returncode == 0, "no event for a failed region"
    assert clone.events() == seen + 1
    # A write of the whole region needs no source.
    rig.write(5 * rig.region, rig.region, 2)
    assert clone.events() == seen + 1
    rig.write(6 * rig.region, rig.region, 3)
    # Nothing fails any more, and all is complete.
    clone.wait(seen + 1)
    clone.wait_until(lambda status: status.args[3] == f"{rig.regions}/{rig.regions}")
    clone.wait(seen + 2)
    assert clone.events() == seen + 3
    rig.holds(5 * rig.region, rig.region, 2)


@pytest.mark.c_fails("tries each region each second")
def test_dead_source_is_not_asked_for_everything(rig, guest):
    """When nothing can be read any more, nothing is tried in a rush; when it can, all comes over."""
    rig.source.break_all()
    clone = rig.create("1 no_hydration")
    trace = BioTrace(guest, {"source": rig.source})
    trace.start()
    clone.message("enable_hydration")
    # An observation of nothing needs a time to pass.
    guest.run("sleep 4")
    # To find out that each of the 128 regions fails takes some 250.
    assert 0 < sum(not bio.completed for bio in trace.stop()) <= 100
    assert rig.progress().hydrated == 0
    rig.source.become()
    clone.wait_until(lambda status: status.args[3] == f"{rig.regions}/{rig.regions}")
    rig.guest.run(f"cmp {rig.dest.disk} {rig.source.disk}")


@pytest.mark.usefixtures("clone_module")
@pytest.mark.c_fails("divides writes at every region")
def test_write_over_many_regions_is_one(guest, dm, disks):
    """A long write that covers regions whole goes to the destination undivided, and hydrates them all."""
    rig = Rig(guest, dm, disks.ram(8, 3), 16384, 8)
    rig.create("1 no_hydration")
    # Regions 70 to 79 are hydrated already.
    rig.write(70 * 8, 80, 2)
    before = rig.dest.writes()
    guest.run(f"dd if=/dev/zero of={rig.clone} bs=1M count=1 oflag=direct status=none")
    # Before, among and after what was hydrated; and what the block layer makes of a MiB.
    assert rig.dest.writes() - before <= 12
    assert rig.progress().hydrated == 256
    guest.run(f"cmp -n 1M {rig.dest.disk} /dev/zero")
    rig.holds(2048, 14336, SOURCE_TAG)


@OURS
@pytest.mark.usefixtures("clone_module")
def test_long_write_goes_around_copies_in_flight(guest, dm, disks):
    """A write over regions of which one is being copied waits for that one only, and wins."""
    rig = Rig(guest, dm, disks.ram(8, 3), 16384, 16)
    rig.create("1 no_hydration")
    rig.source.hold()
    small = rig.write_behind(50 * 16 + 8, 8, 2)
    long = rig.write_behind(0, 1024, 3, waiting=2)
    rig.source.release()
    assert small.wait() == 0
    assert long.wait() == 0
    rig.holds(0, 1024, 3)
    rig.holds(1024, 1024, SOURCE_TAG)
    assert rig.progress().hydrated == 64


@pytest.mark.limit(180)
@pytest.mark.c_fails("copies nothing while others use the device")
def test_gets_complete_beside_others(rig, guest):
    """When others have done so much, all regions are hydrated, though there was always one of them."""
    rig.create("1 no_hydration")
    rig.dest.slow_down(4)
    # They use parts of one region: the others are left to the background.
    hydrated = guest.output(
        f"""
        fio --name=users --filename={rig.clone} --rw=randrw --bs=4k --size=64k --direct=1 --numjobs=4 \
            --time_based --runtime=1000 --output=/dev/null & users=$!
        done_ios() {{ awk '{{ print $1 + $5 }}' {sysfs(rig.clone)}/stat; }}
        wait_for() {{ until [ $(done_ios) -ge $1 ]; do kill -0 $users || exit 1; sleep 0.05; done; }}
        wait_for $(($(done_ios) + 100))
        dmsetup message clone 0 enable_hydration
        wait_for $(($(done_ios) + 8000))
        dmsetup status --noflush clone | awk '{{ print $7 }}'
        kill $users; wait $users; true"""
    )
    assert hydrated == f"{rig.regions}/{rig.regions}"
    rig.dest.become()
    # Not what the page cache knows of the devices from before.
    direct = "iflag=direct bs=64k skip=1 status=none"
    guest.run(f"cmp <(dd if={rig.dest} {direct}) <(dd if={rig.source} {direct})")


@OURS
@pytest.mark.parametrize("share", [10, 100])
def test_keeps_a_share_and_all_data(rig, guest, share):
    """Whatever the share, copying goes on to the end beside users, and no write of theirs is lost."""
    rig.dest.slow_down(4)
    clone = rig.create("1 no_hydration")
    clone.message("set_min_share", share)
    load = guest.start(
        "rm -f /tmp/stop; until [ -e /tmp/stop ]; do"
        f" iomodel run {clone} --source {SOURCE_TAG} --ops 100 --threads 4 --state {MODEL} || exit 1; done"
    )
    clone.message("enable_hydration")
    clone.wait_until(lambda status: status.args[3] == f"{rig.regions}/{rig.regions}")
    guest.run("touch /tmp/stop")
    said, _ = load.communicate()
    assert load.returncode == 0, said
    rig.dest.become()
    guest.run(f"iomodel verify {rig.dest} --source {SOURCE_TAG} --state {MODEL}")


@OURS
def test_stats(rig):
    clone = rig.create("1 no_hydration")
    region = rig.region * 512
    first = rig.stats()
    assert first == {
        "committed_regions": 0, "hydrated_regions": 0, "total_regions": rig.regions, "in_flight_regions": 0,
        "copied_bytes": 0, "copied_for_writes_bytes": 0,
        "rate_bytes_per_second": 0, "mean_rate_bytes_per_second": 0, "eta_seconds": "unknown",
        "errors": 0, "retries": 0, "failed_regions": 0,
        "commits": 0, "commit_groups": 0, "commit_group_bios": 0, "largest_commit_group": 0,
        "min_share_percent": 50,
    }
    # A part of a region is copied for, a whole one is not; both are flushed.
    rig.write(8, 8, 2)
    rig.write(rig.region, rig.region, 2)
    now = rig.stats()
    assert (now["hydrated_regions"], now["copied_bytes"], now["copied_for_writes_bytes"]) == (2, 0, region)
    assert 1 <= now["commits"] <= 2
    assert now["commit_groups"] >= 1
    assert now["commit_group_bios"] >= now["commit_groups"]
    assert now["largest_commit_group"] >= 1
    break_sectors(rig.source, 5 * rig.region, rig.region)
    clone.message("set_min_share", 70)
    clone.message("enable_hydration")
    rig.wait(lambda now: now.hydrated == rig.regions - 1)
    now = rig.stats()
    assert now["failed_regions"] == 1
    assert now["errors"] >= 2
    assert now["min_share_percent"] == 70
    rig.source.become()
    clone.wait_until(lambda status: status.args[3] == f"{rig.regions}/{rig.regions}")
    now = rig.stats()
    assert now["committed_regions"] == now["hydrated_regions"] == rig.regions
    assert now["copied_bytes"] >= (rig.regions - 2) * region
    assert now["mean_rate_bytes_per_second"] > 0
    assert (now["failed_regions"], now["eta_seconds"]) == (0, 0)
    assert now["retries"] >= 1


@OURS
@pytest.mark.parametrize("percent", ["", "0", "101", "x", "5 6"])
def test_refuses_shares(rig, guest, percent):
    clone = rig.create("1 no_hydration")
    where = guest.console_size()
    assert clone.message("set_min_share", percent, check=False).returncode
    assert guest.wait_for_console("set_min_share", where, 10)
    assert rig.stats()["min_share_percent"] == 50
