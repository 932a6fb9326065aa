# SPDX-License-Identifier: GPL-2.0
"""Devices that fail: what goes on, what stops, and what comes back."""

import contextlib

import pytest

from lab import modules
from tests.clone.rig import MODEL, SOURCE_TAG, Rig

pytestmark = pytest.mark.limit(60)

OURS = pytest.mark.parametrize("clone_module", ["rs"], indirect=True)
BAD = 5  # a region that its device cannot read or write


def break_region(part, region):
    """I/O on the region BAD fails; the rest works."""
    begin = BAD * region
    end = begin + region
    part.become(
        f"0 {begin} linear DISK 0\n{begin} {region} error\n{end} {part.sectors - end} linear DISK {end}"
    )


def says(rig, text, offset=0):
    """Fails unless the kernel's log says it, after offset."""
    assert rig.guest.wait_for_console(text, offset, 10), f"not in the kernel's log: {text}"


@pytest.mark.parametrize("broken", ["source", "dest"])
def test_one_bad_region_keeps_no_other(rig, guest, clone_module, broken):
    break_region(getattr(rig, broken), rig.region)
    clone = rig.create("0 4 hydration_threshold 8 hydration_batch_size 1")
    rig.wait(lambda now: now.hydrated == rig.regions - 1)
    # The rest of the clone serves reads and writes.
    rig.write(20 * rig.region, rig.region, 2)
    rig.holds(0, BAD * rig.region, SOURCE_TAG)
    rig.holds(20 * rig.region, rig.region, 2)
    # Tried again, though not in a rush.
    where = guest.console_size()
    says(rig, "hydration failed", where)
    getattr(rig, broken).become()
    clone.wait_until(lambda status: status.args[3] == f"{rig.regions}/{rig.regions}")
    rig.holds(BAD * rig.region, rig.region, SOURCE_TAG)
    # At the end; ours also when a region fails, and when none does any more.
    assert clone.events() == (3 if clone_module == "rs" else 1)


@OURS
def test_bad_region_is_not_tried_in_a_rush(rig, guest):
    break_region(rig.source, rig.region)
    rig.create("0 2 hydration_threshold 8")
    rig.wait(lambda now: now.hydrated == rig.regions - 1)
    before = rig.stats()["errors"]
    # An observation of nothing needs a time to pass.
    guest.run("sleep 3")
    assert rig.stats()["errors"] - before <= 10


def test_write_into_a_region_that_cannot_be_read(rig):
    rig.source.break_all()
    rig.create("1 no_hydration")
    # A part needs the rest from the source; the whole needs nothing.
    assert rig.write(BAD * rig.region + 8, 8, 2, check=False).returncode
    assert rig.progress() == (0, rig.regions, 0, "rw")
    rig.write(BAD * rig.region, rig.region, 3)
    assert rig.progress().hydrated == 1
    rig.holds(BAD * rig.region, rig.region, 3)
    rig.source.become()
    rig.write(2 * rig.region + 8, 8, 2)
    rig.holds(2 * rig.region + 8, 8, 2)


@OURS
@pytest.mark.parametrize("what", ["whole", "beside"])
def test_write_that_waits_for_a_copy_that_fails(rig, what):
    """Many regions are copied together: what fails in one is nothing to the others, nor to who needs no copy."""
    break_region(rig.source, rig.region)
    clone = rig.create("1 no_hydration")
    rig.source.hold()
    clone.message("enable_hydration")
    rig.wait(lambda now: now.in_flight > BAD + 4)
    at, sectors = (BAD * rig.region, rig.region) if what == "whole" else ((BAD + 4) * rig.region + 8, 8)
    writer = rig.write_behind(at, sectors, 2)
    rig.source.release()
    assert writer.wait() == 0
    rig.holds(at, sectors, 2)


@OURS
def test_map_that_cannot_be_read_at_first(rig, guest):
    """A failed start is no damage: the next one reads all anew."""
    rig.create("1 no_hydration")
    rig.write(BAD * rig.region, rig.region, 2)
    rig.clone.remove()
    guest.run("dmsetup create --notable clone && dmsetup load clone", stdin=rig.table("1 no_hydration"))
    rig.metadata.break_all()
    assert guest.run("dmsetup resume clone", check=False).returncode
    rig.metadata.become()
    guest.run("dmsetup resume clone && dmsetup mknodes clone")
    status = guest.output("dmsetup status clone")
    assert f" 1/{rig.regions} " in status
    rig.holds(BAD * rig.region, rig.region, 2)
    guest.run("dmsetup remove clone")


def test_failed_overwrite_hydrates_nothing(rig):
    rig.create("1 no_hydration")
    rig.dest.break_writes()
    assert rig.write(0, rig.region, 2, check=False).returncode
    assert rig.progress() == (0, rig.regions, 0, "rw")
    rig.holds(0, rig.region, SOURCE_TAG)
    rig.dest.become()
    rig.write(0, rig.region, 2)
    rig.holds(0, rig.region, 2)


def every_other_region(rig, count):
    """A clone with each second of its first regions hydrated; returns how many."""
    rig.create("1 no_hydration")
    for region in range(1, count, 2):
        rig.write(region * rig.region, rig.region, region + 1)
    return count // 2


def test_read_of_which_a_part_fails(rig, guest):
    """One read goes to both devices, and fails with either."""
    every_other_region(rig, 6)
    read = f"dd if={rig.clone} of=/dev/null bs={6 * rig.region * 512} count=1 iflag=direct status=none"
    for part in (rig.source, rig.dest):
        part.break_all()
        assert "Input/output error" in guest.run(read, check=False).stderr
        part.become()
        guest.run(read)


def test_failed_write_over_hydrated_and_other_regions(rig):
    hydrated = every_other_region(rig, 6)
    rig.dest.break_writes()
    assert rig.write(0, 6 * rig.region, 9, check=False).returncode
    assert rig.progress() == (hydrated, rig.regions, 0, "rw")
    for region in range(0, 6, 2):
        rig.holds(region * rig.region, rig.region, SOURCE_TAG)
    rig.dest.become()
    rig.write(0, 6 * rig.region, 9)
    assert rig.progress() == (6, rig.regions, 0, "rw")
    rig.holds(0, 6 * rig.region, 9)


def in_read_only_mode(rig):
    """A clone with regions 0 and 1 hydrated, region 1 not durably, whose metadata cannot be written."""
    clone = rig.create("1 no_hydration")
    rig.write(0, rig.region, 2)
    rig.metadata.break_writes()
    where = rig.guest.console_size()
    events = clone.events()
    assert rig.write(rig.region, rig.region, 3, check=False).returncode, "a flush that nothing backs succeeded"
    says(rig, "Switching to read-only mode", where)
    assert clone.events() == events + 1
    assert rig.progress("--noflush").mode == "ro"


def test_read_only_mode(rig, guest):
    in_read_only_mode(rig)
    direct = "oflag=direct conv=notrunc status=none"
    # Hydrated for good: reads, writes and nothing else.
    guest.run(f"dd if=/dev/zero of={rig.clone} bs=4k count=1 {direct}")
    guest.run(f"cmp -n 4096 {rig.clone} /dev/zero")
    # Not hydrated: reads, no writes; discards are hints.
    rig.holds(4 * rig.region, rig.region, SOURCE_TAG)
    assert guest.run(f"dd if=/dev/zero of={rig.clone} bs=4k seek=100 count=1 {direct}", check=False).returncode
    assert guest.run(f"dd if=/dev/zero of={rig.clone} bs=64k seek=10 count=1 {direct}", check=False).returncode
    guest.run(f"blkdiscard -f -o {8 * rig.region * 512} -l {rig.region * 512} {rig.clone}")
    rig.holds(8 * rig.region, rig.region, SOURCE_TAG)
    # Nothing hydrates any more.
    rig.clone.message("enable_hydration")
    assert rig.progress("--noflush").in_flight == 0


@pytest.mark.c_fails("goes back to what the disk says, and what was written since is gone", command="iomodel verify")
def test_read_only_mode_keeps_acknowledged_writes(rig, guest):
    in_read_only_mode(rig)
    rig.holds(rig.region, rig.region, 3)
    guest.run(f"dd if=/dev/zero of={rig.clone} bs=64k seek=1 count=1 oflag=direct conv=notrunc status=none")
    guest.run(f"cmp -n 65536 -i 65536:0 {rig.clone} /dev/zero")
    assert guest.run(f"xfs_io -c fsync {rig.clone}", check=False).returncode


@OURS
def test_flush_with_data_fails_as_one_without(clone_module, guest, dm, disks):
    """What a file system ends a transaction with. Device-mapper sends the data though the flush has failed."""
    rig = Rig(guest, dm, disks.ram(32, 3), 32 * 2048, 8, stamp=False)
    clone = rig.create("1 no_hydration")
    direct = "if=/dev/zero bs=4k oflag=direct conv=notrunc status=none"
    # All that the file system will write to is hydrated durably.
    guest.run(f"""set -e
        mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0,nodiscard {clone} 16M
        mkdir -p /mnt/x && mount {clone} /mnt/x
        dd of=/mnt/x/file count=16 {direct} && sync -f /mnt/x""")
    rig.metadata.break_writes()
    guest.run(f"dd of={clone} seek=6000 count=1 {direct}")
    assert guest.run(f"xfs_io -c fsync {clone}", check=False).returncode
    assert rig.progress("--noflush").mode == "ro"
    guest.run(f"dd of=/mnt/x/file count=16 {direct}")
    assert guest.run("xfs_io -c fsync /mnt/x/file", check=False).returncode
    guest.run("umount /mnt/x")


@pytest.mark.c_fails("a new table reads the metadata again, and goes on without what was written since")
def test_no_reload_leaves_read_only_mode(rig):
    in_read_only_mode(rig)
    rig.metadata.become()
    rig.clone.reload(rig.table("1 no_hydration"))
    assert rig.progress("--noflush").mode == "ro"
    rig.holds(0, rig.region, 2)
    rig.holds(rig.region, rig.region, 3)
    assert rig.write(4 * rig.region, rig.region, 4, check=False).returncode


def test_what_was_durable_is_there_after_read_only_mode(rig):
    in_read_only_mode(rig)
    rig.clone.remove()
    rig.metadata.become()
    rig.create("1 no_hydration")
    assert rig.progress() == (1, rig.regions, 0, "rw")
    rig.holds(0, rig.region, 2)
    rig.holds(rig.region, rig.region, SOURCE_TAG)


def test_full_metadata(clone_module, guest, dm, disks):
    """A device that takes the format, which the stock module writes, but no transaction."""
    paths = [disks.null("tiny", 1), *disks.ram(8, 2)]
    rig = Rig(guest, dm, paths, 16384, 128)
    rig.metadata.become("0 72 linear DISK 0")
    with modules.stock_clone(guest, clone_module):
        rig.create("1 no_hydration").remove()
    clone = rig.create("1 no_hydration")
    where, events = guest.console_size(), clone.events()
    result = rig.write(0, rig.region, 2, check=False)
    assert result.returncode
    says(rig, "Switching to read-only mode", where)
    assert clone.events() == events + 1
    assert clone.status("--noflush")[0].args[-1] == "ro"
    rig.holds(2 * rig.region, rig.region, SOURCE_TAG)


def in_fail_mode(rig):
    """A clone whose metadata cannot even be read again."""
    clone = rig.create("1 no_hydration")
    rig.write(0, rig.region, 2)
    rig.metadata.break_all()
    where, events = rig.guest.console_size(), clone.events()
    assert rig.write(rig.region, rig.region, 3, check=False).returncode
    says(rig, "Switching to fail mode", where)
    assert clone.events() > events
    return clone


def test_fail_mode(rig, guest):
    clone = in_fail_mode(rig)
    assert clone.status_text("--noflush").split()[2:] == ["clone", "Fail"]
    for command in (
        f"dd if={rig.clone} of=/dev/null bs=4k count=1 iflag=direct",
        f"dd if=/dev/zero of={rig.clone} bs=4k count=1 oflag=direct",
        f"blkdiscard -f -l 65536 {rig.clone}",
    ):
        assert "Input/output error" in guest.run(command, check=False).stderr
    clone.remove()


@contextlib.contextmanager
def counts_seen(guest):
    """Gives a function: what the stock module counts as in flight whenever a bio comes in, since it was asked first.

    Nothing shows that: it is read at its place in struct clone, to which struct dm_target points.
    """
    def run(*lines):
        # A command that fails would be taken for the failure of the stock module that is expected.
        return guest.run("\n".join(["cd /sys/kernel/tracing", *lines]), check=False).stdout

    run("echo 'p:lab dm_clone:clone_map count=+96(+56(%di)):s32' > kprobe_events", "echo > trace",
        "echo 1 > events/kprobes/lab/enable")
    try:
        yield lambda: [int(count) for count in run("grep -o 'count=.*' trace | cut -d= -f2").split()]
    finally:
        run("echo 0 > events/kprobes/lab/enable", "echo > kprobe_events", "echo > trace")


@pytest.mark.c_fails("counts it as in flight for ever")
def test_io_in_fail_mode_is_not_in_flight(rig, guest, clone_module):
    def write_each():
        for region in range(2, 6):
            write = f"dd if=/dev/zero of={clone} bs={rig.region * 512} seek={region} count=1 oflag=direct"
            assert "Input/output error" in guest.run(write, check=False).stderr

    clone = in_fail_mode(rig)
    if clone_module == "c":
        with counts_seen(guest) as counts:
            write_each()
            seen = counts()
        if len(seen) != 4:
            raise RuntimeError(f"four bios came in, and were seen as {seen}")
        assert seen == [0, 0, 0, 0]
    else:
        write_each()
        assert rig.stats()["in_flight_regions"] == 0


@pytest.mark.usefixtures("clone_module")
@pytest.mark.parametrize("number", [1000, 4294967295])
def test_huge_settings(guest, dm, disks, number):
    """More copies than there are objects in reserve, and I/O beside them."""
    rig = Rig(guest, dm, disks.ram(8, 3), 16384, 8)
    clone = rig.create(f"1 no_hydration 4 hydration_threshold {number} hydration_batch_size 1")
    load = guest.start(f"iomodel run {clone} --source {SOURCE_TAG} --ops 200 --state {MODEL}")
    rig.hydrate(number, 1)
    said, _ = load.communicate()
    assert load.returncode == 0, said
    clone.message("hydration_batch_size", number)
    guest.run(f"iomodel verify {rig.dest} --source {SOURCE_TAG} --state {MODEL}")
