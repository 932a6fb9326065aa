# SPDX-License-Identifier: GPL-2.0
"""What rows measure with, in the guest: devices, the two modules, fio, and a clock of instructions."""

import contextlib
import fcntl
import json
import os
import pathlib
import re
import struct
import subprocess
import time

import dm_ioctl
from measured import measured

MIB = 1 << 20
SECTORS_PER_MIB = MIB >> 9
LOADS = {"C": "modprobe dm_clone", "ours": "/lab/load /lab/dm_clone_rs.ko"}
UNLOADS = {"C": "rmmod dm_clone", "ours": "rmmod dm_clone_rs"}
BLKDISCARD = 0x1277


def run(command):
    """Runs a shell command and returns what it wrote; a failure ends the job."""
    ran = subprocess.run(command, shell=True, text=True, check=False,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if ran.returncode:
        raise SystemExit(f"{command}\nreturned {ran.returncode}\n{ran.stdout}")
    return ran.stdout


def busy_ns():
    """For how long tasks have run since boot: each instruction is a nanosecond, idle time does not count."""
    # The kernel adds a task's time up when it leaves the CPU, which it does not if it has slept enough by then.
    time.sleep(1e-4)
    for line in pathlib.Path("/proc/schedstat").read_text(encoding="ascii").splitlines():
        if line.startswith("cpu0 "):
            return int(line.split()[7])
    raise SystemExit("/proc/schedstat: no cpu0")


def settle():
    """Lets what loading modules and making devices left to be done come to its end; costs nothing."""
    time.sleep(2)


def instructions(action, *arguments):
    """The instructions that the machine runs during action(*arguments), which may sleep."""
    with measured():
        begin = busy_ns()
        action(*arguments)
        return busy_ns() - begin


def memory_bytes():
    """What the kernel has allocated that is neither the page cache's nor a process's: vmalloc and slabs."""
    time.sleep(3)
    pages = sum(int(found) for found in re.findall(
        r"pages=(\d+)", pathlib.Path("/proc/vmallocinfo").read_text(encoding="ascii")))
    slab = re.search(r"SUnreclaim: *(\d+) kB", pathlib.Path("/proc/meminfo").read_text(encoding="ascii"))
    return pages * 4096 + int(slab[1]) * 1024


def fio(device, words):
    """Runs fio on a device with direct I/O; returns its only job's result, by fio's own names."""
    with measured():
        report = run(f"fio --name=load --filename={device} --direct=1 --thread --group_reporting --randrepeat=1"
                     f" --output-format=json {words}")
    return json.loads(report[report.index("{"):])["jobs"][0]


def latency(device, rw, words=""):
    """Mean nanoseconds of one I/O after the other; rw is read, write, randread or randwrite."""
    result = fio(device, f"--ioengine=psync --rw={rw} {words}")
    return result["write" if "write" in rw else "read"]["clat_ns"]["mean"]


def write_fsync(device, words):
    """fio's mean (write, fsync) in nanoseconds, and the pairs per second of guest time."""
    result = fio(device, f"--ioengine=psync --rw=randwrite --bs=4k --fsync=1 {words}")
    write = result["write"]
    return write["clat_ns"]["mean"], result["sync"]["lat_ns"]["mean"], write["iops"]


def ram(*mebibytes):
    """A memory disk for each size; they take memory as they are written."""
    run(f"modprobe brd rd_nr={len(mebibytes)} rd_size={max(mebibytes) * 1024}")
    return [f"/dev/ram{number}" for number in range(len(mebibytes))]


def null(name, mib, **attributes):
    """null_blk: /dev/name; attributes are those of its configfs folder."""
    run("modprobe null_blk nr_devices=0")
    folder = pathlib.Path("/sys/kernel/config/nullb", name)
    folder.mkdir()
    for attribute, value in {"size": mib, "discard": 1, **attributes, "power": 1}.items():
        (folder / attribute).write_text(f"{value}\n", encoding="ascii")
    return f"/dev/{name}"


def fill(device, mib):
    """Writes a device once, so that its memory is there."""
    run(f"dd if=/dev/zero of={device} bs=1M count={mib} oflag=direct status=none")


def mapped(name, sectors, target, words=""):
    """A device-mapper device in use."""
    device = dm_ioctl.Device(name)
    device.load(sectors, target, words)
    device.resume()
    return device


def linear(device, sectors):
    """dm-linear over the whole of a device."""
    return mapped("linear", sectors, "linear", f"{device} 0")


def zero(name, sectors):
    """A device of any size that takes no memory: reads are zeroes, writes vanish."""
    return mapped(name, sectors, "zero").path


@contextlib.contextmanager
def module(name):
    """Has the target `clone` from a module: "C" is the kernel's, "ours" this project's."""
    run(LOADS[name])
    yield
    run(UNLOADS[name])


class Clone:
    """A clone. fresh: with new metadata. Removed at the end of a `with`."""

    def __init__(self, devices, regions, region_sectors, options="", fresh=True):
        metadata, dest, source = devices
        if fresh:
            run(f"dd if=/dev/zero of={metadata} bs=4k count=1 oflag=direct status=none")
        self.sectors = regions * region_sectors
        self._words = f"{metadata} {dest} {source} {region_sectors} {options}"
        self.device = dm_ioctl.Device("clone")
        self.path = self.device.path
        settle()
        self.opening = instructions(self._open)

    def _open(self):
        self.device.load(self.sectors, "clone", self._words)
        self.device.resume()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.device.remove()

    def hydrated(self):
        """(hydrated, all) regions."""
        done, _, regions = self.device.status(dm_ioctl.NOFLUSH).split()[3].partition("/")
        return int(done), int(regions)

    def hydrate(self):
        """Copies all in the background; returns when it is complete and committed."""
        event = self.device.event()
        self.device.message("enable_hydration")
        while self.hydrated()[0] < self.hydrated()[1]:
            self.device.wait(event)
            event = self.device.event()

    def discard(self, begin, end):
        """Discards bytes begin..end: their regions count as hydrated."""
        with open(self.path, "r+b", buffering=0) as file:
            fcntl.ioctl(file, BLKDISCARD, struct.pack("=QQ", begin, end - begin))

    def fsync(self):
        """Flushes the device: all that was acknowledged becomes durable."""
        handle = os.open(self.path, os.O_RDWR)
        os.fsync(handle)
        os.close(handle)


def figure(line, column, value):
    """Tells the host one figure of the table."""
    print(f"{line}\t{column}\t{value}", flush=True)

