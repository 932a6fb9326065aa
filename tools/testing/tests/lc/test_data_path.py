# SPDX-License-Identifier: GPL-2.0
"""What is read is what was written last, through all that happens to a cache."""

import pytest

from lab import patience
from tests.lc.breakable import become, fill
from tests.lc.rig import STATE, Rig
from tests.scripts import run_script


@pytest.fixture
def cache(rig):
    """A cache over a stamped disk."""
    rig.begin_model()
    return rig


def run(rig, seed, words="--overlap --discards 4 --flushes 3 --ops 1500"):
    rig.iomodel(f"run --source 1 --state {STATE} --seed {seed} {words}")


def verify(rig):
    rig.iomodel(f"verify --source 1 --state {STATE}")


def test_new_cache_reads_as_its_backing_device(cache):
    cache.iomodel("verify --source 1")
    assert cache.status().valid == 0


def test_random_io_is_as_modelled(cache):
    """Much more is written than fits: it is written back all the time."""
    for seed in range(3):
        run(cache, seed)
    status = cache.status()
    assert status["written_back"] > 0
    assert status["crc_errors"] == status["cache_errors"] == status["backing_errors"] == 0


def test_content_outlives_the_device(cache):
    for seed in range(3):
        run(cache, seed, "--overlap --discards 4 --flushes 3 --ops 800")
        cache.again()
        verify(cache)


def test_backing_device_alone_has_everything_after_flush(cache):
    run(cache, 1)
    cache.device.message("flush")
    assert cache.status()["log_used"] == 0
    cache.device.remove()
    cache.guest.run(f"iomodel verify {cache.backing} --source 1 --state {STATE}")


def test_large_writes_are_few_extents(cache):
    cache.guest.run(f"dd if=/dev/urandom of=/tmp/data bs=1M count=16 && dd if=/tmp/data of={cache.device} bs=1M"
                    " oflag=direct status=none")
    cache.guest.run(f"cmp -n 16777216 /tmp/data {cache.device}")
    cache.device.message("flush_current_buffer")
    status = cache.status()
    assert status["user_sectors"] == 16 * 2048
    # A header of up to eight sectors for each buffer.
    assert status["cache_sectors"] <= 16 * 2048 + 8 * 34


def test_read_of_what_is_in_memory_does_not_touch_the_disks(rig):
    """Defect G."""
    cache = rig
    cache.count_reads()
    cache.create()
    cache.guest.run(f"dd if=/dev/urandom of=/tmp/data bs=4k count=1 && dd if=/tmp/data of={cache.device} bs=4k seek=7"
                    " oflag=direct conv=notrunc status=none")
    before = cache.reads()
    for _ in range(10):
        cache.guest.run(f"dd if={cache.device} bs=4k skip=7 count=1 iflag=direct status=none | cmp - /tmp/data")
    assert cache.reads() == before
    # It would be seen.
    cache.guest.run(f"dd if={cache.device} of=/dev/null bs=4k skip=70 count=1 iflag=direct status=none")
    assert cache.reads() == before + 1


def test_blocks_of_512_bytes(cache):
    cache.guest.run(
        f"for s in 1 3 5 6; do dd if=/dev/urandom of=/tmp/s$s bs=512 count=1 status=none;"
        f" dd if=/tmp/s$s of={cache.device} bs=512 seek=$s oflag=direct conv=notrunc status=none; done"
    )
    check = (
        f"for s in 1 3 5 6; do dd if={cache.device} bs=512 skip=$s count=1 iflag=direct status=none"
        " | cmp - /tmp/s$s || exit 1; done"
    )
    cache.guest.run(check)
    cache.device.message("flush")
    cache.guest.run(check)


def test_disks_with_blocks_of_4096_bytes(lc_module, guest, dm, disks):
    backing, cache = (disks.null(name, 48, blocksize=4096) for name in ("backing", "cache"))
    guest.run(f"rm -f {STATE} && iomodel stamp {backing} 1")
    for seed in range(2):
        device = dm.create("lc", f"0 98304 lc {backing} {cache}")
        assert guest.output(f"blockdev --getss {device}") == "4096"
        guest.run(f"iomodel run {device} --source 1 --state {STATE} --seed {seed} --overlap --discards 4 --ops 800")
        device.remove()
    device = dm.create("lc", f"0 98304 lc {backing} {cache}")
    guest.run(f"iomodel verify {device} --source 1 --state {STATE}")


def test_file_system_on_top(rig):
    """Its content is the same after the cache was made anew, and on the backing device alone."""
    guest = rig.guest
    rig.create()
    sums = "cd /mnt && find . -type f | sort | xargs md5sum"
    guest.run(f"mkfs.ext4 -q {rig.device} && mount {rig.device} /mnt && cp -r /usr/lib/python3*/ /mnt/"
              f" && ({sums}) > /tmp/sums; umount /mnt")
    rig.again()
    guest.run(f"fsck.ext4 -fn {rig.device} && mount {rig.device} /mnt && ({sums}) | cmp - /tmp/sums && umount /mnt")
    rig.device.message("flush")
    rig.device.remove()
    guest.run(f"fsck.ext4 -fn {rig.backing} && mount {rig.backing} /mnt && ({sums}) | cmp - /tmp/sums")


def test_data_that_changes_while_it_is_written_is_not_damaged(rig):
    """What is on the cache device is what its checksums are of: it is a copy. The device is slow, so there is time."""
    rig.cache = rig.dm.create("slow", f"0 {rig.sectors} delay {rig.cache} 0 0 {rig.cache} 0 20")
    rig.create("2 flush_current_buffer_interval 0")
    run_script(rig.guest, "lc/write_changing.py", rig.device)
    assert ", 0 damaged" in rig.device.message("check").stdout
    rig.guest.run(f"dd if={rig.device} of=/tmp/before bs=1M count=4 iflag=direct status=none")
    rig.device.message("flush")
    rig.guest.run(f"cmp -n 4M /tmp/before {rig.backing}")
    assert rig.status()["crc_errors"] == 0


def test_write_around_ends_though_the_log_has_its_sectors_now(lc_module, guest, dm, disks):
    """While it is on its way a write of the same block is acknowledged, which is in the log."""
    disk, cache = disks.ram(48, 2)
    backing = dm.create("slow", f"0 98304 delay {disk} 0 0 {disk} 0 4000 {disk} 0 0")
    device = dm.create("lc", f"0 98304 lc {backing} {cache} 2 mode writearound")
    write = "dd if=/dev/urandom of=/tmp/{0} bs=4k count=1 status=none && dd if=/tmp/{0} of={1} bs=4k seek=9 count=1" \
            " oflag=direct conv=notrunc status=none"
    writer = guest.start(write.format("around", device))
    guest.run("until [ $(dmsetup status slow | cut -d' ' -f5) = 1 ]; do sleep 0.01; done")
    device.message("mode", "writeback")
    guest.run(write.format("logged", device))
    assert writer.poll() is None
    same = "dd if={} bs=4k skip=9 count=1 iflag=direct status=none | cmp -n 4096 - /tmp/logged"
    guest.run(same.format(device))
    assert writer.wait() == 0
    guest.run(same.format(device))
    device.message("flush")
    for path in (device, disk):
        guest.run(same.format(path))


@pytest.mark.parametrize("mode", ["writearound", "writethrough"])
def test_fua_write_is_not_overwritten_by_what_was_discarded(parts, mode):
    """In the log is what was discarded; that it was is not, when the cache device fails."""
    parts.device.message("allow_migrate", 0)
    fill(parts)
    parts.guest.run(f"blkdiscard -f -o {3 * 4096} -l 4096 {parts.device}")
    parts.device.message("mode", mode)
    parts.guest.run(f"fio --name=w --filename={parts.device} --ioengine=libaio --direct=1 --sync=dsync --rw=write"
                    " --bs=4k --offset=12k --size=4k --buffer_pattern=0x55 --output=/dev/null")
    become(parts.cache, f"0 {parts.sectors} error")
    parts.device.remove()
    become(parts.cache, f"0 {parts.sectors} linear DISK 0")
    parts.create()
    parts.guest.run("printf 'U%.0s' $(seq 4096) > /tmp/fua")
    parts.guest.run(f"dd if={parts.device} bs=4k skip=3 count=1 iflag=direct status=none | cmp - /tmp/fua")


def test_write_through_is_not_overtaken_by_a_batch(lc_module, guest, dm, disks):
    """A batch that was collected before the write has an older copy, and writes it for its neighbour's sake."""
    rig = Rig(guest, dm, disks)
    rig.backing = disks.null("slow", 48, irqmode=2, completion_nsec=patience.busy(50_000_000), hw_queue_depth=1)
    rig.create("2 allow_migrate 0")
    guest.run("dd if=/dev/urandom of=/tmp/data bs=4k count=1 status=none; for i in $(seq 0 2 60) 200 201; do"
              f" dd if=/dev/zero of={rig.device} bs=4k seek=$i count=1 oflag=direct conv=notrunc status=none; done")
    rig.device.message("mode", "writethrough")
    flush = guest.start("dmsetup message lc 0 flush")
    guest.run("until [ $(awk '{ print $5 }' /sys/block/slow/stat) -gt 3 ]; do sleep 0.01; done")
    guest.run(f"dd if=/tmp/data of={rig.device} bs=4k seek=200 oflag=direct conv=notrunc status=none")
    assert flush.wait() == 0
    guest.run(f"dd if={rig.backing} bs=4k skip=200 count=1 iflag=direct status=none | cmp - /tmp/data")


def test_two_writes_through_the_cache_at_the_same_time(rig, guest, disks, cgroup):
    """The first reaches the backing device last, after a batch has taken the second along, which becomes dirty."""
    rig.backing = disks.null("throttled", 48)
    rig.create("8 nr_max_batched_migration 1 high_watermark 100 low_watermark 100 update_interval 1")
    write = f"dd of={rig.device} oflag=direct conv=notrunc status=none"
    guest.run(f"""set -e
        for i in 0 1; do dd if=/dev/urandom of=/tmp/$i bs=4k count=1 status=none; done
        {write} if=/dev/zero bs=4k seek=4 count=1
        {write} if=/dev/zero bs=1M seek=8 count=2
        {write} if=/dev/zero bs=4k seek=5 count=1""")
    rig.device.message("mode", "writethrough")
    guest.run(f"echo $(cat /sys/block/throttled/dev) wbps=16 > {cgroup}/io.max")
    before = sum(rig.status().counters)
    first = guest.start(f"echo $$ > {cgroup}/cgroup.procs; exec {write} bs=4k seek=5 if=/tmp/0")
    guest.run(f"until [ $(dmsetup status {rig.device} | awk '{{ n = 0; for (i = 20; i < 36; i++) n += $i; print n }}')"
              f" -gt {before} ]; do sleep 0.01; done")
    guest.run(f"{write} bs=4k seek=5 if=/tmp/1")
    rig.device.message("flush_current_buffer")
    # One batch, of what is in front of the second, and that with it.
    rig.device.message("migrate_threshold", 100)
    rig.wait_for("backing_writes", "$0 > 0")
    rig.device.message("migrate_threshold", 0)
    assert rig.status()["written_back"] == 2 * 8 and first.poll() is None
    guest.run(f"echo $(cat /sys/block/throttled/dev) wbps=max > {cgroup}/io.max")
    assert first.wait() == 0, first.stdout.read()
    read = f"dd if={rig.device} bs=4k skip=5 count=1 iflag=direct status=none | sha256sum"
    there = guest.output(read)
    rig.device.message("flush")
    rig.device.message("mode", "passthrough")
    assert guest.output(read) == there


def test_neighbours_are_written_back_together(rig):
    """Blocks that follow each other on the backing device, and are far from each other in the log."""
    rig.create("8 nr_max_batched_migration 1 high_watermark 100 low_watermark 100 flush_current_buffer_interval 0")
    for offset in (4, 0, 8):
        rig.guest.run(f"fio --name=w --filename={rig.device} --direct=1 --ioengine=psync --rw=write:8k --bs=4k"
                      f" --offset={offset}k --size=1440k --io_size=480k")
    # What is in memory only is not beside anything yet.
    rig.device.message("flush_current_buffer")
    rig.device.message("flush")
    status = rig.status()
    assert (status["written_back"], status["backing_writes"]) == (360 * 8, 1)
    rig.guest.run(f"cmp -n 1440K {rig.device} {rig.backing}")
