# SPDX-License-Identifier: GPL-2.0
"""bypass_on_error: what goes on without a cache device that has failed, and what never does."""

import pytest

from tests.lc.breakable import BROKEN, become, break_cache, fill, lets_the_cache_fail, read

WORDS = "4 flush_current_buffer_interval 0 bypass_on_error 1"
IO = "oflag=direct conv=fsync,notrunc status=none"


def mend_cache(rig):
    become(rig.cache, f"0 {rig.sectors} linear DISK 0")


def writes(rig, block, blocks=1, check=True):
    """Writes new blocks, and has them in /tmp/data too if that works."""
    return rig.guest.run(
        f"dd if=/dev/urandom of=/tmp/new bs=4k count={blocks} status=none"
        f" && dd if=/tmp/new of={rig.device} bs=4k seek={block} {IO}"
        f" && dd if=/tmp/new of=/tmp/data bs=4k seek={block} conv=notrunc status=none",
        check=check, timeout=20,
    ).returncode == 0


@pytest.fixture
def cache(parts):
    """A cache that is bypassed when it fails."""
    parts.again(WORDS)
    return parts


def test_clean_cache_is_bypassed(cache):
    """Writes, flushes, discards and reads go on as if nothing had happened."""
    fill(cache)
    cache.device.message("flush")
    cache.device.message("mode", "writearound")
    break_cache(cache)
    where = cache.guest.console_size()
    assert writes(cache, 2)
    lets_the_cache_fail(cache)
    assert cache.guest.wait_for_console("cannot be written: it is bypassed", where, 5)
    assert writes(cache, 5)
    status = cache.status()
    assert (status.state, status["cache_errors"], status.dirty) == ("bypass", 1, 0)
    for block in range(8):
        read(cache, block)
    assert writes(cache, 0, 8)
    cache.device.message("mode", "writeback")
    assert writes(cache, 3, 2)
    cache.guest.run(f"blkdiscard -f -o 32768 -l 4096 {cache.device}")
    for block in range(8):
        read(cache, block)
    # Another table changes nothing about it.
    cache.device.reload(cache.table(WORDS))
    assert cache.status().state == "bypass"
    assert writes(cache, 1)
    cache.device.remove()
    cache.guest.run(f"cmp -n 32768 {cache.backing} /tmp/data")
    mend_cache(cache)
    cache.create(WORDS)
    assert cache.status().state == "rw"
    for block in range(8):
        read(cache, block)


def test_flush_in_bypass_reaches_the_backing_device(lc_module, guest, dm, disks):
    backing = disks.null("backing", 48, cache_size=16)
    (disk,) = disks.ram(48)
    cache = dm.create("cache", f"0 98304 linear {disk} 0")
    device = dm.create("lc", f"0 98304 lc {backing} {cache} 4 mode writearound bypass_on_error 1")
    cache.reload(f"0 98304 {BROKEN.replace('DISK', disk)}")
    device.suspend()
    device.resume()
    for block in range(3):
        before = int(guest.output(f"cat /sys/block/{backing[5:]}/stat").split()[15])
        guest.run(f"dd if=/dev/zero of={device} bs=4k seek={block} count=1 {IO}")
        assert int(guest.output(f"cat /sys/block/{backing[5:]}/stat").split()[15]) > before
    assert " bypass " in guest.output(f"dmsetup status {device}")


def test_flush_that_meets_the_failure_reaches_the_backing_device(lc_module, guest, dm, disks):
    """It wanted to write a copy of what was read first, with which the cache fails; what went around is flushed."""
    backing = disks.null("backing", 48, cache_size=16)
    (disk,) = disks.ram(48)
    cache = dm.create("cache", f"0 98304 linear {disk} 0")
    words = "8 mode writearound bypass_on_error 1 read_cache_threshold 127 flush_current_buffer_interval 0"
    device = dm.create("lc", f"0 98304 lc {backing} {cache} {words}")
    guest.run(f"dd if={device} of=/dev/null bs=4k skip=100 count=1 iflag=direct status=none")
    guest.run(f"until [ $(dmsetup status {device} | cut -d' ' -f16) = 1 ]; do sleep 0.05; done")
    guest.run(f"dd if=/dev/zero of={device} bs=4k count=1 oflag=direct conv=notrunc status=none")
    cache.reload(f"0 98304 {BROKEN.replace('DISK', disk)}")
    before = int(guest.output(f"cat /sys/block/{backing[5:]}/stat").split()[15])
    guest.run(f"xfs_io -c fsync {device}")
    assert int(guest.output(f"cat /sys/block/{backing[5:]}/stat").split()[15]) > before
    assert " bypass " in guest.output(f"dmsetup status {device}")


def test_what_is_dirty_is_neither_changed_nor_overtaken(cache):
    """And comes back with the cache device, however much was written beside it."""
    fill(cache)
    break_cache(cache)
    lets_the_cache_fail(cache)
    status = cache.status()
    assert (status.state, status.dirty) == ("bypass", 8)
    for block in range(8):
        assert not writes(cache, block, check=False)
    assert not writes(cache, 7, 2, check=False)
    assert cache.guest.run(f"blkdiscard -f -o 0 -l 4096 {cache.device}", check=False).returncode
    assert read(cache, 3, check=False).returncode
    cache.guest.run("truncate -s 128k /tmp/data")
    assert writes(cache, 8, 8)
    assert writes(cache, 20)
    mend_cache(cache)
    # Reads of it work again, writes do not: the device may have lost what it had in its own cache.
    read(cache, 3)
    assert not writes(cache, 3, check=False)
    cache.device.remove()
    for again in range(2):
        cache.create(WORDS)
        for block in [*range(16), 20]:
            read(cache, block)
        if again == 0:
            cache.device.message("flush")
            cache.device.remove()


def test_what_is_in_memory_only_forbids_it(cache):
    """Acknowledged, and not durable anywhere: no flush can be right any more."""
    fill(cache, "oflag=direct conv=notrunc")
    break_cache(cache)
    flush = f"xfs_io -c fsync {cache.device}"
    assert cache.guest.run(flush, check=False, timeout=20).returncode
    assert cache.status().state == "ro"
    assert not writes(cache, 100, check=False)
    assert cache.guest.run(flush, check=False, timeout=20).returncode


def test_discard_that_is_not_durable_forbids_it(cache):
    """The log would bring back what was discarded, over what is written since."""
    fill(cache)
    cache.guest.run(f"blkdiscard -f -o 0 -l 32768 {cache.device}")
    assert cache.status().dirty == 0
    # The write itself goes around the log.
    cache.device.message("mode", "writearound")
    break_cache(cache)
    assert not writes(cache, 0, check=False)
    assert cache.status().state == "ro"


def test_discard_that_is_durable_is_one(cache):
    fill(cache)
    cache.guest.run(f"blkdiscard -f -o 0 -l 16384 {cache.device} && xfs_io -c fsync {cache.device}")
    break_cache(cache)
    lets_the_cache_fail(cache)
    assert (cache.status().state, cache.status().dirty) == ("bypass", 4)
    assert writes(cache, 0, 4)
    assert not writes(cache, 4, check=False)
    cache.device.remove()
    mend_cache(cache)
    cache.create(WORDS)
    for block in range(8):
        read(cache, block)


def test_without_it_nothing_is_written(cache):
    cache.again("4 mode writearound flush_current_buffer_interval 0")
    break_cache(cache)
    lets_the_cache_fail(cache)
    assert not writes(cache, 0, check=False)
    write = f"dd if=/dev/zero of={cache.device} bs=4k count=1 oflag=direct conv=notrunc status=none"
    assert cache.guest.run(write, check=False).returncode
    assert cache.status().state == "ro"
    cache.device.message("bypass_on_error", 1)
    assert cache.status().state == "ro"


def test_copies_of_what_was_read_do_not_matter(cache):
    """They are what cannot be written, here."""
    cache.guest.run(f"dd if=/tmp/data of={cache.backing} bs=4k oflag=direct conv=notrunc status=none")
    cache.again(f"6 read_cache_threshold 16 {WORDS[2:]}")
    for block in range(0, 8, 2):
        read(cache, block)
    cache.guest.run(f"until [ $(dmsetup status {cache.device} | cut -d' ' -f16) = 4 ]; do sleep 0.02; done")
    break_cache(cache)
    assert cache.device.message("flush_current_buffer", check=False).returncode
    assert cache.status().state == "bypass"
    assert writes(cache, 2, 4)
    for block in range(8):
        read(cache, block)


def test_load_beside_the_failure(cache):
    """Random I/O around the log does not notice that the cache device fails."""
    state = "/tmp/model"
    cache.device.remove()
    cache.guest.run(f"rm -f {state} && iomodel stamp {cache.backing} 1")
    cache.create(f"6 mode writearound {WORDS[2:]}")
    writer = cache.guest.start(
        f"iomodel run {cache.device} --source 1 --state {state} --seed 3 --overlap --threads 4 --flushes 3 --ops 3000"
    )
    cache.wait_for("flushes", "$0 >= 20")
    break_cache(cache)
    lets_the_cache_fail(cache)
    said = writer.communicate()[0]
    assert writer.returncode == 0, said
    assert cache.status().state == "bypass"
    cache.device.remove()
    cache.guest.run(f"iomodel verify {cache.backing} --source 1 --state {state}")
