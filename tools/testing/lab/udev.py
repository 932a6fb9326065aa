# SPDX-License-Identifier: GPL-2.0
"""udev in the guest, for tests that can do without."""

import contextlib


@contextlib.contextmanager
def without_udev(guest):
    """Nobody listens to the events of thousands of tables."""
    guest.run("udevadm settle && udevadm control --exit")
    yield
    guest.run("/usr/lib/systemd/systemd-udevd --daemon && udevadm control --ping")
