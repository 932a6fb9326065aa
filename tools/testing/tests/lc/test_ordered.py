# SPDX-License-Identifier: GPL-2.0
"""prefix_consistent: the log is written back flush by flush. That it is so after every power cut: test_crash.py."""

from tests.lc.breakable import fill, flip
from tests.lc.rig import STATE

ORDERED = "4 allow_migrate 0 prefix_consistent 1"
SEQUENCE = 32
REFUSED = "prefix_consistent `1': expected a cache of which all is written back"


def write(rig, blocks, flush=True):
    """Writes so many blocks of 4 KiB, and flushes."""
    rig.guest.run(f"dd if=/dev/urandom of={rig.device} bs=4k count={blocks} oflag=direct status=none"
                  f" conv={'fsync,' if flush else ''}notrunc")


def batches(rig):
    """How many batches it takes to write everything back."""
    before = rig.superblock(SEQUENCE)
    rig.device.message("flush")
    return rig.superblock(SEQUENCE) - before


def test_each_flush_is_a_batch(rig):
    """Also copies that are superseded by then are written back."""
    for words, expected in (("2 allow_migrate 0", 1), (ORDERED, 5)):
        rig.create(words)
        for _ in range(5):
            write(rig, 8)
        before = rig.status()["written_back"]
        assert batches(rig) == expected
        assert rig.status()["written_back"] - before == expected * 8 * 8
        rig.guest.run(f"cmp -n 32768 {rig.device} {rig.backing}")
        rig.device.remove()


def test_only_the_newest_of_a_batch_is_written_back(rig):
    rig.create(f"6 flush_current_buffer_interval 0 {ORDERED[2:]}")
    before = rig.status()["written_back"]
    for blocks in (8, 3, 5):
        write(rig, blocks, flush=False)
    assert batches(rig) == 1
    assert rig.status()["written_back"] - before == 8 * 8
    rig.guest.run(f"cmp -n 32768 {rig.device} {rig.backing}")


def test_begins_with_a_clean_cache(rig):
    guest, device = rig.guest, rig.create("2 allow_migrate 0")
    write(rig, 8)
    where = guest.console_size()
    assert device.message("prefix_consistent", 1, check=False).returncode
    assert guest.wait_for_console(REFUSED, where, 5)
    # A table with it is loaded, but not resumed; the one before goes on.
    where = guest.console_size()
    device.load(rig.table(ORDERED))
    assert guest.run(f"dmsetup suspend {device} && dmsetup resume {device}", check=False).returncode
    assert guest.wait_for_console(REFUSED, where, 5)
    device.load(rig.table("2 allow_migrate 0"))
    device.suspend()
    device.resume()
    write(rig, 8)
    device.message("flush")
    device.message("prefix_consistent", 1)
    assert device.table()[0].args[2:] == ORDERED.split()
    # The superblock knows how what is dirty was written.
    for _ in range(2):
        write(rig, 8)
        rig.again(ORDERED)
    assert batches(rig) == 2


def test_ends_at_any_time(rig):
    guest, device = rig.guest, rig.create(ORDERED)
    for _ in range(3):
        write(rig, 8)
    device.message("prefix_consistent", 0)
    assert batches(rig) == 1
    # A table without it ends it too.
    device.message("prefix_consistent", 1)
    write(rig, 8)
    rig.again("2 allow_migrate 0")
    where = guest.console_size()
    rig.device.remove()
    assert guest.run("dmsetup create lc", stdin=rig.table(ORDERED), check=False).returncode
    assert guest.wait_for_console(REFUSED, where, 5)


def test_other_modes_are_refused(rig):
    guest, device = rig.guest, rig.create(ORDERED)
    for words in ("cleaner", "mode cleaner", "mode writearound", "mode passthrough", "mode writethrough"):
        where = guest.console_size()
        assert device.message(*words.split(), check=False).returncode
        assert guest.wait_for_console("expected the mode writeback with prefix_consistent 1", where, 5)


def test_discards_are_not_passed_down(rig):
    guest, device = rig.guest, rig.create(ORDERED)
    write(rig, 8)
    device.message("flush")
    below = f"dd if={rig.backing} bs=32k count=1 iflag=direct status=none"
    guest.run(f"{below} > /tmp/before; blkdiscard -l 32768 {device}; {below} | cmp - /tmp/before")
    assert rig.status()["discards"] == 1
    device.message("flush")
    device.message("prefix_consistent", 0)
    guest.run(f"blkdiscard -l 32768 {device}; ! {below} | cmp -s - /tmp/before")


def test_damaged_copy_that_was_overwritten(parts):
    """It is told of, and nothing is lost: the backing device gets the newer one."""
    parts.again(f"6 flush_current_buffer_interval 0 {ORDERED[2:]}")
    for _ in range(2):
        fill(parts)
    flip(parts, 9 + 3)
    where = parts.guest.console_size()
    parts.device.message("flush")
    said = "data of sectors 8 to 15 is damaged: a copy that was overwritten since"
    assert parts.guest.wait_for_console(said, where, 5)
    status = parts.status()
    assert (status["crc_errors"], status["lost_sectors"]) == (1, 0)
    parts.guest.run(f"dd if={parts.backing} bs=4k count=8 iflag=direct status=none | cmp - /tmp/data")


def test_is_as_modelled(rig):
    rig.begin_model("2 prefix_consistent 1")
    for seed in range(2):
        rig.iomodel(f"run --source 1 --state {STATE} --seed {seed} --overlap --discards 4 --flushes 3 --ops 1000")
        rig.again("2 prefix_consistent 1")
    rig.iomodel(f"verify --source 1 --state {STATE}")
    assert rig.status()["crc_errors"] == 0
