# SPDX-License-Identifier: GPL-2.0
"""What becomes of a clone when a device below it fails, hangs or goes, and how it comes back.

With test_errors.py it has a test for each row of the table in the admin guide, "What happens when a device
fails".
"""

import hashlib
import random

import pytest

from lab import nbd
from lab.disks import sysfs
from tests.clone.rig import MODEL, SOURCE_TAG, Rig

pytestmark = pytest.mark.limit(90)

MIB = 2048  # sectors
REGION = 128
DIRECT = "oflag=direct conv=notrunc status=none"
DURABLE = "oflag=direct,dsync conv=notrunc status=none"
OURS = pytest.mark.parametrize("clone_module", ["rs"], indirect=True)
FAILS = "Input/output error"


def says(guest, text, offset):
    """Fails unless the kernel's log says it, after offset."""
    assert guest.wait_for_console(text, offset, 10), f"not in the kernel's log: {text}"


def reads(rig, region):
    """Reads a region of the clone past the page cache: the Result."""
    return rig.guest.run(
        f"dd if={rig.clone} of=/dev/null bs={rig.region * 512} skip={region} count=1 iflag=direct status=none",
        check=False)


def writes(rig, region, sectors=None, flags=DIRECT):
    """Writes zeroes to a region of the clone, or its begin, past the page cache: the Result."""
    size = (sectors or rig.region) * 512
    return rig.guest.run(
        f"dd if=/dev/zero of={rig.clone} bs={size} oflag=seek_bytes seek={region * rig.region * 512} count=1 {flags}",
        check=False)


def overwrites(rig, region, clone_module):
    """Whether a region can be written whole. With the stock module, a write fails that meets a copy which fails, and
    it tries each region again and again: it has several tries."""
    return any(not writes(rig, region).returncode for _ in range(1 if clone_module == "rs" else 50))


def uncache(rig, device):
    """Forgets what somebody, such as udev, has read of a device before it was written to from above."""
    rig.guest.run(f"blockdev --flushbufs {device}")


def is_zero(rig, region, device=None):
    """Fails unless writes() has written a region."""
    at = region * rig.region * 512
    rig.guest.run(f"cmp -n {rig.region * 512} -i {at}:0 {device or rig.clone} /dev/zero")


def keeps(rig, *zeroes):
    """Fails unless the destination is the source, but for regions that writes() has written."""
    uncache(rig, rig.dest)
    begin = 0
    for region in sorted(zeroes):
        is_zero(rig, region, rig.dest)
        rig.holds(begin * rig.region, (region - begin) * rig.region, SOURCE_TAG, rig.dest)
        begin = region + 1
    rig.holds(begin * rig.region, rig.sectors - begin * rig.region, SOURCE_TAG, rig.dest)


# -- devices that go, and come back -------------------------------------------------------------


def goes_while_copying(rig, part, clone_module):
    """A clone with region 0 hydrated, of which a device goes while a region is on its way. Ours raises an event."""
    clone = rig.create("1 no_hydration 4 hydration_threshold 4 hydration_batch_size 1")
    assert not writes(rig, 0).returncode
    part.hold()
    clone.message("enable_hydration")
    rig.wait(lambda now: now.in_flight == 4)
    where, events = rig.guest.console_size(), clone.events()
    part.break_all()
    says(rig.guest, "hydration failed", where)
    if clone_module == "rs":
        clone.wait(events)


def all_hydrated(rig):
    """Waits for the event that says so."""
    rig.clone.wait_until(lambda status: status.args[3] == f"{rig.regions}/{rig.regions}")


def test_source_that_goes_and_comes_back(rig, clone_module):
    goes_while_copying(rig, rig.source, clone_module)
    last = rig.regions - 1
    # What is hydrated is there; what is not cannot be read, nor written in part.
    assert not reads(rig, 0).returncode
    assert FAILS in reads(rig, last).stderr
    assert FAILS in writes(rig, last, 8).stderr
    # What needs no source goes on.
    assert overwrites(rig, last, clone_module)
    is_zero(rig, last)
    assert rig.progress()[::3] == (2, "rw")
    # Nobody has to tell the clone.
    rig.source.become()
    all_hydrated(rig)
    keeps(rig, 0, last)


def test_destination_that_goes_and_comes_back(rig, clone_module):
    goes_while_copying(rig, rig.dest, clone_module)
    last = rig.regions - 1
    assert FAILS in reads(rig, 0).stderr
    assert not reads(rig, last).returncode
    assert FAILS in writes(rig, 0).stderr
    assert FAILS in writes(rig, last).stderr
    assert FAILS in writes(rig, last, 8).stderr
    # A disk without a cache has no flush that could fail.
    assert rig.progress()[::3] == (1, "rw")
    rig.dest.become()
    all_hydrated(rig)
    keeps(rig, 0)


@OURS
@pytest.mark.parametrize("region", [8, 128])
def test_medium_error_of_a_scsi_disk(clone_module, guest, dm, disks, region):
    """A disk that cannot read ten of its sectors; all regions but theirs are copied.

    The stock module asks for neighbours together, and gets none of them.
    """
    assert clone_module
    first, last = 4660, 4669  # by the documentation of scsi_debug
    scsi = disks.scsi_debug(8, lbpu=1)
    rig = Rig(guest, dm, [*disks.ram(8, 2), scsi], 8 * MIB, region)
    guest.run("echo 2 > /sys/bus/pseudo/drivers/scsi_debug/opts")
    where = guest.console_size()
    rig.create()
    says(guest, "hydration failed", where)
    bad = list(range(first // region, last // region + 1))
    rig.wait(lambda now: now.hydrated == rig.regions - len(bad))
    assert reads(rig, bad[0]).returncode
    assert region == 8 or writes(rig, bad[0], 8).returncode
    # What is before the bad sectors can be read.
    begin = bad[0] * region
    guest.run(f"dd if={rig.clone} bs=512 skip={begin} count={first - begin} iflag=direct status=none > /tmp/before")
    # They get whole when they are written to.
    for one in bad:
        assert not writes(rig, one).returncode
    all_hydrated(rig)
    guest.run("echo 0 > /sys/bus/pseudo/drivers/scsi_debug/opts")
    guest.run(f"cmp -n {(first - begin) * 512} -i 0:{begin * 512} /tmp/before {rig.source}")
    keeps(rig, *bad)


# -- a source on the network --------------------------------------------------------------------


NBD_MIB = 4


@pytest.fixture
def export(tmp_path):
    """A file for a server: (its path, its content)."""
    content = random.Random(7).randbytes(NBD_MIB << 20)
    path = tmp_path / "export"
    path.write_bytes(content)
    return path, content


def network_rig(guest, dm, disks, server):
    """A rig whose source is at a server, as it is: a clone holds the device of the network."""
    guest.run("modprobe nbd nbds_max=2")
    guest.run(server.client("/dev/nbd0", "-readonly"))
    metadata, dest = disks.ram(8, 2)
    return Rig(guest, dm, [metadata, dest, "/dev/nbd0"], NBD_MIB * MIB, REGION, stamp=False)


def has(guest, device, content):
    """Fails unless a device begins with this."""
    said = guest.output(f"head -c {len(content)} {device} | sha256sum")
    assert said.split()[0] == hashlib.sha256(content).hexdigest()


def test_server_that_gives_errors(clone_module, guest, dm, disks, export, tmp_path):
    path, content = export
    errors = tmp_path / "errors"
    with nbd.serve(path, ["--readonly", "--filter=error"], ["error=EIO", "error-rate=100%", f"error-file={errors}"]) \
            as server:
        rig = network_rig(guest, dm, disks, server)
        clone = rig.create("1 no_hydration 4 hydration_threshold 8 hydration_batch_size 2")
        assert not reads(rig, 0).returncode
        errors.touch()
        where = guest.console_size()
        clone.message("enable_hydration")
        says(guest, "hydration failed", where)
        assert FAILS in reads(rig, 1).stderr
        assert overwrites(rig, 5, clone_module)
        assert rig.progress().mode == "rw"
        errors.unlink()
        all_hydrated(rig)
        uncache(rig, rig.dest)
        size = REGION * 512
        has(guest, rig.dest, content[:5 * size] + bytes(size) + content[6 * size:])
        clone.remove()


def test_server_that_dies(clone_module, guest, dm, disks, export):
    """The same content is on another server: the table is loaded anew, with another path to the source."""
    path, content = export
    with nbd.serve(path, ["--readonly"]) as first, nbd.serve(path, ["--readonly"]) as second:
        rig = network_rig(guest, dm, disks, first)
        words = "4 hydration_threshold 1 hydration_batch_size 1"
        clone = rig.create(f"1 no_hydration {words}")
        assert not writes(rig, 0).returncode
        rig.source.hold()
        clone.message("enable_hydration")
        rig.wait(lambda now: now.in_flight > 0)
        where = guest.console_size()
        first.kill()
        # What is on its way would wait for good, if the device had no time limit and nobody let go of it.
        rig.source.release()
        guest.run("nbd-client -d /dev/nbd0")
        says(guest, "hydration failed", where)
        done = rig.progress().hydrated
        assert 0 < done < rig.regions
        assert not reads(rig, 0).returncode
        assert FAILS in reads(rig, rig.regions - 1).stderr
        guest.run(second.client("/dev/nbd1", "-readonly"))
        clone.reload(rig.table(f"0 {words}").replace(str(rig.source), "/dev/nbd1"))
        assert rig.progress().hydrated >= done
        all_hydrated(rig)
        uncache(rig, rig.dest)
        size = REGION * 512
        has(guest, rig.dest, bytes(size) + content[size:])
        clone.remove()


# -- flushes, and the metadata ------------------------------------------------------------------


@pytest.fixture
def cached(clone_module, guest, dm, disks):
    """A clone of 2 MiB on larger disks, of which metadata and destination have volatile caches."""
    assert clone_module
    caches = [disks.null(name, 4, cache_size=1) for name in ("nullmeta", "nulldest")]
    return Rig(guest, dm, [*caches, *disks.ram(4)], 2 * MIB, REGION)


@pytest.mark.parametrize("broken", ["dest", "metadata"])
def test_flush_that_fails(cached, guest, broken):
    """Nothing is durable any more, so nothing may say so: read-only mode."""
    rig, part = cached, getattr(cached, broken)
    clone = rig.create("1 no_hydration")
    assert not writes(rig, 0, flags=DURABLE).returncode
    part.break_flushes()
    where, events = guest.console_size(), clone.events()
    assert FAILS in writes(rig, 1, flags=DURABLE).stderr
    what = "flush destination device" if broken == "dest" else "dm_clone_metadata_commit"
    says(guest, f"Metadata operation `{what}' failed: error = -5", where)
    says(guest, "Switching to read-only mode", where)
    assert clone.events() == events + 1
    assert rig.progress("--noflush").mode == "ro"
    is_zero(rig, 0)
    rig.holds(5 * REGION, REGION, SOURCE_TAG)
    assert FAILS in writes(rig, 5).stderr
    # It does not come back by itself.
    part.become()
    assert rig.progress("--noflush").mode == "ro"
    clone.remove()
    clone = rig.create("1 no_hydration")
    assert rig.progress() in [(1, rig.regions, 0, "rw"), (2, rig.regions, 0, "rw")]
    assert not writes(rig, 1, flags=DURABLE).returncode
    rig.hydrate()
    keeps(rig, 0, 1)


def test_metadata_that_fail_while_hydrating(rig, guest):
    """Nobody flushes: the timer's commit finds it. Then nothing is copied, until the clone is made anew."""
    rig.source.slow_down(200)
    clone = rig.create("0 4 hydration_threshold 1 hydration_batch_size 1")
    rig.wait(lambda now: now.hydrated > 2)
    done = rig.progress().hydrated
    where, events = guest.console_size(), clone.events()
    rig.metadata.break_writes()
    clone.wait(events)
    says(guest, "Switching to read-only mode", where)
    rig.wait(lambda now: now.in_flight == 0 and now.mode == "ro")
    rig.source.become()
    # Reads and what is hydrated go on.
    assert not writes(rig, 0).returncode
    assert FAILS in writes(rig, rig.regions - 1).stderr
    rig.holds(REGION, rig.sectors - REGION, SOURCE_TAG)
    clone.remove()
    rig.metadata.become()
    rig.create("1 no_hydration")
    assert done <= rig.progress().hydrated < rig.regions
    rig.hydrate()
    keeps(rig, 0)


# -- devices that hang --------------------------------------------------------------------------


@pytest.mark.parametrize("held", ["metadata", "dest", "source"])
def test_device_that_hangs_for_a_while(rig, guest, held):
    """What needs it waits, then goes on; nothing fails, and nothing is lost."""
    clone = rig.create("1 no_hydration 4 hydration_threshold 4 hydration_batch_size 1")
    content = f"--source {SOURCE_TAG} --state {MODEL}"
    part = getattr(rig, held)
    part.hold()
    clone.message("enable_hydration")
    load = guest.start(f"iomodel run {clone} {content} --ops 600 --threads 4 --overlap --flushes 10")
    # Sooner or later what it does needs the device: it waits for that, and nothing ends any more.
    guest.run(
        "waiting() { awk '$3 == \"D\"' /proc/$(pgrep -x iomodel)/task/*/stat | wc -l; }\n"
        f"ended() {{ awk '{{ print $1 + $5 }}' {sysfs(clone)}/stat; }}\n"
        "until before=$(ended); sleep 0.3; [ $(waiting) != 0 ] && [ $before = $(ended) ]; do :; done"
    )
    assert load.poll() is None
    part.release()
    said, _ = load.communicate()
    assert load.returncode == 0, said
    rig.hydrate()
    guest.run(f"iomodel verify {rig.dest} {content}")


@OURS
def test_source_that_hangs_keeps_up_only_what_needs_it(clone_module, guest, dm, disks):
    """More writes wait for copies than there can be at a time: discards and whole regions need none."""
    rig = Rig(guest, dm, disks.ram(64, 3), 64 * MIB, MIB)
    clone = rig.create("1 no_hydration")
    rig.source.hold()
    block = f"dd if=/dev/zero of={clone} bs=4k count=1 oflag=direct conv=notrunc status=none"
    writers = [guest.start(f"{block} seek={256 * number}") for number in range(24)]
    # So many are copied at a time, the others wait for one of these to end.
    rig.wait(lambda now: now.in_flight == 16)
    guest.run(f"blkdiscard -f -o {40 << 20} -l {1 << 20} {clone}", timeout=30)
    guest.run(f"dd if=/dev/zero of={clone} bs=1M seek=41 count=1 oflag=direct conv=notrunc status=none", timeout=30)
    assert rig.progress("--noflush").in_flight == 16
    rig.source.release()
    for writer in writers:
        assert writer.wait() == 0, writer.stdout.read()
    assert rig.progress().hydrated == 24 + 2
