# SPDX-License-Identifier: GPL-2.0
"""Rows: what depends on the number of regions. Source and destination are dm-zero, which has any size."""

import contextlib
import pathlib
import time

import dm_ioctl
import measure
from row import (
    NOTHING,
    Row,
    at_most,
    at_most_of,
    at_most_of_line,
)

SIZES = (20, 24, 26)
STATUS_SIZES = (20, 24, 28)
STATUS_CALLS = 50
MEMORY_SIZE = 26
HUGE = 31


@contextlib.contextmanager
def devices(shift):
    """Metadata in memory, and source and destination for 2^shift regions of 4 KiB."""
    source, dest = (measure.mapped(name, 8 << shift, "zero") for name in ("source", "dest"))
    yield "/dev/ram0", dest.path, source.path
    source.remove()
    dest.remove()


def clone(names, shift, **options):
    """A clone that hydrates only by discards and writes."""
    return measure.Clone(names, 1 << shift, 8, "2 no_hydration no_discard_passdown", **options)


def opening():
    """Measures the row."""
    measure.ram(512)
    for shift in SIZES:
        for module in measure.LOADS:
            with measure.module(module), devices(shift) as names:
                for how, fresh in (("new", True), ("again", False)):
                    with clone(names, shift, fresh=fresh) as device:
                        measure.figure(f"2^{shift} regions, {how}", module, device.opening)


def discarding():
    """Measures the row."""
    measure.ram(512)
    for shift in SIZES:
        for module in measure.LOADS:
            with measure.module(module), devices(shift) as names, clone(names, shift) as device:
                mark = measure.instructions(device.discard, 0, 1 << shift << 11)
                commit = measure.instructions(device.fsync)
                measure.figure(f"2^{shift} regions, discard", module, mark)
                measure.figure(f"2^{shift} regions, then commit", module, commit)
                measure.figure(f"2^{shift} regions, both", module, mark + commit)


def status_cost(device):
    """Instructions of one status, without a commit; the script's own are in it."""
    def calls():
        for _ in range(STATUS_CALLS):
            device.status(dm_ioctl.NOFLUSH)
    # Python makes its code faster once it has run for a while.
    for _ in range(3):
        calls()
    measure.settle()
    return measure.instructions(calls) / STATUS_CALLS


def status():
    """Measures the row."""
    measure.ram(512)
    for shift in STATUS_SIZES:
        line = f"2^{shift} regions"
        with devices(shift) as names:
            linear = measure.linear(names[1], 8 << shift)
            measure.figure(line, "linear", status_cost(linear))
            linear.remove()
            for module in measure.LOADS:
                with measure.module(module), clone(names, shift) as device:
                    measure.figure(line, module, status_cost(device.device))


def memory_held(names):
    """What a clone holds, in bytes, as it goes on: what there is then that is not there when it is removed."""
    size = 1 << MEMORY_SIZE << 12
    there = {}
    with clone(names, MEMORY_SIZE) as device:
        there["new"] = measure.memory_bytes()
        device.discard(0, size // 2)
        there["half discarded, not committed"] = measure.memory_bytes()
        device.fsync()
        # One region in each MiB: changes all over the map.
        measure.fio(device.path, f"--ioengine=psync --rw=write:1m --bs=4k --offset={size // 2} --size={size // 2}"
                                 " --number_ios=4096")
        there["changes all over, not committed"] = measure.memory_bytes()
        device.discard(0, size)
        device.fsync()
        there["done"] = measure.memory_bytes()
    after = measure.memory_bytes()
    return {line: held - after for line, held in there.items()}


def memory():
    """Measures the row."""
    measure.ram(512)
    with devices(MEMORY_SIZE) as names:
        for module in measure.LOADS:
            with measure.module(module):
                # Once before, as what is used for the first time, fio and disks among it, takes memory for good.
                memory_held(names)
                for line, held in memory_held(names).items():
                    measure.figure(line, module, held * 8 / (1 << MEMORY_SIZE))


def huge():
    """Measures the row."""
    measure.ram(1024)
    with measure.module("ours"), devices(HUGE) as names:
        with clone(names, HUGE) as device:
            measure.figure("create", "ours", device.opening)
            write, fsync, _ = measure.write_fsync(device.path, f"--number_ios=1000 --size={1 << HUGE << 12}"
                                                               " --random_generator=tausworthe64 --norandommap")
            measure.figure("one write and fsync", "ours", write + fsync)
            measure.figure("status", "ours", status_cost(device.device))
        with clone(names, HUGE, fresh=False) as device:
            measure.figure("open again", "ours", device.opening)


WAKE_SECONDS = 60


def wakeups():
    """Measures the row."""
    tracing = pathlib.Path("/sys/kernel/tracing")
    measure.ram(16)
    event = tracing / "events/workqueue/workqueue_queue_work"
    (event / "filter").write_text('workqueue ~ "dm-clone*"', encoding="ascii")

    def count(action, *arguments):
        (tracing / "trace").write_text("", encoding="ascii")
        (event / "enable").write_text("1", encoding="ascii")
        action(*arguments)
        (event / "enable").write_text("0", encoding="ascii")
        lines = (tracing / "trace").read_text(encoding="ascii").splitlines()
        return sum("workqueue_queue_work:" in line for line in lines)

    def idle():
        time.sleep(WAKE_SECONDS)
        return count(time.sleep, WAKE_SECONDS) / WAKE_SECONDS

    def work(device):
        measure.fio(device.path, "--ioengine=psync --rw=randwrite --bs=4k --number_ios=100 --fsync=1")

    for module in measure.LOADS:
        with measure.module(module), devices(16) as names, clone(names, 16) as device:
            assert count(work, device) >= 50, "the trace does not show the module's work items"
            measure.figure("incomplete, hydration disabled", module, idle())
            device.discard(0, 1 << 28)
            device.fsync()
            measure.figure("complete", module, idle())


ROWS = [
    Row(
        "opening", "Opening", "instructions", ["C", "ours"],
        {f"2^{shift} regions, {how}": at_most_of("C", 0.1) for shift in SIZES for how in ("new", "again")},
        "Loading the table and resuming, by ioctl. new: the metadata is formatted. again: it is there. Metadata is"
        " brd.",
        opening,
    ),
    Row(
        "discarding", "Discarding half of the device, and committing that", "instructions", ["C", "ours"],
        {f"2^{shift} regions, {what}": bound for shift in SIZES for what, bound in (
            ("discard", NOTHING), ("then commit", NOTHING), ("both", at_most_of("C", 0.1)))},
        "BLKDISCARD of the first half, then fsync. C commits once a second, so a part of its commits is in the"
        " discard of a large device: the sum tells.",
        discarding,
    ),
    Row(
        "status", "Status", "instructions", ["linear", "C", "ours"],
        {f"2^{shift} regions": at_most_of_line(f"2^{STATUS_SIZES[0]} regions", 1.1) for shift in STATUS_SIZES},
        f"Mean of {STATUS_CALLS} ioctls without a commit, called from a Python script, whose share is the same for"
        " all: dm-linear shows it.",
        status,
    ),
    Row(
        "memory", "Memory", "bits for a region", ["C", "ours"],
        {"new": at_most(1.5), "half discarded, not committed": at_most(1.5),
         "changes all over, not committed": at_most(1.5), "done": at_most(0.01)},
        f"2^{MEMORY_SIZE} regions; by how much the vmalloc area (/proc/vmallocinfo) and slabs (SUnreclaim) shrink when"
        " it is removed.",
        memory,
    ),
    Row(
        "huge", "2^31 regions", "instructions", ["ours"],
        {"create": at_most(10_240_000_000), "open again": at_most(10_240_000_000),
         "one write and fsync": at_most(60_000), "status": NOTHING},
        "8 TiB in regions of 4 KiB, as in the rows above; the bounds are those of the rows above, 32 times as much as"
        " for 2^26 regions for what grows with them. A transaction writes six blocks for 2^26 regions. Here it is eight"
        " at least, for the tree has one more level, and what is freed has another bitmap than what is taken.",
        huge,
    ),
    Row(
        "wakeups", "Wakeups of an idle clone", "a second", ["C", "ours"],
        {"incomplete, hydration disabled": at_most(0), "complete": at_most(0)},
        f"Work items queued by the module in {WAKE_SECONDS} s of guest time, a minute after the last change.",
        wakeups,
    ),
]
