# SPDX-License-Identifier: GPL-2.0
"""Makes each allocation of each call fail; see tests/lc/test_allocation_failures.py.

arguments: SECTORS BACKING CACHE
stdout: {call: {what came of it: how often}} as JSON; "done" is what no failure was left for.
"""

import sys

from disk import Disk
from dm_ioctl import Device
from failures import Failures

BLOCK = 4096


def main():
    """Walks through opening, recovery, writes, flushes, messages, suspension and reload."""
    sectors, backing, cache = int(sys.argv[1]), *sys.argv[2:]
    failures = Failures()
    device = Device("failing")

    def load():
        device.load(sectors, "lc", f"{backing} {cache} 2 allow_migrate 0")

    def anew(_refused):
        """What is there after a start reads the log again."""
        device.remove()
        device.__init__("failing")
        load()

    def rw(_refused):
        status = device.status()
        assert status.startswith("writeback rw "), status

    failures.walk("open", load, lambda _refused: device.clear())
    load()
    device.resume()
    disk = Disk(device.path)
    number = 0

    def content(block):
        return (block + 1).to_bytes(8, "little") * (BLOCK // 8)

    def write():
        disk.write(number * BLOCK, content(number))

    def next_one(refused):
        nonlocal number
        # What was refused is written now.
        write()
        number += 1
        rw(refused)

    failures.walk("write", write, next_one)
    failures.walk("flush", lambda: (write(), disk.flush()), next_one)
    for message in ("flush_current_buffer", "commit_super_block", "check", "stats", "mode writeback"):
        failures.walk(message, lambda message=message: device.message(message), rw)
    failures.walk("status", device.status, rw)

    def suspended(refused):
        device.resume()
        rw(refused)

    failures.walk("suspend", device.suspend, suspended)

    def reload():
        load()
        device.suspend()
        device.resume()

    failures.walk("reload", reload, suspended)
    disk.close()
    anew(False)
    failures.walk("recover", device.resume, anew)
    device.resume()
    disk = Disk(device.path)
    for block in range(number):
        assert disk.read(block * BLOCK, BLOCK) == content(block), block
    failures.walk("write back", lambda: device.message("flush"), rw)
    disk.close()
    device.remove()
    disk = Disk(backing)
    for block in range(number):
        assert disk.read(block * BLOCK, BLOCK) == content(block), block
    disk.close()
    failures.tell()


main()
