# SPDX-License-Identifier: GPL-2.0
"""Loads tables of `clone` and drops them again. stdin: [[length, words]...]; see tests/clone/tables.py."""

import json
import os
import sys

from dm_ioctl import INACTIVE, STATUS_TABLE, Device, KernelLog


def try_table(device, log, length, words):
    """What became of one table."""
    try:
        device.load(length, "clone", words)
    except OSError as error:
        return {"words": words, "errno": os.strerror(error.errno), "log": log.lines()}
    result = {
        "words": words,
        "table": device.status(STATUS_TABLE | INACTIVE),
        "status": device.status(INACTIVE),
        "log": log.lines(),
    }
    device.clear()
    return result


def main():
    """Tries all the tables. Metadata named as an argument are blanked before each."""
    log = KernelLog()
    device = Device(f"tried-{os.getpid()}")
    results = []
    for length, words in json.load(sys.stdin):
        for path in sys.argv[1:]:
            with open(path, "r+b") as metadata:
                metadata.write(bytes(4096))
                metadata.flush()
                os.fsync(metadata.fileno())
        results.append(try_table(device, log, length, words))
    device.remove()
    print(json.dumps(results))


main()
