# SPDX-License-Identifier: GPL-2.0
"""What a flush writes, and for whom."""

import pytest

from lab import patience
from tests.lc.breakable import become
from tests.lc.rig import Rig, Status


def write_and_fsync(rig, blocks, first=0):
    rig.guest.run(
        f"fio --name=w --filename={rig.device} --ioengine=psync --direct=1 --rw=write --bs=4k --fsync=1 --end_fsync=1"
        f" --offset={first * 4}k --size={blocks * 4}k --output=/dev/null"
    )


def test_flush_of_nothing_writes_nothing(rig):
    """Defect F."""
    rig.create()
    write_and_fsync(rig, 1)
    before = rig.status()
    rig.guest.run(f"for i in $(seq 20); do xfs_io -c fsync {rig.device}; done")
    after = rig.status()
    assert after["flushes"] >= before["flushes"] + 20
    assert after["cache_sectors"] == before["cache_sectors"]


def test_amplification_of_small_fsyncs(rig):
    """Defect F: 4 KiB and a header of 512 bytes, not two segments."""
    rig.create()
    before = rig.status()
    write_and_fsync(rig, 50)
    after = rig.status()
    assert after["user_sectors"] - before["user_sectors"] == 50 * 8
    assert after["cache_sectors"] - before["cache_sectors"] <= 50 * 9


def test_one_flush_serves_many(lc_module, guest, dm, disks):
    """32 jobs that write and fsync: not more than an eighth of flushes of the log."""
    (backing,) = disks.ram(48)
    slow = disks.null("slow", 48, irqmode=2, completion_nsec=3000000, cache_size=16)
    device = dm.create("lc", f"0 98304 lc {backing} {slow}")
    guest.run(
        f"fio --name=w --filename={device} --ioengine=psync --direct=1 --rw=randwrite --bs=4k --fsync=1"
        " --numjobs=32 --size=16m --number_ios=30 --group_reporting --output=/dev/null"
    )
    status = Status(device.status()[0].args)
    assert status["flushes"] >= 32 * 29
    assert status["log_flushes"] <= status["flushes"] / 8


def requests(guest, disk, which):
    """A number of /sys/block/DISK/stat; 0: reads, 15: flushes."""
    return int(guest.output(f"cat /sys/block/{disk[5:]}/stat").split()[which])


def test_flush_reaches_what_went_around_the_cache(lc_module, guest, dm, disks):
    """Defect N: in the mode writearound, the backing device has to be flushed."""
    backing = disks.null("backing", 48, cache_size=16)
    (cache,) = disks.ram(48)
    device = dm.create("lc", f"0 98304 lc {backing} {cache} 2 mode writearound")
    before = requests(guest, backing, 15)
    for block in range(3):
        guest.run(f"dd if=/dev/zero of={device} bs=4k seek={block} count=1 oflag=direct conv=fsync,notrunc status=none")
    assert requests(guest, backing, 15) >= before + 3


def test_flush_reaches_what_was_on_its_way_around_during_another(lc_module, guest, dm, disks):
    """A flush that comes while a write is on its way to the backing device is none for that write."""
    disk = disks.null("backing", 48, cache_size=16)
    (cache,) = disks.ram(48)
    backing = dm.create("slow", f"0 98304 delay {disk} 0 0 {disk} 0 3000 {disk} 0 0")
    device = dm.create("lc", f"0 98304 lc {backing} {cache} 2 mode writearound")
    writer = guest.start(f"dd if=/dev/zero of={device} bs=4k count=1 oflag=direct conv=notrunc status=none")
    guest.run("until [ $(dmsetup status slow | cut -d' ' -f5) = 1 ]; do sleep 0.01; done")
    guest.run(f"xfs_io -c fsync {device}")
    assert writer.poll() is None
    assert writer.wait() == 0
    before = requests(guest, disk, 15)
    guest.run(f"xfs_io -c fsync {device}")
    assert requests(guest, disk, 15) > before


def test_fua_write_is_in_the_log_when_it_ends(rig):
    rig.create("2 flush_current_buffer_interval 0")
    before = rig.status()
    rig.guest.run(f"dd if=/dev/urandom of={rig.device} bs=4k count=1 oflag=direct,dsync conv=notrunc status=none")
    after = rig.status()
    assert after.durable_id == before.durable_id + 1
    assert after["user_sectors"] == before["user_sectors"] + 8


@pytest.mark.parametrize("interval", [0, 3600])
def test_what_nobody_flushes_is_written_before_long(rig, interval):
    """Also if it was to be later, or never, when it came."""
    rig.create(f"2 flush_current_buffer_interval {interval}")
    rig.guest.run(f"dd if=/dev/urandom of={rig.device} bs=4k count=1 oflag=direct conv=notrunc status=none")
    rig.device.message("flush_current_buffer_interval", 1)
    rig.guest.run(f"until [ $(dmsetup status {rig.device} | grep -o 'user_sectors [0-9]*' | cut -d' ' -f2) = 8 ];"
                  " do sleep 0.05; done")


def test_flush_is_served_beside_a_stream(lc_module, guest, dm, disks):
    """Which fills buffers while others are written, so that some are full all the time."""
    rig = Rig(guest, dm, disks)
    rig.cache = disks.null("slow", 512, irqmode=2, completion_nsec=patience.busy(100_000_000), hw_queue_depth=8,
                           submit_queues=1)
    rig.create("2 allow_migrate 0")
    stream = guest.start(
        f"fio --name=stream --filename={rig.device} --direct=1 --ioengine=libaio --iodepth=8 --rw=write --bs=1m"
        " --size=40m --io_size=240m --minimal > /tmp/stream; touch /tmp/stream.end")
    written = rig.status()["cache_sectors"]
    while rig.status()["cache_sectors"] < written + 16 * 2048:
        guest.run("sleep 0.05")
    guest.run(f"xfs_io -c fsync {rig.device} && test ! -e /tmp/stream.end && pkill -x fio")
    stream.wait()


def test_lost_flush_of_the_backing_device_is_told_to_who_asks_next(rig, guest, dm, disks):
    """A device may say only once what it has lost, and may say it when no user has asked."""
    # Without a cache there are no flushes.
    disk = disks.null("cached", 48, cache_size=1)
    rig.backing = dm.create("backing", f"0 {rig.sectors} linear {disk} 0")
    rig.backing.disk = disk
    rig.create("4 flush_current_buffer_interval 0 mode writearound")
    guest.run(f"dd if=/dev/zero of={rig.device} bs=4k count=8 oflag=direct conv=notrunc status=none")
    become(rig.backing, f"0 {rig.sectors} flakey DISK 0 0 3600 1 error_writes")
    assert rig.device.message("flush_current_buffer", check=False).returncode
    become(rig.backing, f"0 {rig.sectors} linear DISK 0")
    rig.device.message("flush_current_buffer")
    fsync = f"dd if=/dev/null of={rig.device} conv=fsync,notrunc status=none"
    assert "Input/output error" in guest.run(fsync, check=False).stderr
    guest.run(fsync)


def test_passthrough_flushes_the_backing_device_alone(parts):
    """The cache device may as well be broken."""
    parts.again("4 flush_current_buffer_interval 0 mode passthrough")
    become(parts.cache, f"0 {parts.sectors} error")
    parts.guest.run(f"dd if=/tmp/data of={parts.device} bs=4k oflag=direct conv=fsync,notrunc status=none")
    parts.guest.run(f"cmp -n 32768 {parts.backing} /tmp/data")
    become(parts.cache, f"0 {parts.sectors} linear DISK 0")
    status = parts.status()
    assert (status.state, status["cache_errors"], status["log_flushes"]) == ("rw", 0, 0)
