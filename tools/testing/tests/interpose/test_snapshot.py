# SPDX-License-Identifier: GPL-2.0
"""Snapshots of a disk in use: attach is their moment, and nothing that is written later is in them."""

import pytest

from lab import places
from lab.disks import sysfs
from tests.interpose.snapshots import CHUNK


def test_snapshot_of_a_mounted_file_system(interpose, snapshots, guest, disks):
    """What was there is in it, to the byte; what came later is not; it has no fault."""
    disk, store = disks.ram(32, 2)
    interpose.make_fs(disk)
    guest.run("cd /mnt/x; for i in 1 2 3 4; do dd if=/dev/urandom of=$i bs=1M count=1 status=none; done;"
              " sha256sum 1 2 3 4 > /tmp/sums")
    low = interpose.low(disk)
    snapshots.make(low, store)
    with interpose.load("/mnt/x/file") as passes:
        low.attach("/dev/mapper/origin")
        before = snapshots.content()
        guest.run("rm /mnt/x/1; dd if=/dev/urandom of=/mnt/x/2 bs=1M count=1 conv=notrunc,fsync status=none")
        passes()
        assert snapshots.content() == before
        low.detach()
    # Replaying the journal writes to the snapshot.
    guest.run("""set -e
        e2fsck -fp /dev/mapper/snap || [ $? = 1 ]
        mkdir -p /mnt/snap && mount -o ro /dev/mapper/snap /mnt/snap
        cd /mnt/snap && sha256sum -c /tmp/sums; cd /; umount /mnt/snap""")
    interpose.check_fs(disk)


@pytest.mark.parametrize("kind", ["requests", "bios"])
def test_snapshot_of_a_raw_disk_is_a_prefix_of_each_writer(snapshots, interpose, disks, kind):
    """Nobody is stopped: of each writer that waits for its writes it has the first so many, whole.

    Beside them there are writers whose bios are split and plugged, and come from io_uring.
    """
    slow = {"irqmode": 2, "completion_nsec": 2_000_000, "hw_queue_depth": 8, "max_sectors": 16}
    if kind == "requests":
        disk = disks.null("nullb", 8, **slow)
    else:
        disk = disks.mirror(8, [disks.null(name, 8, **slow) for name in ("one", "other")])
    (store,) = disks.ram(16)
    low = interpose.low(disk)
    snapshots.make(low, store)
    batches = ["--ioengine=libaio", "--iodepth=16", "--iodepth_batch=8", "--offset=4m"]
    ring = ["--ioengine=io_uring", "--fixedbufs=1", "--iodepth=8", "--offset=5m"]
    with (
        interpose.load(disk, name="batches", words=batches) as split,
        interpose.load(disk, name="ring", words=ring) as fixed,
        snapshots.writers(disk, 4),
    ):
        low.attach("/dev/mapper/origin", "nofreeze")
        before = snapshots.content()
        snapshots.wait_for_writes(20)
        split()
        fixed()
        assert snapshots.content() == before
        low.detach("nofreeze")
    snapshots.check_prefixes(4)
    assert low.status().errors == 0
    # On a slow kernel all writers may be waiting for what is drained.
    assert low.status().held > 0 or places.is_debug()
    if kind == "bios":
        disks.stop_mirror()


def test_snapshot_below_a_throttle(snapshots, interpose, guest, disks, cgroup):
    """Writes that were submitted before and wait in the cgroup's throttle are led as well."""
    disk = disks.null("nullb", 8)
    (store,) = disks.ram(16)
    low = interpose.low(disk)
    snapshots.make(low, store)
    number = interpose.number(disk)
    guest.run(f"echo '{number} wiops=2' > {cgroup}/io.max")
    writer = guest.start(
        f"echo $$ > {cgroup}/cgroup.procs; exec fio --name=w --filename={disk}"
        " --rw=write --bs=4k --size=96k --direct=1 --ioengine=libaio --iodepth=32 --minimal"
    )
    stat = f"/sys/block/{disk.rpartition('/')[2]}/stat"
    guest.run(f"until [ $(awk '{{ print $5 }}' {stat}) -ge 3 ]; do sleep 0.01; done")
    low.attach("/dev/mapper/origin", "nofreeze")
    before = snapshots.content()
    # The rest at once.
    guest.run(f"echo '{number} wiops=max' > {cgroup}/io.max")
    assert writer.wait() == 0, writer.stdout.read()
    assert low.status().stragglers > 0
    assert snapshots.content() == before
    low.detach("nofreeze")


@pytest.mark.parametrize("kind", ["mapped", "array"])
def test_snapshot_has_what_the_original_was_given(snapshots, interpose, guest, dm, disks, kind):
    """A write that the original has not finished when the top is attached: the attach waits for it."""
    store, *below = disks.ram(8, 3 if kind == "array" else 2)
    # All of them: a read must not find it where it is already.
    slow = [dm.create(f"slow{number}", f"0 {8 * 2048} delay {disk} 0 0 {disk} 0 4000")
            for number, disk in enumerate(below)]
    original = slow[0]
    if kind == "array":
        original = disks.mirror(8, [guest.output(f"readlink -f {disk}") for disk in slow])
    low = interpose.low(original)
    snapshots.make(low, store)
    writer = guest.start(f"dd if=/dev/urandom of={original} bs=64k count=1 oflag=direct status=none")
    guest.run("until set -- $(dmsetup status slow0) && [ $5 = 1 ]; do sleep 0.01; done")
    low.attach("/dev/mapper/origin", "nofreeze")
    before = snapshots.content()
    assert writer.wait() == 0
    assert snapshots.content() == before
    low.detach("nofreeze")
    if kind == "array":
        disks.stop_mirror()


def test_snapshot_of_a_multipath_device(snapshots, interpose, guest, dm, disks):
    """Its path takes one write at a time: the attach waits for those as well that are in the device's own queue."""
    writes = 16
    path = disks.null("path", 8, irqmode=2, completion_nsec=400_000_000, hw_queue_depth=1, submit_queues=1)
    (store,) = disks.ram(16)
    original = dm.create("original", f"0 {8 * 2048} multipath 0 0 1 1 round-robin 0 1 1 {path} 1")
    queue = sysfs(original.path)
    # Of requests, none of which becomes part of another.
    guest.run(f"[ -d {queue}/mq ] && echo 2 > {queue}/queue/nomerges")
    low = interpose.low(original)
    snapshots.make(low, store)
    done = int(guest.output(f"awk '{{ print $5 }}' {queue}/stat"))
    writer = guest.start(f"fio --name=w --filename={original} --rw=write:4k --bs=4k --number_ios={writes} --size=1m"
                         f" --direct=1 --ioengine=libaio --iodepth={writes} --iodepth_batch={writes} --minimal")
    guest.run("until [ $(awk '{ print $2 }' /sys/block/path/inflight) = 1 ]; do sleep 0.01; done")
    low.attach("/dev/mapper/origin", "nofreeze")
    # What is written later would change the snapshot.
    assert int(guest.output(f"awk '{{ print $5 }}' {queue}/stat")) == done + writes
    assert writer.wait() == 0, writer.stdout.read()
    assert low.status().redirected == 0
    low.detach("nofreeze")


def test_snapshot_after_its_origin_needs_a_resume(snapshots, interpose, guest, disks):
    """The documented order: a snapshot that comes later is complete once its origin has been resumed."""
    disk, store = disks.ram(8, 2)
    low = interpose.low(disk)
    origin = low.top("origin", "snapshot-origin", after="")
    low.attach(origin)
    origin.suspend()
    low.top("snap", "snapshot", after=f"{store} P 8")
    origin.resume()
    before = snapshots.content()
    guest.run(f"dd if=/dev/urandom of={disk} bs=1M count=4 oflag=direct status=none")
    assert snapshots.content() == before
    low.detach()


def test_next_moment_by_switching(snapshots, interpose, guest, dm, disks):
    """A second snapshot has all that was written before the switch, and nothing that came later."""
    disk, store, other_store = disks.ram(32, 3)
    interpose.make_fs(disk)
    guest.run("dd if=/dev/urandom of=/mnt/x/old bs=1M count=2 status=none; sha256sum /mnt/x/old > /tmp/old")
    low = interpose.low(disk)
    snapshots.make(low, store)
    first = dm.create("first", f"0 {low.sectors} linear /dev/mapper/origin 0")
    with interpose.load("/mnt/x/file") as passes:
        low.attach(first)
        content = snapshots.content()
        dm.create("snap2", f"0 {low.sectors} snapshot /dev/mapper/origin {other_store} P {CHUNK}")
        dm.create("origin2", f"0 {low.sectors} snapshot-origin /dev/mapper/origin")
        guest.run("dd if=/dev/urandom of=/mnt/x/new bs=1M count=4 status=none; sha256sum /mnt/x/new > /tmp/new")
        low.switch("/dev/mapper/origin2")
        first.remove()
        second = snapshots.content("snap2")
        guest.run("rm /mnt/x/new")
        passes()
        assert snapshots.content() == content and snapshots.content("snap2") == second
        low.detach()
    for snapshot, has in (("snap", "old"), ("snap2", "old new")):
        guest.run(f"""
            e2fsck -fp /dev/mapper/{snapshot}; [ $? -le 1 ] || exit 1
            mkdir -p /mnt/snap && mount -o ro /dev/mapper/{snapshot} /mnt/snap || exit 1
            for file in {has}; do
                [ "$(sha256sum < /mnt/snap/$file)" = "$(cut -c-64 /tmp/$file)  -" ] || exit 1
            done
            umount /mnt/snap""")
    interpose.check_fs(disk)
