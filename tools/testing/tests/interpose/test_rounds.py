# SPDX-License-Identifier: GPL-2.0
"""Attach and detach again and again. `make test-interpose` does it a thousand times."""

import os
import pathlib

import pytest

from lab import modules

SIZE = 16
# An attach and a detach take a second or two on a busy machine: they wait for all tasks of the system.
ROUNDS = int(os.environ.get("DM_ROUNDS") or 5)
LIMIT = pytest.mark.limit(120 + 6 * ROUNDS)

# Has a callback where a live patch has one, which may change where the function goes on.
LIKE_A_LIVE_PATCH = pathlib.Path(__file__).parent / "ipmodify"

# Each is toggled all the while: a tracer of the functions where the hooks are, probes there, and that one.
TOGGLES = """
    cd /sys/kernel/tracing
    echo submit_bio_noacct > set_ftrace_filter; echo __submit_bio >> set_ftrace_filter
    echo 'p:lab_first submit_bio_noacct' > kprobe_events
    echo 'p:lab_second __submit_bio' >> kprobe_events
    until [ -e /tmp/toggle.stop ]; do
        echo function > current_tracer; echo 1 > events/kprobes/enable; insmod {0} || exit 1
        [ $(cat /sys/module/lab_ipmodify/parameters/calls) = 0 ] || touch /tmp/toggle.called
        echo nop > current_tracer; echo 0 > events/kprobes/enable; rmmod lab_ipmodify || exit 1
        echo $((++n)) > /tmp/toggle.n
    done
    echo > kprobe_events; echo > set_ftrace_filter; echo > trace"""


def attach_and_detach(guest, low, top, rounds=ROUNDS):
    """So many times, with a freeze each second time; each time some of the load goes through the top."""
    guest.run(f"""set -e
        redirected() {{ dmsetup status {low.device.name} | cut -d' ' -f7; }}
        for i in $(seq {rounds}); do
            before=$(redirected)
            dmsetup message {low.device.name} 0 attach {top} $([ $((i % 2)) = 0 ] || echo nofreeze)
            until [ $(redirected) -gt $before ]; do sleep 0.01; done
            dmsetup message {low.device.name} 0 detach $([ $((i % 2)) = 0 ] || echo nofreeze)
        done""", timeout=100 + 5 * ROUNDS)


@LIMIT
def test_under_load(interpose, disks, guest):
    """Of a file system and of a raw disk at once; half of the rounds with each."""
    disk, raw = disks.ram(SIZE, 2)
    interpose.make_fs(disk)
    low, other = interpose.low(disk), interpose.low(raw, "raw")
    tops = low.top("top"), other.top("other")
    with interpose.load("/mnt/x/file") as passes, interpose.load(raw, name="raw") as raws:
        attach_and_detach(guest, low, tops[0], -(-ROUNDS // 2))
        attach_and_detach(guest, other, tops[1], -(-ROUNDS // 2))
        passes()
        raws()
    for status in (low.status(), other.status()):
        assert status.redirected > 0 and status.in_flight == 0 and status.errors == 0
    interpose.check_fs(disk)


@LIMIT
def test_beside_other_tracers(interpose, disks, guest):
    """Which come to the same functions, and go, meanwhile."""
    (disk,) = disks.ram(SIZE)
    low = interpose.low(disk)
    top = low.top("top")
    toggles = guest.start(TOGGLES.replace("{0}", modules.build(guest, LIKE_A_LIVE_PATCH)))
    try:
        with interpose.load(disk) as passes:
            guest.run("until [ -s /tmp/toggle.n ]; do sleep 0.01; done")
            attach_and_detach(guest, low, top)
            low.attach(top)
            before = low.status().redirected
            guest.run("n=$(cat /tmp/toggle.n); until [ $(cat /tmp/toggle.n) -gt $((n + 1)) ]; do sleep 0.01; done")
            passes()
            passes()
            assert low.status().redirected > before + 20
            low.detach()
    finally:
        guest.run("touch /tmp/toggle.stop")
        said = toggles.communicate()[0]
    assert toggles.returncode == 0, said
    guest.run("[ -e /tmp/toggle.called ]")


@LIMIT
def test_module_comes_and_goes(interpose, disks, guest):
    """A fifth as often, beneath a file system in use."""
    (disk,) = disks.ram(SIZE)
    interpose.make_fs(disk)
    guest.run("rmmod dm_interpose_rs")
    with interpose.load("/mnt/x/file") as passes:
        guest.run(f"""set -e
            for i in $(seq {max(2, ROUNDS // 5)}); do
                /lab/load /lab/dm_interpose_rs.ko
                dmsetup create low --table "0 {SIZE * 2048} interpose {disk}"
                dmsetup create top --table "0 {SIZE * 2048} linear /dev/mapper/low 0"
                dmsetup message low 0 attach /dev/mapper/top
                dmsetup message low 0 detach
                dmsetup remove --retry top
                dmsetup remove --retry low
                rmmod dm_interpose_rs
            done""", timeout=100 + 5 * ROUNDS)
        passes()
    interpose.check_fs(disk)
