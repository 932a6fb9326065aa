# SPDX-License-Identifier: GPL-2.0
"""Calls whose first allocation fails, then the second, and so on."""

import collections
import json
import os
import pathlib
import re

# A reserve of 256 objects is as many allocations by the same code that end in the same way: after so many of them a
# walk leaps, as long as it lands among its like. At once where it has been before, in another call.
OF_A_KIND = 3
# How often the log has a line of it.
TOLD = 100
# A function of a stack, and where in it.
FRAME = re.compile(rb"^\s+(\S+\+0x[0-9a-f]+)/0x[0-9a-f]+", re.MULTILINE)
NOTHING_FAILED = None


class Failures:
    """The allocations of this thread; needs CONFIG_FAULT_INJECTION."""

    def __init__(self):
        self._file = os.open("/proc/thread-self/fail-nth", os.O_RDWR)
        self._log = os.open("/dev/kmsg", os.O_RDWR | os.O_NONBLOCK)
        self._said = {}
        # (how a call ended, where its failing allocation was made), of all walks.
        self._kinds = set()
        # Each failure tells its stack.
        for kind in ("failslab", "fail_page_alloc"):
            folder = pathlib.Path("/sys/kernel/debug", kind)
            (folder / "verbose").write_text("2", encoding="ascii")
            (folder / "verbose_ratelimit_interval_ms").write_text("0", encoding="ascii")

    def tell(self):
        """Prints what came of all walks: {call: {errno's name, "served" or "done": how often}}."""
        print(json.dumps(self._said))

    def walk(self, name, call, again):
        """Calls with one failure each, until there is no allocation left; the kernel's log says how far it is.

        again() makes things as they were, and is told whether the call was refused.
        """
        outcomes = self._said[name] = collections.Counter()
        before = set(self._kinds)
        tries = 0

        def look(number):
            """What comes of it if this allocation fails, and where it is made; or NOTHING_FAILED."""
            nonlocal tries
            kind = self._call(number, call, again)
            if kind is not NOTHING_FAILED:
                outcomes[kind[0]] += 1
                self._kinds.add(kind)
            tries += 1
            if tries % TOLD == 0:
                self._tell(f"{name}: {number} allocations so far, {len(self._kinds)} kinds")
            return kind

        number, kind, of_a_kind = 1, look(1), 1
        while kind is not NOTHING_FAILED:
            leap = 1 << max(0, of_a_kind - (1 if kind in before else OF_A_KIND))
            landed = look(number + leap)
            if landed == kind:
                number, of_a_kind = number + leap, of_a_kind + 1
                continue
            # Where what is alike ends.
            beyond = number + leap
            while beyond - number > 1:
                middle = (number + beyond) // 2
                found = look(middle)
                if found == kind:
                    number = middle
                else:
                    beyond, landed = middle, found
            number, kind, of_a_kind = beyond, landed, 1
        outcomes["done"] += 1
        self._tell(f"{name}: {number - 1} allocations, {tries} tries, {len(self._kinds)} kinds")

    def _call(self, number, call, again):
        """(how the call ended, where its failing allocation is made), or NOTHING_FAILED if it has not so many."""
        refused = None
        self._lines()
        os.pwrite(self._file, b"%d" % number, 0)
        try:
            call()
        except OSError as error:
            refused = error
        left = int(os.pread(self._file, 16, 0))
        os.pwrite(self._file, b"0", 0)
        stack = tuple(FRAME.findall(self._lines()))
        again(refused is not None)
        if left:
            assert refused is None, f"refused without a failure: {refused}"
            return NOTHING_FAILED
        return os.strerror(refused.errno) if refused else "served", stack

    def _tell(self, text):
        os.write(self._log, f"{text}\n".encode())

    def _lines(self):
        """What the kernel has said since the last call, without the numbers of its lines."""
        said = []
        while True:
            try:
                said.append(os.read(self._log, 8192).partition(b";")[2])
            except BlockingIOError:
                return b"".join(said)
            except BrokenPipeError:
                # Lines were overwritten before they were read.
                continue
