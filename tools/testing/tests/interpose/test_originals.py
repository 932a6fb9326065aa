# SPDX-License-Identifier: GPL-2.0
"""Kinds of original: a file system on it, written and checked all the while, is led through tops and back."""

import pytest

from lab import places
from tests.interpose.rig import FILE_SYSTEMS
from tests.interpose.tops import KINDS as TOPS

MIB = 32


class Originals:
    """Disks of each kind, of so many MiB."""

    def __init__(self, guest, disks, nvme, mib):
        self.guest, self.disks, self.plug_in, self.mib = guest, disks, nvme, mib
        self.clean_up = lambda: None

    def virtio(self):
        """A whole disk of a virtual machine, which is larger."""
        (disk,) = self.disks.scratch()
        return self.guest.output(f"realpath {disk}")

    def partition(self):
        """A partition of one, which does not begin where an eye expects it."""
        disk = self.virtio()
        self.guest.run(f"echo '2048,{self.mib * 2048}' | sfdisk -q {disk} && /lab/settle")
        return f"{disk}1"

    def nvme(self):
        """An NVMe disk."""
        return self.plug_in(self.mib)

    def null(self):
        """A queue of requests with a cache that needs flushes."""
        return self.disks.null("nullb", self.mib, irqmode=2, completion_nsec=100_000, cache_size=1)

    def ram(self):
        """A driver of bios that ends them at once."""
        return self.disks.ram(self.mib)[0]

    def scsi(self):
        """A SCSI disk that takes discards."""
        return self.disks.scsi_debug(self.mib, lbpu=1)

    def loop(self):
        """A file."""
        return self.disks.loop(self.mib)

    def volume(self):
        """A logical volume on two disks, as LVM makes it."""
        one, other = self.disks.ram(self.mib // 2 + 8, 2)
        self.guest.run(f"pvcreate -q -y {one} {other} && vgcreate -q -y vg {one} {other} &&"
                       f" lvcreate -q -y -n lv -L {self.mib} vg")
        return "/dev/vg/lv"

    def stripes(self):
        """A mapped device that splits what it gets."""
        one, other = self.disks.ram(self.mib // 2, 2)
        self.guest.run(
            f"dmsetup create stripes --table '0 {self.mib * 2048} striped 2 8 {one} 0 {other} 0'"
        )
        return "/dev/mapper/stripes"

    def mirror(self):
        """An array: a driver of bios that hands them to two disks."""
        self.clean_up = self.disks.stop_mirror
        return self.disks.mirror(self.mib, self.disks.ram(self.mib, 2))


KINDS = [name for name in vars(Originals) if not name.startswith("_")]


# Each kind with each file system; on other kernels than the default one, with one of them.
PAIRS = [
    (file_system, kind)
    for turn, file_system in enumerate(FILE_SYSTEMS)
    for number, kind in enumerate(KINDS)
    if places.is_default() or number % len(FILE_SYSTEMS) == turn
]


@pytest.mark.parametrize(("file_system", "kind"), PAIRS)
def test_original(interpose, guest, disks, nvme, tops, kind, file_system):
    """Through a linear device, and through a top of another kind that takes its place."""
    originals = Originals(guest, disks, nvme, FILE_SYSTEMS[file_system][1])
    disk = getattr(originals, kind)()
    where = interpose.make_fs(disk, file_system)
    low = interpose.low(disk)
    # All kinds, with one file system or another.
    which = KINDS.index(kind) + 4 * list(FILE_SYSTEMS).index(file_system)
    top, settle = tops.make(low, TOPS[which % len(TOPS)])
    with interpose.load(f"{where}/file") as passes:
        low.attach(low.top("first"))
        passes()
        low.switch(top)
        passes()
        passes()
        led = low.status()
        assert led.redirected > 40 and led.errors == 0
        settle()
        low.detach()
        # Nothing goes there any more.
        still = low.status().redirected
        passes()
        assert low.status().redirected == still
    guest.run(f"fstrim {where} || :")
    interpose.check_fs(disk, file_system)
    originals.clean_up()


@pytest.mark.parametrize("file_system", list(FILE_SYSTEMS) if places.is_default() else ["ext4"])
def test_file_system_through_each_top(interpose, guest, disks, tops, file_system):
    """One after the other, beneath the same file system, which stays mounted and in use."""
    disk = disks.null("nullb", FILE_SYSTEMS[file_system][1], irqmode=2, completion_nsec=10_000)
    where = interpose.make_fs(disk, file_system)
    low = interpose.low(disk)
    with interpose.load(f"{where}/file") as passes:
        for kind in TOPS:
            top, settle = tops.make(low, kind)
            before = low.status().redirected
            low.attach(top)
            passes()
            passes()
            status = low.status()
            assert status.redirected > before and status.errors == 0, kind
            settle()
            low.detach()
            guest.run("for round in 1 2 3; do for name in $(dmsetup info -c --noheadings -o name | grep -vx low);"
                      " do dmsetup remove --retry $name || :; done; done 2> /dev/null")
        passes()
    interpose.check_fs(disk, file_system)


def test_root_file_system(interpose, guest):
    """That of the running guest: a partition of an NVMe disk, from which each command is read."""
    disk = guest.output(". /sys/dev/block/$(stat -c %Hd:%Ld /)/uevent; echo /dev/$DEVNAME")
    assert disk.startswith("/dev/nvme")
    guest.run("mkdir -p /var/tmp/x; dd if=/dev/urandom of=/var/tmp/x/before bs=1M count=4 status=none;"
              " cd /var/tmp/x; sha256sum before > sums")
    low = interpose.low(disk)
    top = low.top("top")
    with interpose.load("/var/tmp/x/file") as passes:
        low.attach(top)
        passes()
        guest.run("cd /var/tmp/x; dd if=/dev/urandom of=during bs=1M count=4 status=none conv=fsync;"
                  " sha256sum during >> sums; sync; echo 3 > /proc/sys/vm/drop_caches; sha256sum -c sums")
        led = low.status()
        assert led.redirected > 40 and led.errors == 0
        low.detach()
        passes()
    guest.run("cd /var/tmp/x; echo 3 > /proc/sys/vm/drop_caches; sha256sum -c sums; rm -r /var/tmp/x")


def test_swap(interpose, guest, disks):
    """What is swapped out before, during and after an attach comes back as it was."""
    disk = disks.null("nullb", MIB)
    guest.run(f"""set -e
        mkswap -q {disk} && swapon {disk}
        mkdir -p /tmp/cg && mount -t cgroup2 none /tmp/cg
        echo +memory > /tmp/cg/cgroup.subtree_control; mkdir -p /tmp/cg/out""")
    swap_out = """set -e
        (echo $BASHPID > /tmp/cg/out/cgroup.procs; dd if=/dev/urandom of=/tmp/{0} bs=1M count=4 status=none
         sha256sum /tmp/{0} >> /tmp/sums)
        echo 4M > /tmp/cg/out/memory.reclaim || :"""
    try:
        low = interpose.low(disk)
        top = low.top("top")
        guest.run(swap_out.format("before"))
        low.attach(top)
        guest.run(swap_out.format("during"))
        led = low.status()
        # Each write of swap may be many pages.
        assert led.redirected > 4 and led.errors == 0
        guest.run("sha256sum -c /tmp/sums")
        assert low.status().redirected > led.redirected
        guest.run("echo 8M > /tmp/cg/out/memory.reclaim || :")
        low.detach()
        guest.run(swap_out.format("after"))
        guest.run("sha256sum -c /tmp/sums")
    finally:
        guest.run(f"rm -f /tmp/before /tmp/during /tmp/after /tmp/sums; swapoff {disk}; rmdir /tmp/cg/out;"
                  " umount /tmp/cg", check=False)


def test_table_on_the_original(interpose, guest, dm, disks):
    """The original is not mounted, but part of a mapped device that is."""
    (disk,) = disks.ram(MIB)
    volume_group = dm.create("volume", f"0 {MIB * 1024} linear {disk} 2048")
    where = interpose.make_fs(volume_group)
    low = interpose.low(disk)
    top = low.top("top")
    with interpose.load(f"{where}/file") as passes:
        low.attach(top)
        passes()
        passes()
        assert low.status().redirected > 20
        low.detach()
    interpose.check_fs(volume_group)


def test_two_at_once(interpose, disks):
    """Each has its own top."""
    one, other = disks.ram(MIB, 2)
    lows = [interpose.low(one, "low1"), interpose.low(other, "low2")]
    tops = [low.top(f"top{number}") for number, low in enumerate(lows)]
    with interpose.load(one, name="one") as ones, interpose.load(other, name="other") as others:
        for low, top in zip(lows, tops, strict=True):
            low.attach(top)
        ones()
        others()
        lows[0].detach()
        ones()
        still = lows[0].status().redirected
        others()
        assert lows[0].status().redirected == still and lows[1].status().state == "attached"
        lows[1].detach()


def test_partition_alone_is_led(interpose, guest, disks):
    """Neither the disk nor another of its partitions."""
    disk = guest.output(f"realpath {disks.scratch()[0]}")
    guest.run(f"printf '2048,65536\\n67584,65536\\n' | sfdisk -q {disk} && /lab/settle")
    low = interpose.low(f"{disk}2")
    low.attach(low.top("top"))
    read = "dd of=/dev/null bs=4k count=8 iflag=direct status=none if="
    guest.run(f"{read}{disk}; {read}{disk}1; {read}/dev/mapper/top")
    assert low.status().redirected == 0
    guest.run(f"dd if=/dev/urandom of={disk}2 bs=4k count=8 seek=100 oflag=direct status=none")
    assert low.status().redirected == 8
    # At its place on the disk.
    guest.run(f"cmp -n 32768 -i 409600:{67584 * 512 + 409600} {disk}2 {disk}")
    low.detach()
