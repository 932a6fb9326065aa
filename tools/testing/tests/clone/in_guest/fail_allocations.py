# SPDX-License-Identifier: GPL-2.0
"""Makes the first allocation of a call fail, then the second, and so on; see tests/clone/test_allocation_failures.py.

arguments: LENGTH METADATA DEST SOURCE
stdout: {call: {what came of it: how often}} as JSON; "done" is what no failure was left for.
"""

import sys

from disk import Disk
from dm_ioctl import Device
from failures import Failures

REGION = 4096


def main():
    """Walks through creation, resumption, messages, commits, suspension and reload."""
    length, (metadata, dest, source) = int(sys.argv[1]), sys.argv[2:]
    words = f"{metadata} {dest} {source} 8 1 no_hydration"
    failures = Failures()
    device = Device("failing")

    def drop(_refused):
        device.clear()

    def drop_and_blank(refused):
        drop(refused)
        disk = Disk(metadata)
        disk.write(0, bytes(4096))
        disk.close()

    def load():
        device.load(length, "clone", words)

    failures.walk("format", load, drop_and_blank)
    load()
    device.clear()
    failures.walk("open", load, drop)

    load()
    device.resume()
    disk = Disk(device.path)
    region = 0

    def write_one():
        nonlocal region
        disk.write(region * REGION, bytes(REGION))
        region += 1

    def rw(_refused):
        status = device.status()
        assert status.endswith(" rw"), status
        assert f" {region}/{length // 8} " in status, (region, status)

    # A status makes durable what was written.
    def write_and_commit():
        write_one()
        device.status()

    def still_rw(refused):
        # The write itself may have been refused.
        nonlocal region
        if refused:
            region = int(device.status().split()[3].partition("/")[0])
        rw(refused)

    failures.walk("commit", write_and_commit, still_rw)
    failures.walk("flush", lambda: (write_one(), disk.flush()), still_rw)
    failures.walk("stats", lambda: device.message("stats"), rw)
    failures.walk("set_min_share", lambda: device.message("set_min_share 40"), rw)

    def resumed(_refused):
        device.resume()
        rw(_refused)

    def suspend():
        write_one()
        device.suspend()

    def suspended(refused):
        nonlocal region
        device.resume()
        still_rw(refused)

    failures.walk("suspend", suspend, suspended)

    def reload():
        load()
        device.suspend()
        device.resume()

    failures.walk("reload", reload, resumed)
    disk.close()
    device.remove()

    # A table that is new in the device's place reads the map when it is resumed.
    device = Device("failing")

    def unload(_refused):
        device.remove()
        device.__init__("failing")
        load()

    load()
    failures.walk("resume", device.resume, unload)
    device.resume()
    rw(False)
    device.remove()
    failures.tell()


main()
