# SPDX-License-Identifier: GPL-2.0
"""Rows: what `interpose` costs, those who use it and those who do not."""

import contextlib

import measure
from row import (
    NOTHING,
    Row,
    at_most_above,
)

MIBS = 64
SECTORS = MIBS * measure.SECTORS_PER_MIB
RANDOM = f"--bs=4k --number_ios=20000 --size={MIBS}m"


def random_read(path):
    """Instructions of a read of 4 KiB."""
    return measure.latency(path, "randread", RANDOM)


@contextlib.contextmanager
def low(disk):
    """An `interpose` device."""
    device = measure.mapped("low", SECTORS, "interpose", disk)
    yield device
    device.remove()


@contextlib.contextmanager
def attached(disk):
    """A linear device attached to a disk, by way of an `interpose` device."""
    with low(disk) as bottom:
        top = measure.mapped("top", SECTORS, "linear", f"{bottom.path} 0")
        bottom.message(f"attach {top.path} nofreeze")
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
        " disk, linear, interpose, disk.",
        users,
        page="dm-interpose-rs",
    ),
]
