# SPDX-License-Identifier: GPL-2.0
"""Rows: what `interpose` costs, those who use it and those who do not."""

import contextlib
import fcntl
import os
import pathlib
import subprocess
import time

import measure
from row import (
    NOTHING,
    Row,
    at_most_above,
)

MIBS = 64
SECTORS = MIBS * measure.SECTORS_PER_MIB
RANDOM = f"--bs=4k --number_ios=20000 --size={MIBS}m"
STOPS = 5
# Of linux/fs.h.
FIFREEZE, FITHAW = 0xC0045877, 0xC0045878


def random_read(path):
    """Instructions of a read of 4 KiB."""
    return measure.latency(path, "randread", RANDOM)


@contextlib.contextmanager
def low(disk):
    """An `interpose` device."""
    device = measure.mapped("low", SECTORS, "interpose", disk)
    yield device
    device.remove()


def wait_for_one_hook():
    """Until what was submitted before an attach is not looked for any more."""
    functions = pathlib.Path("/sys/kernel/tracing/enabled_functions")
    while "__submit_bio" in functions.read_text().split():
        time.sleep(0.01)


@contextlib.contextmanager
def attached(disk):
    """A linear device attached to a disk, by way of an `interpose` device."""
    with low(disk) as bottom:
        top = measure.mapped("top", SECTORS, "linear", f"{bottom.path} 0")
        bottom.message(f"attach {top.path} nofreeze")
        wait_for_one_hook()
        measure.settle()
        yield
        bottom.message("detach nofreeze")
        top.remove()


def disks(count):
    """Memory disks, written once."""
    paths = measure.ram(*[MIBS] * count)
    for path in paths:
        measure.fill(path, MIBS)
    return paths


def others():
    """Measures the row."""
    disk, other = disks(2)
    base = random_read(other)

    def line(name):
        measure.figure(name, "without", base)
        measure.figure(name, "ours", random_read(other))

    measure.run("/lab/load /lab/dm_interpose_rs.ko")
    line("module loaded")
    with low(disk):
        line("a device, nothing attached")
    with attached(disk):
        line("attached")
    line("attached before")


def users():
    """Measures the row."""
    (disk,) = disks(1)
    measure.run("/lab/load /lab/dm_interpose_rs.ko")

    def both(column):
        for direction in ("read", "write"):
            measure.figure(direction, column, measure.latency(path, f"rand{direction}", RANDOM))

    path = disk
    both("raw")
    first = measure.mapped("one", SECTORS, "linear", f"{disk} 0")
    second = measure.mapped("two", SECTORS, "linear", f"{first.path} 0")
    path = second.path
    both("linear × 2")
    second.remove()
    first.remove()
    path = disk
    with attached(disk):
        both("ours")


def frozen_us(where):
    """How long a file system takes to be frozen and thawed, in microseconds: the mean of some times."""
    directory = os.open(where, os.O_RDONLY)
    began = time.monotonic_ns()
    for _ in range(STOPS):
        fcntl.ioctl(directory, FIFREEZE, 0)
        fcntl.ioctl(directory, FITHAW, 0)
    took = time.monotonic_ns() - began
    os.close(directory)
    return took / STOPS / 1000


def stopped():
    """Measures the row."""
    disk = measure.null("nullb", MIBS, memory_backed=1, irqmode=2, completion_nsec=100_000, hw_queue_depth=32)
    where = pathlib.Path("/mnt/x")
    where.mkdir(parents=True, exist_ok=True)
    measure.run(f"mkfs.ext4 -q -F {disk} && mount {disk} {where} && /lab/load /lab/dm_interpose_rs.ko")
    load = subprocess.Popen(
        ["fio", "--name=load", f"--filename={where}/file", "--size=16m", "--rw=randwrite", "--bs=4k", "--direct=1",
         "--ioengine=libaio", "--iodepth=8", "--time_based", "--runtime=3600"],
        stdout=subprocess.DEVNULL,
    )
    try:
        while not (where / "file").exists() or (where / "file").stat().st_size < 16 << 20:
            time.sleep(0.01)
        measure.figure("ext4 under load", "frozen and thawed", frozen_us(where))
        took = 0
        with low(disk) as bottom:
            top = measure.mapped("top", SECTORS, "linear", f"{bottom.path} 0")
            for _ in range(STOPS):
                bottom.message(f"attach {top.path}")
                words = bottom.status().split()
                took += sum(int(words[words.index(name) + 1]) for name in ("freeze_us", "drain_us"))
                bottom.message("detach")
            top.remove()
        measure.figure("ext4 under load", "ours", took / STOPS)
    finally:
        load.kill()
        load.wait()


ROWS = [
    Row(
        "interpose-others", "4 KiB random reads of another device", "instructions for an I/O",
        ["without", "ours"],
        {
            "module loaded": at_most_above("without", 0),
            "a device, nothing attached": at_most_above("without", 40),
            "attached": at_most_above("without", 100),
            "attached before": at_most_above("without", 0),
        },
        "fio, psync, 20,000 I/Os over 64 MiB of a brd; mean completion latency, before the module is loaded and"
        " after. What is attached is linear, to a second brd.",
        others,
        page="dm-interpose-rs",
    ),
    Row(
        "interpose-users", "4 KiB random reads and writes through a top", "instructions for an I/O",
        ["raw", "linear × 2", "ours"],
        {"read": at_most_above("linear × 2", 250), "write": NOTHING},
        "As above, of the device itself: alone, by way of two linear devices, and with linear attached: the way is"
        " disk, linear, interpose, disk. The bio of the user and the two that are made of it are each traced where they"
        " are submitted, where the kernel's own code takes 35 instructions before and after ours, and at their ends,"
        " where the tracepoint takes 15: 150 of the instructions without any of ours.",
        users,
        page="dm-interpose-rs",
    ),
    Row(
        "interpose-stop", "How long an attach stops writers", "microseconds",
        ["frozen and thawed", "ours"],
        {"ext4 under load": at_most_above("frozen and thawed", 50_000)},
        "A null_blk of requests that take 100 microseconds, with an ext4 that fio writes to, 8 at a time. The mean of 5"
        " freezes of the file system alone, and of 5 attaches: the freeze, and until all that went to the disk"
        " directly has ended.",
        stopped,
        page="dm-interpose-rs",
    ),
]
