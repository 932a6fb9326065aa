# SPDX-License-Identifier: GPL-2.0
"""What is written back is read from the cache until its place in the log is needed, as long as that is right."""

import pytest

from tests.lc.breakable import become, fill, flip, read


@pytest.fixture
def clean(parts):
    """Eight blocks are in the log, and on the backing device."""
    fill(parts)
    parts.device.message("flush")
    assert (parts.status().valid, parts.status().dirty, parts.status()["log_used"]) == (8, 0, 0)
    return parts


def break_reads(part, sectors):
    become(part, f"0 {sectors} flakey DISK 0 0 3600 1 error_reads")


def test_is_read_from_the_cache(clean):
    break_reads(clean.backing, clean.sectors)
    for block in range(8):
        read(clean, block)
        read(clean, block, 512, 3)
    assert read(clean, 100, check=False).returncode
    # Not after a start: the log begins behind it.
    clean.again("2 flush_current_buffer_interval 0")
    assert clean.status().valid == 0
    assert read(clean, 1, check=False).returncode


def test_write_replaces_it(clean):
    clean.guest.run("dd if=/dev/urandom of=/tmp/new bs=1k count=2 status=none"
                    f" && dd if=/tmp/new of={clean.device} bs=2k seek=2 count=1 oflag=direct conv=notrunc status=none"
                    " && dd if=/tmp/new of=/tmp/data bs=2k seek=2 conv=notrunc status=none")
    assert clean.status().dirty == 1
    for again in range(3):
        for block in range(8):
            read(clean, block)
            read(clean, block, 512, 4)
        if again == 0:
            clean.device.message("flush")
        if again == 1:
            clean.again()


@pytest.mark.parametrize("mode", ["writearound", "writethrough", "cleaner"])
def test_write_around_forgets_it(clean, mode):
    before = clean.status()["user_sectors"]
    clean.device.message("mode", mode)
    clean.guest.run("dd if=/dev/urandom of=/tmp/new bs=4k count=2 status=none"
                    f" && dd if=/tmp/new of={clean.device} bs=4k seek=2 oflag=direct conv=notrunc status=none"
                    " && dd if=/tmp/new of=/tmp/data bs=4k seek=2 conv=notrunc status=none")
    assert (clean.status()["user_sectors"], clean.status().valid) == (before, 6)
    for block in range(8):
        read(clean, block)


def test_discard_forgets_it(clean):
    clean.guest.run(f"blkdiscard -f -o 8192 -l 8192 {clean.device}")
    assert clean.status().valid == 6


def test_passthrough_does_without(clean):
    clean.device.message("mode", "passthrough")
    assert clean.status().valid == 0
    become(clean.cache, f"0 {clean.sectors} error")
    for block in range(8):
        read(clean, block)
    assert clean.status()["read_errors"] == 0
    become(clean.cache, f"0 {clean.sectors} linear DISK 0")


def test_cache_device_that_fails_is_not_read_for_it(clean):
    become(clean.cache, f"0 {clean.sectors} error")
    assert clean.guest.run(f"dd if=/dev/zero of={clean.device} bs=4k seek=100 count=1 oflag=direct conv=fsync,notrunc"
                           " status=none", check=False).returncode
    assert clean.status().state == "ro"
    for block in range(8):
        read(clean, block)
    assert clean.status()["read_errors"] == 0


def test_read_error_of_the_cache_device_is_nobodys_business(clean):
    """The backing device has it too, and is asked."""
    break_reads(clean.cache, clean.sectors)
    for block in range(4):
        read(clean, block)
    assert (clean.status()["read_errors"], clean.status().valid) == (4, 4)
    # All at once, what is clean and what is not known.
    read(clean, 0, 32768)
    assert clean.status().state == "rw"
    become(clean.cache, f"0 {clean.sectors} linear DISK 0")
    read(clean, 0, 32768)


def test_flipped_bit_of_it_is_nobodys_business(clean):
    clean.device.message("verify_reads", 1)
    # The blocks lie behind a header of one sector each, or together behind one.
    event = clean.device.events()
    for sector in range(1, 72):
        flip(clean, sector)
    for block in range(8):
        if block % 2:
            read(clean, block, 512, 3)
        read(clean, block)
    clean.device.wait(event)
    assert clean.status()["crc_errors"] >= 8
    assert clean.status()["lost_sectors"] == 0
    clean.device.message("flush")


def test_gives_way_to_what_is_written(parts):
    """Three times the log: the last tenth of it can be read without the backing device, the first cannot."""
    rig, guest = parts, parts.guest
    guest.run("dd if=/dev/urandom of=/tmp/data bs=1M count=47 status=none")
    for _ in range(3):
        guest.run(f"dd if=/tmp/data of={rig.device} bs=64k oflag=direct conv=fsync,notrunc status=none")
    rig.device.message("flush")
    status = rig.status()
    assert status.dirty == 0
    assert status.valid > status.entries / 2
    break_reads(rig.backing, rig.sectors)
    guest.run(f"dd if={rig.device} bs=1M skip=42 count=5 iflag=direct status=none | cmp -i 0:{42 << 20} - /tmp/data")
    assert guest.run(f"dd if={rig.device} of=/dev/null bs=1M count=1 iflag=direct status=none", check=False).returncode
