# SPDX-License-Identifier: GPL-2.0
"""The controls: what is tested of our programs goes wrong with LVM2's own, in the version that Debian has."""

import pytest

from lab import places as lab_places
from tests.dmstats.filemaps import LVM2, fragmented, places

pytestmark = pytest.mark.skipif(not lab_places.is_default(), reason="LVM2 is judged on the default kernel")

CREATE = f"{LVM2} create --filemap --nomonitor /mnt/f"
UPDATE = f"{LVM2} update_filemap --nomonitor --groupid"
# A shell's exit status of what died of SIGSEGV or SIGABRT.
CRASHED = {139, 134}


def without_foreign_ones(guest):
    """Its groups of several regions need all ids from 0 on."""
    guest.run("dmstats delete --allregions --allprograms d")


def test_b1_a_foreign_region_below_is_in_the_way(guest, mounted):
    fragmented(guest, "/mnt/f", 12)
    assert guest.run(CREATE, check=False).returncode != 0


def test_b2_a_map_is_lost_when_its_first_block_goes(guest, mounted):
    without_foreign_ones(guest)
    fragmented(guest, "/mnt/f", 12)
    guest.run(f"{CREATE} && fallocate -p -o 4096 -l 4096 /mnt/f")
    assert guest.run(f"{UPDATE} 0 /mnt/f", check=False).returncode != 0
    assert guest.output(f"{LVM2} list --noheadings d") == ""


def test_b3_a_crash_when_the_first_extent_of_another_group_than_0_changes(guest, mounted):
    guest.run(f"dd if=/dev/urandom of=/mnt/f bs=64k count=1 status=none && sync && {CREATE}")
    guest.run("fallocate -p -o 0 -l 4k /mnt/f && sync")
    assert guest.run(f"{UPDATE} 1 /mnt/f", check=False).returncode in CRASHED


def test_b6_a_file_without_blocks_keeps_its_regions(guest, mounted):
    guest.run(f"dd if=/dev/urandom of=/mnt/f bs=64k count=2 status=none && sync && {CREATE} && truncate -s 0 /mnt/f")
    assert guest.run(f"{UPDATE} 1 /mnt/f", check=False).returncode == 1
    assert guest.output(f"{LVM2} list --region --noheadings -o region_id d") == "1"


def test_f11_a_look_writes_what_waits_in_memory(guest, mounted):
    guest.run("echo 6000 > /proc/sys/vm/dirty_writeback_centisecs")
    guest.run(f"dd if=/dev/urandom of=/mnt/f bs=64k count=4 status=none && {CREATE}")
    guest.run("echo 500 > /proc/sys/vm/dirty_writeback_centisecs")
    assert places(guest, "/mnt/f")


def test_f13_an_update_fails_when_somebody_has_deleted_a_region(guest, mounted):
    without_foreign_ones(guest)
    fragmented(guest, "/mnt/f", 6)
    guest.run(f"{CREATE} && dmsetup message d 0 @stats_delete 4 && fallocate -p -o 20k -l 4k /mnt/f && sync")
    assert guest.run(f"{UPDATE} 0 /mnt/f", check=False).returncode != 0


def test_f17_counts_are_lost_where_an_extent_changes(guest, mounted):
    without_foreign_ones(guest)
    guest.run("dd if=/dev/urandom of=/mnt/f bs=4k count=16 status=none && fallocate -p -o 32k -l 4k /mnt/f && sync")
    guest.run(f"{CREATE} && dd if=/mnt/f of=/dev/null bs=32k iflag=direct status=none")
    guest.run(f"fallocate -p -o 60k -l 4k /mnt/f && sync && {UPDATE} 0 /mnt/f")
    # 15 blocks were read; those of the second piece are forgotten.
    assert guest.output(f"{LVM2} report --group --noheadings -o read_sector_count d") == "64"
