# SPDX-License-Identifier: GPL-2.0
"""Bios that were submitted before there was a top: the hook that catches them, and how long it stays."""

import pathlib

from lab import modules, patience
from tests.interpose.rig import ENTRY, SECOND


def test_second_hook_is_for_a_moment(interpose, guest, disks):
    """As long as something may come that was submitted before; a switch needs none."""
    (disk,) = disks.ram(8)
    low = interpose.low(disk)
    tops = low.top("one"), low.top("two")
    with interpose.load(disk) as passes:
        for words in ([], ["nofreeze"]):
            low.attach(tops[0], *words)
            interpose.wait_for_one_hook()
            low.switch(tops[1], *words)
            assert interpose.hooks() == {ENTRY}
            passes()
            low.detach(*words)
            assert not interpose.hooks()
    assert low.status().errors == 0


def test_second_hook_stays_where_a_throttle_may_keep_bios(interpose, guest, disks, cgroup):
    """Nobody tells how many it has: as long as something is attached to a disk that has ever had a limit."""
    one, other = disks.null("one", 8), disks.null("other", 8)
    lows = interpose.low(one, "low1"), interpose.low(other, "low2")
    for number, low in enumerate(lows):
        low.attach(low.top(f"top{number}"))
    interpose.wait_for_one_hook()
    lows[0].detach()
    guest.run(f"echo '{interpose.number(one)} wiops=8' > {cgroup}/io.max")
    lows[0].attach("/dev/mapper/top0")
    # The other's moment comes and goes meanwhile.
    lows[1].detach()
    lows[1].attach("/dev/mapper/top1")
    guest.run("sleep 0.5")
    assert interpose.hooks() == {ENTRY, SECOND}
    lows[1].detach()
    lows[0].detach()
    assert not interpose.hooks()


def test_what_waits_in_the_list_of_a_thread(snapshots, interpose, guest, dm, disks):
    """A thread discards on two disks at once, and sleeps before it hands the second part on to the original."""
    seconds = patience.busy(10)
    busy = disks.null("busy", 8, irqmode=2, completion_nsec=seconds * 10**9, hw_queue_depth=1, submit_queues=1)
    disk, store = disks.ram(8, 2)
    stripes = dm.create("stripes", f"0 {16 * 2048} striped 2 8 {busy} 0 {disk} 0")
    low = interpose.low(disk)
    snapshots.make(low, store)
    guest.run(f"""set -e
        dd if=/dev/urandom of={disk} bs=1M count=8 oflag=direct status=none
        echo none > /sys/block/busy/queue/scheduler
        echo {2000 * seconds} > /sys/block/busy/queue/io_timeout""")
    # It has the only request of the busy disk.
    blocker = guest.start(f"dd if=/dev/zero of={busy} bs=4k count=1 oflag=direct")
    guest.run("until [ $(cat /sys/block/busy/inflight | xargs | cut -d' ' -f2) = 1 ]; do sleep 0.01; done")
    discard = guest.start(f"echo $$ > /tmp/discard; exec blkdiscard -f -l 64k {stripes}")
    guest.run("until [ -s /tmp/discard ] && grep -q blk_mq_get_tag /proc/$(cat /tmp/discard)/wchan;"
              " do sleep 0.01; done")
    low.attach("/dev/mapper/origin", "nofreeze")
    before = snapshots.content()
    # As long as it sleeps.
    assert interpose.hooks() == {ENTRY, SECOND}
    assert blocker.wait() == 0, blocker.stdout.read()
    discard.wait()
    assert low.status().stragglers > 0
    assert snapshots.content() == before
    interpose.wait_for_one_hook()
    low.detach("nofreeze")


def test_what_waits_before_a_frozen_queue(interpose, guest, disks):
    """Is past both hooks, and counted nowhere: as long as somebody else has the queue frozen, an attach waits."""
    disk = disks.null("nullb", 8)
    low = interpose.low(disk)
    top = low.top("top")
    with modules.inserted(guest, pathlib.Path(__file__).parent / "frozen", f"disk={disk}"):
        writer = guest.start(f"echo $$ > /tmp/writer; exec dd if=/dev/zero of={disk} bs=4k count=1 oflag=direct")
        guest.run("until [ -s /tmp/writer ] && grep -q bio_queue_enter /proc/$(cat /tmp/writer)/wchan;"
                  " do sleep 0.01; done")
        errno, reason = low.refuse("attach", top, "nofreeze")
        assert errno == "Connection timed out" and "it is attached, but the original does not finish" in reason
        assert writer.poll() is None
    assert writer.wait() == 0, writer.stdout.read()
    # Nobody knows who else may come.
    assert low.status().state == "attached" and low.status().redirected == 0
    assert interpose.hooks() == {ENTRY, SECOND}
    low.detach("nofreeze")
    low.attach(top, "nofreeze")
    interpose.wait_for_one_hook()
    low.detach("nofreeze")


def test_what_is_written_during_an_attach_that_fails_is_not_lost(interpose, guest, disks, tops):
    """The cache has it alone: it stays attached, although somebody is in the way of what was submitted before."""
    disk = disks.null("nullb", 8)
    low = interpose.low(disk)
    top, flush = tops.make(low, "writecache")
    guest.run("yes new | dd of=/tmp/new bs=4k count=1 iflag=fullblock status=none")
    with modules.inserted(guest, pathlib.Path(__file__).parent / "frozen", f"disk={disk}"):
        writer = guest.start(
            f"echo $$ > /tmp/writer; exec dd if=/dev/zero of={disk} bs=4k seek=1 count=1 oflag=direct")
        guest.run("until [ -s /tmp/writer ] && grep -q bio_queue_enter /proc/$(cat /tmp/writer)/wchan;"
                  " do sleep 0.01; done")
        attach = guest.start(f"dmsetup message low 0 attach {top} nofreeze")
        # The first drain is over: all goes to the cache.
        guest.run("while dmsetup status low | grep -q ' drain_us 0$'; do sleep 0.01; done", timeout=30)
        guest.run(f"dd if=/tmp/new of={disk} bs=4k count=1 oflag=direct status=none", timeout=30)
        assert "Connection timed out" in attach.communicate()[0] and attach.returncode
    assert writer.wait() == 0, writer.stdout.read()
    same = f"dd if={disk} bs=4k count=1 iflag=direct status=none | cmp - /tmp/new"
    guest.run(same)
    assert low.status().state == "attached"
    flush()
    low.detach("nofreeze")
    guest.run(same)


def test_what_an_array_submits_to_itself(interpose, disks, dm, guest):
    """The first part of a discard on a partition of it, which has been led already."""
    disk = disks.mirror(16, [disks.null(name, 16) for name in ("one", "other")], "raid10")
    guest.run(f"echo '2048,16384' | sfdisk -q {disk} && /lab/settle")
    partition = f"{disk}1"
    # Who has claimed it is no file system: the second hook stays.
    dm.create("user", f"0 16384 linear {partition} 0")
    low = interpose.low(partition)
    low.attach(low.top("top"))
    assert interpose.hooks() == {ENTRY, SECOND}
    # More than two chunks, from the middle of one.
    guest.run(f"blkdiscard -f -o 4k -l 1m {partition}")
    status = low.status()
    assert status.redirected == status.bypassed > 0 and status.stragglers == status.errors == 0
    low.detach()
    disks.stop_mirror()
