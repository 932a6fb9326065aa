# SPDX-License-Identifier: GPL-2.0
"""The same done to dm-writecache and to lc: what dm-lc-rs-compared.rst says of both."""

import pytest

pytestmark = pytest.mark.any_kernel("it is about what the two do, not about how they get on with the kernel")

SECTORS = 48 * 2048
BLOCK = "bs=4k count=1"


class Compared:
    """A kind of cache, over the first of two disks."""

    def __init__(self, kind, guest, dm, disks):
        self.kind, self.guest, self.dm = kind, guest, dm
        self.backing, self.cache = disks.ram(48, 2)
        self.device = None

    def create(self, words=""):
        words = {"writecache": "4096 0", "lc": words}[self.kind]
        before = {"writecache": "s ", "lc": ""}[self.kind]
        table = f"0 {SECTORS} {self.kind} {before}{self.backing} {self.cache} {words}"
        self.device = self.dm.create("cache", table)

    def write(self):
        """A block that is on the cache device only."""
        self.guest.run(f"dd if=/dev/urandom of=/tmp/data {BLOCK} status=none && dd if=/tmp/data of={self.device}"
                       f" {BLOCK} oflag=direct conv=fsync,notrunc status=none")

    def is_as_written(self):
        """Whether it is read, and as it was written; None: it cannot be read."""
        read = self.guest.run(f"dd if={self.device} of=/tmp/read {BLOCK} iflag=direct status=none", check=False)
        if read.returncode:
            return None
        return self.guest.run("cmp -s /tmp/read /tmp/data", check=False).returncode == 0


@pytest.fixture(params=["writecache", "lc"])
def compared(request, lc_module, guest, dm, disks):
    guest.run("modprobe dm_writecache")
    return Compared(request.param, guest, dm, disks)


def test_blocks_of_the_disk_stay(compared):
    compared.create()
    size = compared.guest.output(f"blockdev --getss {compared.device}")
    assert size == {"writecache": "4096", "lc": "512"}[compared.kind]


def test_flipped_bit_on_the_cache_device(compared):
    compared.create("2 verify_reads 1")
    compared.write()
    assert compared.is_as_written()
    compared.guest.run(f"""python3 - <<'END'
import os
device = os.open("{compared.cache}", os.O_RDWR)
data = open("/tmp/data", "rb").read()
at = os.pread(device, 32 << 20, 0).index(data)
os.pwrite(device, bytes([data[9] ^ 1]), at + 9)
os.fsync(device)
END
blockdev --flushbufs {compared.cache}""")
    expected = {"writecache": False, "lc": None}
    assert compared.is_as_written() is expected[compared.kind]


def test_cache_over_another_disk(compared):
    """Of the same size; each has a uuid."""
    guest = compared.guest
    disk, compared.backing = compared.backing, "/dev/mapper/backing"
    for uuid in ("LVM-one", "LVM-two"):
        guest.run(f"dmsetup create backing --uuid {uuid}", stdin=f"0 {SECTORS} linear {disk} 0")
        if uuid == "LVM-one":
            compared.create("2 allow_migrate 0")
            # dm-writecache has it on the cache device only, whatever is on the disk.
            compared.write()
            compared.device.remove()
            guest.run("dmsetup remove backing")
    words = {"writecache": f"writecache s {compared.backing} {compared.cache} 4096 0",
             "lc": f"lc {compared.backing} {compared.cache}"}
    result = guest.run("dmsetup create cache", stdin=f"0 {SECTORS} {words[compared.kind]}", check=False)
    assert (result.returncode == 0) == (compared.kind == "writecache")


def test_second_read_of_what_was_never_written(compared):
    compared.backing = compared.dm.create("counted", f"0 {SECTORS} linear {compared.backing} 0")
    compared.create("2 read_cache_threshold 16")
    guest = compared.guest
    read = f"dd if={compared.device} of=/dev/null {BLOCK} skip=77 iflag=direct status=none"
    guest.run(read)
    if compared.kind == "lc":
        guest.run(f"until [ $(dmsetup status {compared.device} | cut -d' ' -f16) = 1 ]; do sleep 0.02; done")
    minor = "$(dmsetup info --columns --noheadings -o minor counted)"
    reads = f"awk '{{ print $1 }}' /sys/block/dm-{minor}/stat"
    before = int(guest.output(reads))
    guest.run(read)
    assert int(guest.output(reads)) - before == {"writecache": 1, "lc": 0}[compared.kind]
