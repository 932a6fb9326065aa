# SPDX-License-Identifier: GPL-2.0
"""Lends one guest to one test after the other, and judges after each whether it is fit for the next."""

import re
import time

from . import disks, judge, places
from .guest import Guest, GuestDied
from .pauses import Pauses

CLEANUP_SECONDS = 60
ANSWER_SECONDS = 15
LEAKS_SECONDS = 60
# The host stood still for so long, or the guest's clock leapt so far ahead of the host's, that a stall is no wonder:
# the kernel waits for 20 seconds of its own.
PAUSE_SECONDS = 10


class KernelComplaint(Exception):
    """The guest's kernel complained during a test."""


class MemoryLeaked(Exception):
    """The kernel found memory that nothing points to."""


class LeftBehind(Exception):
    """A test left something in the guest that cannot be taken down."""


class Keeper:
    """Keeps the shared guest of a pytest run."""

    def __init__(self, say):
        self._say = say
        self._pauses = Pauses()
        self._guest = None
        self._scratch = None
        self._begin = 0
        # How far the guest's clock is ahead of the host's: now, and when the test began.
        self._ahead = self._ahead_before = 0
        self.logs = None

    def lend(self, name):
        """A running guest for the test of this name."""
        if self._guest is None:
            self._scratch = self._scratch or disks.make_scratch_files()
            try:
                self._guest = self._boot()
            except GuestDied as error:
                # Nothing of ours runs before a guest is up, so this is the emulator or the host.
                self._say(f"{error}\na second try")
                self._guest = self._boot()
            guest = self._guest
            self._say(f"guest with kernel {places.kernel()} up after {guest.boot_seconds:.1f} s")
        self.logs = log_folder(name)
        self.logs.mkdir(parents=True, exist_ok=True)
        self._guest.transcript = open(self.logs / "commands.log", "w", encoding="utf-8")
        self._begin = self._guest.console_size()
        self._ahead_before = self._ahead
        self._pauses.take()
        return self._guest

    def take_back(self, name, expected, overrun, last):
        """Takes the guest back after a test; raises what the test did to it.

        expected: patterns of kernel log lines that the test provokes and that must be there.
        overrun: the test was stopped at its time limit.
        last: look for leaks as well, of this test and those before it.
        """
        guest = self._guest
        if guest is None:
            return
        fit = False
        try:
            if overrun and guest.alive:
                guest.dump_tasks()
            left = "" if overrun or not guest.alive else self._clean_up(name)
            log = guest.console(self._begin)
            lines = judge.complaints(log, [*expected, *self._stalls(log)])
            missing = [pattern for pattern in expected if not re.search(pattern, log)]
            if lines:
                raise KernelComplaint("the kernel complained:\n" + "\n".join(lines))
            if missing:
                raise KernelComplaint(f"not in the kernel's log, but expected: {missing}")
            if left:
                raise LeftBehind(f"cannot be removed after the test:\n{left}")
            if not guest.alive:
                raise GuestDied(f"the guest ended; its last words:\n{log[-2000:]}")
            leaks = guest.output("/lab/leaks", timeout=LEAKS_SECONDS) if last else ""
            if leaks:
                raise MemoryLeaked(f"by this test, or one before it in the same file:\n{leaks}")
            # What complained as expected may be damaged all the same.
            fit = not overrun and not judge.complaints(log)
        finally:
            (self.logs / "dmesg.log").write_text(guest.console(self._begin))
            guest.transcript.close()
            guest.transcript = None
            if not fit:
                self.drop()

    def drop(self):
        """Ends the guest; the next test gets a fresh one."""
        if self._guest:
            self._guest.close()
            self._guest = None

    def close(self):
        """The run is over."""
        self.drop()
        if self._scratch:
            disks.remove_scratch_files(self._scratch)

    def _boot(self):
        guest = Guest(disks=self._scratch)
        try:
            guest.boot()
            self._ahead = float(guest.output("cut -d' ' -f1 /proc/uptime")) - time.monotonic()
        except BaseException:
            guest.close()
            raise
        return guest

    def _stalls(self, log):
        """Patterns of what the kernel may say because the host stood still, or the guest's clock leapt."""
        pause, leap = self._pauses.take(), self._ahead - self._ahead_before
        if max(pause, leap) < PAUSE_SECONDS:
            return ()
        if lines := judge.complaints(log):
            self._say(f"the host stood still for {pause:.0f} s, and the guest's clock went ahead by {leap:.0f} s:"
                      " no stall counts in\n" + "\n".join(lines))
        return judge.STALLS

    def _clean_up(self, name):
        """Takes down what the test left; returns what would not go. Then all its log lines are there."""
        mark = f"lab: end of {name}"
        try:
            left = self._guest.output(f"/lab/cleanup; echo '{mark}' > /dev/kmsg", timeout=CLEANUP_SECONDS)
        except TimeoutError as error:
            self._guest.dump_tasks()
            raise LeftBehind(f"the guest hangs: {error}; see dmesg.log for its tasks") from error
        except GuestDied:
            return ""
        now = time.monotonic()
        if not self._guest.wait_for_console(mark, self._begin, ANSWER_SECONDS) and self._guest.alive:
            raise LeftBehind("the guest's console hangs")
        if stamp := re.search(rf"\[ *(\d+\.\d+)\] {re.escape(mark)}", self._guest.console(self._begin)):
            self._ahead = float(stamp[1]) - now
        return left


def log_folder(name):
    """Where the logs of the test with this name are."""
    return places.build() / "test-logs" / re.sub(r"[^\w.,=+-]+", "_", name)
