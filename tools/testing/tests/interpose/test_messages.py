# SPDX-License-Identifier: GPL-2.0
"""What is refused, with which errno and which words; and what tells about a device."""

import pytest

MIB = 2048  # sectors
INVALID = "Invalid argument"
BUSY = "Device or resource busy"


@pytest.fixture
def low(interpose, disks):
    """An `interpose` device on a disk of 16 MiB; there is another such disk."""
    disk, _ = disks.ram(16, 2)
    return interpose.low(disk)


def test_tables_are_refused(interpose, dm, disks):
    """Each with its reason."""
    assert interpose
    disks.ram(16)
    for table, reason in {
        "0 32768 interpose": "Invalid argument",
        "0 32768 interpose /dev/ram0 0": "Invalid argument",
        "0 32768 interpose /dev/nothing": "Device lookup failed",
        "0 32768 interpose 200:5": "Device lookup failed",
        "0 32768 interpose /dev/null": "Device lookup failed",
        "0 32760 interpose /dev/ram0": "The table must be as long as the device",
        "0 32776 interpose /dev/ram0": "The table must be as long as the device",
        "0 8 zero\n8 32768 interpose /dev/ram0": "singleton",
    }.items():
        assert reason in dm.refuse("low", table), table
    assert dm.names() == []


def test_own_device_is_refused(interpose, dm, disks, guest):
    assert interpose
    (disk,) = disks.ram(16)
    device = dm.create("low", f"0 32768 linear {disk} 0")
    guest.run("! dmsetup load low --table '0 32768 interpose /dev/mapper/low'")
    device.remove()


def test_original_belongs_to_one_device(low, dm):
    """As long as that exists."""
    assert "Cannot use the device" in dm.refuse("other", f"0 32768 interpose {low.disk}")
    low.device.remove()
    dm.create("other", f"0 32768 interpose {low.disk}")


def test_words_are_refused(low):
    """With the word that is wrong."""
    for words, said in {
        "grow": "message `grow': expected attach DEVICE, switch DEVICE or detach",
        "attach": "device: missing",
        "switch": "device: missing",
        "attach /dev/ram1 freeze": "option `freeze': expected nofreeze",
        "attach /dev/ram1 nofreeze nofreeze": "option `nofreeze': expected no more words",
        "detach now": "option `now': expected nofreeze",
    }.items():
        errno, reason = low.refuse(*words.split())
        assert errno == INVALID and reason.endswith(f": {said}"), words


def test_steps_out_of_order_are_refused(low, dm):
    errno, reason = low.refuse("detach")
    assert errno == "No such file or directory" and reason.endswith(": detach: no device is attached")
    top = low.top("top")
    assert low.refuse("switch", top)[1].endswith("no device is attached")
    low.attach(top)
    errno, reason = low.refuse("attach", top)
    assert errno == BUSY and reason.endswith("a device is attached already; `switch' replaces it")
    errno, reason = low.refuse("switch", top)
    assert errno == BUSY and "it is in use" in reason
    for device in (top, low.device):
        assert "Device or resource busy" in device.remove(check=False).stderr
    assert low.dm.guest.run("rmmod dm_interpose_rs", check=False).returncode
    low.detach()
    assert dm.names() == ["low", "top"]


def test_devices_are_refused(low):
    """What is not a mapped device, or not there."""
    for what, said in {
        "/dev/nothing": "there is no such block device",
        "/dev/null": "there is no such block device",
        "200:5": "it is not a mapped device",
        "253:77": "it is not a mapped device",
        "/dev/ram1": "it is not a mapped device",
    }.items():
        _, reason = low.refuse("attach", what)
        assert said in reason and what in reason
    assert low.status().state == "idle"


def test_misfits_are_refused(low, dm, guest):
    """Each with both sides."""
    dm.create("small", f"0 32760 linear {low} 0")
    dm.create("large", "0 32776 zero")
    dm.create("ro", f"0 32768 linear {low} 0", "--readonly")
    for top, said in {
        "/dev/mapper/small": "it has 32760 sectors, the original has 32768",
        "/dev/mapper/large": "it has 32776 sectors, the original has 32768",
        "/dev/mapper/ro": "it is read-only, the original is not",
    }.items():
        errno, reason = low.refuse("attach", top)
        assert errno == INVALID and reason.endswith(said), (top, errno, reason)
    guest.run("dmsetup create empty --notable")
    empty = guest.output("dmsetup info -c --noheadings -o devno empty")
    errno, reason = low.refuse("attach", empty)
    assert errno == "No such device or address" and reason.endswith("it has no live table")
    assert low.status().state == "idle"


def test_larger_blocks_are_refused(low, guest, disks, dm):
    """Of a top whose other device has them."""
    large = disks.null("large", 16, blocksize=4096)
    guest.run(f"dd if=/dev/zero of={large} bs=4k count=1 oflag=direct status=none")
    top = dm.create("top", f"0 16384 linear {low} 0\n16384 16384 linear {large} 16384")
    errno, reason = low.refuse("attach", top)
    assert errno == INVALID and reason.endswith("its logical blocks have 4096 bytes, those of the original 512")


def test_lost_flushes_are_refused(interpose, disks, dm):
    """The original has a volatile cache, the top would swallow flushes."""
    disk = disks.null("nullb", 16, cache_size=1)
    low = interpose.low(disk)
    top = dm.create("top", "0 32768 zero")
    errno, reason = low.refuse("attach", top)
    assert errno == INVALID and "flushes would be lost" in reason


def test_mounted_or_used_top_is_refused(low, guest, dm):
    top = low.top("top")
    guest.run(f"mkfs.ext4 -q -F {top} && mkdir -p /mnt/x && mount {top} /mnt/x")
    errno, reason = low.refuse("attach", top)
    assert errno == BUSY and "it is in use" in reason
    guest.run("umount /mnt/x")
    dm.create("above", f"0 32768 linear {top} 0")
    assert low.refuse("attach", top)[0] == BUSY


def test_chains_are_refused(interpose, low, dm):
    """A bio is led once: a top has no top."""
    top = low.top("top")
    second = dm.create("second", f"0 32768 interpose {top}")
    errno, reason = low.refuse("attach", top)
    assert "original itself" in reason and errno == "Too many levels of symbolic links"
    second.remove()
    low.attach(top)
    assert "Cannot use the device" in dm.refuse("second", f"0 32768 interpose {top}")
    low.detach()


def test_only_root(low, guest):
    top = low.top("top")
    refused = guest.run(
        f"setpriv --reuid 65534 --clear-groups dmsetup message low 0 attach {top}", check=False
    )
    assert refused.returncode
    assert low.status().state == "idle"


def test_suspended_is_refused(low):
    top = low.top("top")
    low.device.suspend()
    errno, reason = low.refuse("attach", top)
    assert errno == BUSY and reason.endswith("suspended; resume first")
    low.device.resume()
    low.attach(top)
    low.device.suspend()
    assert low.refuse("detach")[0] == BUSY
    low.device.resume()
    low.detach()


def test_table_makes_the_same_again(low, guest):
    table = guest.output("dmsetup table low")
    assert table == "0 32768 interpose 1:0"
    low.device.reload(table)
    assert guest.output("dmsetup table low") == table


def test_tops_may_be_named_by_number(low, interpose):
    top = low.top("top")
    low.attach(interpose.number(top))
    low.detach("NoFreeze")


def test_each_change_is_an_event(low):
    """`dmsetup wait` sees it; a refused message changes nothing."""
    top = low.top("top")
    before = low.device.events()
    low.attach(top)
    attached = low.device.events()
    assert attached >= before + 2
    low.refuse("attach", top)
    assert low.device.events() == attached
    low.detach()
    assert low.device.events() > attached


def test_status_of_times_and_counts(low, guest):
    top = low.top("top")
    low.attach(top)
    guest.run(f"dd if=/dev/zero of={low.disk} bs=4k count=5 oflag=direct status=none")
    status = low.status()
    assert (status.redirected, status.bypassed, status.in_flight, status.errors) == (5, 5, 0, 0)
    assert status.freeze > 0 and status.drain > 0
    low.detach()


