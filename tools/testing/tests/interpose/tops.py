# SPDX-License-Identifier: GPL-2.0
"""Tops of all kinds on an `interpose` device: how each is made, and how it gives back what it keeps for itself."""

from lab import modules


class Tops:
    """Makes a top by the name of its target, with a disk of memory for what it needs."""

    def __init__(self, guest, dm, disks):
        self.guest, self.dm, self.disks = guest, dm, disks
        self._spare = None

    def make(self, low, kind):
        """A top of this kind on an `interpose` device: (the device, what must be called before it is detached)."""
        return getattr(self, f"_{kind}")(low)

    def _disk(self):
        """An empty disk. Each top that needs one overwrites it."""
        if not self._spare:
            self._spare = self.disks.null("spare", 64)
        self.guest.run(f"dd if=/dev/zero of={self._spare} bs=64k count=1 oflag=direct status=none")
        return self._spare

    def _linear(self, low):
        return low.top("linear"), lambda: None

    def _flakey(self, low):
        return low.top("flakey", "flakey", after="0 60 0"), lambda: None

    def _delay(self, low):
        return low.top("delay", "delay", after="0 3"), lambda: None

    def _era(self, low):
        return low.top("era", "era", before=self._disk(), after="128"), lambda: None

    def _log_writes(self, low):
        return low.top("log", "log-writes", after=self._disk()), lambda: None

    def _stack(self, low):
        """Two targets, one on the other, the upper one of two pieces."""
        half = low.sectors // 2
        lower = low.top("lower", "flakey", after="0 60 0")
        upper = f"0 {half} linear {lower} 0\n{half} {low.sectors - half} linear {lower} {half}"
        return self.dm.create("upper", upper), lambda: None

    def _snapshot(self, low):
        """A snapshot and its origin; the former must still be valid at the end."""
        low.top("snap", "snapshot", after=f"{self._disk()} N 16")

        def valid():
            used = self.guest.output("dmsetup status snap").split()[3]
            assert int(used.partition("/")[0]) > 0, used

        return low.top("origin", "snapshot-origin", after=""), valid

    def _writecache(self, low):
        top = low.top("writecache", "writecache", before="s", after=f"{self._disk()} 512 0")

        def flush():
            # It writes all through from here on, and has nothing of its own once what it had is written.
            top.message("cleaner")
            self.guest.run("until set -- $(dmsetup status writecache) && [ $5 = $6 ]; do sleep 0.01; done", timeout=60)

        return top, flush

    def _cache(self, low):
        fast = self._disk()
        sectors = int(self.guest.output(f"blockdev --getsz {fast}"))
        parts = [
            self.dm.create("metadata", f"0 8192 linear {fast} 0"),
            self.dm.create("fast", f"0 {sectors - 8192} linear {fast} 8192"),
        ]
        table = f"0 {low.sectors} cache {parts[0]} {parts[1]} {low} 128 1"
        top = self.dm.create("cache", f"{table} writeback smq 0")

        def flush():
            top.reload(f"{table} writethrough cleaner 0")
            # The number of dirty blocks.
            top.wait_until(lambda status: status.args[10] == "0")

        return top, flush

    def _lc(self, low):
        modules.load(self.guest, "dm_lc_rs")
        top = self.dm.create("lc", f"0 {low.sectors} lc {low} {self._disk()} 2 format 1")

        def flush():
            # It writes past the log from here on, and has nothing once what it had is written back.
            top.message("mode", "cleaner")
            top.wait_until(lambda status: " log_used 0 " in f" {' '.join(status.args)} ")

        return top, flush


KINDS = ["linear", "flakey", "delay", "era", "log_writes", "stack", "snapshot", "writecache", "cache", "lc"]
