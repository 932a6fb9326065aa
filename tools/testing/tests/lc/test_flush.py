# SPDX-License-Identifier: GPL-2.0
"""What a flush writes, and for whom."""

import pytest

from lab import patience
from lab.disks import sysfs
from tests.lc.breakable import become, break_cache, fill, lets_the_cache_fail
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


@pytest.fixture
def lossy(rig, guest, dm, disks):
    """A cache whose backing device has a cache of its own, and may lose that: without one there are no flushes."""
    disk = disks.null("cached", 64, cache_size=1)
    rig.backing = dm.create("backing", f"0 {rig.sectors} linear {disk} 0")
    rig.backing.disk = disk
    return rig


def lose(rig):
    """A flush of the backing device fails that no user has asked for."""
    become(rig.backing, f"0 {rig.sectors} flakey DISK 0 0 3600 1 error_writes")
    assert rig.device.message("flush_current_buffer", check=False).returncode
    become(rig.backing, f"0 {rig.sectors} linear DISK 0")
    rig.device.message("flush_current_buffer")


def let_cache_break(rig, dm):
    """Puts a linear device over the cache device, before the cache is made."""
    disk, rig.cache = rig.cache, dm.create("cache", f"0 {rig.sectors} linear {rig.cache} 0")
    rig.cache.disk = disk


def fsync(rig):
    return rig.guest.run(f"dd if=/dev/null of={rig.device} conv=fsync,notrunc status=none", check=False)


def test_lost_flush_of_the_backing_device_is_told_to_who_asks_next(lossy):
    """A device may say only once what it has lost, and may say it when no user has asked."""
    lossy.create("4 flush_current_buffer_interval 0 mode writearound")
    lossy.guest.run(f"dd if=/dev/zero of={lossy.device} bs=4k count=8 conv=notrunc status=none oflag=direct")
    lose(lossy)
    assert "Input/output error" in fsync(lossy).stderr
    assert fsync(lossy).returncode == 0


def test_what_a_write_with_fua_has_lost_is_told_to_who_asks_next(lossy):
    """It speaks of its own data alone, but the device may have said by it that it has lost what others wrote."""
    lossy.create("4 flush_current_buffer_interval 0 mode writearound")
    write = f"dd if=/dev/zero of={lossy.device} bs=4k count=1 conv=notrunc status=none"
    lossy.guest.run(f"{write} oflag=direct")
    become(lossy.backing, f"0 {lossy.sectors} flakey DISK 0 0 3600 1 error_writes")
    assert lossy.guest.run(f"{write} oflag=direct,dsync seek=100", check=False).returncode
    become(lossy.backing, f"0 {lossy.sectors} linear DISK 0")
    assert "Input/output error" in fsync(lossy).stderr
    assert fsync(lossy).returncode == 0


def test_lost_flush_is_told_when_the_cache_is_bypassed(lossy, dm):
    let_cache_break(lossy, dm)
    lossy.create("4 flush_current_buffer_interval 0 bypass_on_error 1")
    write = f"dd if=/dev/zero of={lossy.device} bs=4k count=8 oflag=direct status=none conv=notrunc"
    # Then there is a superblock to be written.
    lossy.guest.run(f"{write},fsync")
    lossy.device.message("flush")
    lossy.device.message("mode", "writearound")
    lossy.guest.run(write)
    lose(lossy)
    break_cache(lossy)
    lets_the_cache_fail(lossy)
    assert lossy.status().state == "bypass"
    assert "Input/output error" in fsync(lossy).stderr
    assert fsync(lossy).returncode == 0


def test_lost_flush_is_told_as_the_cache_fails(lossy, dm):
    """By the flush with which it does: there is a copy of what was read to be written."""
    let_cache_break(lossy, dm)
    words = "flush_current_buffer_interval 0 bypass_on_error 1 mode writearound read_cache_threshold 127"
    lossy.create(f"8 {words}")
    lossy.guest.run(f"dd if=/dev/zero of={lossy.device} bs=4k count=8 oflag=direct status=none conv=notrunc")
    lose(lossy)
    lossy.guest.run(f"dd if={lossy.device} of=/dev/null bs=4k skip=100 count=1 iflag=direct status=none")
    # It is in memory.
    lossy.guest.run(f"until [ $(dmsetup status {lossy.device} | cut -d' ' -f16) = 1 ]; do sleep 0.05; done")
    break_cache(lossy)
    assert "Input/output error" in fsync(lossy).stderr
    assert lossy.status().state == "bypass"
    assert fsync(lossy).returncode == 0


def test_lost_flush_is_told_once_in_passthrough(lossy, dm):
    """Also when the cache device, which has no part in it, has failed."""
    let_cache_break(lossy, dm)
    lossy.create("4 flush_current_buffer_interval 0 mode passthrough")
    write = f"dd if=/dev/zero of={lossy.device} bs=4k count=8 oflag=direct status=none conv=notrunc"
    lossy.guest.run(write)
    lose(lossy)
    break_cache(lossy)
    lets_the_cache_fail(lossy)
    assert lossy.status().state == "ro"
    # Who asks for nothing is told nothing.
    lossy.guest.run(write)
    assert "Input/output error" in fsync(lossy).stderr
    assert fsync(lossy).returncode == 0


def part_flushes(rig, dm, broken=0):
    """Has flushes of the backing device go to a device of their own, which it returns. Its last sectors are broken."""
    disk, good = rig.backing.disk, rig.sectors - broken
    flushes = dm.create("flushes", f"0 {rig.sectors} linear {disk} 0")
    flushes.guest, flushes.disk = rig.guest, disk
    table = f"0 {good} delay DISK 0 0 DISK 0 0 {flushes} 0 0"
    become(rig.backing, f"{table}\n{good} {broken} error" if broken else table)
    return flushes


def test_flush_on_its_way_is_told_what_was_lost_meanwhile(lossy, dm):
    """It went to the backing device by itself; another has heard there what was lost of what it is for."""
    flushes = part_flushes(lossy, dm, broken=8)
    lossy.create("4 flush_current_buffer_interval 0 mode passthrough")
    write = f"dd if=/dev/zero of={lossy.device} bs=4k count=1 conv=notrunc status=none"
    lossy.guest.run(f"{write} oflag=direct")
    flushes.suspend("--noflush", "--nolockfs")
    flush = lossy.guest.start(f"xfs_io -c fsync {lossy.device}")
    lossy.guest.run("until grep -qs blkdev_issue_flush /proc/[0-9]*/stack; do sleep 0.01; done")
    last = lossy.sectors // 8 - 1
    assert lossy.guest.run(f"{write} oflag=direct,dsync seek={last}", check=False).returncode
    flushes.resume()
    assert "Input/output error" in flush.communicate()[0]
    assert fsync(lossy).returncode == 0


def test_what_a_flush_of_a_user_has_lost_is_written_back_again(lossy, dm):
    """A device may say only once what it has lost: here to a user, while a batch was on its way."""
    disk = lossy.backing.disk
    flushes = dm.create("flushes", f"0 {lossy.sectors} linear {disk} 0")
    flushes.guest, flushes.disk = lossy.guest, disk
    slow = dm.create("slow", f"0 {lossy.sectors} delay {disk} 0 0 {disk} 0 3000 {flushes} 0 0")
    lossy.create("6 flush_current_buffer_interval 0 allow_migrate 0 sequential_cutoff 64")
    write = f"dd if=/dev/zero of={lossy.device} oflag=direct status=none conv=notrunc"
    lossy.guest.run(f"{write},fsync bs=4k count=8; {write} bs=256k seek=8 count=1")
    become(lossy.backing, f"0 {lossy.sectors} linear {slow} 0")
    become(flushes, f"0 {lossy.sectors} flakey DISK 0 0 3600 1 error_writes")
    before = lossy.status()["backing_writes"]
    lossy.device.message("mode", "cleaner")
    lossy.guest.run(f"until [ $(awk '{{ print $2 }}' {sysfs(lossy.backing)}/inflight) != 0 ]; do sleep 0.01; done")
    assert fsync(lossy).returncode
    become(flushes, f"0 {lossy.sectors} linear DISK 0")
    lossy.wait_until(lambda status: status.dirty == 0)
    assert lossy.status()["backing_writes"] == before + 2
    become(lossy.backing, f"0 {lossy.sectors} linear DISK 0")


def test_failed_flush_in_passthrough_is_counted(lossy):
    lossy.create("4 flush_current_buffer_interval 0 mode passthrough")
    lossy.guest.run(f"dd if=/dev/zero of={lossy.device} bs=4k count=1 oflag=direct status=none conv=notrunc")
    become(lossy.backing, f"0 {lossy.sectors} flakey DISK 0 0 3600 1 error_writes")
    assert fsync(lossy).returncode
    become(lossy.backing, f"0 {lossy.sectors} linear DISK 0")
    assert lossy.status()["backing_errors"] == 1


def mount(rig):
    """Mounts a file system that writes nothing unasked, with two files."""
    rig.create("4 flush_current_buffer_interval 0 mode writearound")
    rig.guest.run(f"mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0,nodiscard {rig.device}"
                  f" && mkdir -p /mnt/x && mount -o commit=300 {rig.device} /mnt/x && cd /mnt/x"
                  " && for name in one other; do dd if=/dev/zero of=$name bs=64k count=1 conv=fsync; done; sync -f .")


OVERWRITE = "dd if=/dev/zero of=/mnt/x/{} bs=64k count=1 conv=notrunc status=none oflag=direct"


def test_flush_with_data_fails_as_one_without(lossy):
    """What a file system ends a transaction with. Device-mapper sends the data though the flush has failed."""
    guest = lossy.guest
    mount(lossy)
    guest.run(OVERWRITE.format("one"))
    lose(lossy)
    assert guest.run("xfs_io -c fsync /mnt/x/one", check=False).returncode
    guest.run("umount /mnt/x")


def test_flush_with_data_fails_when_it_is_suspended_in_between(lossy, dm):
    """Device-mapper keeps the data until the device is resumed, however long that takes."""
    guest = lossy.guest
    flushes = part_flushes(lossy, dm)
    mount(lossy)
    guest.run(OVERWRITE.format("one"))
    flushes.load(f"0 {lossy.sectors} flakey {flushes.disk} 0 0 3600 1 error_writes")
    flushes.suspend("--noflush", "--nolockfs")
    before = lossy.status()["flushes"]
    writer = guest.start("xfs_io -c fsync /mnt/x/one")
    lossy.wait_for("flushes", f"$0 > {before}")
    suspension = guest.start(f"dmsetup suspend --nolockfs {lossy.device}")
    # It waits for the flush.
    guest.run("until grep -qs 'dm_wait_for\\|__dm_suspend' /proc/[0-9]*/wchan; do sleep 0.01; done")
    flushes.resume()
    assert suspension.wait() == 0
    become(flushes, f"0 {lossy.sectors} linear DISK 0")
    # For longer than a write may belong to a flush before it.
    guest.run("sleep 6")
    lossy.device.resume()
    assert writer.wait()
    guest.run("umount /mnt/x")


def test_suspension_recalls_no_flush_that_failed_long_before(lossy):
    lossy.create("4 flush_current_buffer_interval 0 mode writearound")
    write = f"dd if=/dev/zero of={lossy.device} bs=4k count=1 conv=notrunc status=none"
    lossy.guest.run(f"{write} oflag=direct")
    lose(lossy)
    assert fsync(lossy).returncode
    # For longer than it matters.
    lossy.guest.run("sleep 6")
    lossy.device.suspend()
    lossy.device.resume()
    lossy.guest.run(f"{write} oflag=direct,dsync")


def test_lost_flush_is_not_told_to_who_asks_for_his_own_write(lossy):
    """A file system writes with FUA alone what overwrites a file. It is in the log."""
    guest = lossy.guest
    mount(lossy)
    guest.run(OVERWRITE.format("one"))
    lose(lossy)
    lossy.device.message("mode", "writeback")
    before = lossy.status()["flushes"]
    guest.run(f"{OVERWRITE.format('other')},dsync")
    assert lossy.status()["flushes"] == before + 1
    assert guest.run("xfs_io -c fsync /mnt/x/one", check=False).returncode
    guest.run("umount /mnt/x")


def test_passthrough_flushes_the_backing_device_alone(parts):
    """The cache device may as well be broken."""
    parts.again("4 flush_current_buffer_interval 0 mode passthrough")
    become(parts.cache, f"0 {parts.sectors} error")
    fill(parts)
    parts.guest.run(f"cmp -n 32768 {parts.backing} /tmp/data")
    status = parts.status()
    assert (status.state, status["cache_errors"], status["log_flushes"]) == ("rw", 0, 0)
    # A superblock is to be written, and cannot.
    lets_the_cache_fail(parts)
    assert parts.status().state == "ro"
    before = parts.status()["log_flushes"]
    fill(parts)
    assert parts.status()["log_flushes"] == before
    become(parts.cache, f"0 {parts.sectors} linear DISK 0")


def test_fua_write_in_passthrough_behind_what_was_never_flushed(parts):
    """An ordered log may be written back before it is durable; what was in it matters no more."""
    parts.again("4 prefix_consistent 1 allow_migrate 0")
    fill(parts, "oflag=direct conv=notrunc")
    # It is written by the timer.
    parts.wait_for("user_sectors", "$0 == 64")
    parts.device.message("force_migrate", 1)
    parts.wait_for("log_used", "$0 == 0")
    parts.device.message("prefix_consistent", 0)
    parts.device.message("mode", "passthrough")
    break_cache(parts)
    fill(parts, "oflag=direct,dsync conv=notrunc")
    status = parts.status()
    assert (status.state, status["log_used"], status["around_sectors"]) == ("rw", 0, 64)
