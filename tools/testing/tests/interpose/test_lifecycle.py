# SPDX-License-Identifier: GPL-2.0
"""Attach and detach again and again, and all that may come between."""

import os

import pytest

SIZE = 32
# An attach and a detach take a second or two on a busy machine: they wait for all tasks of the system.
ROUNDS = int(os.environ.get("DM_ROUNDS") or 8)


@pytest.fixture
def mounted(interpose, disks):
    """A memory disk with a file system, and an `interpose` device on it."""
    (disk,) = disks.ram(SIZE)
    interpose.make_fs(disk)
    return interpose.low(disk)


@pytest.mark.limit(120 + 6 * ROUNDS)
def test_attach_and_detach_many_times_under_load(interpose, mounted, guest):
    top = mounted.top("top")
    with interpose.load("/mnt/x/file") as passes, interpose.load("/mnt/x/raw", name="other"):
        guest.run(f"""set -e
            for i in $(seq {ROUNDS}); do
                dmsetup message low 0 attach {top}
                dmsetup message low 0 detach $([ $((i % 2)) = 0 ] || echo nofreeze)
            done""", timeout=100 + 5 * ROUNDS)
        passes()
    status = mounted.status()
    assert status.redirected > 0 and status.in_flight == 0 and status.errors == 0
    interpose.check_fs(mounted.disk)


def test_module_comes_and_goes_under_load(interpose, disks, guest):
    (disk,) = disks.ram(SIZE)
    interpose.make_fs(disk)
    guest.run("rmmod dm_interpose_rs")
    with interpose.load("/mnt/x/file") as passes:
        guest.run(f"""set -e
            for i in 1 2 3; do
                /lab/load /lab/dm_interpose_rs.ko
                dmsetup create low --table "0 {SIZE * 2048} interpose {disk}"
                dmsetup create top --table "0 {SIZE * 2048} linear /dev/mapper/low 0"
                dmsetup message low 0 attach /dev/mapper/top
                dmsetup message low 0 detach
                dmsetup remove --retry top
                dmsetup remove --retry low
                rmmod dm_interpose_rs
            done""", timeout=100)
        passes()
    interpose.check_fs(disk)


def test_new_table_keeps_what_is_attached(interpose, mounted):
    """Of the `interpose` device, while it is used."""
    top = mounted.top("top")
    with interpose.load("/mnt/x/file") as passes:
        mounted.attach(top)
        for _ in range(3):
            mounted.device.reload(f"0 {mounted.sectors} interpose {mounted.disk}")
            assert mounted.status().state == "attached"
        passes()
        mounted.detach()
    interpose.check_fs(mounted.disk)


def test_replaced_table_detaches(interpose, mounted, guest):
    """What `dmsetup remove --force` begins with: users go on with the original."""
    top = mounted.top("top")
    where = guest.console_size()
    with interpose.load("/mnt/x/file") as passes:
        mounted.attach(top)
        passes()
    mounted.device.reload(f"0 {mounted.sectors} error")
    assert guest.wait_for_console("its last table is gone", where, 10)
    with interpose.load("/mnt/x/file") as passes:
        passes()
    top.remove()
    mounted.device.remove()
    guest.run("rmmod dm_interpose_rs")
    interpose.check_fs(mounted.disk)


def test_forced_removal_of_all(mounted, guest):
    """`dmsetup remove_all --force` with something attached, nothing in flight."""
    mounted.attach(mounted.top("top"))
    guest.run("dmsetup remove_all --force; dmsetup remove_all; [ \"$(dmsetup ls)\" = 'No devices found' ]")
    guest.run("echo still > /mnt/x/file && sync && rmmod dm_interpose_rs && umount /mnt/x && e2fsck -fn /dev/ram0")


def test_suspended_top_is_waited_for(interpose, mounted, guest):
    """A detach that cannot end says so, does not come back, and ends by itself."""
    guest.run("umount /mnt/x")
    top = mounted.top("top")
    mounted.attach(top)
    guest.run("dmsetup suspend --nolockfs --noflush top")
    reader = guest.start(f"dd if={mounted.disk} of=/dev/null bs=4k count=1 iflag=direct")
    guest.run("until dmsetup status low | grep -q 'in_flight 1 '; do :; done")
    errno, reason = mounted.refuse("detach")
    assert errno == "Connection timed out" and "in flight after 10 s" in reason
    assert mounted.status().state == "detaching"
    # What is new goes to the original.
    guest.run(f"dd if={mounted.disk} of=/dev/null bs=4k count=1 iflag=direct status=none")
    assert mounted.refuse("attach", top)[0] == "Device or resource busy"
    top.resume()
    mounted.device.wait_until(lambda status: status.args[0] == "idle")
    assert reader.wait() == 0
    top.remove()
    assert interpose


def test_last_table_goes_while_a_top_is_suspended(interpose, mounted, guest):
    """The module stays until its last bio has ended, and goes then."""
    guest.run("umount /mnt/x")
    top = mounted.top("top")
    mounted.attach(top)
    guest.run("dmsetup suspend --nolockfs --noflush top")
    reader = guest.start(f"dd if={mounted.disk} of=/dev/null bs=4k count=1 iflag=direct")
    guest.run("until dmsetup status low | grep -q 'in_flight 1 '; do :; done")
    mounted.device.reload(f"0 {mounted.sectors} error")
    assert guest.run("rmmod dm_interpose_rs", check=False).returncode
    guest.run("dmsetup resume top")
    assert reader.wait() != 0
    guest.run("until rmmod dm_interpose_rs 2> /dev/null; do :; done", timeout=20)
    assert interpose


def test_suspend_and_messages_at_the_same_time(interpose, mounted, guest):
    """Neither waits for the other for ever."""
    top = mounted.top("top")
    with interpose.load("/mnt/x/file") as passes:
        guest.run(f"""
            (for i in $(seq 8); do dmsetup suspend low; dmsetup resume low; done; touch /tmp/suspended) &
            until [ -e /tmp/suspended ]; do
                dmsetup message low 0 attach {top} 2> /dev/null
                dmsetup message low 0 detach 2> /dev/null
            done
            wait
            dmsetup message low 0 detach 2> /dev/null; rm /tmp/suspended""", timeout=100, check=False)
        passes()
    assert mounted.status().state == "idle"
    interpose.check_fs(mounted.disk)


def test_original_vanishes(interpose, disks, guest):
    """The disk is unplugged while something is attached: its users get errors, everything can be removed."""
    disk = disks.null("nullb", SIZE)
    low = interpose.low(disk)
    top = low.top("top")
    low.attach(top)
    guest.run(f"dd if=/dev/zero of={disk} bs=4k count=4 oflag=direct status=none")
    holder = guest.start(f"exec 3< {disk}; read line; [ $(dd bs=4k count=1 iflag=direct <&3 | wc -c) = 0 ]")
    guest.run("echo 0 > /sys/kernel/config/nullb/nullb/power")
    holder.communicate("now\n")
    assert holder.returncode == 0
    low.send("detach", "nofreeze")
    assert low.status().state == "idle"
    top.remove()
    low.device.remove()
    guest.run("rmmod dm_interpose_rs")


def test_frozen_file_system(interpose, mounted, guest):
    """One that is frozen already stays so."""
    top = mounted.top("top")
    guest.run("fsfreeze -f /mnt/x")
    mounted.attach(top)
    writer = guest.start("echo word > /mnt/x/word; echo written")
    mounted.detach()
    guest.run("fsfreeze -u /mnt/x")
    assert writer.communicate()[0] == "written\n"
    guest.run("grep word /mnt/x/word")
    assert interpose


def test_removal_after_an_attach_with_snapshot_origin(interpose, mounted, guest):
    """The sequence that once ended in a BUG of bio_split: an origin without snapshots."""
    origin = mounted.top("origin", "snapshot-origin", after="")
    with interpose.load("/mnt/x/file") as passes:
        mounted.attach(origin)
        passes()
        origin.suspend()
        origin.resume()
        guest.run("fsfreeze -f /mnt/x; fsfreeze -u /mnt/x")
        passes()
        mounted.detach()
    origin.remove()
    mounted.device.remove()
    guest.run("rmmod dm_interpose_rs")
    interpose.check_fs(mounted.disk)
