# SPDX-License-Identifier: GPL-2.0
"""dmstats on files: the regions of a group are where the file is, whatever becomes of it."""

import re

import pytest

from tests.dmstats.filemaps import LOCK, LVM2, fragmented, places, regions

pytestmark = pytest.mark.any_kernel("its kernel side is in test_interop.py and test_targets.py")


def test_a44_a45_a_file_is_a_group_that_lvm2_can_read(guest, mounted):
    fragmented(guest, "/mnt/f", 12)
    said = guest.output("dmstats create --filemap --nomonitor --alias db1 /mnt/f")
    assert said == "/mnt/f: Created new group with 12 region(s) as group ID 1."
    assert regions(guest, 1) == places(guest, "/mnt/f")
    assert guest.output(f"{LVM2} list --group --noheadings -o stats_name,region_id,region_len d") == "db1:1-12:48.00k"
    assert guest.output("dmstats create --filemap --nomonitor --nogroup /mnt/f | wc -l") == "1"
    guest.run("dd if=/mnt/f of=/dev/null bs=96k iflag=direct status=none")
    assert guest.output("dmstats report --group --noheadings --units s -o read_sector_count d") == "96"
    guest.run(f"{LVM2} delete --groupid 1 d && dmstats delete --allregions d")


def test_a_link_is_the_file_that_it_leads_to(guest, mounted):
    guest.run("dd if=/dev/urandom of=/mnt/f bs=4k count=1 status=none; ln -s f /mnt/link; sync")
    for program in (LVM2, "dmstats"):
        guest.run(f"{program} create --filemap --nomonitor /mnt/link")
        assert guest.output("dmstats list --group --noheadings -o stats_name d") == "f"
        guest.run("dmstats delete --allregions d")
    assert guest.run("dmstats create --filemap --projected --nogroup /mnt/f", check=False).returncode == 1


def test_a20_a26_one_run_of_blocks_is_one_region(guest, mounted):
    guest.run("fallocate -l 8M /mnt/a && dd if=/dev/urandom of=/mnt/a bs=64k seek=8 count=1 conv=notrunc status=none")
    runs = len(places(guest, "/mnt/a"))
    said = guest.output("dmstats create --filemap --nomonitor /mnt/a")
    assert said == f"/mnt/a: Created new group with {runs} region(s) as group ID 1."
    assert regions(guest, 1) == places(guest, "/mnt/a")


def test_a27_a_file_has_as_many_sectors_in_its_regions_as_on_its_device(guest, mounted):
    guest.run("fallocate -l 1M /mnt/f && dd if=/dev/urandom of=/mnt/f bs=64k seek=7 count=1 conv=notrunc status=none; "
              "fallocate -p -o 128k -l 64k /mnt/f; sync; dmstats create --filemap --nomonitor /mnt/f")
    assert guest.output("dmstats list --group --noheadings --units s -o region_len d") == str(2048 - 128)
    assert int(guest.output("stat -c %b /mnt/f")) == 2048 - 128


def test_a21_a_group_grows_to_many_times_its_size(guest, mounted):
    fragmented(guest, "/mnt/f", 5)
    guest.run("dmstats create --filemap --nomonitor /mnt/f")
    fragmented(guest, "/mnt/f", 500, first=5)
    guest.run("dmstats update_filemap --nomonitor --perextent --groupid 1 /mnt/f")
    assert regions(guest, 1) == places(guest, "/mnt/f")
    listed = guest.output("dmstats list --region -S group_id=1 --noheadings -o region_id d").splitlines()
    assert len(listed) == 500
    assert guest.output(f"{LVM2} list --region -S group_id=1 --noheadings -o region_id d").splitlines() == listed


def test_a23_extents_end_where_they_do_however_many_are_asked_for_at_a_time(guest, mounted):
    fragmented(guest, "/mnt/f", 5000)
    said = guest.output("dmstats create --filemap --nomonitor --perextent /mnt/f")
    assert said == "/mnt/f: Created new group with 5000 region(s) as group ID 1."
    assert regions(guest, 1) == places(guest, "/mnt/f")
    guest.run("dmstats delete --groupid 1 d")


def test_b3_f17_a_file_that_grows_keeps_its_counts(guest, mounted):
    guest.run("dd if=/dev/urandom of=/mnt/f bs=64k count=1 status=none && sync")
    guest.run("dmstats create --filemap --nomonitor /mnt/f")
    guest.run("dd if=/mnt/f of=/dev/null bs=64k iflag=direct status=none")
    guest.run("dd if=/dev/urandom bs=64k count=4 status=none >> /mnt/f && sync")
    assert "Updated group ID 1 with" in guest.output("dmstats update_filemap --nomonitor --groupid 1 /mnt/f")
    assert regions(guest, 1) == places(guest, "/mnt/f")
    counted = guest.output("dmstats report --group --keep --interval 0.1 --count 1 --noheadings -o read_sector_count d")
    assert counted == "0"
    assert guest.output("dmstats report --group --noheadings -o read_sector_count d") == "128"


def test_a15_a17_b2_holes_anywhere_and_the_group_keeps_its_id(guest, mounted):
    fragmented(guest, "/mnt/f", 10)
    guest.run("dmstats create --filemap --nomonitor /mnt/f")
    # The first block of it was punched; its leader's is the second.
    for block in (9, 1):
        guest.run(f"fallocate -p -o {block * 4096} -l 4096 /mnt/f")
        guest.run("dmstats update_filemap --nomonitor --groupid 1 /mnt/f")
        assert regions(guest, 1) == places(guest, "/mnt/f")
    assert guest.output("dmstats list --group --noheadings -o region_len --units s d") == "64"
    assert guest.output("dmstats list --programid other --noheadings -o region_id,region_len d") == "0:400.00m"


def test_b6_a_file_without_blocks_has_no_group_and_that_is_no_error(guest, mounted):
    guest.run("dd if=/dev/urandom of=/mnt/f bs=64k count=2 status=none && sync")
    guest.run("dmstats create --filemap --nomonitor /mnt/f")
    guest.run("truncate -s 0 /mnt/f")
    said = guest.output("dmstats update_filemap --nomonitor --groupid 1 /mnt/f")
    assert said == "/mnt/f: Removed group ID 1: the file has no allocated extents."
    assert guest.output("dmstats list --noheadings -o region_id d") == ""


def test_a14_an_update_needs_a_group(guest, mounted):
    guest.run("dd if=/dev/urandom of=/mnt/f bs=64k count=1 status=none && sync")
    before = guest.output("dmsetup message d 0 @stats_list")
    # One that there is not, and a region that is in none.
    for group in (5, 0):
        refused = guest.run(f"dmstats update_filemap --nomonitor --groupid {group} /mnt/f", check=False)
        assert refused.returncode == 1 and f"Group ID {group} does not exist" in refused.stderr
    assert guest.output("dmsetup message d 0 @stats_list") == before


def test_a_group_of_another_program_is_not_updated(guest, mounted):
    fragmented(guest, "/mnt/f", 3)
    guest.run("dmstats create --filemap --nomonitor --programid mine /mnt/f && fallocate -p -o 4k -l 4k /mnt/f && sync")
    before = guest.output("dmsetup message d 0 @stats_list")
    refused = guest.run("dmstats update_filemap --nomonitor --groupid 1 /mnt/f", check=False)
    assert refused.returncode == 1 and "Group ID 1 does not exist" in refused.stderr
    assert guest.output("dmsetup message d 0 @stats_list") == before
    for options in ("--programid mine", "--allprograms"):
        said = guest.output(f"dmstats update_filemap --nomonitor {options} --groupid 1 /mnt/f")
        assert said.startswith("/mnt/f: Updated group ID 1 with")


def test_a_file_that_changes_while_others_are_waited_for_is_mapped_as_it_is_then(guest, mounted):
    guest.run("dd if=/dev/urandom of=/mnt/f bs=64k count=1 status=none && sync")
    guest.run("dmstats create --filemap --nomonitor /mnt/f")
    for command in ("update_filemap --groupid 1", "create --filemap"):
        guest.run(f"""
            exec 3<> {LOCK} && flock 3
            dmstats {command} --nomonitor /mnt/f 3>&- &
            until grep -q -- '->.*FLOCK' /proc/locks; do sleep 0.05; done
            dd if=/dev/urandom bs=64k count=2 status=none >> /mnt/f; sync
            exec 3>&-; wait $!""")
        group = guest.output("dmstats list --group --noheadings -o group_id d").splitlines()[-1]
        assert regions(guest, group) == places(guest, "/mnt/f")


def test_a11_files_are_followed_in_two_ways(guest, mounted):
    guest.run("echo x > /mnt/f; sync")
    for mode in ("", "Inode", "bogus"):
        refused = guest.run(f"dmstats create --filemap --follow '{mode}' /mnt/f", check=False)
        assert refused.returncode == 1 and f"Could not parse dmfilemapd mode: {mode}" in refused.stderr
    assert guest.output("dmstats list --noheadings d") == ""


def test_f13_a_region_that_somebody_deleted_comes_back(guest, mounted):
    fragmented(guest, "/mnt/f", 4)
    guest.run("dmstats create --filemap --nomonitor /mnt/f")
    guest.run(f"{LVM2} delete --regionid 3 d && dmsetup message d 0 @stats_delete 2")
    guest.run("dmstats update_filemap --nomonitor --groupid 1 /mnt/f")
    assert regions(guest, 1) == places(guest, "/mnt/f")


def test_a16_f11_blocks_without_a_place_are_left_out_and_not_written(guest, mounted):
    guest.run("echo 6000 > /proc/sys/vm/dirty_writeback_centisecs")
    guest.run("dd if=/dev/urandom of=/mnt/f bs=64k count=4 status=none")
    refused = guest.run("dmstats create --filemap --nomonitor --nosync /mnt/f", check=False)
    assert refused.returncode == 1 and "it has no allocated extents" in refused.stderr
    guest.run("echo 500 > /proc/sys/vm/dirty_writeback_centisecs; dmstats create --filemap --nomonitor /mnt/f")
    assert regions(guest, 1) == places(guest, "/mnt/f")


def test_f10_a_mapped_file_does_not_keep_its_file_system(guest, mounted):
    guest.run("dd if=/dev/urandom of=/mnt/f bs=64k count=2 status=none && sync")
    guest.run("dmstats create --filemap --nomonitor /mnt/f && umount /mnt")


def test_f18_shared_blocks_are_told(guest, dm, disks):
    device = dm.create("d", f"0 819200 linear {disks.ram(400)[0]} 0")
    guest.run(f"mkfs.xfs -q {device} && mount {device} /mnt && dd if=/dev/urandom of=/mnt/f bs=64k count=1 status=none")
    guest.run("sync && cp --reflink=always /mnt/f /mnt/g")
    said = "shares blocks with other files"
    assert said in guest.run("dmstats create --filemap --nomonitor /mnt/f").stderr
    assert said not in guest.run(f"{LVM2} create --filemap --nomonitor /mnt/f").stderr


def test_a29_a30_a31_a34_a_map_without_memory_leaves_nothing_behind(guest, mounted):
    fragmented(guest, "/mnt/f", 40)
    limit = int(guest.output("awk '/MemTotal/ { print $2 }' /proc/meminfo")) * 1024 // 4

    def room(create=None):
        if create:
            guest.run(f"dmstats create d --programid other {create}")
        return limit - int(guest.output("cat /sys/module/dm_mod/parameters/stats_current_allocated_bytes"))

    before = room()
    region = before - room("--areas 1")
    area = (before - region - room("--areas 1001") - region) // 1000
    # Others leave it room for twenty regions and a half.
    rest = 20 * region + region // 2
    while (left := room() - rest - region) > 0:
        room(f"--areas {min(800_000, left // area + 1)}")
    listed = guest.output("dmsetup message d 0 @stats_list")
    failed = guest.run("dmstats create --filemap --nomonitor -vv /mnt/f", check=False)
    assert failed.returncode == 1 and "Could not create regions from file /mnt/f." in failed.stderr
    assert re.search(r"Failed to create region 21 of 40 at \d+", failed.stderr)
    assert guest.output("dmsetup message d 0 @stats_list") == listed
    # Each region once to make it and once to remove it; who has the memory is asked for after that.
    assert int(re.search(r"(\d+) requests to the kernel", failed.stderr)[1]) <= 21 + 20 + 6


def test_b1_a21_foreign_regions_below_do_no_harm(guest, mounted):
    fragmented(guest, "/mnt/f", 5)
    guest.run("dmstats create --programid other $(yes d | head -300) > /dev/null")
    guest.run("dmstats create --filemap --nomonitor /mnt/f")
    fragmented(guest, "/mnt/g", 40)
    guest.run("dmstats delete --regionid 7 --programid other d; cat /mnt/g >> /mnt/f; sync")
    guest.run("dmstats update_filemap --nomonitor --groupid 301 /mnt/f")
    group = guest.output("dmstats list --group --noheadings -o group_id d")
    assert regions(guest, group) == places(guest, "/mnt/f")
    others = guest.output("dmstats list --region --programid other --noheadings -o region_id d").splitlines()
    assert others == [str(number) for number in range(301) if number != 7]
