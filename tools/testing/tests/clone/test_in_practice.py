# SPDX-License-Identifier: GPL-2.0
"""Clones as they are used: set up at boot, on logical volumes, on a thin pool, of a disk on the network."""

import hashlib
import random

import pytest

from lab import nbd

pytestmark = pytest.mark.limit(120)

MIB = 2048  # sectors


def complete(status):
    """Whether a status says that all is hydrated."""
    done, _, regions = status.args[3].partition("/")
    return done == regions


def put_content(guest, device, mib, seed=5):
    """Fills a device with bytes, and returns their checksum."""
    content = random.Random(seed).randbytes(mib << 20)
    guest.run(f"dd of={device} bs=1M iflag=fullblock oflag=direct status=none", stdin=content)
    return hashlib.sha256(content).hexdigest()


def checksum(guest, device, mib):
    """That of the begin of a device as it is on the disk."""
    return guest.output(f"dd if={device} bs=1M count={mib} iflag=direct status=none | sha256sum").split()[0]


class Tab:
    """A line of clonetab, and what systemd-clonesetup does with it."""

    def __init__(self, dm, name, source, dest, metadata, sectors):
        self.dm, self.name = dm, name
        self.table = f"0 {sectors} clone {metadata} {dest} {source} 8 1 no_hydration"

    def add(self):
        """At boot: a device that copies nothing, and a message at once."""
        clone = self.dm.create(self.name, self.table)
        clone.message("enable_hydration")
        return clone

    def remove(self):
        """At shutdown: whoever still uses the device keeps it until he is done."""
        if self.dm.guest.run(f"dmsetup remove {self.name}", check=False).returncode:
            self.dm.guest.run(f"dmsetup remove --deferred {self.name}")


def test_set_up_at_boot(clone_module, guest, dm, disks):
    """As systemd-clonesetup does it; in the end a plain mapping takes over, under the mounted file system."""
    assert clone_module
    metadata, dest, disk = disks.loop(1), disks.loop(24), disks.loop(24)
    source = dm.create("source", f"0 {24 * MIB} linear {disk} 0")
    guest.run(f"""set -e
        mkfs.ext4 -q -F {source} && mkdir -p /mnt/root && mount {source} /mnt/root
        head -c 8M /dev/urandom > /mnt/root/large
        umount /mnt/root && head -c 8M /dev/urandom > /tmp/more
        mount -o ro {source} /mnt/root && sha256sum /mnt/root/large > /tmp/sums && umount /mnt/root""")
    # Slow enough not to be done at once.
    source.reload(f"0 {24 * MIB} delay {disk} 0 20")
    tab = Tab(dm, "root", source, dest, metadata, 24 * MIB)
    tab.add()
    guest.run("mount /dev/mapper/root /mnt/root && sha256sum -c --quiet /tmp/sums")
    guest.run("cp /tmp/more /mnt/root/more && sync -f /mnt/root")
    tab.remove()
    # It is in use, and serves.
    assert "root" in dm.names()
    guest.run("sha256sum -c --quiet /tmp/sums && cmp /tmp/more /mnt/root/more && umount /mnt/root")
    guest.run("while dmsetup info root 2> /dev/null; do sleep 0.05; done")

    source.reload(f"0 {24 * MIB} linear {disk} 0")
    clone = tab.add()
    guest.run("mount /dev/mapper/root /mnt/root")
    clone.message("hydration_threshold", 256)
    clone.message("hydration_batch_size", 256)
    clone.wait_until(complete)
    clone.reload(f"0 {24 * MIB} linear {dest} 0")
    guest.run("""set -e
        dmsetup remove source
        echo 1 > /proc/sys/vm/drop_caches
        sha256sum -c --quiet /tmp/sums && cmp /tmp/more /mnt/root/more
        touch /mnt/root/last && umount /mnt/root""")
    tab.remove()
    guest.run(f"e2fsck -fn {dest}")


@pytest.fixture
def group(guest, disks):
    """A volume group on two disks: its name. Its volumes go as all device-mapper devices do."""
    one, two = disks.scratch(2)
    guest.run(f"""set -e
        pvcreate -q -y {one} {two}
        vgcreate -q -y vg {one} {two}""")
    return "vg"


def test_logical_volumes(clone_module, guest, dm, disks, group):
    """Metadata and destination are logical volumes; the destination becomes a volume of its own right."""
    assert clone_module
    (source,) = disks.ram(16)
    expected = put_content(guest, source, 16)
    guest.run(f"lvcreate -q -y -W y -L 4M -n meta {group} && lvcreate -q -y -W n -L 16M -n disk {group}")
    table = f"0 {16 * MIB} clone /dev/{group}/meta /dev/{group}/disk {source} 128 1 no_hydration"
    clone = dm.create("clone", table)
    assert checksum(guest, clone, 16) == expected
    guest.run(f"dd if=/dev/zero of={clone} bs=1M count=1 seek=3 oflag=direct conv=fsync status=none")
    # Nobody removes a volume that a clone is on.
    assert guest.run(f"lvremove -q -y {group}/disk", check=False).returncode
    clone.remove()
    guest.run(f"vgchange -q -an {group} && vgchange -q -ay {group}")
    clone = dm.create("clone", table)
    done, _ = map(int, clone.status()[0].args[3].split("/"))
    assert done == 16
    clone.message("enable_hydration")
    clone.wait_until(complete)
    clone.remove()
    guest.run(f"""set -e
        lvremove -q -y {group}/meta
        cmp -n $((3 << 20)) /dev/{group}/disk {source}
        cmp -n $((1 << 20)) -i $((3 << 20)):0 /dev/{group}/disk /dev/zero
        cmp -i $((4 << 20)) /dev/{group}/disk {source}""")


def test_thin_volume_as_destination(clone_module, guest, dm, disks, group):
    """The pool has room for what is used only: what is hydrated takes some, what is discarded gives it back."""
    assert clone_module
    mib = 32
    (source,) = disks.ram(mib)
    expected = put_content(guest, source, mib)
    guest.run(f"lvcreate -q -y -Z n -c 64k -L 64M -T {group}/pool && lvcreate -q -y -V {mib}M -T {group}/pool -n thin")
    guest.run(f"lvcreate -q -y -W y -L 4M -n meta {group}")

    def used():
        guest.run("sync")
        # The pool counts a transaction when it is committed.
        status = guest.output(f"dmsetup status {group}-pool-tpool").split()
        return int(status[5].split("/")[0]) * 64 // 1024

    clone = dm.create("clone", f"0 {mib * MIB} clone /dev/{group}/meta /dev/{group}/thin {source} 128 1 no_hydration")
    assert used() == 0
    assert checksum(guest, clone, mib) == expected
    assert used() == 0
    clone.message("hydration_threshold", 64)
    clone.message("hydration_batch_size", 64)
    clone.message("enable_hydration")
    clone.wait_until(complete)
    assert used() == mib
    guest.run(f"cmp {clone} {source}")
    guest.run(f"blkdiscard -f -o {8 << 20} -l {16 << 20} {clone}")
    assert used() == mib - 16
    guest.run(f"cmp -n {16 << 20} -i {8 << 20}:0 /dev/{group}/thin /dev/zero && cmp -n {8 << 20} {clone} {source}")
    clone.remove()


def test_disk_far_away(clone_module, guest, dm, disks, tmp_path):
    """A server that takes its time: reads are right while it is hydrated, and when it is complete."""
    assert clone_module
    content = random.Random(9).randbytes(8 << 20)
    path = tmp_path / "export"
    path.write_bytes(content)
    with nbd.serve(path, ["--readonly", "--filter=delay"], ["rdelay=25ms"]) as server:
        guest.run("modprobe nbd nbds_max=1")
        guest.run(server.client("/dev/nbd0", "-readonly"))
        metadata, dest = disks.ram(8, 2)
        words = "8 0 4 hydration_threshold 1 hydration_batch_size 1"
        clone = dm.create("clone", f"0 {8 * MIB} clone {metadata} {dest} /dev/nbd0 {words}")
        said = guest.output(f"dd if={clone} bs=256k skip=28 count=4 iflag=direct status=none | sha256sum").split()[0]
        assert said == hashlib.sha256(content[7 << 20:]).hexdigest()
        assert not complete(clone.status("--noflush")[0])
        clone.message("hydration_threshold", 4096)
        clone.message("hydration_batch_size", 256)
        clone.wait_until(complete)
        clone.reload(f"0 {8 * MIB} linear {dest} 0")
    # Nobody needs the server any more.
    guest.run("nbd-client -d /dev/nbd0")
    assert checksum(guest, clone, 8) == hashlib.sha256(content).hexdigest()
