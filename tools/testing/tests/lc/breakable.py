# SPDX-License-Identifier: GPL-2.0
"""The cache of the fixture `parts`: its two devices can be broken, and eight blocks of it are written and read."""


def become(part, target):
    """Changes what one of the two devices does with I/O; target uses DISK for what lies beneath."""
    part.guest.run(
        f"dmsetup load {part.name} && dmsetup suspend --noflush --nolockfs {part.name} && dmsetup resume {part.name}",
        stdin=target.replace("DISK", part.disk),
    )


# No target fails a flush: a cache that has nothing to write does not notice before it has.
BROKEN = "flakey DISK 0 0 3600 2 error_reads error_writes"


def break_cache(rig):
    """The cache device fails whatever is read and written."""
    become(rig.cache, f"0 {rig.sectors} {BROKEN}")


def lets_the_cache_fail(rig):
    """It wants to write a superblock, and nothing else."""
    event = rig.device.events()
    rig.device.suspend()
    rig.device.resume()
    rig.device.wait(event)


def fill(rig, flags="oflag=direct conv=fsync,notrunc", check=True):
    """Writes the eight blocks of /tmp/data."""
    return rig.guest.run(f"dd if=/tmp/data of={rig.device} bs=4k {flags} status=none", check=check, timeout=20)


def flip(parts, sector):
    """Changes a bit of a sector of the log on the cache device."""
    parts.guest.run(
        f"blockdev --flushbufs {parts.cache.disk}"
        f" && python3 -c \"import os; f = os.open('{parts.cache.disk}', os.O_RDWR); at = (2048 + {sector}) * 512;"
        " b = os.pread(f, 1, at); os.pwrite(f, bytes([b[0] ^ 1]), at); os.fsync(f)\""
    )


def read(rig, block, size=4096, skip=0, check=True):
    """Reads sectors of a block, and compares them with what was written."""
    return rig.guest.run(
        f"bash -o pipefail -c 'dd if={rig.device} bs={size} skip={block * 4096 // size + skip} count=1 iflag=direct"
        f" status=none | cmp -n {size} -i 0:{block * 4096 + skip * size} - /tmp/data'",
        check=check,
    )
