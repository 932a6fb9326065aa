# SPDX-License-Identifier: GPL-2.0
"""A guest whose clock counts instructions: what it measures does not depend on the host's speed or load.

It has one CPU, and a nanosecond passes with each instruction. Where the CPU would be idle, time jumps to the
next timer. So there can be no talk with the host, which would seem years away: the guest runs one job
from boot to end, and what the job writes comes out line by line.
"""

import contextlib
import socket

from .guest import Guest, GuestDied

# The emulator counts each byte of a string instruction as one: a processor without fast ones moves words.
PROCESSOR = ["-accel", "tcg", "-icount", "shift=0,sleep=off", "-cpu", "max,-erms,-fsrm,-fsrs", "-smp", "1"]
MEMORY = "6G"


class CountedGuest(Guest):
    """A virtual machine that runs one job: /lab/job/main, which finds its name on the kernel's command line.

    files: what goes into /lab/job.
    """

    def __init__(self, name, files, cmdline=""):
        super().__init__(cmdline=f"lab.job={name} {cmdline}")
        self.files = files

    def processor(self):
        return [*PROCESSOR, "-m", MEMORY, "-rtc", "clock=vm"]

    def lines(self):
        """Boots, and yields each line that the job writes; ends with the job. A failed job is GuestDied."""
        self.make_payload(self.files)
        self.start_qemu()
        with socket.socket(socket.AF_UNIX) as port, contextlib.ExitStack() as stack:
            port.connect(str(self.folder / "lab"))
            for line in stack.enter_context(port.makefile("r", encoding="utf-8", errors="replace")):
                if line.startswith("end "):
                    if line != "end 0\n":
                        raise GuestDied(f"the job failed; the console ends with:\n{self._last_words()}")
                    return
                yield line.rstrip("\n")
        raise GuestDied(f"the guest died; its console ends with:\n{self._last_words()}")

    def _last_words(self):
        return "\n".join(self.console().splitlines()[-40:])
