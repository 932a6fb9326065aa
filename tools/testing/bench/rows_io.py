# SPDX-License-Identifier: GPL-2.0
"""Rows: what users' reads and writes cost."""

import measure
from row import (
    Bound,
    Row,
    at_most_of,
)

MIBS = 128
SECTORS = MIBS * measure.SECTORS_PER_MIB
REGION_SECTORS = {"4 KiB": 8, "64 KiB": 128, "1 MiB": 2048}
RANDOM = "--bs=4k --number_ios=20000 --size=128m"
SEQUENTIAL = "--bs=1m --size=128m"


def disks():
    """Metadata, destination and source in memory, the latter two written."""
    metadata, dest, source = measure.ram(16, MIBS, MIBS)
    measure.fill(dest, MIBS)
    measure.fill(source, MIBS)
    return metadata, dest, source


def new_clone(devices, region_sectors):
    """A clone of which nothing is hydrated."""
    options = "1 no_hydration 4 hydration_threshold 256 hydration_batch_size 64"
    return measure.Clone(devices, SECTORS // region_sectors, region_sectors, options)


def on_linear(device, lines, words):
    """Figures of dm-linear for the lines that read and those that write."""
    linear = measure.linear(device, SECTORS)
    for direction in ("read", "write"):
        value = measure.latency(linear.path, direction, words)
        for line in lines:
            if line.startswith(direction):
                measure.figure(line, "linear", value)
    linear.remove()


def on_striped(devices, lines, words):
    """Figures of dm-stripe for the reads of a checkerboard: the same pieces of the same two disks."""
    for line, (direction, state, size) in lines.items():
        if (direction, state) == ("read", "checkerboard"):
            chunks = f"2 {REGION_SECTORS[size]} {devices[1]} 0 {devices[2]} 0"
            striped = measure.mapped("striped", SECTORS, "striped", chunks)
            measure.figure(line, "striped", measure.latency(striped.path, direction, words))
            striped.remove()


def hydrated_random():
    """Measures the row."""
    devices = disks()

    def both(column, path):
        for direction in ("read", "write"):
            measure.figure(direction, column, measure.latency(path, f"rand{direction}", RANDOM))

    both("raw", devices[1])
    linear = measure.linear(devices[1], SECTORS)
    both("linear", linear.path)
    linear.remove()
    for module in measure.LOADS:
        with measure.module(module), new_clone(devices, 8) as clone:
            clone.hydrate()
            both(module, clone.path)


HYDRATED = {f"{direction}, {size} regions": (direction, size)
            for direction in ("read", "write") for size in REGION_SECTORS}


def hydrated_sequential():
    """Measures the row."""
    devices = disks()
    on_linear(devices[1], HYDRATED, SEQUENTIAL)
    for module in measure.LOADS:
        for line, (direction, size) in HYDRATED.items():
            with measure.module(module), new_clone(devices, REGION_SECTORS[size]) as clone:
                clone.hydrate()
                measure.figure(line, module, measure.latency(clone.path, direction, SEQUENTIAL))


# A checkerboard of regions of 1 MiB is no different to I/O of 1 MiB.
UNHYDRATED = {f"{direction}, {state}, {size} regions": (direction, state, size)
              for direction in ("read", "write") for state in ("unhydrated", "checkerboard")
              for size in REGION_SECTORS if (state, size) != ("checkerboard", "1 MiB")}


def unhydrated_sequential():
    """Measures the row."""
    devices = disks()
    on_linear(devices[1], UNHYDRATED, SEQUENTIAL)
    on_striped(devices, UNHYDRATED, SEQUENTIAL)
    for module in measure.LOADS:
        for line, (direction, state, size) in UNHYDRATED.items():
            kib = REGION_SECTORS[size] // 2
            with measure.module(module), new_clone(devices, REGION_SECTORS[size]) as clone:
                if state == "checkerboard":
                    # Writes one region and leaves one out.
                    measure.fio(clone.path, f"--ioengine=psync --rw=write:{kib}k --bs={kib}k --size={MIBS}m"
                                            f" --io_size={MIBS // 2}m")
                    clone.fsync()
                    done, regions = clone.hydrated()
                    assert done * 2 == regions, f"{done} of {regions} regions are hydrated, not each second"
                measure.figure(line, module, measure.latency(clone.path, direction, SEQUENTIAL))

# Nothing is faster than the disk below.
FASTER = Bound(
    "≥ 1.5 × C's speed, or ≥ 0.95 × linear's",
    lambda row, line: row[line]["ours"] <= max(row[line]["C"] / 1.5, row[line]["linear"] / 0.95),
)
ROWS = [
    Row(
        "hydrated-random", "4 KiB random reads and writes, all hydrated", "instructions for an I/O",
        ["raw", "linear", "C", "ours"],
        {line: at_most_of("C", 1.001, "≤ C, within 0.1 %") for line in ("read", "write")},
        "fio, psync, 20,000 I/Os over 128 MiB; mean completion latency. Source and destination are brd, regions"
        " have 4 KiB, hydration is complete and committed.",
        hydrated_random,
    ),
    Row(
        "hydrated-sequential", "1 MiB sequential reads and writes, all hydrated", "instructions for an I/O",
        ["linear", "C", "ours"],
        {line: at_most_of("linear", 1 / 0.95, "≥ 0.95 × linear's speed") for line in HYDRATED},
        "fio, psync, 128 I/Os of 1 MiB in order; mean completion latency. brd.",
        hydrated_sequential,
    ),
    Row(
        "unhydrated-sequential", "1 MiB sequential reads and writes of what is not hydrated",
        "instructions for an I/O", ["linear", "striped", "C", "ours"],
        {line: FASTER for line in UNHYDRATED},
        "As above on a new clone with no_hydration. checkerboard: each second region was hydrated by a write"
        " before, and committed. striped: dm-stripe with regions as chunks, which reads the same pieces from the same"
        " two disks, and has nothing to look up.",
        unhydrated_sequential,
    ),
]
