# SPDX-License-Identifier: GPL-2.0
"""All that may come between an attach and a detach."""

import pytest

from lab import modules, patience
from lab.guest import Guest
from tests.scripts import run_script

SIZE = 32


@pytest.fixture
def mounted(interpose, disks):
    """A memory disk with a file system, and an `interpose` device on it."""
    (disk,) = disks.ram(SIZE)
    interpose.make_fs(disk)
    return interpose.low(disk)


def test_tables_change(interpose, mounted, guest, dm):
    """A new table with the same original keeps what is attached; any other detaches, and users go on."""
    top = mounted.top("top")
    with interpose.load("/mnt/x/file") as passes:
        mounted.attach(top)
        for _ in range(3):
            mounted.device.reload(f"0 {mounted.sectors} interpose {mounted.disk}")
            assert mounted.status().state == "attached"
        passes()
    where = guest.console_size()
    # It has no table of its own any more, and is still held by the top.
    guest.run("! dmsetup remove --force low")
    assert guest.wait_for_console("its last table is gone", where, 10)
    with interpose.load("/mnt/x/file") as passes:
        passes()
    top.remove()
    mounted.device.remove()
    low = interpose.low(mounted.disk)
    low.attach(low.top("top"))
    guest.run("dmsetup remove_all --force; dmsetup remove_all")
    assert dm.names() == []
    guest.run("rmmod dm_interpose_rs")
    interpose.check_fs(mounted.disk)


def test_next_table_finds_the_original_free(interpose, disks, guest):
    """Who comes while the last table goes waits for that, or is told whose the original is."""
    (disk,) = disks.ram(SIZE)
    low = interpose.low(disk)
    where = guest.console_size()
    guest.run(f"""
        for round in $(seq 30); do
            dmsetup remove low &
            until dmsetup create next --table '0 {low.sectors} interpose {disk}' 2> /dev/null; do :; done
            wait
            dmsetup rename next low
        done
        echo 'lab: all rounds' > /dev/kmsg""")
    assert guest.wait_for_console("lab: all rounds", where, 10)
    assert "not yet detached" not in guest.console(where)


def test_suspended_top(interpose, mounted, guest):
    """A detach that cannot end says so, does not come back, and ends by itself; the module waits for that."""
    guest.run("umount /mnt/x")
    top = mounted.top("top")

    def read_through_suspended():
        mounted.attach(top)
        top.suspend("--nolockfs", "--noflush")
        reader = guest.start(f"dd if={mounted.disk} of=/dev/null bs=4k count=1 iflag=direct")
        guest.run("until dmsetup status low | grep -q 'in_flight 1 '; do sleep 0.01; done")
        return reader

    reader = read_through_suspended()
    errno, reason = mounted.refuse("detach")
    assert errno == "Connection timed out" and "in flight after 10 s" in reason
    assert mounted.status().state == "detaching"
    # What is new goes to the original.
    guest.run(f"dd if={mounted.disk} of=/dev/null bs=4k count=1 iflag=direct status=none")
    assert mounted.refuse("attach", top)[0] == "Device or resource busy"
    top.resume()
    mounted.device.wait_until(lambda status: status.args[0] == "idle")
    assert reader.wait() == 0
    # The last table goes meanwhile.
    reader = read_through_suspended()
    mounted.device.reload(f"0 {mounted.sectors} error")
    assert guest.run("rmmod dm_interpose_rs", check=False).returncode
    guest.run("dmsetup resume top")
    assert reader.wait() != 0
    guest.run("until rmmod dm_interpose_rs 2> /dev/null; do sleep 0.01; done", timeout=20)
    assert interpose


def test_last_table_goes_while_one_leaves_and_one_is_attached(interpose, mounted, guest):
    """It waits for neither of the two; each goes when what it has has ended, and then the module can go."""
    guest.run("umount /mnt/x")
    tops = mounted.top("one"), mounted.top("two")

    def read_through_suspended(top, in_flight):
        top.suspend("--nolockfs", "--noflush")
        reader = guest.start(f"dd if={mounted.disk} of=/dev/null bs=4k count=1 iflag=direct")
        guest.run(f"until dmsetup status low | grep -q 'in_flight {in_flight} '; do sleep 0.01; done")
        return reader

    mounted.attach(tops[0])
    readers = [read_through_suspended(tops[0], 1)]
    errno, reason = mounted.refuse("switch", tops[1], "nofreeze")
    assert errno == "Connection timed out" and "in flight after 10 s" in reason
    readers.append(read_through_suspended(tops[1], 2))
    mounted.device.load(f"0 {mounted.sectors} error")
    mounted.device.suspend()
    guest.run("dmsetup resume low", timeout=20)
    # The later one first.
    for top, reader in reversed(list(zip(tops, readers, strict=True))):
        assert guest.run("rmmod dm_interpose_rs", check=False).returncode
        assert reader.poll() is None
        top.resume()
        assert reader.wait() != 0
        # It is closed by itself: this waits for the timer.
        guest.run(f"until dmsetup remove {top.name}; do sleep 0.01; done", timeout=20)
    guest.run("until rmmod dm_interpose_rs 2> /dev/null; do sleep 0.01; done", timeout=20)


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


def over_what_can_be_slow(disks, dm):
    """A disk, a linear table for it, the mapped device that has that, and one above, which is to be the original."""
    (disk,) = disks.ram(SIZE)
    linear = f"0 {SIZE * 2048} linear {disk} 0"
    slow = dm.create("slow", linear)
    original = dm.create("original", f"0 {SIZE * 2048} linear {slow} 0")
    return disk, linear, slow, original


@pytest.mark.limit(90)
def test_original_is_suspended_meanwhile(interpose, disks, dm, guest):
    """Who suspends it waits for its file system, which waits for what is held: the attach gives up."""
    disk, linear, slow, original = over_what_can_be_slow(disks, dm)
    where = interpose.make_fs(original)
    low = interpose.low(original)
    top = low.top("top")
    slow.reload(f"0 {SIZE * 2048} delay {disk} 0 0 {disk} 0 {patience.busy(2000)}")
    guest.run(f"dd if=/dev/urandom of={where}/file bs=4k count=1 status=none")
    # First it writes the file, then, while bios are held, its journal.
    suspender = guest.start("dmsetup suspend original")
    guest.run("until set -- $(dmsetup status slow) && [ $5 -gt 0 ]; do sleep 0.01; done")
    errno, reason = low.refuse("attach", top, "nofreeze")
    assert errno == "Connection timed out" and "does not finish its I/O" in reason
    assert suspender.wait() == 0
    assert low.status().state == "idle"
    slow.reload(linear)
    original.resume()
    with interpose.load(f"{where}/file") as passes:
        low.attach(top)
        passes()
        low.detach()
    interpose.check_fs(original)


@pytest.mark.limit(90)
def test_attach_is_undone_before_the_thaw(interpose, disks, dm, guest):
    """What the file system writes when it is thawed goes to the original: a cache on its way out would keep it."""
    disk, linear, slow, original = over_what_can_be_slow(disks, dm)
    interpose.make_fs(original)
    low = interpose.low(original)
    top = low.top("top")
    # Reads alone: the freeze writes.
    slow.reload(f"0 {SIZE * 2048} delay {disk} 0 {patience.busy(20_000)} {disk} 0 0")
    reader = guest.start(f"dd if={original} of=/dev/null bs=4k count=1 iflag=direct")
    guest.run("until set -- $(dmsetup status slow) && [ $4 -gt 0 ]; do sleep 0.01; done")
    errno, reason = low.refuse("attach", top)
    assert errno == "Connection timed out" and "does not finish its I/O" in reason
    status = low.status()
    assert (status.state, status.redirected) == ("idle", 0), status
    assert reader.wait() == 0, reader.stdout.read()
    slow.reload(linear)
    low.attach(top)
    low.detach()
    interpose.check_fs(original)


def test_module_goes_right_after_a_detach(interpose, disks, guest):
    """Nothing of it is left to run, whatever there was to be looked at."""
    (disk,) = disks.ram(SIZE)
    for _ in range(3):
        # The last top leaves by itself, and is asked for again at the same moment.
        low = interpose.low(disk)
        top = low.top("top")
        low.attach(top)
        top.suspend("--nolockfs", "--noflush")
        reader = guest.start(f"dd if={low.disk} of=/dev/null bs=4k count=1 iflag=direct")
        guest.run("until dmsetup status low | grep -q 'in_flight 1 '; do sleep 0.01; done")
        assert low.refuse("detach")[0] == "Connection timed out"
        run_script(guest, "interpose/leave_at_once.py", "top", "low", "dm_interpose_rs")
        assert reader.wait() == 0
        guest.run("/lab/load /lab/dm_interpose_rs.ko")


class WithMultipath(Guest):
    """It has one disk more, of a subsystem that may have several controllers: the driver counts on more paths."""

    def qemu_command(self):
        file = self.folder / "multipath.disk"
        with open(file, "wb") as disk:
            disk.truncate(8 << 20)
        return [
            *super().qemu_command(),
            "-drive", f"if=none,id=multipath,format=raw,file={file}",
            "-device", "nvme-subsys,id=several",
            "-device", "nvme,serial=multipath,subsys=several",
            "-device", "nvme-ns,drive=multipath",
        ]


def test_nvme_multipath_is_refused():
    """Such a disk's driver submits bios again when a path fails."""
    guest = WithMultipath()
    try:
        guest.boot()
        modules.load(guest, "dm_interpose_rs")
        disk = guest.output("ls /sys/block | sed -n 's/^\\(nvme[0-9]*\\)c[0-9]*\\(n[0-9]*\\)$/\\1\\2/p'").strip()
        table = f"0 $(blockdev --getsz /dev/{disk}) interpose /dev/{disk}"
        assert guest.run(f'dmsetup create low --table "{table}"', check=False).returncode
        assert guest.wait_for_console("NVMe multipath devices are not supported", 0, 10)
    finally:
        guest.close()


def test_disk_is_pulled_out_of_a_file_system_in_use(interpose, guest, nvme):
    """Its users get errors, as without all this; everything can be detached and removed."""
    disk = nvme(SIZE)
    where = interpose.make_fs(disk)
    low = interpose.low(disk)
    top = low.top("top")
    low.attach(top)
    writer = guest.start(f"while dd if=/dev/zero of={where}/file bs=4k count=16 oflag=direct 2> /dev/null; do"
                         " echo; done; echo failed")
    assert writer.stdout.readline() == "\n"
    guest.run(f"echo 1 > /sys/block/{disk.rpartition('/')[2]}/device/device/remove")
    assert writer.communicate()[0].endswith("failed\n")
    status = low.status()
    assert status.state == "attached" and status.errors > 0
    low.send("detach", "nofreeze")
    status = low.status()
    assert (status.state, status.in_flight) == ("idle", 0)
    guest.run("umount /mnt/x")
    top.remove()
    low.device.remove()
    guest.run("rmmod dm_interpose_rs")


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


def test_frozen_file_system_and_an_origin_without_snapshots(interpose, mounted, guest):
    """One that is frozen already stays so. The removal after it once ended in a BUG of bio_split."""
    origin = mounted.top("origin", "snapshot-origin", after="")
    guest.run("fsfreeze -f /mnt/x")
    mounted.attach(origin)
    writer = guest.start("echo word > /mnt/x/word; echo written")
    mounted.detach()
    guest.run("fsfreeze -u /mnt/x")
    assert writer.communicate()[0] == "written\n"
    guest.run("grep word /mnt/x/word")
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
