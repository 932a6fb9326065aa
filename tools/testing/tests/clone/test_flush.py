# SPDX-License-Identifier: GPL-2.0
"""Flushes, FUA and commits: what becomes durable, and in which order."""

import pytest

from tests.clone.bio_trace import BioTrace
from tests.clone.rig import Rig

pytestmark = pytest.mark.limit(60)

SUPERBLOCK = 0  # its sector
REGION = 128
SECTORS = 8192


@pytest.fixture
def cached(clone_module, guest, dm, disks):
    """A clone's disks; destination and metadata have volatile write caches."""
    assert clone_module
    source = disks.ram(4)
    caches = [disks.null(name, 4, cache_size=1) for name in ("nullmeta", "nulldest")]
    return Rig(guest, dm, [*caches, *source], SECTORS, REGION)


def trace_of(rig):
    """A recorder of the clone, its metadata and its destination."""
    return BioTrace(rig.guest, {"clone": rig.clone, "metadata": rig.metadata, "dest": rig.dest})


def index(bios, what, begin=0):
    """Where the first event is that fits; None if there is none."""
    return next((at for at in range(begin, len(bios)) if what(bios[at])), None)


def superblock_sent(bio):
    """The write that makes a commit valid is on its way."""
    return bio.device == "metadata" and bio.is_write and not bio.completed and bio.sector == SUPERBLOCK


def committed(bios):
    """Where the first commit was valid: what completes after its superblock was sent is that write."""
    sent = index(bios, superblock_sent)
    assert sent is not None, "there was no commit"
    return index(bios, lambda bio: bio.device == "metadata" and bio.is_write and bio.completed, sent)


def test_order_of_commits(cached):
    """Data, flush of the destination, metadata, flush, superblock, flush: for each commit.

    The flushes around the superblock may be flags of its write.
    """
    clone = cached.create("1 no_hydration")
    trace = trace_of(cached)
    trace.start()
    clone.message("hydration_threshold", 2)
    clone.message("enable_hydration")
    cached.guest.run(
        f"for region in 3 17 30 44 61; do iomodel stamp {clone} --first $((region * {REGION} + 8)) --sectors 8 2; done"
    )
    cached.hydrate()
    bios = trace.stop()
    superblocks = [at for at, bio in enumerate(bios) if superblock_sent(bio)]
    assert superblocks
    begin = 0
    for superblock in superblocks:
        words = index(bios, lambda bio: bio.device == "metadata" and bio.is_write and not bio.completed, begin)
        assert words < superblock, "the superblock is all that was written"
        flush = index(bios, lambda bio: bio.device == "dest" and bio.is_flush and bio.completed, begin)
        assert flush is not None and flush < words, "the metadata went before the data was safe"
        middle = index(bios, lambda bio: bio.device == "metadata" and bio.is_flush and bio.completed, words)
        assert bios[superblock].is_flush or (middle is not None and middle < superblock), (
            "the superblock went before what it points to was safe")
        last = "is_fua" if bios[superblock].is_fua else "is_flush"
        begin = index(
            bios, lambda bio, last=last: bio.device == "metadata" and getattr(bio, last) and bio.completed, superblock)
        assert begin is not None, "the superblock was not flushed"


def test_flush_commits_what_was_hydrated(cached):
    clone = cached.create("1 no_hydration")
    trace = trace_of(cached)
    trace.start()
    cached.write(8, 8, 2)
    bios = trace.stop()
    acknowledged = index(bios, lambda bio: bio.device == "clone" and bio.is_flush and bio.completed)
    assert committed(bios) < acknowledged
    assert clone.status("--noflush")[0].args[3] == "1/64"


def test_flush_without_a_change_does_not_commit(cached):
    clone = cached.create("1 no_hydration")
    cached.write(8, 8, 2)
    trace = trace_of(cached)
    trace.start()
    cached.write(8, 8, 3)
    bios = trace.stop()
    assert index(bios, lambda bio: bio.device == "metadata") is None
    # But it reaches the destination.
    flushed = index(bios, lambda bio: bio.device == "dest" and bio.is_flush and bio.completed)
    acknowledged = index(bios, lambda bio: bio.device == "clone" and bio.is_flush and bio.completed)
    assert flushed < acknowledged
    assert clone.status("--noflush")[0].args[3] == "1/64"


def fua_is_acknowledged_late(rig, size):
    """A FUA write into a region that is not hydrated ends after the region is committed."""
    clone = rig.create("1 no_hydration")
    trace = trace_of(rig)
    trace.start()
    rig.guest.run(f"dd if=/dev/urandom of={clone} bs={size} count=1 oflag=direct,dsync status=none")
    bios = trace.stop()
    acknowledged = index(bios, lambda bio: bio.device == "clone" and bio.is_fua and bio.completed)
    assert acknowledged is not None
    assert committed(bios) < acknowledged, "acknowledged before the region was durable"


@pytest.mark.parametrize("size", ["4k", "64k"])
def test_fua_write_is_acknowledged_after_the_commit(cached, size):
    fua_is_acknowledged_late(cached, size)


def test_fua_write_beside_a_copy_without_cache(rig):
    """The destination has no volatile cache: the block layer takes the FUA flag off what it gets."""
    fua_is_acknowledged_late(rig, "4k")


@pytest.mark.c_fails("goes by the bio's flag, which the block layer has taken off")
def test_fua_overwrite_without_cache_is_acknowledged_after_the_commit(rig):
    fua_is_acknowledged_late(rig, "64k")


def test_fua_write_into_an_uncommitted_region(cached):
    """The region was hydrated a moment ago; nothing has committed it yet."""
    clone = cached.create("1 no_hydration")
    trace = trace_of(cached)
    trace.start()
    cached.guest.run(
        f"dd if=/dev/urandom of={clone} bs=64k count=1 oflag=direct conv=notrunc status=none"
        f" && dd if=/dev/urandom of={clone} bs=4k count=1 oflag=direct,dsync conv=notrunc status=none"
    )
    bios = trace.stop()
    acknowledged = index(bios, lambda bio: bio.device == "clone" and bio.is_fua and bio.completed)
    assert committed(bios) < acknowledged


def test_commit_leaves_out_what_came_after_its_swap(cached, guest, dm):
    """While a commit flushes the destination, another region is overwritten: it must not be in that commit."""
    cached.dest.become(f"0 {cached.dest.sectors} delay DISK 0 0 DISK 0 0 DISK 0 3000")
    clone = cached.create("1 no_hydration")
    trace = BioTrace(guest, {"dest": cached.dest})
    trace.start()
    # The copy of the metadata is what a crash would leave: the other region's own commit flushes for 3 s more.
    first = guest.start(
        f"iomodel stamp {clone} --sectors {REGION} 2 && dd if={cached.metadata} of=/tmp/crashed bs=1M status=none"
    )
    trace.wait_for_flush()
    guest.run(f"dd if=/dev/urandom of={clone} bs=64k seek=1 count=1 oflag=direct conv=notrunc status=none")
    assert cached.progress("--noflush").in_flight == 0
    assert first.wait() == 0
    trace.stop()
    crashed = guest.output("modprobe loop && losetup --find --show /tmp/crashed")
    zeroes = dm.create("zeroes", f"0 {SECTORS} zero")
    twin = dm.create("crashed", f"0 {SECTORS} clone {crashed} {zeroes} {cached.source} {REGION} 1 no_hydration")
    assert twin.status("--noflush")[0].args[3] == "1/64"
