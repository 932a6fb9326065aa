# SPDX-License-Identifier: GPL-2.0
"""File systems whose files are counted, and those that are refused because they do not tell where files are."""

import pytest

from tests.dmstats.filemaps import LVM2, fragmented, places, regions

pytestmark = pytest.mark.any_kernel("its kernel side is in test_interop.py and test_targets.py")

MAP = "dmstats create --filemap --nomonitor"
SECTORS = 400 * 2048


def refused(guest, path):
    """Why a file is not mapped, in a line."""
    result = guest.run(f"dmstats create --filemap {path}", check=False)
    assert result.returncode == 1 and f"Could not create regions from file {path}." in result.stderr
    assert guest.output("dmstats list --alldevices --noheadings -o region_id") == ""
    return result.stderr.splitlines()[0]


def new_file(guest, path):
    guest.run(f"dd if=/dev/urandom of={path} bs=64k count=4 status=none && sync")


@pytest.fixture
def mapped(dm, disks):
    """Two devices of 400 MiB."""
    return [dm.create(name, f"0 {SECTORS} linear {disk} 0") for name, disk in zip("de", disks.ram(400, 2), strict=True)]


def test_a47_without_a_mapped_device_nothing_is_counted(guest):
    guest.run("echo x > /tmp/f; echo x > /root/f; sync")
    assert refused(guest, "/tmp/f") == "Cannot map file: tmpfs keeps files in memory, not on a device."
    assert refused(guest, "/root/f") == "Cannot map file: not a device-mapper device."
    assert refused(guest, "/tmp") == "Cannot map file: not a regular file."


def test_f14_files_on_the_realtime_device_of_an_xfs_are_refused(guest, mapped):
    data, real = mapped
    guest.run(f"mkfs.xfs -q -d rtinherit=1 -r rtdev={real} {data} && mount -o rtdev={real} {data} /mnt")
    new_file(guest, "/mnt/f")
    said = "Cannot map file: it is on the realtime device of its XFS, not on its data device."
    assert refused(guest, "/mnt/f") == said
    # LVM2 counts what is at the same place of the other device.
    assert "Created new group" in guest.output(f"{LVM2} create --filemap --nomonitor /mnt/f")
    guest.run(f"{LVM2} delete --allregions d; umount /mnt")


def test_a46_files_on_btrfs_are_refused(guest, mapped):
    guest.run(f"mkfs.btrfs -q {mapped[0]} && mount {mapped[0]} /mnt")
    new_file(guest, "/mnt/f")
    said = "Cannot map file: btrfs does not provide physical FIEMAP extent data."
    assert refused(guest, "/mnt/f") == said
    result = guest.run("dmfilemapd --map /mnt/f", check=False)
    assert (result.returncode, result.stderr) == (1, f"dmfilemapd: /mnt/f: {said}\n")


def test_files_of_an_overlay_are_refused_but_not_those_beneath_it(guest, mapped):
    guest.run(f"mkfs.ext4 -q {mapped[0]} && mount {mapped[0]} /mnt && mkdir /mnt/low /mnt/up /mnt/work /tmp/over"
              " && mount -t overlay -o lowerdir=/mnt/low,upperdir=/mnt/up,workdir=/mnt/work none /tmp/over")
    new_file(guest, "/tmp/over/f")
    said = "Cannot map file: overlayfs has no device; map the file in the layer below."
    assert refused(guest, "/tmp/over/f") == said
    guest.run(f"{MAP} /mnt/up/f")
    assert regions(guest, 0) == places(guest, "/mnt/up/f")
    guest.run("umount /tmp/over")


@pytest.fixture
def f2fs(guest):
    """The kernel knows f2fs; that of Debian's clouds does not."""
    if guest.run("modprobe f2fs", check=False).returncode:
        pytest.skip("this flavour of the kernel has no f2fs")


@pytest.mark.parametrize("mounted", ["f2fs"], indirect=True)
def test_files_of_an_f2fs_on_one_device_are_counted_and_followed(f2fs, guest, mounted):
    fragmented(guest, "/mnt/f", 12)
    guest.run(f"{MAP} /mnt/f")
    assert regions(guest, 1) == places(guest, "/mnt/f")
    guest.run("dd if=/mnt/f of=/dev/null bs=96k iflag=direct status=none")
    assert guest.output("dmstats report --group --noheadings --units s -o read_sector_count d") == "96"
    # What is written again is somewhere else, from when it leaves the memory on.
    before = places(guest, "/mnt/f")
    guest.run("dmstats update_filemap --groupid 1 /mnt/f")
    guest.run("dd if=/dev/urandom of=/mnt/f bs=4k seek=5 count=1 conv=notrunc status=none; sync")
    after = places(guest, "/mnt/f")
    assert before != after
    while regions(guest, 1) != after:
        guest.run("pidof dmfilemapd")
    guest.run("rm /mnt/f; while pidof dmfilemapd > /dev/null; do sleep 0.05; done")


def test_files_of_an_f2fs_on_several_devices_are_refused(f2fs, guest, mapped):
    data, more = mapped
    guest.run(f"mkfs.f2fs -q -c {more} {data} && mount {data} /mnt")
    new_file(guest, "/mnt/f")
    said = "Cannot map file: its f2fs has several devices, and does not tell on which of them a file is."
    assert refused(guest, "/mnt/f") == said
