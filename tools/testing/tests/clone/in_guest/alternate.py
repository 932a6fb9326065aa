# SPDX-License-Identifier: GPL-2.0
"""Uses one clone with one module after the other, checking every byte; see tests/clone/test_interop.py.

arguments: SEED LENGTH METADATA DEST RAW-DEST SOURCE STEP MODULE...
STEP is how many regions each module hydrates in the background, at least. RAW-DEST is what is below DEST.
stdout: [[module, regions hydrated when it came, when it went]...] as JSON.
"""

import json
import random
import subprocess
import sys
import time

from disk import Disk
from dm_ioctl import Device

MODULES = {"rs": "/lab/dm_clone_rs.ko", "c": "dm_clone"}
CHUNK = 1 << 20
REGION = 4096


def read_all(path, size):
    """All bytes of a device."""
    disk = Disk(path)
    data = b"".join(disk.read(at, min(CHUNK, size - at)) for at in range(0, size, CHUNK))
    disk.close()
    return data


def hydrated(device):
    """(regions hydrated, in flight)"""
    words = device.status().split()
    return int(words[3].split("/")[0]), int(words[4])


class Model:
    """What the clone must read as."""

    def __init__(self, source, raw_dest, size, rng):
        self.bytes, self.raw_dest, self.size, self.rng = bytearray(source), raw_dest, size, rng

    def write(self, disk):
        """Writes somewhere, 512 bytes to 64 KiB."""
        length = 512 * self.rng.choice([1, 3, 8, 16, 37, 128])
        at = 512 * self.rng.randrange((self.size - length) // 512 + 1)
        data = self.rng.randbytes(length)
        disk.write(at, data)
        self.bytes[at:at + length] = data

    def discard(self, disk):
        """Discards some regions: they read as what the destination holds."""
        count = self.rng.choice([1, 5, 30])
        at = REGION * self.rng.randrange(self.size // REGION - count)
        disk.discard(at, count * REGION)
        below = Disk(self.raw_dest)
        self.bytes[at:at + count * REGION] = below.read(at, count * REGION)
        below.close()


def visit(module, table, length, model, step):
    """One module's turn."""
    load = ["/lab/load" if module == "rs" else "modprobe", MODULES[module]]
    subprocess.run(load, check=True)
    device = Device("clone")
    device.load(length, "clone", table)
    device.resume()
    before, _ = hydrated(device)
    assert read_all(device.path, model.size) == model.bytes, f"{module} reads something else when it comes"

    disk = Disk(device.path)
    for _ in range(30):
        (model.write if model.rng.random() < 0.8 else model.discard)(disk)
    if step:
        start, _ = hydrated(device)
        total = -(-length // 8)
        device.message("enable_hydration")
        while hydrated(device)[0] < min(start + step, total):
            time.sleep(0.001)
        device.message("disable_hydration")
        while hydrated(device)[1]:
            time.sleep(0.001)
    for _ in range(5):
        model.write(disk)
    disk.close()
    assert read_all(device.path, model.size) == model.bytes, f"{module} reads something else when it goes"
    after, _ = hydrated(device)
    device.remove()
    subprocess.run(["rmmod", "dm_clone_rs" if module == "rs" else "dm_clone"], check=True)
    return [module, before, after]


def main():
    """Visits them all, and checks that the source is what it was."""
    seed, length, step = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[7])
    metadata, dest, raw_dest, source = sys.argv[3:7]
    original = read_all(source, length * 512)
    model = Model(original, raw_dest, length * 512, random.Random(seed))
    # One region at a time, by either module: then it can be stopped midway.
    core = "4 hydration_threshold 1 hydration_batch_size 1"
    table = f"{metadata} {dest} {source} 8 2 no_hydration no_discard_passdown {core}"
    turns = [visit(module, table, length, model, step) for module in sys.argv[8:]]
    assert read_all(source, length * 512) == original, "the source has changed"
    if turns[-1][2] == -(-length // 8):
        assert read_all(raw_dest, length * 512) == model.bytes, "the clone is complete, but the destination is not"
    print(json.dumps(turns))


main()
