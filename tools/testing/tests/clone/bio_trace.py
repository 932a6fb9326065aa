# SPDX-License-Identifier: GPL-2.0
"""A record of the bios of some devices, queued and completed, in one order: the block layer's trace events."""

import re
from dataclasses import dataclass

TRACING = "/sys/kernel/tracing"
EVENTS = ("block_bio_queue", "block_bio_complete")
LINE = re.compile(r"(block_bio_\w+): (\d+),(\d+) (\S+) (\d+) \+ (\d+) ")


@dataclass
class Bio:
    """One event of one bio."""

    completed: bool  # else queued
    device: str
    flags: str  # as in blktrace: W write, a leading F flush, a later F FUA
    sector: int
    sectors: int

    @property
    def is_flush(self):
        """Whether it flushes the device."""
        return self.flags.startswith("F")

    @property
    def is_fua(self):
        """Whether it is a FUA write."""
        return "WF" in self.flags

    @property
    def is_write(self):
        """Whether it writes data, perhaps after a flush of its own."""
        return "W" in self.flags and (not self.is_flush or self.sectors > 0)


class BioTrace:
    """Records between start() and stop(); devices are {name: path}."""

    def __init__(self, guest, devices):
        self.guest = guest
        paths = "\n".join(f"stat -L -c '%Hr %Lr' {path}" for path in devices.values())
        numbers = [tuple(map(int, line.split())) for line in guest.output(paths).splitlines()]
        self.names = dict(zip(numbers, devices, strict=True))

    def start(self):
        """Begins to record."""
        # Sequence numbers instead of times: events of two CPUs in a true order.
        lines = [f"cd {TRACING}", "echo counter > trace_clock", "echo > trace"]
        condition = " || ".join(f"dev == {major << 20 | minor}" for major, minor in self.names)
        for event in EVENTS:
            lines += [f"echo '{condition}' > events/block/{event}/filter", f"echo 1 > events/block/{event}/enable"]
        self.guest.run("\n".join(["set -e", *lines]))

    def wait_for_flush(self):
        """Waits until a flush has been queued, since start()."""
        self.guest.run(f"until grep -q 'block_bio_queue: [0-9,]* F' {TRACING}/trace; do sleep 0.02; done")

    def stop(self):
        """Ends, and returns the events."""
        off = "\n".join(f"echo 0 > events/block/{event}/enable" for event in EVENTS)
        text = self.guest.output(f"cd {TRACING}\n{off}\ncat trace; echo > trace")
        return [
            Bio(event == "block_bio_complete", self.names[int(major), int(minor)], flags, int(sector), int(sectors))
            for event, major, minor, flags, sector, sectors in LINE.findall(text)
        ]
