# SPDX-License-Identifier: GPL-2.0
"""How long the host stood still: a virtual machine may be stopped for a minute, when it is copied or moved.

Its clock goes on meanwhile. To the kernel of a guest it seems then that no processor has done anything for so long, and
it complains of a stall.
"""

import threading
import time

TICK_SECONDS = 0.25


class Pauses:
    """Watches the clock in a thread of its own."""

    def __init__(self):
        self._longest = 0
        self._lock = threading.Lock()
        threading.Thread(target=self._watch, daemon=True).start()

    def take(self):
        """The longest time, in seconds, that nothing went on for since this was asked last."""
        with self._lock:
            longest, self._longest = self._longest, 0
        return longest

    def _watch(self):
        before = time.monotonic()
        while True:
            time.sleep(TICK_SECONDS)
            now = time.monotonic()
            with self._lock:
                self._longest = max(self._longest, now - before - TICK_SECONDS)
            before = now
