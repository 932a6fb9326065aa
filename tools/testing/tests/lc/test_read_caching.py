# SPDX-License-Identifier: GPL-2.0
"""read_cache_threshold: what is read is copied to the cache, as long as it is right, and only if it is worth it."""

import pytest

from tests.lc.breakable import become, flip
from tests.lc.rig import Rig

KEYS = "4 flush_current_buffer_interval 0 read_cache_threshold 16"


def read(rig, block, blocks=1):
    """Reads some blocks at once, and compares them with what the backing device began with."""
    rig.guest.run(
        f"dd if={rig.device} bs={blocks * 4}k skip={block * 4}k iflag=direct,skip_bytes count=1 status=none"
        f" | cmp -n {blocks * 4096} -i 0:{block * 4096} - /tmp/data"
    )


def has(rig, blocks):
    """Waits until so many blocks are in the cache, and has them written to the log."""
    rig.guest.run(f"until [ $(dmsetup status {rig.device} | cut -d' ' -f16) -ge {blocks} ]; do sleep 0.02; done")
    rig.device.message("flush_current_buffer")
    assert (rig.status().valid, rig.status().dirty) == (blocks, 0)


@pytest.fixture
def disk(rig):
    """A disk with data, and no cache yet."""
    rig.guest.run(f"dd if=/dev/urandom of=/tmp/data bs=1M count=4 status=none"
                  f" && dd if=/tmp/data of={rig.backing} bs=1M oflag=direct conv=notrunc status=none")
    rig.count_reads()
    return rig


@pytest.fixture
def cache(disk):
    """A cache that copies what is read."""
    disk.create(KEYS)
    return disk


def test_second_read_does_not_touch_the_backing_device(cache):
    before = cache.reads()
    for block in (3, 40, 77, 200):
        read(cache, block)
    has(cache, 4)
    # Each was read by its user, and to be copied.
    assert cache.reads() == before + 8
    assert cache.status()["promoted"] == 32
    for _ in range(5):
        for block in (3, 40, 77, 200):
            read(cache, block)
    assert cache.reads() == before + 8
    assert cache.status()["user_sectors"] == 0
    assert cache.status()["written_back"] == 0


def test_without_it_nothing_is_copied(disk):
    disk.create("2 flush_current_buffer_interval 0")
    for _ in range(2):
        before = disk.reads()
        for block in (3, 40, 77):
            read(disk, block)
        assert disk.reads() == before + 3
    status = disk.status()
    assert (status.valid, status["promoted"], status["seq_bypassed"], status["log_used"]) == (0, 0, 0, 0)


def test_long_reads_are_not_copied(cache):
    """Not large ones, and of a run of small ones only the beginning."""
    read(cache, 500, 17)
    assert cache.status()["seq_bypassed"] == 17 * 8
    for block in range(40):
        read(cache, block)
    has(cache, 16)
    assert cache.status()["seq_bypassed"] == (17 + 40 - 16) * 8
    before = cache.reads()
    for block in range(16):
        read(cache, block)
    assert cache.reads() == before
    for block in range(16, 40):
        read(cache, block)
    assert cache.reads() >= before + 24


def test_parts_of_blocks_are_not_copied(cache):
    cache.guest.run(f"dd if={cache.device} of=/dev/null bs=512 skip=81 count=7 iflag=direct status=none")
    read(cache, 50)
    has(cache, 1)


@pytest.mark.parametrize("mode", ["writeback", "writearound", "writethrough"])
def test_write_is_read_instead_of_the_copy(cache, mode):
    """All of a block, and a part of one."""
    guest = cache.guest
    cache.device.message("mode", mode)
    for block in range(0, 16, 2):
        read(cache, block)
    has(cache, 8)
    guest.run(
        f"dd if=/dev/urandom of=/tmp/new bs=4k count=2 status=none"
        f" && dd if=/tmp/new of={cache.device} bs=4k seek=4 count=1 oflag=direct conv=notrunc status=none"
        f" && dd if=/tmp/new of=/tmp/data bs=4k seek=4 count=1 conv=notrunc status=none"
        f" && dd if=/tmp/new of={cache.device} bs=512 seek=66 count=3 oflag=direct conv=notrunc status=none"
        f" && dd if=/tmp/new of=/tmp/data bs=512 seek=66 count=3 conv=notrunc status=none"
    )
    for again in range(3):
        for block in range(0, 16, 2):
            read(cache, block)
        cache.device.message("flush")
        if again == 1:
            cache.again(f"6 mode {mode} {KEYS[2:]}")
    cache.device.remove()
    guest.run(f"cmp -n {4 << 20} {cache.backing} /tmp/data")


def test_discard_removes_the_copy(cache):
    for block in (4, 6, 8):
        read(cache, block)
    has(cache, 3)
    cache.guest.run(f"blkdiscard -f -o {6 * 4096} -l 4096 {cache.device}")
    assert cache.status().valid == 2
    before = cache.reads()
    cache.guest.run(f"dd if={cache.device} bs=4k skip=6 count=1 iflag=direct status=none"
                    f" | cmp - <(dd if={cache.backing} bs=4k skip=6 count=1 iflag=direct status=none)")
    assert cache.reads() > before


def test_write_around_during_the_copy(lc_module, guest, dm, disks):
    """What is read while a write is on its way to the backing device is not kept: it may be older."""
    disk, cache = disks.ram(48, 2)
    slow = f"0 98304 delay {disk} 0 0 {disk} 0 5000 {disk} 0 0"
    backing = dm.create("slow", slow)
    device = dm.create("lc", f"0 98304 lc {backing} {cache} 4 mode writearound read_cache_threshold 16")
    writer = guest.start(
        f"dd if=/dev/urandom of=/tmp/new bs=4k count=1 status=none"
        f" && dd if=/tmp/new of={device} bs=4k seek=9 count=1 oflag=direct conv=notrunc status=none"
    )
    guest.run("until [ $(dmsetup status slow | cut -d' ' -f5) = 1 ]; do sleep 0.01; done")
    for _ in range(2):
        guest.run(f"dd if={device} bs=4k skip=9 count=1 iflag=direct status=none | cmp -n 4096 - /dev/zero")
    guest.run(f"until dmsetup status {device} | grep -q 'promoted 8 '; do sleep 0.02; done")
    assert writer.poll() is None, "the copy has to be there before the write has ended"
    assert writer.wait() == 0
    for _ in range(3):
        guest.run(f"dd if={device} bs=4k skip=9 count=1 iflag=direct status=none | cmp -n 4096 - /tmp/new")


def test_copy_is_gone_after_a_start(cache):
    """The backing device was changed in between, which is allowed when all is written back."""
    for block in (4, 6, 8):
        read(cache, block)
    has(cache, 3)
    cache.device.remove()
    cache.guest.run(f"dd if=/dev/urandom of=/tmp/data bs=1M count=4 status=none"
                    f" && dd if=/tmp/data of={cache.backing} bs=1M oflag=direct conv=notrunc status=none")
    cache.create(KEYS)
    assert cache.status().valid == 0
    for block in (4, 6, 8):
        read(cache, block)


def test_copy_that_cannot_be_read_is_nobodys_business(parts):
    """Neither an error of the cache device, nor a flipped bit."""
    rig, guest = parts, parts.guest
    guest.run(f"dd if=/dev/urandom of=/tmp/data bs=1M count=4 status=none"
              f" && dd if=/tmp/data of={rig.backing} bs=1M oflag=direct conv=notrunc status=none")
    rig.again(f"6 verify_reads 1 {KEYS[2:]}")
    for block in (4, 6, 8):
        read(rig, block)
    has(rig, 3)
    for sector in range(1, 30):
        flip(rig, sector)
    for block in (4, 6, 8):
        read(rig, block)
    assert rig.status()["crc_errors"] == 3
    rig.device.message("flush")
    assert (rig.status()["lost_sectors"], rig.status().valid) == (0, 0)
    for block in (4, 6, 8):
        read(rig, block)
    has(rig, 3)
    become(rig.cache, f"0 {rig.sectors} flakey DISK 0 0 3600 1 error_reads")
    for block in (4, 6, 8):
        read(rig, block)
    become(rig.cache, f"0 {rig.sectors} linear DISK 0")
    assert rig.status().state == "rw"


@pytest.mark.parametrize("mode", ["cleaner", "passthrough"])
def test_other_modes_copy_nothing(cache, mode):
    read(cache, 4)
    has(cache, 1)
    cache.device.message("flush")
    cache.device.message("mode", mode)
    for block in range(30, 40, 2):
        read(cache, block)
        read(cache, block)
    status = cache.status()
    assert status["promoted"] == 8
    assert status.valid == (1 if mode == "cleaner" else 0)
    assert status["log_used"] == 0


def test_is_changed_by_messages_and_tables(cache):
    for words in ("read_cache_threshold 0", "read_cache_threshold 4", "nr_read_cache_cells 7"):
        cache.device.message(*words.split())
    expected = "6 flush_current_buffer_interval 0 read_cache_threshold 4 nr_read_cache_cells 7".split()
    line = cache.device.table()[0]
    assert line.args[2:] == expected
    cache.device.reload(f"{line.start} {line.length} lc {' '.join(line.args)}")
    assert cache.device.table()[0].args[2:] == expected
    read(cache, 9)
    has(cache, 1)
    # A reload keeps the copies.
    cache.device.reload(cache.table(KEYS))
    before = cache.reads()
    read(cache, 9)
    assert cache.reads() == before


def test_copies_leave_the_flush_alone(cache):
    """They are not written back, and the writeback needs no room for them."""
    for block in range(0, 200, 2):
        read(cache, block)
    has(cache, 100)
    assert cache.status()["log_used"] > 800
    cache.device.message("flush")
    status = cache.status()
    assert (status["log_used"], status["written_back"], status.valid, status.dirty) == (0, 0, 100, 0)
    before = cache.reads()
    for block in range(0, 200, 2):
        read(cache, block)
    assert cache.reads() == before


@pytest.mark.parametrize("words", [
    "mode writeback", "mode writearound", "mode writethrough", "prefix_consistent 1", "verify_reads 1",
])
def test_is_as_modelled(lc_module, guest, dm, disks, words):
    words = f"8 {words} read_cache_threshold 127 high_watermark 20 low_watermark 10"
    assert Rig(guest, dm, disks).is_as_modelled(words)["promoted"] > 0
