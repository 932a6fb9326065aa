# SPDX-License-Identifier: GPL-2.0
"""Makes each allocation of each step fail; see tests/interpose/test_allocation_failures.py.

arguments: SECTORS DISK
stdout: {call: {what came of it: how often}} as JSON; "done" is what no failure was left for.
"""

import sys

from dm_ioctl import Device
from failures import Failures


def main():
    """Walks through creation, attach, switch and detach."""
    sectors, disk = int(sys.argv[1]), sys.argv[2]
    failures = Failures()
    low = Device("low")

    def load():
        low.load(sectors, "interpose", disk)

    failures.walk("create", load, lambda _refused: low.clear())
    load()
    low.resume()
    tops = []
    for name in ("one", "two"):
        top = Device(name)
        top.load(sectors, "linear", f"{low.path} 0")
        top.resume()
        tops.append(top)
    numbers = [f"{top.major}:{top.minor}" for top in tops]

    def must_be(state, top):
        status = low.status()
        assert status.startswith(f"{state} {top} ") and " in_flight 0 " in status, status

    def undo_attach(refused):
        if not refused:
            must_be("attached", numbers[0])
            low.message("detach")
        must_be("idle", "-")

    failures.walk("attach", lambda: low.message(f"attach {numbers[0]}"), undo_attach)
    low.message(f"attach {numbers[0]}")

    def undo_switch(refused):
        if not refused:
            must_be("attached", numbers[1])
            low.message(f"switch {numbers[0]}")
        must_be("attached", numbers[0])

    failures.walk("switch", lambda: low.message(f"switch {numbers[1]}"), undo_switch)

    def undo_detach(refused):
        if not refused:
            must_be("idle", "-")
            low.message(f"attach {numbers[0]}")
        must_be("attached", numbers[0])

    failures.walk("detach", lambda: low.message("detach"), undo_detach)
    failures.walk("status", low.status, lambda _refused: must_be("attached", numbers[0]))
    low.message("detach")
    for device in (*tops, low):
        device.remove()
    failures.tell()


main()
