# SPDX-License-Identifier: GPL-2.0
"""Rows: `lc` beside the raw disk, linear, and the kernel's own write cache, dm-writecache."""

import os
import time

import dm_ioctl
import measure
from row import (
    NOTHING,
    Row,
    at_least_of,
    at_most,
    at_most_of,
)

MIBS = 128
SECTORS = MIBS * measure.SECTORS_PER_MIB
# No writing back while it is measured: half of what is written to the caches stays there.
WRITECACHE = "4096 2 high_watermark 100"
LC = "4 high_watermark 100 low_watermark 100"


def flush(path):
    """Makes durable what was written."""
    handle = os.open(path, os.O_RDWR)
    os.fsync(handle)
    os.close(handle)


def load():
    """Loads both caches, and the disks."""
    measure.run("modprobe dm_writecache; /lab/load /lab/dm_lc_rs.ko")


def blank(disk):
    """Makes both caches take a disk for a new one."""
    measure.run(f"dd if=/dev/zero of={disk} bs=1M count=8 oflag=direct status=none")


def writecache(sectors, backing, cache, words=WRITECACHE):
    """The kernel's write cache, of a new cache disk."""
    blank(cache)
    return measure.mapped("wc", sectors, "writecache", f"s {backing} {cache} {words}")


def ours(sectors, backing, cache, words=LC):
    """Our cache, of a new cache disk."""
    blank(cache)
    return measure.mapped("lc", sectors, "lc", f"{backing} {cache} {words}")


def number(device, key):
    """A number of the status of an `lc` device."""
    words = device.status().split()
    return int(words[words.index(key) + 1])


def rate(path, rw, words):
    """fio's I/Os per second of guest time."""
    result = measure.fio(path, f"--ioengine=psync --rw={rw} {words}")
    return result["write" if "write" in rw else "read"]["iops"]


AROUND = "1 MiB write, with a cutoff of 512 KiB"


def speed():
    """Measures the row."""
    load()
    backing, cache = measure.ram(MIBS, MIBS)
    for disk in (backing, cache):
        measure.fill(disk, MIBS)

    def lines(column, path, device=None):
        for line, rw, words in (
            ("4 KiB random write", "randwrite", "--bs=4k --size=48m"),
            ("4 KiB random read of that", "randread", "--bs=4k --size=48m --loops=8"),
            ("4 KiB write, fsync, over that", "randwrite", "--bs=4k --size=48m --fsync=1 --number_ios=2000"),
            ("4 KiB write, fsync, new blocks", "randwrite",
             "--bs=4k --offset=64m --size=16m --fsync=1 --number_ios=2000"),
            ("1 MiB write, one behind the other", "write", "--bs=1m --offset=80m --size=32m"),
            ("512 B random write", "randwrite", "--bs=512 --offset=120m --size=4m"),
            # Where nothing was written before.
            (AROUND, "write", "--bs=1m --offset=48m --size=16m"),
        ):
            if line == AROUND and device:
                device.message("sequential_cutoff 512")
            if column != "writecache" or "512 B" not in line:
                measure.figure(line, column, rate(path, rw, words))
                flush(path)

    lines("raw", backing)
    for column, device in (
        ("linear", lambda: measure.linear(backing, SECTORS)),
        ("writecache", lambda: writecache(SECTORS, backing, cache)),
        ("ours", lambda: ours(SECTORS, backing, cache)),
    ):
        device = device()
        lines(column, device.path, device if column == "ours" else None)
        device.remove()


def sectors_written(device):
    """What was written to a device so far."""
    with open(f"/sys/class/block/{os.path.basename(device)}/stat", encoding="ascii") as stat:
        return int(stat.read().split()[6])


def written():
    """Measures the row."""
    load()
    backing, disk = measure.ram(MIBS, MIBS)
    cache = measure.linear(disk, SECTORS).path
    for column, make in (("writecache", writecache), ("ours", ours)):
        device = make(SECTORS, backing, cache)
        for line, words in (
            ("a fsync for each 4 KiB", "--bs=4k --size=16m --fsync=1 --number_ios=2000"),
            ("a fsync for 32 of them", "--bs=4k --offset=32m --size=16m --fsync=32 --number_ios=2000"),
        ):
            flush(device.path)
            before = sectors_written(cache)
            rate(device.path, "randwrite", words)
            flush(device.path)
            measure.figure(line, column, (sectors_written(cache) - before) / (2000 * 8))
        device.remove()


def together():
    """Measures the row."""
    load()
    backing, = measure.ram(MIBS)
    cache = measure.null("cache", MIBS, irqmode=2, completion_nsec=100000, cache_size=16, memory_backed=1)
    device = ours(SECTORS, backing, cache)
    for jobs in (1, 8, 32):
        before = [number(device, key) for key in ("flushes", "log_flushes")]
        rate(device.path, "randwrite", f"--bs=4k --size=32m --fsync=1 --numjobs={jobs} --number_ios=200")
        flushes, log_flushes = (number(device, key) - was for key, was in
                                zip(("flushes", "log_flushes"), before, strict=True))
        measure.figure(f"{jobs} jobs" if jobs > 1 else "1 job", "ours", log_flushes / flushes)
    device.remove()


SLOW_MIBS = 32


def slow():
    """Measures both rows of a slow disk: figures of each are told with the row's name."""
    load()
    cache = measure.ram(SLOW_MIBS)[0]
    measure.fill(cache, SLOW_MIBS)
    backing = measure.null("slow", MIBS, irqmode=2, completion_nsec=8_065_000, hw_queue_depth=1, memory_backed=1)
    result = {}
    for column, make, words in (("writecache", writecache, "4096 0"), ("ours", ours, "")):
        device = make(SECTORS, backing, cache, words)

        def write(count, path=device.path):
            words = f"--ioengine=psync --rw=randwrite --bs=4k --size={MIBS}m --number_ios={count} --norandommap"
            words += f" --randseed={count}"
            return measure.fio(path, words)["write"]

        # A quarter of the cache, then more than all of it, then what is let in when it is full.
        burst = write(2000)
        write(9000)
        steady = write(12000)
        begin = time.monotonic()
        device.message("flush")
        result[column] = {
            "a burst": burst["iops"],
            "when the cache is full": steady["iops"],
            "all is written back": time.monotonic() - begin,
            "p99.9 when the cache is full": steady["clat_ns"]["percentile"]["99.900000"] / 1e9,
        }
        device.remove()
    return result


def slow_rate():
    """Measures the row."""
    for column, lines in slow().items():
        for line in ("a burst", "when the cache is full"):
            measure.figure(line, column, lines[line])


def slow_time():
    """Measures the row."""
    for column, lines in slow().items():
        for line in ("p99.9 when the cache is full", "all is written back"):
            measure.figure(line, column, lines[line])


# GiB of cache.
SIZES = (1, 8, 64)


def opened(gib, again):
    """Our cache of such a size: of a new disk, or as it was left; and the milliseconds of load and resume."""
    if not again:
        blank("/dev/ram1")
    device = dm_ioctl.Device("lc")
    measure.settle()

    def start():
        device.load(SECTORS, "lc", f"/dev/ram0 /dev/ram1 {LC}")
        device.resume()

    return device, measure.instructions(start) / 1e6


def start():
    """Measures the row."""
    load()
    for gib in SIZES:
        # They take memory as they are written.
        measure.ram(gib * 1024, gib * 1024)
        for how, again in (("new", False), ("clean", True), ("with 32 MiB that are not written back", True)):
            device, time_taken = opened(gib, again)
            measure.figure(f"{gib} GiB, {how}", "ours", time_taken)
            if how == "clean":
                rate(device.path, "write", "--bs=1m --size=32m")
            device.remove()
        measure.run("rmmod brd")


def memory():
    """Measures the row."""
    load()
    for gib in SIZES:
        measure.ram(gib * 1024, gib * 1024)
        before = measure.memory_bytes()
        device, _ = opened(gib, False)
        measure.figure(f"{gib} GiB, by the status", "ours", int(device.status().split()[14]) / gib / measure.MIB)
        measure.figure(f"{gib} GiB, by the kernel", "ours", (measure.memory_bytes() - before) / gib / measure.MIB)
        device.remove()
        measure.run("rmmod brd")


ROWS = [
    Row(
        "lc-speed", "I/Os over a memory disk", "I/Os per second",
        ["raw", "linear", "writecache", "ours"],
        {
            "4 KiB random write": at_least_of("writecache", 1.0),
            "4 KiB random read of that": at_least_of("linear", 0.97),
            "4 KiB write, fsync, over that": NOTHING,
            "4 KiB write, fsync, new blocks": at_least_of("writecache", 1.2),
            "1 MiB write, one behind the other": at_least_of("writecache", 0.9),
            "512 B random write": at_least_of("raw", 0.45),
            AROUND: at_least_of("linear", 0.9),
        },
        "fio, psync, over 128 MiB of a brd, with another as cache; neither cache writes back meanwhile. Each line"
        " follows the one before, on the same device. dm-writecache has no blocks of 512 B. The last line is written"
        " where nothing was before; ``sequential_cutoff`` is ours. What goes through the log is copied first, then has"
        " its checksum made, of what nobody can change any more. That copy is 1,620 instructions for 4 KiB, the"
        " checksum 734, and all of the module's own 938 (338 in a write of 1 MiB): without these last there would be"
        " 84,500 random writes in a second, and 758 of 1 MiB (make profile). No log with checksums can meet these two"
        " bounds, nor that of the burst: dm-writecache takes 570 instructions more for a random write than a linear"
        " device does, and to look at each word of 4 KiB takes 512; the disk itself with nothing but the checksum"
        " would take 813,000 for 1 MiB, of 799,000 that are wanted.",
        speed,
        page="dm-lc-rs",
    ),
    Row(
        "lc-written", "What is written to the cache device", "bytes for each byte of the user's",
        ["writecache", "ours"],
        {"a fsync for each 4 KiB": at_most(2.0), "a fsync for 32 of them": at_most_of("writecache", 1.0)},
        "fio, psync, 2,000 random writes of 4 KiB to new blocks; the sectors that the kernel counted on a linear"
        " device below the cache.",
        written,
        page="dm-lc-rs",
    ),
    Row(
        "lc-together", "Flushes that share one", "flushes of the cache device for each of a user's",
        ["ours"],
        {"1 job": NOTHING, "8 jobs": NOTHING, "32 jobs": at_most(0.125)},
        "fio, psync, 4 KiB random writes, each with a fsync, by several jobs at a time; the cache device is a null_blk"
        " that takes 0.1 ms.",
        together,
        page="dm-lc-rs",
    ),
    Row(
        "lc-slow-rate", "Writes to a slow disk", "I/Os per second",
        ["writecache", "ours"],
        {"a burst": at_least_of("writecache", 1.0), "when the cache is full": at_least_of("writecache", 1.2)},
        f"fio, psync, 4 KiB random writes over {MIBS} MiB of a null_blk that takes 8.065 ms for each I/O, one at a"
        f" time, with {SLOW_MIBS} MiB of brd as cache, and the defaults of both: 2,000 of them, 9,000, and another"
        " 12,000. A burst waits for no disk: it is the random write from above.",
        slow_rate,
        page="dm-lc-rs",
    ),
    Row(
        "lc-slow-time", "What has to be waited for", "seconds",
        ["writecache", "ours"],
        {
            "p99.9 when the cache is full": at_most(32),
            "all is written back": at_most_of("writecache", 1.0),
        },
        "As above; and the message ``flush`` afterwards. A batch of the writeback has up to 2,016 blocks of 4 KiB,"
        " and their neighbours: 16 s if no two of them are. Twice that is wanted of the longest waits.",
        slow_time,
        page="dm-lc-rs",
    ),
    Row(
        "lc-start", "Starting", "milliseconds of a CPU that runs an instruction in a nanosecond",
        ["ours"],
        {f"{gib} GiB, {how}": at_most(200) if how == "clean" else NOTHING
         for gib in SIZES for how in ("new", "clean", "with 32 MiB that are not written back")},
        "Loading the table and resuming, by ioctl, with a cache of that size: of a disk of zeroes, of one that was"
        " removed with everything written back, and of one that was not. brd.",
        start,
        page="dm-lc-rs",
    ),
    Row(
        "lc-memory", "Memory", "MiB for a GiB of cache",
        ["ours"],
        {f"{gib} GiB, {how}": at_most(10) if gib == SIZES[-1] else NOTHING
         for gib in SIZES for how in ("by the status", "by the kernel")},
        "What the status says, and by how much the vmalloc area (/proc/vmallocinfo) and slabs (SUnreclaim) grow."
        " Buffers are a part of it that does not grow with the cache; the kernel rounds large pieces up to 2 MiB.",
        memory,
        page="dm-lc-rs",
    ),
]
