# SPDX-License-Identifier: GPL-2.0
"""What is refused, with which errno and which words; and what tells about a device."""

import pytest

from lab.disks import sysfs

INVALID = "Invalid argument"
BUSY = "Device or resource busy"
UNSUPPORTED = "Operation not supported"
OVER_ORIGINAL = ("it is over the original itself, not over the interpose device: its I/O would come back to it without"
                 " end")


@pytest.fixture
def low(interpose, disks):
    """An `interpose` device on a disk of 16 MiB; there is another such disk."""
    disk, _ = disks.ram(16, 2)
    return interpose.low(disk)


def test_tables_are_refused(interpose, dm, disks, guest):
    """Each with its reason."""
    disk, _ = disks.ram(16, 2)
    for table, reason in {
        "0 32768 interpose": INVALID,
        "0 32768 interpose /dev/ram0 0": INVALID,
        "0 32768 interpose /dev/nothing": "Device lookup failed",
        "0 32768 interpose 200:5": "Device lookup failed",
        "0 32768 interpose /dev/null": "Device lookup failed",
        "0 32760 interpose /dev/ram0": "The table must be as long as the device",
        "0 32776 interpose /dev/ram0": "The table must be as long as the device",
        "0 8 zero\n8 32768 interpose /dev/ram0": "singleton",
    }.items():
        assert reason in dm.refuse("low", table), table
    assert dm.names() == []
    # Its own device.
    device = dm.create("low", f"0 32768 linear {disk} 0")
    guest.run("! dmsetup load low --table '0 32768 interpose /dev/mapper/low'")
    device.remove()
    # The original of another, as long as that exists.
    low = interpose.low(disk)
    assert "Cannot use the device" in dm.refuse("other", f"0 32768 interpose {low.disk}")
    assert "Cannot use the device" in dm.refuse("other", f"0 32768 interpose {low}")
    low.device.remove()
    low = interpose.low(disk, "other")
    # What it shows makes the same again.
    table = guest.output("dmsetup table other")
    assert table == f"0 32768 interpose {interpose.number(disk)}"
    low.device.reload(table)
    assert guest.output("dmsetup table other") == table


def test_words_and_steps_are_refused(low, dm, guest):
    """With the word that is wrong, or why the step cannot be taken."""
    top = low.top("top")
    for words, said in {
        "grow": "message `grow': expected attach DEVICE, switch DEVICE or detach",
        "attach": "device: missing",
        "switch": "device: missing",
        "attach /dev/ram1 freeze": "option `freeze': expected nofreeze",
        "attach /dev/ram1 nofreeze nofreeze": "option `nofreeze': expected no more words",
        "switch /dev/ram1 now": "option `now': expected nofreeze",
        "detach now": "option `now': expected nofreeze",
        "detach nofreeze nofreeze": "option `nofreeze': expected no more words",
        "detach /dev/mapper/top": "option `/dev/mapper/top': expected nofreeze",
    }.items():
        errno, reason = low.refuse(*words.split())
        assert errno == INVALID and reason.endswith(f": {said}"), words
    errno, reason = low.refuse("detach")
    assert errno == "No such file or directory" and reason.endswith(": detach: no device is attached")
    assert low.refuse("switch", top)[1].endswith("no device is attached")
    for words in (f"attach {top}", f"switch {top}", "detach"):
        as_nobody = f"setpriv --reuid 65534 --clear-groups dmsetup message low 0 {words}"
        assert guest.run(as_nobody, check=False).returncode, words
    low.device.suspend()
    errno, reason = low.refuse("attach", top)
    assert errno == BUSY and reason.endswith("suspended; resume first")
    low.device.resume()
    assert low.status().state == "idle"
    low.attach(top)
    errno, reason = low.refuse("attach", top)
    assert errno == BUSY and reason.endswith("a device is attached already; `switch' replaces it")
    errno, reason = low.refuse("switch", top)
    assert errno == BUSY and "it is in use" in reason
    low.device.suspend()
    assert low.refuse("detach")[0] == BUSY
    low.device.resume()
    for device in (top, low.device):
        assert BUSY in device.remove(check=False).stderr
    assert guest.run("rmmod dm_interpose_rs", check=False).returncode
    # A bio is led once: a top is no original.
    assert "Cannot use the device" in dm.refuse("second", f"0 32768 interpose {top}")
    low.detach("NoFreeze")
    assert dm.names() == ["low", "top"]


def test_devices_are_refused(low, dm, guest, disks):
    """What is not a mapped device, does not fit, or is in use."""
    top = low.top("top")
    dm.create("small", f"0 32760 linear {low} 0")
    dm.create("large", "0 32776 zero")
    dm.create("ro", f"0 32768 linear {low} 0", "--readonly")
    blocks = disks.null("blocks", 16, blocksize=4096)
    guest.run(f"dd if=/dev/zero of={blocks} bs=4k count=1 oflag=direct status=none")
    dm.create("blocks", f"0 16384 linear {low} 0\n16384 16384 linear {blocks} 16384")
    stable = disks.null("stable", 16)
    guest.run("echo 1 > /sys/block/stable/queue/stable_writes")
    dm.create("stable_pages", f"0 16384 linear {low} 0\n16384 16384 linear {stable} 16384")
    direct = dm.create("direct", f"0 32768 linear {low.disk} 0")
    between = dm.create("between", f"0 8192 linear {direct} 0")
    dm.create("indirect", f"0 16384 linear {low} 0\n16384 8192 linear {between} 0\n24576 8192 zero")
    guest.run("dmsetup create empty --notable")
    for what, errno, said in (
        ("/dev/nothing", "No such file or directory", "there is no such block device"),
        ("/dev/null", "Block device required", "there is no such block device"),
        ("/dev", "Block device required", "there is no such block device"),
        ("/etc/passwd", "Block device required", "there is no such block device"),
        ("x" * 300, "File name too long", "there is no such block device"),
        ("200:5", INVALID, "it is not a mapped device"),
        ("253:77", INVALID, "it is not a mapped device"),
        ("/dev/ram1", INVALID, "it is not a mapped device"),
        ("/dev/mapper/small", INVALID, "it has 32760 sectors, the original has 32768"),
        ("/dev/mapper/large", INVALID, "it has 32776 sectors, the original has 32768"),
        ("/dev/mapper/ro", INVALID, "it is read-only, the original is not"),
        ("/dev/mapper/blocks", INVALID, "its logical blocks have 4096 bytes, those of the original 512"),
        ("/dev/mapper/stable_pages", INVALID, "it needs pages that do not change while they are written, the original"
         " does not: its users change them"),
        ("/dev/mapper/direct", "Too many levels of symbolic links", OVER_ORIGINAL),
        ("/dev/mapper/indirect", "Too many levels of symbolic links", OVER_ORIGINAL),
        (guest.output("dmsetup info -c --noheadings -o devno empty"), "No such device or address",
         "it has no live table"),
    ):
        refused = low.refuse("attach", what)
        assert refused[0] == errno and refused[1].endswith(f"{what}: {said}"), refused
    guest.run(f"mkfs.ext4 -q -F {top} && mkdir -p /mnt/x && mount {top} /mnt/x")
    errno, reason = low.refuse("attach", top)
    assert errno == BUSY and "it is in use" in reason
    guest.run("umount /mnt/x")
    above = dm.create("above", f"0 32768 linear {top} 0")
    assert low.refuse("attach", top)[0] == BUSY
    above.remove()
    second = dm.create("second", f"0 32768 interpose {top}")
    errno, reason = low.refuse("attach", top)
    assert "original itself" in reason and errno == "Too many levels of symbolic links"
    second.remove()
    assert low.status().state == "idle"


def test_lost_features_are_refused(interpose, disks, dm, guest):
    """The original has a volatile cache, atomic writes or protection information, and the top does not."""
    cache = disks.null("cached", 16, cache_size=1)
    cached = interpose.low(cache, "cached")
    dm.create("zero", "0 32768 zero")
    assert "flushes would be lost" in cached.refuse("attach", "/dev/mapper/zero")[1]
    cached.device.remove()
    dm.create("plain", f"0 32768 linear {cache} 0")
    for words, said in {
        "atomic_wr=1": "its atomic writes have at most 0 bytes, those of the original ",
        "dif=1 dix=1": "its blocks have 0 bytes of protection information, those of the original 8",
    }.items():
        disk = disks.scsi_debug(16, **dict(word.split("=") for word in words.split()))
        low = interpose.low(disk)
        errno, reason = low.refuse("attach", "/dev/mapper/plain")
        assert errno == INVALID and said in reason, reason
        # One that has them is taken.
        top = low.top("top")
        low.attach(top)
        guest.run(f"dd if=/dev/zero of={disk} bs=4k count=4 oflag=direct status=none")
        low.detach()
        top.remove()
        low.device.remove()
        guest.run("rmmod scsi_debug")


def test_lost_polling_is_refused(interpose, disks, dm, guest):
    """The original is a mapped device whose bios are polled for, and the top is none."""
    polled = disks.null("polled", 16, poll_queues=1)
    (other,) = disks.ram(16)
    original = dm.create("original", f"0 32768 linear {polled} 0")
    assert guest.output(f"cat {sysfs(original.path)}/queue/io_poll") == "1"
    low = interpose.low(original)
    dm.create("half", f"0 16384 linear {low} 0\n16384 16384 linear {other} 16384")
    errno, reason = low.refuse("attach", "/dev/mapper/half")
    assert errno == INVALID and reason.endswith("it does not support polling, the original does"), reason
    low.attach(low.top("top"))
    guest.run(f"fio --name=p --filename={original} --rw=randwrite --bs=4k --size=1m --direct=1"
              " --ioengine=io_uring --hipri=1 --iodepth=8 --verify=crc32c --minimal")
    assert low.status().redirected > 40
    low.detach()


def test_what_cannot_be_waited_for_is_refused(interpose, disks, guest):
    """An array that does not count its I/O, until it does."""
    disk = disks.mirror(16, disks.ram(16, 2))
    low = interpose.low(disk)
    top = low.top("top")
    guest.run("echo 0 > /sys/block/md_lab/queue/iostats")
    errno, reason = low.refuse("attach", top)
    assert errno == UNSUPPORTED and reason.endswith("write 1 to its queue/iostats"), reason
    guest.run("echo 1 > /sys/block/md_lab/queue/iostats")
    low.attach(top)
    low.detach()
    disks.stop_mirror()


ATOMIC_WRITE = """
import mmap, os, sys
disk, size = os.open(sys.argv[1], os.O_RDWR | os.O_DIRECT), int(sys.argv[2])
os.pwritev(disk, [mmap.mmap(-1, size)], 0, 0x40)
"""


def test_an_atomic_write_of_one_block_needs_no_promise(interpose, dm, nvme, guest):
    """An NVMe disk has these and no longer ones. A top that knows of none does what the disk does."""
    disk = nvme(16)
    sectors = int(guest.output(f"blockdev --getsz {disk}"))
    block = int(guest.output(f"cat /sys/block/{disk.removeprefix('/dev/')}/queue/atomic_write_max_bytes"))
    assert block == int(guest.output(f"blockdev --getss {disk}"))
    low = interpose.low(disk)
    # Two targets: a device of several has no atomic writes.
    top = dm.create("top", f"0 8 delay {low} 0 1\n8 {sectors - 8} flakey {low} 8 60 0")
    assert guest.output(f"cat {sysfs(top.path)}/queue/atomic_write_max_bytes") == "0"

    def write(size, path=disk):
        return guest.run(f"python3 - {path} {size}", stdin=ATOMIC_WRITE, check=False)

    refused = write(8192)
    assert write(block).returncode == 0 and refused.returncode != 0
    low.attach(top)
    before = low.status().redirected
    assert write(block).returncode == 0 and low.status().redirected == before + 1
    assert write(8192).stderr == refused.stderr
    # Whoever writes to the top itself is told.
    assert write(block, top).returncode != 0
    low.detach()
    # The long one.
    assert low.status().errors == 1


def test_zones_are_refused(interpose, dm, disks):
    """Of the original, when the interpose device is made; of the top, when it is attached."""
    zoned = disks.null("zoned", 64, zoned=1, zone_size=16, discard=0)
    assert "Zoned devices are not supported" in dm.refuse("low", f"0 {64 * 2048} interpose {zoned}")
    (disk,) = disks.ram(64)
    low = interpose.low(disk)
    dm.create("top", f"0 {64 * 2048} linear {zoned} 0")
    errno, reason = low.refuse("attach", "/dev/mapper/top")
    assert errno == INVALID and reason.endswith(": attach /dev/mapper/top: zoned devices are not supported")


def test_what_tells_of_it(low, guest, interpose):
    """Counts and times; each change is an event for `dmsetup wait`, a refused message is none."""
    top = low.top("top")
    before = low.device.events()
    low.attach(interpose.number(top))
    attached = low.device.events()
    assert attached >= before + 2
    low.refuse("attach", top)
    assert low.device.events() == attached
    # What looked at the devices when they were made.
    passed = low.status().bypassed
    guest.run(f"dd if=/dev/zero of={low.disk} bs=4k count=5 oflag=direct status=none")
    status = low.status()
    assert (status.redirected, status.bypassed - passed, status.in_flight, status.errors) == (5, 5, 0, 0)
    assert status.freeze > 0 and status.drain > 0
    low.detach()
    assert low.device.events() > attached


def test_measurements(low, guest):
    """IMA, with the policy for it, measures what a table is about when it is loaded."""
    guest.run("""
        mount -t securityfs none /sys/kernel/security 2> /dev/null
        echo 'measure func=CRITICAL_DATA label=device-mapper' > /sys/kernel/security/ima/policy""", check=False)
    low.attach(low.top("top"))
    low.device.reload(f"0 32768 interpose {low.disk}")
    measured = guest.output("awk '/ dm_/ { print $NF }' /sys/kernel/security/ima/ascii_runtime_measurements")
    lines = [bytes.fromhex(line).decode() for line in measured.split()]
    assert any("target_name=interpose,target_version=1.0.0,device=1:0,state=attached,top=253:1;" in line
               for line in lines), lines
    low.detach()
