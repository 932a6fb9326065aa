# SPDX-License-Identifier: GPL-2.0
"""Uses a clone with metadata that are damaged in many ways; see tests/clone/test_corruption.py and damage.py.

arguments: NAME LENGTH DISK OFFSET SECTORS DEST SOURCE
A good image is in the SECTORS sectors of DISK from OFFSET on, and is again in the end.
stdin: [[what is wrong, size of the device or null, [[offset, bytes in base 16]...]]...]
stdout: what came of it, as JSON.
"""

import collections
import contextlib
import json
import random
import sys

import dm_ioctl
from disk import Disk
from dm_ioctl import Device, KernelLog


def use(path, rng, length):
    """Reads, writes, discards and flushes; errors are fine, the metadata are bad."""
    disk = Disk(path)
    regions = length // 8
    for region in (0, regions // 2 + rng.randrange(regions // 2), regions - 1):
        with contextlib.suppress(OSError):
            disk.read(region * 4096, 4096)
        with contextlib.suppress(OSError):
            disk.write(region * 4096 + 512, b"x" * 512)
    with contextlib.suppress(OSError):
        disk.discard(rng.randrange(regions - 600) * 4096, 600 * 4096)
    with contextlib.suppress(OSError):
        disk.flush()
    disk.close()


def try_image(device, log, length, words, rng):
    """Uses a clone with the metadata as they are now: what came of it, and whether the log says why."""
    name = f"{device.major}:{device.minor}"
    try:
        device.load(length, "clone", words)
    except OSError:
        lines = log.lines()
        return "refused", f"{name}: clone: Failed to load metadata (-" in "\n".join(lines), lines
    try:
        device.resume()
    except OSError:
        # The table is in its place all the same, suspended.
        device.load(length, "error", "")
        device.resume()
        lines = log.lines()
        said = "\n".join(lines)
        clear = f"{name}: clone: preresume failed" in said and "Failed to load on-disk region map" in said
        return "not resumed", clear, lines
    device.status()
    use(device.path, rng, length)
    mode = device.status().rpartition(" ")[2]
    device.load(length, "error", "")
    device.suspend()
    device.resume()
    lines = log.lines()
    if mode == "rw":
        return "worked", True, lines
    return "failed later", f"clone: {name}: Metadata operation `" in "\n".join(lines), lines


def mapped(name, length, target, words):
    """A device with one target."""
    device = Device(name)
    device.load(length, target, words)
    device.resume()
    return device


def main():
    """Tries the images."""
    name, length = sys.argv[1], int(sys.argv[2])
    ram, offset, sectors, dest, source = sys.argv[3:]
    images = json.load(sys.stdin)
    metadata = mapped(f"metadata-{name}", int(sectors), "linear", f"{ram} {offset}")
    sizes = sorted({size for _, size, _ in images if size})
    shorts = {size: mapped(f"short{size}-{name}", size, "linear", f"{ram} {offset}") for size in sizes}
    device = mapped(f"tried-{name}", length, "error", "")
    log, disk = KernelLog(), Disk(metadata.path)
    good = disk.read(0, int(sectors) * 512)
    outcomes, unclear = collections.Counter(), []
    for number, (how, size, changes) in enumerate(images):
        image = bytearray(good)
        for at, changed in changes:
            changed = bytes.fromhex(changed)
            image[at:at + len(changed)] = changed
        disk.write(0, image)
        # If the kernel does not survive this, its log says what it was.
        dm_ioctl.log(f"lab: {device.name} image {number}: {how}")
        where = shorts[size] if size else metadata
        words = f"{where.path} {dest} {source} 8 1 no_hydration"
        outcome, clear, lines = try_image(device, log, length, words, random.Random(number))
        outcomes[outcome] += 1
        if not clear:
            unclear.append({"image": number, "how": how, "outcome": outcome, "log": lines})
    disk.write(0, good)
    disk.close()
    for one in (device, metadata, *shorts.values()):
        one.remove()
    print(json.dumps({"outcomes": outcomes, "unclear": unclear}))


main()
