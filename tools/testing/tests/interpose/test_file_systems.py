# SPDX-License-Identifier: GPL-2.0
"""What a freeze means to each file system: a snapshot has what was written before, also what was not synced yet."""

import pytest

from tests.interpose.rig import FILE_SYSTEMS

# How a snapshot is mounted beside its original; nothing is replayed, so all must be in its place.
BESIDE = {"ext4": "ro,noload", "xfs": "ro,norecovery,nouuid", "btrfs": "ro"}


@pytest.mark.parametrize("kind", FILE_SYSTEMS)
def test_snapshot_has_what_was_not_synced(interpose, snapshots, guest, disks, kind):
    """And not what came later. It can be mounted beside the original."""
    disk, store = disks.null("original", FILE_SYSTEMS[kind][1]), disks.null("store", 64)
    where = interpose.make_fs(disk, kind)
    low = interpose.low(disk)
    snapshots.make(low, store)
    guest.run(f"cd {where}; dd if=/dev/urandom of=fresh bs=1M count=2 status=none; sha256sum fresh > /tmp/sum")
    low.attach("/dev/mapper/origin")
    guest.run(f"""set -e
        cd {where}; rm fresh; dd if=/dev/zero of=later bs=1M count=2 conv=fsync status=none; cd /
        mkdir -p /mnt/snap && mount -o {BESIDE[kind]} /dev/mapper/snap /mnt/snap
        cd /mnt/snap && sha256sum -c /tmp/sum && [ ! -e later ]; cd /
        umount /mnt/snap""")
    low.detach()
    interpose.check_fs(disk, kind)


@pytest.mark.parametrize("profile", ["raid0", "raid1"])
def test_btrfs_on_two_disks(interpose, snapshots, guest, disks, profile):
    """A freeze by way of either stops all of it. One moment for both: frozen by hand, attached without a freeze."""
    originals = [disks.null(f"disk{number}", 128) for number in range(2)]
    stores = [disks.null(f"store{number}", 64) for number in range(2)]
    # mkfs tells the module of all disks.
    guest.run(f"modprobe btrfs && mkfs.btrfs -q -f -K -d {profile} -m raid1 {' '.join(originals)} && mkdir -p /mnt/x &&"
              f" mount -o commit=300 {originals[0]} /mnt/x")
    lows = [interpose.low(disk, f"low{number}") for number, disk in enumerate(originals)]
    for number, low in enumerate(lows):
        low.top(f"snap{number}", "snapshot", after=f"{stores[number]} P 64")
        low.top(f"origin{number}", "snapshot-origin", after="")
    written = "awk '{ print $7 }' /sys/block/disk0/stat"
    guest.run("echo word > /mnt/x/word")
    before = int(guest.output(written))
    lows[1].attach("/dev/mapper/origin1")
    assert int(guest.output(written)) > before
    lows[1].detach()
    guest.run("cd /mnt/x; dd if=/dev/urandom of=fresh bs=1M count=4 status=none; sha256sum fresh > /tmp/sum")
    with interpose.load("/mnt/x/file") as passes:
        guest.run("fsfreeze -f /mnt/x")
        for number, low in enumerate(lows):
            low.attach(f"/dev/mapper/origin{number}", "nofreeze")
        guest.run("fsfreeze -u /mnt/x")
        guest.run("rm /mnt/x/fresh; sync")
        passes()
        passes()
        for low in lows:
            assert low.status().errors == 0
            low.detach()
    guest.run(f"""set -e
        umount /mnt/x
        btrfs check {originals[0]}
        for n in 0 1; do dd if=/dev/mapper/snap$n of=/tmp/image$n bs=1M status=none; done
        dmsetup remove_all
        # btrfs tells its devices by what is on them: these would be taken for the others.
        for disk in {' '.join(originals)}; do blkdiscard -f $disk; done
        btrfs device scan --forget
        modprobe loop
        for n in 0 1; do losetup --find --show /tmp/image$n; done > /tmp/loops
        /lab/settle; btrfs device scan > /dev/null
        mount -o ro $(head -1 /tmp/loops) /mnt/x
        cd /mnt/x; sha256sum -c /tmp/sum; cd /
        btrfs scrub start -B -r /mnt/x
        umount /mnt/x
        losetup -D; btrfs device scan --forget""")
