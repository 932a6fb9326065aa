# SPDX-License-Identifier: GPL-2.0
"""Sends messages to a clone. argument: its name; stdin: [message...]; see tests/clone/test_messages.py."""

import json
import os
import sys

from dm_ioctl import NOFLUSH, Device, KernelLog


def main():
    """Sends them, and says what came of each."""
    device, log, results = Device(sys.argv[1], create=False), KernelLog(), []
    for words in json.load(sys.stdin):
        errno, replied = None, False
        try:
            replied = device.message(words)
        except OSError as error:
            errno = os.strerror(error.errno)
        results.append([errno, replied, device.status(NOFLUSH), log.lines()])
    json.dump(results, sys.stdout)


main()
