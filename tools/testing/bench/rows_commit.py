# SPDX-License-Identifier: GPL-2.0
"""Rows: changes that are made durable."""

import measure
from row import (
    Row,
    at_least_of,
    at_most,
)

MIBS = 1024
SECTORS = MIBS * measure.SECTORS_PER_MIB
PAIRS = 16384
JOBS = {1: "1 job", 16: "16 jobs"}


def brd():
    """Metadata, destination and source, that answer at once."""
    return measure.ram(16, MIBS, MIBS)


def flash():
    """The same, on disks that take 100 µs for an I/O."""
    disk = {"memory_backed": 1, "irqmode": 2, "completion_nsec": 100_000, "hw_queue_depth": 64}
    return [measure.null(name, mib, **disk) for name, mib in (("meta", 16), ("dest", MIBS), ("source", MIBS))]


def pairs(path, jobs):
    """Writes of 4 KiB, each with an fsync, per second."""
    size = MIBS // jobs
    return measure.write_fsync(path, f"--numjobs={jobs} --size={size}m --offset_increment={size}m"
                                     f" --number_ios={PAIRS // jobs}")[2]


def write_fsync(disks, region_sectors):
    """Measures the row of a kind of disk."""
    devices = disks()
    linear = measure.linear(devices[1], SECTORS)
    for jobs in JOBS:
        measure.figure(JOBS[jobs], "linear", pairs(linear.path, jobs))
    linear.remove()
    options = "2 no_hydration no_discard_passdown"
    for module in measure.LOADS:
        with measure.module(module):
            for jobs in JOBS:
                with measure.Clone(devices, SECTORS // region_sectors, region_sectors, options) as clone:
                    measure.figure(JOBS[jobs], module, pairs(clone.path, jobs))
                    clone.discard(0, MIBS * measure.MIB)
                    clone.fsync()
                    measure.figure(JOBS[jobs], f"{module} hydrated", pairs(clone.path, jobs))


SIZES = (16, 20, 24, 26)


def one_change():
    """Measures the row."""
    metadata, = measure.ram(256)
    for shift in SIZES:
        sectors = 8 << shift
        source, dest = (measure.mapped(name, sectors, "zero") for name in ("source", "dest"))
        for module in measure.LOADS:
            with measure.module(module), measure.Clone(
                    (metadata, dest.path, source.path), 1 << shift, 8, "1 no_hydration") as clone:
                write, fsync, _ = measure.write_fsync(clone.path, f"--number_ios=2000 --size={sectors << 9}")
                measure.figure(f"2^{shift} regions", module, write + fsync)
        source.remove()
        dest.remove()


FSYNC_HOW = (
    " fio, psync, 16,384 random writes of 4 KiB, each with an fsync, by each job in its own part; no_hydration, so that"
    " each write hydrates a region. hydrated: the same again when all is. linear: dm-linear over the destination."
)


def write_fsync_row(name, title, how, disks, region_sectors):
    """The row of a kind of disk."""
    return Row(
        name, title, "writes with fsync in a second of guest time",
        ["linear", "C hydrated", "ours hydrated", "C", "ours"],
        {"1 job": at_least_of("C", 3), "16 jobs": at_least_of("C", 5)}, how + FSYNC_HOW,
        lambda: write_fsync(disks, region_sectors),
    )


ROWS = [
    write_fsync_row(
        "fsync-brd", "Random writes with fsync into what is not hydrated, memory disks",
        "All devices are brd of 1 GiB, regions have 4 KiB: the CPU is the limit. With 16 jobs even dm-linear, which"
        " commits nothing, is no more than 3 × C: 13,900 instructions for a write and its fsync. An fsync that waits"
        " for the commit of its group (15 of the 16 are in it) sleeps once, for which the scheduler takes 7,300: that"
        " alone leaves 2 × C. The rest of ours are 2,800 for more bios, 1,900 to copy and check blocks, 1,100 for"
        " locks and lists, and 3,000 of its own.", brd, 8,
    ),
    write_fsync_row(
        "fsync-brd-64k", "Random writes with fsync into what is not hydrated, memory disks, 64 KiB regions",
        "All devices are brd of 1 GiB, regions have 64 KiB, of which a write covers a sixteenth.", brd, 128,
    ),
    write_fsync_row(
        "fsync-flash", "Random writes with fsync into what is not hydrated, disks of 100 µs",
        "All devices are null_blk with memory, irqmode=2 and completion_nsec=100000, 64 I/Os at a time; regions have"
        " 4 KiB. The write, the blocks of the transaction and its superblock have to follow each other, which allows"
        " 3,333 in a second to one job, and 3,100 with what the CPU does for dm-linear alone. With 16 jobs the CPU is"
        " the limit, and dm-linear, which commits nothing, is less than 3 × C, and with one sleep for each fsync no"
        " more than 2.3 × C. While a commit of 8 writes is under way, the other 8 come together for the next.",
        flash, 8,
    ),
    Row(
        "one-change", "One write into an unhydrated region, and fsync", "instructions", ["C", "ours"],
        {f"2^{shift} regions": at_most(60_000) for shift in SIZES},
        "fio, psync, 2,000 random writes of 4 KiB, each with an fsync; mean latency of the write and of the fsync."
        " Regions have 4 KiB; source and destination are dm-zero, metadata is brd.",
        one_change,
    ),
]
