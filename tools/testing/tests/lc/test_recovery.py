# SPDX-License-Identifier: GPL-2.0
"""What is there after a power cut, a crash of the kernel's, or damage."""

import os

import pytest

from lab import places
from tests.lc.breakable import become, fill, read

pytestmark = pytest.mark.any_kernel("the log is read by our code alone; power cuts are in test_crash.py, too")

CUTS = int(os.environ.get("DM_CUTS") or (3 if places.is_default() else 1))
MIB = 2048  # sectors
AREA = 24 * MIB
LOG = 2048  # the first sector of the log
TABLE = "4 high_watermark 10 low_watermark 5"


@pytest.mark.limit(60 + 60 * CUTS)
def test_flushed_writes_survive_power_cuts(lc_module, guest, dm, disks):
    """While the log is written back; an external ledger says what was durable."""
    backing, cache = disks.scratch(2)
    guest.run(f"blkdiscard -z -l {64 << 20} {cache}; iomodel stamp {backing} 1 --sectors {AREA}")
    # Small, so that the log goes round.
    table = f"0 {AREA} lc {backing} {{}} {TABLE}"
    tag, ledgers = 1, ""
    for cut in range(CUTS):
        small = dm.create("small", f"0 {20 * MIB} linear {cache} 0")
        device = dm.create("lc", table.format(small))
        writer = guest.start(f"iomodel ledger {device} --seed {cut} --after {tag}")
        lines = [writer.stdout.readline() for _ in range(150)]
        guest.kill()
        lines += writer.communicate()[0].splitlines(keepends=True)
        ledgers += "".join(line for line in lines if len(line.split()) == 3 and line.endswith("\n"))
        guest.boot()
        guest.run("/lab/load /lab/dm_lc_rs.ko && cat > /tmp/ledger", stdin=ledgers)
        small = dm.create("small", f"0 {20 * MIB} linear {cache} 0")
        device = dm.create("lc", table.format(small))
        guest.run(f"iomodel ledger-check {device} --source 1 /tmp/ledger")
        device.remove()
        small.remove()
        # Tags of writes that nobody was told of may be on the disk too.
        tag = max(int(line.split()[2]) for line in ledgers.splitlines()) + 1000


class Image:
    """A cache that was used, crashed as a copy of its device, and opened again."""

    def __init__(self, rig):
        self.rig, self.guest = rig, rig.guest
        self.image = None

    def crash(self):
        """The cache device as it is now, as a loop device; the cache in use is taken down."""
        self.guest.run(f"dd if={self.rig.cache} of=/tmp/image bs=1M iflag=direct status=none")
        self.rig.device.remove()
        self.image = self.guest.output("modprobe loop && losetup --find --show /tmp/image && /lab/settle")

    def flip(self, sector, byte):
        """Damages a byte."""
        self.guest.run(
            f"python3 -c \"import os; f = os.open('{self.image}', os.O_RDWR); at = {sector * 512 + byte};"
            f" b = os.pread(f, 1, at); os.pwrite(f, bytes([b[0] ^ 255]), at); os.fsync(f)\""
            f" && blockdev --flushbufs {self.image}"
        )

    def table(self):
        return f"0 {self.rig.sectors} lc {self.rig.backing} {self.image}"

    def open(self):
        self.rig.device = self.rig.dm.create("lc", self.table())
        return self.rig.device


@pytest.fixture
def image(rig):
    """A cache with some writes that were flushed, one by one."""
    rig.create("2 flush_current_buffer_interval 0")
    rig.guest.run("dd if=/dev/urandom of=/tmp/data bs=4k count=8 status=none")
    for block in range(8):
        write(rig, block)
    return Image(rig)


def write(rig, block, flags="oflag=direct conv=fsync,notrunc"):
    rig.guest.run(f"dd if=/tmp/data of={rig.device} bs=4k skip={block} seek={block} count=1 {flags} status=none")


def holds(rig, blocks=8):
    rig.guest.run(
        f"dd if={rig.device} bs=4k count={blocks} iflag=direct status=none | cmp -n {blocks * 4096} - /tmp/data"
    )


def test_flushed_writes_survive_a_crash(image):
    image.crash()
    image.open()
    assert image.rig.status().record_id == 9
    holds(image.rig)


def test_damage_behind_the_log_does_no_harm(image):
    """Defect A: a torn write of the record that would come next."""
    image.crash()
    for sector in range(8 * 9, 8 * 9 + 20):
        image.flip(LOG + sector, 5)
    image.open()
    holds(image.rig)


def test_torn_record_is_dropped_and_nothing_else(image):
    """The last one, which nobody was told is durable: its data did not land."""
    write(image.rig, 0, "oflag=direct conv=notrunc")
    image.guest.run(f"dmsetup message {image.rig.device} 0 flush_current_buffer")
    image.crash()
    image.flip(LOG + 8 * 9 + 3, 0)
    image.open()
    assert image.rig.status().record_id == 9
    holds(image.rig)


def refused(image, says):
    """It does not start, and says why."""
    where = image.guest.console_size()
    result = image.guest.run("dmsetup create lc", stdin=image.table(), check=False)
    image.guest.run("dmsetup remove lc 2> /dev/null; :")
    assert result.returncode
    assert image.guest.wait_for_console(says, where, 5)


def test_damaged_header_that_was_durable_is_refused(image):
    """Defect I: and does no harm."""
    image.crash()
    image.flip(LOG + 3 * 9, 100)
    refused(image, "record 4 was durable, and is damaged")
    # Right again, it starts.
    image.flip(LOG + 3 * 9, 100)
    image.open()
    holds(image.rig)


def test_damaged_data_that_was_durable_is_lost(image):
    """That write, and nothing else; again when it is written back, and started anew."""
    rig, guest = image.rig, image.guest
    image.crash()
    image.flip(LOG + 4 * 9 + 2, 7)
    image.open()
    for again in (False, True):
        assert rig.status()["lost_sectors"] == 8
        for block in range(8):
            read = f"dd if={rig.device} bs=4k skip={block} count=1 iflag=direct status=none > /tmp/block"
            assert (guest.run(read, check=False).returncode != 0) == (block == 4)
            if block != 4:
                guest.run(f"cmp -n 4096 -i 0:{block * 4096} /tmp/block /tmp/data")
        if not again:
            assert rig.device.message("flush", check=False).returncode
            rig.device.remove()
            image.open()
    write(rig, 4)
    rig.device.message("flush")
    assert rig.status()["lost_sectors"] == 0
    holds(rig)


@pytest.mark.parametrize("byte", [0, 4, 8, 40, 72, 300])
def test_damaged_superblock_is_not_formatted(image, byte):
    """Defect J: one copy is enough; without any the cache is refused, whatever byte it is."""
    image.crash()
    image.flip(0, byte)
    image.open()
    holds(image.rig)
    image.rig.device.remove()
    for sector in (0, 8):
        image.flip(sector, byte)
    reason = image.rig.dm.refuse("lc", image.table())
    assert "Cache device is not one of lc" in reason


def test_smaller_cache_device_is_refused(image):
    """Defect L."""
    image.crash()
    image.guest.run(f"truncate -s -1M /tmp/image && losetup -c {image.image}")
    assert "Cache device has become smaller" in image.rig.dm.refuse("lc", image.table())


@pytest.mark.parametrize("more", [-8, 8])
def test_backing_device_of_another_size_is_refused(image, more):
    """Until all is written back."""
    rig = image.rig
    lines = f"0 {rig.sectors} linear {rig.backing} 0\n{rig.sectors} 8 zero"
    table = f"0 {rig.sectors + more} lc {rig.dm.create('larger', lines)} {{}}"
    image.crash()
    assert "Cache is of another backing device" in rig.dm.refuse("lc", table.format(image.image))
    image.open()
    rig.device.message("flush")
    rig.device.remove()
    rig.device = rig.dm.create("lc", table.format(image.image))
    holds(rig)


def test_backing_device_that_has_grown_is_the_same(rig, guest):
    """If it can be told by its uuid, as that of a logical volume."""
    disk, rig.backing = rig.backing, "/dev/mapper/backing"
    first = f"0 {rig.sectors} linear {disk} 0"
    guest.run("dmsetup create backing --uuid LVM-one", stdin=first)
    rig.create("2 allow_migrate 0")
    guest.run("dd if=/dev/urandom of=/tmp/data bs=4k count=8 status=none")
    write(rig, 3)
    rig.device.remove()
    rig.dm.create("more", f"0 {rig.sectors} zero")
    guest.run("dmsetup load backing && dmsetup suspend backing && dmsetup resume backing",
              stdin=f"{first}\n{rig.sectors} 8192 linear /dev/mapper/more 0")
    before, rig.sectors = rig.sectors, rig.sectors + 8192
    rig.create("2 allow_migrate 0")
    assert rig.status()["log_used"] > 0
    guest.run(f"dd if=/tmp/data of={rig.device} bs=4k seek={before // 8 + 1} count=1 oflag=direct conv=fsync,notrunc"
              " status=none")
    for _ in range(2):
        read = f"dd if={rig.device} bs=4k count=1 iflag=direct status=none"
        guest.run(f"{read} skip=3 | cmp -n 4096 -i 0:12288 - /tmp/data"
                  f" && {read} skip={before // 8 + 1} | cmp -n 4096 - /tmp/data")
        rig.again("2 allow_migrate 0")


def test_another_backing_device_of_the_same_size_is_refused(rig, guest, dm):
    """It is known by its uuid. A cache that has nothing serves any."""

    def make(uuid):
        guest.run(f"dmsetup create backing --uuid {uuid}", stdin=f"0 {rig.sectors} linear {disk} 0")

    disk, rig.backing = rig.backing, "/dev/mapper/backing"
    make("LVM-one")
    rig.create("2 allow_migrate 0")
    guest.run("dd if=/dev/urandom of=/tmp/data bs=4k count=8 status=none")
    write(rig, 3)
    rig.device.remove()
    guest.run("dmsetup remove backing")
    make("LVM-two")
    where = guest.console_size()
    assert "Cache is of another backing device" in dm.refuse("lc", rig.table())
    assert guest.wait_for_console("has what was written to another backing device than", where, 5)
    guest.run("dmsetup remove backing")
    make("LVM-one")
    rig.create()
    guest.run(f"dd if={rig.device} bs=4k skip=3 count=1 iflag=direct status=none | cmp -n 4096 -i 0:12288 - /tmp/data")
    rig.device.message("flush")
    rig.device.remove()
    guest.run("dmsetup remove backing")
    make("LVM-two")
    rig.create()


def test_mode_change_keeps_dirty_data(image):
    """Defect K."""
    image.rig.again("2 mode writearound")
    holds(image.rig)
    assert image.rig.status().valid == 8


@pytest.mark.parametrize("what", ["writeboost", "ext4"])
def test_foreign_device_is_not_touched(rig, what):
    """And can be formatted when that is said."""
    guest = rig.guest
    make = {
        "writeboost": f"printf tsBW | dd of={rig.cache} conv=notrunc status=none",
        "ext4": f"mkfs.ext4 -q -F {rig.cache}",
    }
    guest.run(f"{make[what]}; blockdev --flushbufs {rig.cache}; md5sum < {rig.cache} > /tmp/sum")
    where = guest.console_size()
    assert "Cache device is not one of lc" in rig.dm.refuse("lc", rig.table())
    words = {"writeboost": "has a dm-writeboost cache", "ext4": "has other data"}
    assert guest.wait_for_console(words[what], where, 5)
    guest.run(f"md5sum < {rig.cache} | cmp - /tmp/sum")
    rig.create("2 format 1")
    guest.run(f"dd if=/dev/zero of={rig.device} bs=4k count=1 oflag=direct status=none")


def test_load_writes_nothing(rig):
    """A table that is loaded and never used leaves the cache device as it was."""
    rig.guest.run("dmsetup create lc --notable && dmsetup load lc", stdin=rig.table())
    rig.guest.run(f"dmsetup remove lc && cmp -n 8192 {rig.cache} /dev/zero")


def test_superblock_of_an_ordered_log_that_nobody_flushed(rig):
    """The tail has passed records that were never durable: nothing of them is needed."""
    rig.create("4 prefix_consistent 1 allow_migrate 0")
    rig.guest.run("dd if=/dev/urandom of=/tmp/data bs=4k count=8 status=none")
    rig.guest.run(f"dd if=/tmp/data of={rig.device} bs=4k oflag=direct conv=notrunc status=none")
    # It is written by the timer.
    rig.wait_for("user_sectors", "$0 == 64")
    rig.device.message("force_migrate", 1)
    rig.wait_for("log_used", "$0 == 0")
    rig.device.message("commit_super_block")
    rig.device.message("prefix_consistent", 0)
    image = Image(rig)
    image.crash()
    image.open()
    holds(rig)


def test_log_that_cannot_be_read_at_first(parts):
    """A device whose start failed takes no message that needs the log, and can be started later."""
    guest, device = parts.guest, parts.device
    fill(parts)
    device.remove()
    guest.run("dmsetup create --notable lc && dmsetup load lc", stdin=parts.table())
    become(parts.cache, f"0 {parts.sectors} error")
    assert guest.run("dmsetup resume lc", check=False).returncode
    for message in ("flush_current_buffer", "flush", "commit_super_block", "check", "prefix_consistent 1"):
        assert guest.run(f"timeout 20 dmsetup message lc 0 {message}", check=False).returncode == 1, message
    become(parts.cache, f"0 {parts.sectors} linear DISK 0")
    guest.run("dmsetup resume lc && dmsetup mknodes lc")
    for block in range(8):
        read(parts, block)
    guest.run("dmsetup remove lc")
