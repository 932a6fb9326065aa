# SPDX-License-Identifier: GPL-2.0
"""Targets as tops of a file system in use: it is written and checked all the while."""

import contextlib

import pytest

from lab import modules

SIZE = 32


@pytest.fixture
def mounted(interpose, disks):
    """A memory disk with a file system, an `interpose` device on it, and two more disks."""
    disk, spare, other = disks.ram(SIZE, 3)
    interpose.make_fs(disk)
    return interpose.low(disk), spare, other


def test_one_after_the_other(interpose, mounted, dm, guest):
    """Tops that keep nothing for themselves, changed by attach, by switch, and by a new table of the top."""
    low, spare, other = mounted
    guest.run(f"dd if=/dev/zero of={spare} bs=4k count=4 oflag=direct status=none")

    def attach(top, passes):
        before = low.status().redirected
        low.attach(top)
        passes()
        passes()
        status = low.status()
        assert status.redirected > before + 20 and status.errors == 0 and status.top == interpose.number(top)
        low.detach()

    with interpose.load("/mnt/x/file") as passes:
        # The `interpose` device as its own top: nothing is between, everything is tried.
        attach(low, passes)
        tops = [
            low.top("flakey", "flakey", after="0 60 0"),
            low.top("era", "era", before=spare, after="128"),
            dm.create("log", f"0 {low.sectors} log-writes {low} {other}"),
        ]
        for top in tops:
            attach(top, passes)
        low.attach(tops[1])
        for top in (tops[0], tops[1], tops[0]):
            low.switch(top)
            assert low.status().top == interpose.number(top)
        for table in (f"0 {low.sectors} linear {low} 0", f"0 {low.sectors} flakey {low} 0 60 0") * 2:
            tops[0].reload(table)
        passes()
        assert low.status().errors == 0
        low.detach()
    interpose.check_fs(low.disk)
    # The log has an entry for each write.
    assert int(tops[2].status()[0].args[0]) > 20


def test_failing_tops(interpose, mounted, guest):
    """The file system gets the errors, and is as it was when the top has gone."""
    low, *_ = mounted
    guest.run("echo data > /mnt/x/kept; sync")
    low.attach(low.top("flakey", "flakey", after="0 0 60 1 error_writes"))
    guest.run("! dd if=/dev/zero of=/mnt/x/file bs=4k count=4 oflag=direct status=none")
    assert low.status().errors > 0
    # What is written to make it consistent fails as well.
    low.detach("nofreeze")
    guest.run("umount /mnt/x; e2fsck -fp /dev/ram0; mount /dev/ram0 /mnt/x && grep data /mnt/x/kept")
    interpose.check_fs(low.disk)
    # A table that is replaced by one that fails, and put back.
    before = low.status().errors
    top = low.top("top")
    low.attach(top)
    top.reload(f"0 {low.sectors} error")
    guest.run(f"! dd if={low.disk} of=/dev/null bs=4k count=1 iflag=direct status=none")
    top.reload(f"0 {low.sectors} linear {low} 0")
    guest.run(f"dd if={low.disk} of=/dev/null bs=4k count=1 iflag=direct status=none")
    assert low.status().errors == before + 1
    low.detach()
    # A discard for a top without discards ends before it gets there, and nothing stays in flight. The block
    # layer does not tell: a discard is a hint.
    guest.run(f"blkdiscard -f {low.disk} -l 65536")
    low.attach(low.top("origin", "snapshot-origin", after=""))
    guest.run(f"blkdiscard -f {low.disk} -l 65536")
    status = low.status()
    assert status.errors == before + 2 and status.in_flight == 0
    low.detach()
    guest.run(f"blkdiscard -f {low.disk} -l 65536")


def test_era_knows_what_was_written(interpose, guest, disks):
    """Blocks that are written while it is attached, and no others."""
    disk, spare = disks.ram(SIZE, 2)
    low = interpose.low(disk)
    guest.run(f"dd if=/dev/zero of={spare} bs=4k count=4 oflag=direct status=none")
    era = low.top("era", "era", before=spare, after="128")
    low.attach(era)
    guest.run(f"""set -e
        dmsetup message era 0 checkpoint
        dd if=/dev/urandom of={low.disk} bs=64k seek=5 count=2 oflag=direct status=none
        dmsetup message era 0 take_metadata_snap""")
    snapshot = era.status()[0].args[3]
    changed = guest.output(f"era_invalidate --metadata-snapshot {snapshot} --written-since 1 {spare}")
    assert '<range begin="5" end="7"/>' in " ".join(changed.split()), changed
    guest.run("dmsetup message era 0 drop_metadata_snap")
    low.detach()


def test_delay(interpose, guest, disks):
    """What is in flight in a slow top when it is detached is waited for."""
    low = interpose.low(disks.ram(SIZE)[0])
    top = low.top("top", "delay", after=f"0 0 {low} 0 3000")
    low.attach(top)
    writer = guest.start(f"dd if=/dev/zero of={low.disk} bs=4k count=1 oflag=direct")
    guest.run("until dmsetup status low | grep -q 'in_flight 1 '; do sleep 0.01; done")
    low.detach()
    assert writer.wait() == 0


def test_clone_on_the_fly(interpose, guest, dm, disks):
    """A disk that has the data of another at once, and really when it is hydrated."""
    disk, source, metadata = disks.ram(8, 3)
    modules.load(guest, "dm_clone_rs")
    guest.run(f"dd if=/dev/urandom of={source} bs=1M count=8 oflag=direct status=none")
    low = interpose.low(disk)
    top = dm.create("top", f"0 {low.sectors} clone {metadata} {low} {source} 128 1 no_hydration")
    low.attach(top)
    interpose.same(disk, source)
    with interpose.load(disk) as passes:
        top.message("enable_hydration")
        passes()
        top.wait_until(lambda status: status.args[3] == "128/128")
        low.detach()
        passes()
    # Behind what the load has written.
    guest.run(f"cmp -i 1M {disk} {source}")


def test_polled_and_impatient_users(interpose, disks, guest):
    """io_uring that polls, and reads that must not wait, while tops come and go."""
    disk = disks.null("nullb", 32, irqmode=2, completion_nsec=20000, submit_queues=2, poll_queues=1)
    # Such a disk allocates for what is new where it must not sleep, if it is polled.
    guest.run(f"dd if=/dev/zero of={disk} bs=1M count=4 oflag=direct status=none")
    low = interpose.low(disk)
    top = low.top("top", "flakey", after="0 60 0")
    with contextlib.ExitStack() as loads:
        for name, words in {
            "polled": "--hipri=1",
            "nowait": "--nowait=1",
            "fixed": "--fixedbufs=1",
        }.items():
            loads.enter_context(interpose.load(
                disk, name=name, words=["--ioengine=io_uring", words, "--iodepth=4"]
            ))
        for _ in range(4):
            low.attach(top)
            low.detach("nofreeze")
    assert low.status().errors == 0


def test_cgroup_is_charged_for_the_device_that_a_bio_is_led_to(interpose, guest, disks, cgroup):
    """As if its user had written to the top: its limits hold, and its bytes are counted for that device."""
    (disk,) = disks.ram(8)
    low = interpose.low(disk)
    top = low.top("top")
    low.attach(top)
    guest.run(f"sh -c 'echo $$ > {cgroup}/cgroup.procs; exec dd if=/dev/zero of={disk} bs=64k count=4 oflag=direct'")
    lines = guest.output(f"cat {cgroup}/io.stat").splitlines()
    written = {line.split()[0]: line.split()[2] for line in lines if "wbytes" in line}
    assert written[interpose.number(top)] == "wbytes=262144", lines
    # By the top's target, and not twice.
    assert written[interpose.number(disk)] == "wbytes=262144", lines
    low.detach()
