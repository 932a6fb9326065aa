# SPDX-License-Identifier: GPL-2.0
"""Rows: `dmstats` beside LVM2's program of that name, and what counting costs an I/O."""

import os
import pathlib
import re
import subprocess
import time

import measure
from measured import measured
from row import (
    NOTHING,
    Row,
    at_least_of,
    at_most,
)

PROGRAMS = {"LVM2": "/usr/sbin/dmstats", "ours": "/lab/dmstats"}
ACCOUNT = pathlib.Path("/sys/module/dm_mod/parameters/stats_current_allocated_bytes")
EXTENTS = 5000
DISK_MIB = 400


def spawn(words, out="/dev/null"):
    """Runs a program with its words, without a shell; returns its exit status."""
    opened = [(os.POSIX_SPAWN_OPEN, fd, out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600) for fd in (1, 2)]
    child = os.posix_spawn(words[0], words, os.environ, file_actions=opened)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def seconds(column, words, fails=False):
    """How long a command takes, in seconds of guest time."""
    # What the one before left to the kernel is not its own.
    measure.settle()
    with measured():
        begin = time.monotonic()
        status = spawn([PROGRAMS[column], *words.split()])
        taken = time.monotonic() - begin
    if (status != 0) != fails:
        raise SystemExit(f"{column}: {words}: {status}")
    return taken


def requests(column, words):
    """The ioctls that a command makes, by strace."""
    strace = ["/usr/bin/strace", "-f", "-o", "/tmp/strace", "-e", "trace=ioctl", PROGRAMS[column], *words.split()]
    if spawn(strace, "/tmp/said"):
        raise SystemExit(f"{column}: {words}: " + pathlib.Path("/tmp/said").read_text(encoding="utf-8"))
    return len(re.findall(r"ioctl\(\d+, (?:DM_|FS_IOC_)", pathlib.Path("/tmp/strace").read_text(encoding="ascii")))


def segments(count):
    """The device d, whose table has so many targets."""
    table = "".join(f"{8 * index} 8 zero\n" for index in range(count))
    subprocess.run(["dmsetup", "create", "d"], input=table, text=True, check=True)


def regions():
    """Measures the row."""
    segments(10_000)
    for column in PROGRAMS:
        for line, words in (
            ("create 10,000", "create --segments d"),
            ("list 10,000", "list d"),
            ("report 10,000", "report d"),
            ("delete 10,000", "delete --allregions d"),
        ):
            measure.figure(line, column, seconds(column, words))
    measure.run("dmsetup remove d")
    segments(20_000)
    seconds("ours", "create --segments d")
    measure.figure("delete 20,000", "ours", seconds("ours", "delete --allregions d"))


def fragmented(name, blocks):
    """A file on /mnt of so many blocks of 4 KiB, none beside another."""
    measure.run(f"python3 {pathlib.Path(__file__).parent}/fragmented.py /mnt/{name} {blocks}")


def mounted():
    """An ext4 on the device d, in memory."""
    disk, = measure.ram(DISK_MIB)
    measure.fill(disk, DISK_MIB)
    measure.run(f"echo 0 {DISK_MIB * 2048} linear {disk} 0 | dmsetup create d && dmsetup mknodes && "
                "mkfs.ext4 -q /dev/mapper/d && mount /dev/mapper/d /mnt")


MAP = "create --filemap --nomonitor "
# Of our program the map that is like LVM2's.
PER_EXTENT = {"LVM2": "", "ours": "--perextent "}
UPDATE = "update_filemap --nomonitor --groupid 0 /mnt/f"


def files():
    """Measures the row."""
    mounted()
    fragmented("f", EXTENTS)
    for column in PROGRAMS:
        for line, words in (
            ("map", f"{MAP}{PER_EXTENT[column]}/mnt/f"),
            ("list", "list d"),
            ("report its group", "report --group d"),
            ("update, nothing changed", UPDATE),
            ("delete", "delete --groupid 0 d"),
        ):
            measure.figure(line, column, seconds(column, words))
    for line, words in (
        ("map, projected", f"{MAP}/mnt/f"),
        ("report its group, projected", "report --group d"),
        ("update, nothing changed, projected", UPDATE),
        ("delete, projected", "delete --groupid 0 d"),
    ):
        measure.figure(line, "ours", seconds("ours", words))


def counted():
    """Measures the row."""
    segments(1000)
    for column in PROGRAMS:
        for line, words in (
            ("create 1,000 regions", "create --segments d"),
            ("list them", "list d"),
            ("report them", "report d"),
            ("delete them", "delete --allregions d"),
        ):
            measure.figure(line, column, requests(column, words))
    measure.run("dmsetup remove d")
    mounted()
    fragmented("f", EXTENTS)
    for column in PROGRAMS:
        for line, words in (
            ("map a file of 5,000 extents", f"{MAP}{PER_EXTENT[column]}/mnt/f"),
            ("update, nothing changed", UPDATE),
            ("delete that group", "delete --groupid 0 d"),
        ):
            measure.figure(line, column, requests(column, words))
    measure.figure("map it, projected", "ours", requests("ours", f"{MAP}/mnt/f"))


def rolled_back():
    """Measures the row."""
    mounted()
    fragmented("f", 309)
    measure.run("dmsetup create other --table '0 2097152 zero'")
    create = f"{PROGRAMS['ours']} create --programid other"
    measure.run(f"yes d | head -10000 | xargs -n 5000 {create} --length 8 > /dev/null")
    total = re.search(r"MemTotal: *(\d+)", pathlib.Path("/proc/meminfo").read_text(encoding="ascii"))
    limit = int(total[1]) * 1024 // 4

    def room(areas=0):
        if areas:
            measure.run(f"{create} other --areas {areas} > /dev/null")
        return limit - int(ACCOUNT.read_text(encoding="ascii"))

    # What a region takes, and each area more.
    rooms = [room(), room(1), room(1001)]
    area = (rooms[1] - rooms[2] - rooms[0] + rooms[1]) / 1000
    region = rooms[0] - rooms[1] - area
    # For 246 regions and a half.
    while (left := room() - int(246.5 * (region + area))) > region:
        room(min(1_000_000, int((left - region) / area) + 1))
    for column in PROGRAMS:
        taken = seconds(column, f"{MAP}{PER_EXTENT[column]}/mnt/f", fails=True)
        measure.figure("map a file of 309 extents", column, taken)


def rate(offset, size):
    """fio's 4 KiB random reads per second of a part of the device d, in MiB."""
    return measure.fio("/dev/mapper/d", f"--ioengine=psync --rw=randread --bs=4k --offset={offset}m --size={size}m"
                       " --number_ios=20000")["read"]["iops"]


def costs():
    """Measures the row."""
    mounted()
    fragmented("f", 10_000)
    places = re.findall(r"^ *\d+: +\d+\.\. +\d+: +(\d+)\.\.", measure.run("filefrag -v -b4096 /mnt/f"), re.MULTILINE)
    blocks = sorted(map(int, places))
    # Most of the file is in one piece of the disk, but for the holes.
    middle = blocks[len(blocks) // 2] * 4096 // measure.MIB
    beside = 8 if middle > DISK_MIB // 2 else DISK_MIB - 48

    def lines(column):
        measure.figure("reads beside the file", column, rate(beside, 40))
        measure.figure("reads where the file is", column, rate(middle - 20, 40))

    lines("not counted")
    measure.run(f"{PROGRAMS['ours']} create d")
    lines("one region")
    measure.run(f"{PROGRAMS['ours']} delete --allregions d")
    for column in PROGRAMS:
        measure.run(f"{PROGRAMS[column]} {MAP}/mnt/f > /dev/null")
        lines(column)
        measure.run(f"{PROGRAMS[column]} delete --allregions d")


def daemon():
    """Measures the row."""
    mounted()
    measure.run("for i in $(seq 100); do dd if=/dev/zero of=/mnt/$i bs=4k count=1 status=none; done; sync")
    child = subprocess.Popen(["/lab/dmfilemapd", "--map", *(f"/mnt/{number}" for number in range(1, 101))])
    # Until nothing that was written may still be on its way.
    time.sleep(60)
    status = pathlib.Path(f"/proc/{child.pid}/status").read_text(encoding="ascii")
    measure.figure("memory, MiB", "ours", int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024)
    for line, minutes in (("requests in a minute", 1), ("requests in ten minutes", 10)):
        strace = subprocess.Popen(["strace", "-q", "-o", "/tmp/strace", "-e", "trace=ioctl", "-p", str(child.pid)])
        time.sleep(60 * minutes)
        strace.terminate()
        strace.wait()
        measure.figure(line, "ours", pathlib.Path("/tmp/strace").read_text(encoding="ascii").count("ioctl("))
    begin = measure.busy_ns()
    time.sleep(60)
    measure.figure("milliseconds of the CPU in a minute", "ours", (measure.busy_ns() - begin) / 1e6)
    child.terminate()
    if child.wait():
        raise SystemExit("dmfilemapd failed")


HOW = "Each line is a run of the program, from its start to its end; lines follow one another."
COLUMNS = list(PROGRAMS)
PAGE = "dmstats-rs"

ROWS = [
    Row(
        "dmstats-regions", "Thousands of regions", "seconds",
        COLUMNS,
        {
            "create 10,000": at_most(2.6),
            "list 10,000": at_most(0.05),
            "report 10,000": at_most(0.55),
            "delete 10,000": at_most(0.13),
            "delete 20,000": at_most(0.22),
        },
        f"A device with a target for each region (create --segments, list, report, delete --allregions). {HOW} Of the"
        " delete of 20,000 the kernel has 0.226 seconds: a row of its list takes it 3,440 instructions, a request to"
        " delete 7,870 (make profile).",
        regions,
        page=PAGE,
    ),
    Row(
        "dmstats-files", f"A file of {EXTENTS:,} extents", "seconds",
        COLUMNS,
        {
            "map": at_most(1.96),
            "list": at_most(0.05),
            "report its group": NOTHING,
            "update, nothing changed": at_most(0.05),
            "delete": at_most(0.06),
            "map, projected": at_most(0.05),
            "report its group, projected": NOTHING,
            "update, nothing changed, projected": at_most(0.05),
            "delete, projected": NOTHING,
        },
        "ext4, in memory (create --filemap, list, report --group, update_filemap, delete --groupid). A region for each"
        f" extent, as LVM2 has it (--perextent), unless a line says projected: areas lie over the file. {HOW} Of the"
        " delete of a group the kernel has 0.058 seconds, in the list and in 5,003 requests (make profile).",
        files,
        page=PAGE,
    ),
    Row(
        "dmstats-rollback", "A map that fails", "seconds",
        COLUMNS,
        {"map a file of 309 extents": at_most(0.12)},
        "There are 10,000 regions of another program, and room in the kernel's memory for 246 more: these are made and"
        " removed again, then it is told who has the memory.",
        rolled_back,
        page=PAGE,
    ),
    Row(
        "dmstats-requests", "Requests to the kernel", "ioctls",
        COLUMNS,
        {
            "create 1,000 regions": at_most(1003),
            "list them": at_most(1),
            "report them": at_most(1001),
            "delete them": at_most(1003),
            "map a file of 5,000 extents": at_most(5002),
            "update, nothing changed": at_most(2),
            "delete that group": at_most(5002),
            "map it, projected": NOTHING,
        },
        "Counted by strace: those of device-mapper and of the file system.",
        counted,
        page=PAGE,
    ),
    Row(
        "dmstats-io", "I/O of a device with a mapped file", "I/Os per second",
        ["not counted", "one region", *COLUMNS],
        {
            "reads beside the file": at_least_of("not counted", 0.97),
            "reads where the file is": at_least_of("one region", 0.97),
        },
        "fio, psync, 4 KiB random reads of a linear device in memory, of which a file of 10,000 extents has a part."
        " *One region*, of the whole device, is the least that any counting costs.",
        costs,
        page=PAGE,
    ),
    Row(
        "dmstats-daemon", "dmfilemapd with 100 files at rest", "see each line",
        ["ours"],
        {
            "memory, MiB": at_most(5),
            "requests in a minute": at_most(0),
            "requests in ten minutes": NOTHING,
            "milliseconds of the CPU in a minute": NOTHING,
        },
        "ext4, in memory; ioctls by strace. Each five minutes the groups are asked for, each hour the files' places,"
        " whatever there was. Debian has no dmfilemapd of LVM2; that lists all regions twice a second for each file.",
        daemon,
        page=PAGE,
    ),
]
