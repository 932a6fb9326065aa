# SPDX-License-Identifier: GPL-2.0
"""dmstats on the targets of this repository, and on the kernel's own."""

from lab import modules
from tests.dmstats.filemaps import places, regions
from tests.interpose.rig import Rig as Interpose
from tests.lc.rig import Rig as Lc

COUNT = "dmstats report --group --noheadings -o read_sector_count,write_sector_count d"


def use(guest):
    """Reads 512 sectors of a file, writes 256."""
    guest.run("dd if=/mnt/f of=/dev/null bs=64k iflag=direct status=none")
    guest.run("dd if=/dev/urandom of=/mnt/f bs=64k count=2 oflag=direct conv=notrunc status=none")


def grows_and_goes(guest):
    """The file grows and is removed, and its daemon takes note of it."""
    guest.run("dd if=/dev/urandom bs=64k count=2 status=none >> /mnt/f; sync")
    while regions(guest, 0) != places(guest, "/mnt/f"):
        guest.run("pidof dmfilemapd")
    guest.run("rm /mnt/f; while pidof dmfilemapd > /dev/null; do sleep 0.05; done")


def new_file(guest, device):
    """A file of 512 sectors on an ext4 on a device, which is counted and followed."""
    guest.run(f"mkfs.ext4 -q {device} && mount {device} /mnt")
    guest.run("dd if=/dev/urandom of=/mnt/f bs=64k count=4 status=none && dmstats create --filemap /mnt/f")


def test_a_file_on_a_clone_is_counted_and_followed_while_its_disk_is_copied(clone_module, guest, dm, disks):
    metadata, dest, source = disks.ram(64, 3)
    guest.run(f"mkfs.ext4 -q {source} && mount {source} /mnt")
    guest.run("dd if=/dev/urandom of=/mnt/f bs=64k count=4 status=none && umount /mnt")
    clone = dm.create("d", f"0 131072 clone {metadata} {dest} {source} 8 1 no_hydration")
    guest.run(f"mount {clone} /mnt && dmstats create --filemap /mnt/f")
    use(guest)
    assert guest.output(COUNT) == "512:256"
    # What is copied beneath is not the file's I/O.
    clone.message("hydration_threshold", 64)
    clone.message("enable_hydration")
    clone.wait_until(lambda status: status.args[3] == "16384/16384")
    assert guest.output(COUNT) == "0:0"
    # The regions stay as its table is replaced, and the daemon goes on.
    clone.reload(f"0 131072 linear {dest} 0")
    grows_and_goes(guest)


def test_a_file_on_a_cache_is_counted_and_followed_while_it_is_written_back(guest, dm, disks):
    modules.load(guest, "dm_lc_rs")
    cache = dm.create("d", Lc(guest, dm, disks).table())
    new_file(guest, cache)
    use(guest)
    assert guest.output(COUNT) == "512:256"
    # What is written back beneath is not the file's I/O.
    cache.message("flush")
    assert guest.output(COUNT) == "0:0"
    grows_and_goes(guest)


def test_a_file_is_counted_once_whatever_is_attached_beneath_it(guest, dm, disks):
    modules.load(guest, "dm_interpose_rs")
    device = dm.create("d", f"0 98304 linear {disks.ram(48)[0]} 0")
    new_file(guest, device)
    low = Interpose(guest, dm).low(device)
    low.attach(low.top("top"))
    use(guest)
    assert guest.output(COUNT) == "512:256"
    low.detach()
    grows_and_goes(guest)
