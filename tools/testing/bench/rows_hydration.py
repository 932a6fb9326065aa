# SPDX-License-Identifier: GPL-2.0
"""Rows: background copies."""

import json
import subprocess
import time

import measure
from row import (
    NOTHING,
    Row,
    at_least_of_line,
    at_most,
    at_most_of_line,
)

IDLE_MIBS = 256
REGION_SECTORS = {"4 KiB": 8, "64 KiB": 128, "1 MiB": 2048}
PAGES = IDLE_MIBS * 256
TUNINGS = ((16, 16), (256, 64), (1024, 256))


def idle():
    """Measures the row."""
    metadata, dest, source = measure.ram(16, IDLE_MIBS, IDLE_MIBS)
    measure.fill(dest, IDLE_MIBS)
    measure.fill(source, IDLE_MIBS)
    copy = f"dd if={source} of={dest} bs=1M iflag=direct oflag=direct status=none"
    plain = measure.instructions(measure.run, copy) / PAGES
    for size, region_sectors in REGION_SECTORS.items():
        regions = IDLE_MIBS * measure.SECTORS_PER_MIB // region_sectors

        def cost(options, regions=regions, region_sectors=region_sectors):
            devices = metadata, dest, source
            with measure.Clone(devices, regions, region_sectors, f"1 no_hydration {options}") as clone:
                return measure.instructions(clone.hydrate) / PAGES

        line = f"{size} regions"
        measure.figure(line, "dd", plain)
        with measure.module("C"):
            measure.figure(line, "C", cost(""))
            tuned = [cost(f"4 hydration_threshold {threshold} hydration_batch_size {batch}")
                     for threshold, batch in TUNINGS]
            measure.figure(line, "C tuned", min(tuned))
        with measure.module("ours"):
            measure.figure(line, "ours", cost(""))


BUSY_REGIONS = 1 << 20
BUSY_REGION_SECTORS = 128
USER_MIBS = 1024
DEPTHS = (1, 4, 16)
PERCENTILES = (50, 99)
IDLE = "idle, MiB in 10 s"
LOADED = "QD {}, MiB in 10 s"
# The depth is filled in first, then the percentile.
QUIET = "QD {}, user's p{{}} without, ms"
SHARED = "QD {}, user's p{{}} with, ms"
SECONDS = 10
WARM_UP = 2


def parallel_disk():
    """A destination that takes 4 ms for an I/O, and any number of I/Os at once."""
    sectors = BUSY_REGIONS * BUSY_REGION_SECTORS
    return measure.mapped("slow", sectors, "delay", f"{measure.zero('below', sectors)} 0 4").path


def serial_disk():
    """A destination that takes 4 ms for an I/O of up to 1280 KiB, which is Linux's default, and one at a time."""
    mib = BUSY_REGIONS * BUSY_REGION_SECTORS // measure.SECTORS_PER_MIB
    return measure.null("slow", mib, irqmode=2, completion_nsec=4_000_000, hw_queue_depth=1, max_sectors=2560)


def load(path, depth):
    """The command of a user who keeps a queue of this depth busy in what is hydrated."""
    return (f"fio --name=user --filename={path} --direct=1 --thread --ioengine=libaio --iodepth={depth}"
            f" --rw=randrw --bs=4k --size={USER_MIBS}m --time_based --runtime={SECONDS} --ramp_time={WARM_UP}"
            " --lat_percentiles=1 --clat_percentiles=0 --output-format=json")


def tell_latency(line, module, report):
    """The percentiles of fio's latency from submission on, of reads or of writes, whichever is longer, in ms."""
    job = json.loads(report[report.index("{"):])["jobs"][0]
    for percentile in PERCENTILES:
        longest = max(job[kind]["lat_ns"]["percentile"][f"{percentile}.000000"] for kind in ("read", "write"))
        measure.figure(line.format(percentile), module, longest / 1e6)


def busy(disk):
    """Measures the row of a kind of disk."""
    metadata, = measure.ram(64)
    source = measure.zero("source", BUSY_REGIONS * BUSY_REGION_SECTORS)
    devices = metadata, disk(), source
    region_mib = BUSY_REGION_SECTORS / measure.SECTORS_PER_MIB
    for module in measure.LOADS:
        with measure.module(module):
            for depth in (0, *DEPTHS):
                options = "2 no_hydration no_discard_passdown"
                with measure.Clone(devices, BUSY_REGIONS, BUSY_REGION_SECTORS, options) as clone:
                    clone.discard(0, USER_MIBS * measure.MIB)
                    clone.fsync()
                    if depth:
                        tell_latency(QUIET.format(depth), module, measure.run(load(clone.path, depth)))
                        user = subprocess.Popen(load(clone.path, depth), shell=True, text=True,
                                                stdout=subprocess.PIPE)
                    clone.device.message("enable_hydration")
                    time.sleep(WARM_UP)
                    before, _ = clone.hydrated()
                    time.sleep(SECONDS)
                    after, _ = clone.hydrated()
                    clone.device.message("disable_hydration")
                    copied = (after - before) * region_mib
                    if not depth:
                        measure.figure(IDLE, module, copied)
                        continue
                    report, _ = user.communicate()
                    measure.figure(LOADED.format(depth), module, copied)
                    tell_latency(SHARED.format(depth), module, report)


def busy_lines():
    """The lines of a row of a kind of disk."""
    lines = {IDLE: NOTHING}
    for depth in DEPTHS:
        lines[LOADED.format(depth)] = at_least_of_line(IDLE, 0.5)
        for percentile in PERCENTILES:
            quiet, shared = (line.format(depth).format(percentile) for line in (QUIET, SHARED))
            lines[quiet] = NOTHING
            lines[shared] = at_most_of_line(quiet, 2) if percentile == 99 else NOTHING
    return lines


BUSY_HOW = (
    " Regions have 64 KiB, both modules have their default settings. The user: fio, libaio, random reads and writes"
    " of 4 KiB by halves in the first GiB, which is hydrated before. Guest time: 2 s of warm-up, then 10 s. The"
    " percentile is that of the reads or of the writes, whichever is worse."
)
ROWS = [
    Row(
        "hydration-idle", "Hydration while nobody uses the clone", "instructions for 4 KiB",
        ["dd", "C", "C tuned", "ours"],
        {"4 KiB regions": at_most(5000), "64 KiB regions": at_most(5000), "1 MiB regions": at_most(5000)},
        f"{IDLE_MIBS} MiB from brd to brd, from enable_hydration to the event of completion; time in which the CPU is"
        " idle is left out. C and ours: default settings. C tuned: the best of hydration_threshold and"
        f" hydration_batch_size {', '.join(f'{a}/{b}' for a, b in TUNINGS)}. dd: bs=1M, direct.",
        idle,
    ),
    Row(
        "hydration-busy-parallel", "Hydration while the clone is in use, on a disk that works in parallel", "as named",
        ["C", "ours"], busy_lines(),
        "The destination is dm-delay over dm-zero: 4 ms for each I/O, however many there are." + BUSY_HOW,
        lambda: busy(parallel_disk),
    ),
    Row(
        "hydration-busy-serial", "Hydration while the clone is in use, on a disk that does one thing at a time",
        "as named", ["C", "ours"], busy_lines(),
        "The destination is null_blk with irqmode=2 completion_nsec=4000000 hw_queue_depth=1 max_sectors=2560: 4 ms"
        " for each I/O of up to 1280 KiB, one at a time. Both bounds can be met only just: with half of the I/Os for"
        " the copies, users' take twice as long." + BUSY_HOW,
        lambda: busy(serial_disk),
    ),
]
