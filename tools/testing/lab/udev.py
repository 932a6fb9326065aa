# SPDX-License-Identifier: GPL-2.0
"""udev in the guest, for tests that can do without. On the debug kernel all do: see guest/init."""

import contextlib

from . import places


@contextlib.contextmanager
def without_udev(guest):
    """Nobody listens to the events of thousands of tables."""
    if places.is_debug():
        yield
        return
    guest.run("/lab/settle && udevadm control --exit")
    yield
    guest.run("/usr/lib/systemd/systemd-udevd --daemon && udevadm control --ping")
