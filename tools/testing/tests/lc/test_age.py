# SPDX-License-Identifier: GPL-2.0
"""max_age_ms: what is dirty for long is written back, and nothing happens when nothing is."""

import pytest

AGE = 1500
IO = "bs=4k oflag=direct status=none conv=notrunc"


def writes(rig, blocks, flags=""):
    """Writes blocks, and returns the guest's time before, in milliseconds."""
    return int(rig.guest.output(f"date +%s%3N; dd if=/dev/urandom of=/tmp/data bs=4k count={blocks} status=none;"
                                f" dd if=/tmp/data of={rig.device} {IO}{flags}"))


def has_data(rig, blocks):
    """Compares the backing device with what was written."""
    rig.guest.run(f"dd if={rig.backing} bs=4k count={blocks} iflag=direct status=none | cmp - /tmp/data")


def is_written_back(rig, blocks):
    """Waits until everything is written back, and returns the guest's time."""
    status = rig.wait_until(lambda status: status["log_used"] == 0)
    assert status["written_back"] == blocks * 8
    now = int(rig.guest.output("date +%s%3N"))
    has_data(rig, blocks)
    return now


@pytest.mark.parametrize("words", [
    "flush_current_buffer_interval 1", "flush_current_buffer_interval 0", "prefix_consistent 1",
])
def test_what_is_old_is_written_back(rig, words):
    """Also what nobody flushed, and in the order of flushes; and nothing before its time."""
    rig.create(f"4 max_age_ms {AGE} {words}")
    for blocks in (8, 20):
        written = rig.status()["written_back"]
        begin = writes(rig, blocks, ",fsync" if "prefix" in words else "")
        rig.wait_until(lambda status, so_far=written + blocks * 8: status["written_back"] == so_far)
        assert int(rig.guest.output("date +%s%3N")) - begin >= AGE
        has_data(rig, blocks)
        assert rig.status()["log_used"] == 0


def test_what_a_start_finds_counts_from_then_on(rig):
    rig.create()
    writes(rig, 8, ",fsync")
    begin = int(rig.guest.output("date +%s%3N"))
    rig.again(f"2 max_age_ms {AGE}")
    assert is_written_back(rig, 8) - begin >= AGE


def test_is_changed_by_messages(rig):
    """A shorter age holds for what is there; with allow_migrate 0 there is none."""
    rig.create("2 max_age_ms 86400000")
    writes(rig, 8)
    rig.device.message("max_age_ms", AGE)
    assert rig.device.table()[0].args[2:] == ["2", "max_age_ms", str(AGE)]
    is_written_back(rig, 8)
    rig.device.message("allow_migrate", 0)
    rig.device.message("max_age_ms", 1)
    writes(rig, 4, ",fsync")
    rig.device.message("check")
    assert rig.status()["log_used"] > 0
    rig.device.message("allow_migrate", 1)
    rig.wait_until(lambda status: status["log_used"] == 0)


def test_clean_cache_sleeps(rig):
    """No work item of the module runs while nothing is dirty; while something is, some do."""
    rig.create(f"2 max_age_ms {AGE}")
    writes(rig, 8)
    is_written_back(rig, 8)
    guest = rig.guest
    slow = rig.dm.create("slow", f"0 8 delay {rig.backing} 0 {2 * AGE}")
    ran = "trace=/sys/kernel/tracing; event=$trace/events/workqueue/workqueue_execute_start/enable"
    ran += "; echo > $trace/trace; echo 1 > $event; {}; echo 0 > $event; grep -c dm_lc_rs $trace/trace || :"
    # The look that was to come finds nothing, and there is none after it.
    assert int(guest.output(ran.format(f"dd if={slow} of=/dev/null bs=4k count=1 iflag=direct status=none"))) <= 1
    assert int(guest.output(ran.format(f"dd if={slow} of=/dev/null bs=4k count=1 iflag=direct status=none"))) == 0
    written = rig.status()["written_back"]
    wait = f"dd if=/tmp/data of={rig.device} {IO}"
    wait += f"; until dmsetup status {rig.device} | grep -q ' log_used 0 '; do sleep 0.05; done"
    assert int(guest.output(ran.format(wait))) >= 5
    assert rig.status()["written_back"] == written + 64
