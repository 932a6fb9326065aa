# SPDX-License-Identifier: GPL-2.0
"""Calls whose first allocation fails, then the second, and so on."""

import collections
import json
import os


class Failures:
    """The allocations of this thread; needs CONFIG_FAULT_INJECTION."""

    def __init__(self):
        self._file = os.open("/proc/thread-self/fail-nth", os.O_RDWR)
        self._said = {}

    def tell(self):
        """Prints what came of all walks: {call: {errno's name, "served" or "done": how often}}."""
        print(json.dumps(self._said))

    def walk(self, name, call, again):
        """Calls with one failure each, until there is no allocation left; the kernel's log says how many there were.

        again() makes things as they were, and is told whether the call was refused.
        """
        outcomes = self._said[name] = collections.Counter()
        number = 1
        while True:
            refused = None
            os.pwrite(self._file, b"%d" % number, 0)
            try:
                call()
            except OSError as error:
                refused = error
            left = int(os.pread(self._file, 16, 0))
            os.pwrite(self._file, b"0", 0)
            again(refused is not None)
            if left:
                assert refused is None, f"refused without a failure: {refused}"
                outcomes["done"] += 1
                with open("/dev/kmsg", "w") as log:
                    log.write(f"{name}: {number - 1} allocations\n")
                return
            outcomes[os.strerror(refused.errno) if refused else "served"] += 1
            number += 1
