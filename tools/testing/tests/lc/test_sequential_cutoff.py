# SPDX-License-Identifier: GPL-2.0
"""sequential_cutoff: long runs of writes go around the log, and nothing is other than it would be in it."""

import pytest

from tests.lc.rig import Rig
from tests.lc.test_flush import requests

WORDS = "4 flush_current_buffer_interval 0 sequential_cutoff 64"
IO = "oflag=direct conv=notrunc status=none"


@pytest.fixture
def cache(rig):
    """A cache with the key; of what is written a copy is made in /tmp/data."""
    rig.guest.run(f"dd if=/dev/urandom of=/tmp/data bs=1M count=8 status=none"
                  f" && dd if=/tmp/data of={rig.backing} bs=1M oflag=direct conv=notrunc status=none")
    rig.create(WORDS)
    return rig


def writes(rig, block, blocks=1, size=4, flags=IO):
    """Writes new data from a block on, so many KiB at a time."""
    count = blocks * 4 // size
    rig.guest.run(
        f"dd if=/dev/urandom of=/tmp/new bs=4k count={blocks} status=none"
        f" && dd if=/tmp/new of=/tmp/data bs=4k seek={block} conv=notrunc status=none"
        f" && dd if=/tmp/new of={rig.device} bs={size}k oflag=seek_bytes seek={block * 4096} count={count} {flags}"
    )


def has_all(rig, device=None):
    """Compares a device with what was written to the cache."""
    rig.guest.run(f"cmp -n {8 << 20} <(dd if={device or rig.device} bs=1M count=8 iflag=direct status=none) /tmp/data")


def logged(rig):
    """How many blocks went into the log, and how many around it."""
    rig.device.message("flush_current_buffer")
    status = rig.status()
    assert status["user_sectors"] % 8 == status["around_sectors"] % 8 == 0
    return status["user_sectors"] // 8, status["around_sectors"] // 8


def test_of_a_run_only_the_beginning_is_logged(cache):
    writes(cache, 100, 40)
    assert logged(cache) == (16, 24)
    has_all(cache)
    cache.guest.run(f"cmp -n {24 * 4096} -i {116 * 4096} {cache.backing} /tmp/data")
    # It goes on.
    writes(cache, 140)
    assert logged(cache) == (16, 25)
    # What comes here and there is logged, whatever came before.
    for block in (1900, 7, 1000, 141 + 16):
        writes(cache, block)
    assert logged(cache) == (20, 25)
    has_all(cache)
    cache.again(WORDS)
    has_all(cache)
    cache.device.message("flush")
    has_all(cache, cache.backing)


def test_large_write_is_a_run_by_itself(cache):
    writes(cache, 256, 256, 1024)
    writes(cache, 1024, 16, 64)
    assert logged(cache) == (16, 256)
    has_all(cache)


def test_streams_are_told_from_each_other(cache):
    for number in range(20):
        for stream in range(4):
            writes(cache, 500 * stream + number)
    assert logged(cache) == (4 * 16, 4 * 4)
    has_all(cache)


def test_what_is_dirty_is_overwritten_in_the_log(cache):
    """A sector of a write is enough."""
    writes(cache, 220)
    cache.guest.run(f"dd if=/dev/urandom of=/tmp/new bs=512 count=1 status=none"
                    f" && dd if=/tmp/new of={cache.device} bs=512 seek=1847 {IO}"
                    f" && dd if=/tmp/new of=/tmp/data bs=512 seek=1847 conv=notrunc status=none")
    cache.device.message("flush_current_buffer")
    before = cache.status()["user_sectors"]
    writes(cache, 200, 48, 16)
    # Four to begin with, and those with blocks 220 and 230.
    cache.device.message("flush_current_buffer")
    status = cache.status()
    assert status["user_sectors"] - before == 6 * 32
    assert status["around_sectors"] == 6 * 32
    has_all(cache)
    cache.again(WORDS)
    has_all(cache)
    cache.device.message("flush")
    has_all(cache, cache.backing)


def test_clean_copies_are_replaced(cache):
    for block in range(0, 64, 2):
        writes(cache, block)
    cache.device.message("flush")
    writes(cache, 0, 64)
    assert logged(cache)[1] == 48
    has_all(cache)
    cache.device.message("flush")
    has_all(cache, cache.backing)


def test_fua_writes_are_logged(cache):
    """They count for the run all the same. Only asynchronous I/O gives one without a flush."""
    before = cache.status()
    cache.guest.run(f"fio --name=w --filename={cache.device} --ioengine=libaio --direct=1 --sync=dsync --rw=write"
                    " --bs=4k --offset=1m --size=80k --output=/dev/null")
    after = cache.status()
    assert (after["user_sectors"], after["around_sectors"]) == (160, 0)
    assert after.durable_id >= before.durable_id + 20
    cache.guest.run(f"dd if=/tmp/data of={cache.device} bs=4k seek=276 skip=276 count=1 {IO}")
    assert cache.status()["around_sectors"] == 8


def test_flush_reaches_the_backing_device(lc_module, guest, dm, disks):
    backing = disks.null("backing", 48, cache_size=16)
    (cache,) = disks.ram(48)
    device = dm.create("lc", f"0 98304 lc {backing} {cache} 2 sequential_cutoff 4")
    guest.run(f"dd if=/dev/zero of={device} bs=64k count=1 {IO}")
    before = requests(guest, backing, 15)
    guest.run(f"xfs_io -c fsync {device}")
    assert requests(guest, backing, 15) == before + 1
    # The message makes it durable there as well, which is what it is for.
    guest.run(f"dd if=/dev/zero of={device} bs=64k seek=9 count=1 {IO}")
    device.message("flush")
    before += 1
    assert requests(guest, backing, 15) == before + 1
    # Nothing went there since.
    guest.run(f"dd if=/dev/zero of={device} bs=4k seek=900 count=1 {IO} && xfs_io -c fsync {device}")
    assert requests(guest, backing, 15) == before + 1


def test_is_changed_by_messages_and_tables(cache):
    cache.device.message("sequential_cutoff", 0)
    writes(cache, 0, 20)
    assert logged(cache) == (20, 0)
    cache.device.message("sequential_cutoff", 16)
    expected = "4 flush_current_buffer_interval 0 sequential_cutoff 16".split()
    assert cache.device.table()[0].args[2:] == expected
    writes(cache, 50, 10)
    assert logged(cache) == (24, 6)
    cache.device.reload(cache.table(" ".join(expected)))
    assert cache.device.table()[0].args[2:] == expected
    writes(cache, 60)
    assert logged(cache) == (24, 7)
    # In the order of flushes nothing goes around: either way it is said which is which.
    cache.device.message("flush")
    for words, reason in (
        ("prefix_consistent 1", "prefix_consistent `1': expected sequential_cutoff 0 with prefix_consistent 1"),
        ("sequential_cutoff 1048577", "sequential_cutoff `1048577': expected a number from 0 to 1048576"),
    ):
        where = cache.guest.console_size()
        assert cache.device.message(*words.split(), check=False).returncode
        assert cache.guest.wait_for_console(reason, where, 5)
    cache.device.message("sequential_cutoff", 0)
    cache.device.message("prefix_consistent", 1)
    where = cache.guest.console_size()
    assert cache.device.message("sequential_cutoff", 1, check=False).returncode
    assert cache.guest.wait_for_console("expected sequential_cutoff 0 with prefix_consistent 1", where, 5)


@pytest.mark.parametrize("words", ["high_watermark 20 low_watermark 10", "read_cache_threshold 127 force_migrate 1"])
def test_is_as_modelled(lc_module, guest, dm, disks, words):
    """Whatever is longer than a block goes around, if it may; what is around it is logged, and written back."""
    status = Rig(guest, dm, disks).is_as_modelled(f"6 {words} sequential_cutoff 4")
    assert status["around_sectors"] > 0
    assert status["user_sectors"] > 0
