# SPDX-License-Identifier: GPL-2.0
"""Files in many pieces: a few regions lie over them, and what is theirs is told when the counters are read."""

import json
import re

import pytest

from tests.dmstats.filemaps import LVM2, fragmented, places, regions

pytestmark = pytest.mark.any_kernel("its kernel side is in test_interop.py and test_targets.py")

REPORT = "dmstats report --group --noheadings -o read_sector_count,write_sector_count d"


def in_large_blocks(guest, device):
    """Has ext4 use blocks of 4 KiB, and groups of 128 MiB; for a disk so small it takes 1 KiB and 8 MiB."""
    guest.run(f"""[ $(findmnt -no FSTYPE /mnt) != ext4 ] ||
        (umount /mnt && mkfs.ext4 -q -b 4096 {device} && mount {device} /mnt)""")


def read(guest, path):
    guest.run(f"dd if={path} of=/dev/null bs=64k iflag=direct status=none")


def test_a_file_in_many_pieces_takes_few_regions_and_is_counted_to_the_sector(guest, mounted):
    fragmented(guest, "/mnt/f", 80)
    guest.run("dd if=/dev/urandom of=/mnt/other bs=64k count=20 status=none; sync")
    made = guest.run("dmstats create --filemap --nomonitor /mnt/f")
    pieces = len(places(guest, "/mnt/f"))
    assert pieces > 64
    said = rf"/mnt/f: {pieces} extents are counted by areas of \d+ bytes, each of them the file's or not\."
    assert re.search(said, made.stderr) and "region(s) as group ID 1" in made.stdout
    assert len(guest.output("dmstats list --region --noheadings -o region_id d").splitlines()) <= 8
    read(guest, "/mnt/f")
    read(guest, "/mnt/other")
    assert guest.output(REPORT) == f"{80 * 8}:0"
    # Its areas have no rows of their own, unless they are asked for.
    types = guest.output("dmstats report --programid dmstats --noheadings -o obj_type d").splitlines()
    assert types == ["group"]
    sizes = re.findall(r"\+(\d+) (\d+) dmstats", guest.output("dmsetup message d 0 @stats_list"))
    areas = sum(-(-int(length) // int(step)) for length, step in sizes)
    assert len(guest.output("dmstats report --area --noheadings -o area_id d").splitlines()) == areas > pieces
    # LVM2 sees a group of one region, and can delete it.
    assert guest.output(f"{LVM2} list --group --noheadings -o stats_name,region_id d").startswith("f:1")
    guest.run(f"{LVM2} delete --groupid 1 d")
    # Each extent has its region if that is wanted, or can only be that way.
    for options, count in (("--perextent", pieces), ("--nogroup", pieces)):
        guest.run(f"dmstats create --filemap --nomonitor {options} /mnt/f")
        assert len(guest.output("dmstats list --region --noheadings -o region_id d").splitlines()) == count
        guest.run("dmstats delete --allregions d")


def test_a_file_that_changes_is_counted_where_it_is_without_a_word_to_the_kernel(guest, mounted):
    # Areas will be as large as blocks, which are none of the file's then or all of it.
    in_large_blocks(guest, mounted)
    fragmented(guest, "/mnt/f", 4)
    # It has been everywhere: whatever it is given is within its regions.
    guest.run("""set -e
        fallocate -o 1M -l $(($(stat -f -c '%a * %S' /mnt) - (1 << 24))) /mnt/f
        dd if=/dev/zero bs=4k status=none >> /mnt/f 2> /dev/null || true
        sync
        dmstats create --filemap --projected --nomonitor /mnt/f
        truncate -s 32k /mnt/f
        sync""")
    before = guest.output("dmsetup message d 0 @stats_list")
    guest.run("dd if=/dev/urandom bs=4k count=10 status=none >> /mnt/f; fallocate -p -o 4k -l 4k /mnt/f; sync")
    assert guest.output(REPORT).split(":")[1] == "80"
    read(guest, "/mnt/f")
    assert guest.output(REPORT) == f"{(4 - 1 + 10) * 8}:0"
    # A name is not what it is known by.
    guest.run("mv /mnt/f /mnt/g; echo x > /mnt/f; sync")
    read(guest, "/mnt/g")
    assert guest.output(REPORT) == f"{(4 - 1 + 10) * 8}:0"
    assert guest.output("dmsetup message d 0 @stats_list") == before
    row = json.loads(guest.output("dmstats report --group --json d"))["rows"][0]
    assert row["attribution_error"] == 0 and row["alias"] == "f"
    guest.run("rm /mnt/g")
    gone = guest.run(REPORT)
    assert gone.stdout == "0:0\n" and "the file of group ID 1 has gone" in gone.stderr


def test_what_was_counted_is_kept_until_the_file_can_be_seen(guest, mounted):
    fragmented(guest, "/mnt/f", 4)
    guest.run("dmstats create --filemap --projected --nomonitor /mnt/f")
    # Written: whoever looks for a file system on the device reads there.
    guest.run("for i in 1 3 5 7; do dd if=/dev/urandom of=/mnt/f bs=4k seek=$i count=1 oflag=direct conv=notrunc"
              " status=none; done; umount /mnt")
    for words in ("", " --keep --interval 0.1 --count 1"):
        unseen = guest.run(REPORT + words)
        assert unseen.stdout == "0:0\n" and "the file of group ID 1 has gone" in unseen.stderr
    guest.run(f"mount {mounted} /mnt")
    assert guest.output(REPORT).split(":")[1] == str(4 * 8)


def test_dmfilemapd_projects_a_file_in_many_pieces_too(guest, mounted):
    fragmented(guest, "/mnt/f", 80)
    daemon = guest.start("exec dmfilemapd -v --map /mnt/f 2>&1")
    assert re.search(r"/mnt/f: [1-8] region\(s\) created, 0 removed", daemon.stdout.readline())
    read(guest, "/mnt/f")
    assert guest.output(REPORT) == f"{80 * 8}:0"
    guest.run("kill $(pidof dmfilemapd)")
    daemon.communicate()
    assert guest.output("dmstats list --noheadings -o region_id d") == ""


def test_f7_a_projected_file_that_is_cut_to_nothing_is_still_followed(guest, mounted):
    fragmented(guest, "/mnt/f", 80)
    daemon = guest.start("exec dmfilemapd -v --map /mnt/f 2>&1")
    assert "created" in daemon.stdout.readline()
    guest.run("truncate -s 0 /mnt/f")
    assert daemon.stdout.readline() == "dmfilemapd: /mnt/f: 0 region(s) created, 0 removed\n"
    # When the file has blocks again, they are counted.
    guest.run("dd if=/dev/urandom of=/mnt/f bs=32k count=1 oflag=direct status=none; sync")
    assert "created" in daemon.stdout.readline()
    read(guest, "/mnt/f")
    # Blocks of 1 KiB may have a page in common with others.
    assert int(guest.output(REPORT).split(":")[0]) > 0
    guest.run("kill $(pidof dmfilemapd)")
    daemon.communicate()
    assert guest.output("dmstats list --noheadings -o region_id d") == ""


def test_a_group_says_of_which_file_it_is_now(guest, mounted):
    fragmented(guest, "/mnt/f", 4)
    guest.run("dmstats create --filemap --projected --nomonitor --follow path /mnt/f")
    guest.run("mv /mnt/f /mnt/g; dmstats update_filemap --nomonitor --groupid 1 /mnt/g")
    word = guest.output("dmstats list --region --noheadings -o user_data d").splitlines()[0]
    assert word.startswith("FILE=path,") and word.endswith(",/mnt/g")
    read(guest, "/mnt/g")
    assert guest.output(REPORT) == f"{4 * 8}:0"


def test_a_file_that_leaves_its_regions_gets_more_and_eight_at_most(guest, mounted):
    fragmented(guest, "/mnt/f", 4)
    guest.run("dmstats create --filemap --projected --follow path /mnt/f")

    def covered():
        have = regions(guest, 1)
        return all(any(start <= at and end <= stop for start, stop in have) for at, end in places(guest, "/mnt/f"))

    # Others get places between its own: so it goes all over the file system, of which an ext4 of this size has fifty
    # groups, and there is not memory enough to count each block of it.
    most, steps = 0, 10
    for step in range(steps):
        guest.run(f"""set -e
            fallocate -o {16 * step + 1}M -l 8M /mnt/f; fallocate -l 22M /mnt/other{step}; sync /mnt/f
            dd if=/mnt/f of=/dev/null bs=64k count=1 iflag=direct status=none""")
        while not covered():
            guest.run("pidof dmfilemapd")
        most = max(most, len(guest.output("dmstats list --region --noheadings -o region_id d").splitlines()))
        # In the middle of what is new.
        guest.run(f"""set -e
            dd if=/dev/urandom of=/mnt/f bs=64k seek={16 * 16 * step + 64} count=1 conv=notrunc oflag=direct status=none
            dd if=/mnt/f of=/dev/null bs=64k skip={16 * 16 * step + 64} count=1 iflag=direct status=none""")
    assert most <= 8
    # Each time its first blocks, before there were regions for the new ones, and one of these.
    assert guest.output(REPORT) == f"{steps * (4 * 8 + 128)}:{steps * 128}"
    guest.run("rm /mnt/f; while pidof dmfilemapd > /dev/null; do sleep 0.05; done")
    assert guest.output("dmstats list --noheadings -o region_id d") == ""
