# SPDX-License-Identifier: GPL-2.0
"""dmstats on the targets of this repository, and on the kernel's own."""

from tests.dmstats.filemaps import places, regions


def test_a_file_on_a_clone_is_counted_and_followed_while_its_disk_is_copied(clone_module, guest, dm, disks):
    metadata, dest, source = disks.ram(64, 3)
    guest.run(f"mkfs.ext4 -q {source} && mount {source} /mnt")
    guest.run("dd if=/dev/urandom of=/mnt/f bs=64k count=4 status=none && umount /mnt")
    clone = dm.create("d", f"0 131072 clone {metadata} {dest} {source} 8 1 no_hydration")
    guest.run(f"mount {clone} /mnt && dmstats create --filemap /mnt/f")
    count = "dmstats report --group --noheadings -o read_sector_count,write_sector_count d"
    guest.run("dd if=/mnt/f of=/dev/null bs=64k iflag=direct status=none")
    guest.run("dd if=/dev/urandom of=/mnt/f bs=64k count=2 oflag=direct conv=notrunc status=none")
    assert guest.output(count) == "512:256"
    # What is copied beneath is not the file's I/O.
    clone.message("hydration_threshold", 64)
    clone.message("enable_hydration")
    clone.wait_until(lambda status: status.args[3] == "16384/16384")
    assert guest.output(count) == "0:0"
    # The regions stay as its table is replaced, and the daemon goes on.
    clone.reload(f"0 131072 linear {dest} 0")
    guest.run("dd if=/dev/urandom bs=64k count=2 status=none >> /mnt/f; sync")
    while regions(guest, 0) != places(guest, "/mnt/f"):
        guest.run("pidof dmfilemapd")
    guest.run("rm /mnt/f; while pidof dmfilemapd > /dev/null; do sleep 0.05; done")
