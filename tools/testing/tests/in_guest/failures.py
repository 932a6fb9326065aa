# SPDX-License-Identifier: GPL-2.0
"""Calls whose first allocation fails, then the second, and so on."""

import collections
import json
import os

# A reserve of 256 objects is as many allocations that end in the same way: after so many of a kind there are gaps,
# which grow to so much.
OF_A_KIND = 24
LARGEST_GAP = 16
# How often the log has a line of it.
TOLD = 100


class Failures:
    """The allocations of this thread; needs CONFIG_FAULT_INJECTION."""

    def __init__(self):
        self._file = os.open("/proc/thread-self/fail-nth", os.O_RDWR)
        self._log = os.open("/dev/kmsg", os.O_RDWR | os.O_NONBLOCK)
        self._said = {}

    def tell(self):
        """Prints what came of all walks: {call: {errno's name, "served" or "done": how often}}."""
        print(json.dumps(self._said))

    def walk(self, name, call, again):
        """Calls with one failure each, until there is no allocation left; the kernel's log says how far it is.

        again() makes things as they were, and is told whether the call was refused.
        """
        outcomes = self._said[name] = collections.Counter()
        told = 0
        number = gap = 1
        kind, of_a_kind = None, 0
        while True:
            refused = None
            self._lines()
            os.pwrite(self._file, b"%d" % number, 0)
            try:
                call()
            except OSError as error:
                refused = error
            left = int(os.pread(self._file, 16, 0))
            os.pwrite(self._file, b"0", 0)
            words = self._lines()
            again(refused is not None)
            if left:
                assert refused is None, f"refused without a failure: {refused}"
                outcomes["done"] += 1
                self._tell(f"{name}: {number - left} allocations")
                return
            outcome = os.strerror(refused.errno) if refused else "served"
            outcomes[outcome] += 1
            kind, before = (outcome, words), kind
            of_a_kind = of_a_kind + 1 if kind == before else 0
            gap = min(2 * gap, LARGEST_GAP) if of_a_kind >= OF_A_KIND else 1
            number += gap
            if number - told >= TOLD:
                told = number
                self._tell(f"{name}: {number} allocations so far")

    def _tell(self, text):
        os.write(self._log, f"{text}\n".encode())

    def _lines(self):
        """What the kernel has said since the last call, without the numbers of its lines."""
        said = []
        while True:
            try:
                said.append(os.read(self._log, 8192).partition(b";")[2])
            except BlockingIOError:
                return said
            except BrokenPipeError:
                # Lines were overwritten before they were read.
                continue
