# SPDX-License-Identifier: GPL-2.0
"""dmsetup, for tests. Each method is one dmsetup command in the guest."""

import collections
import shlex

Line = collections.namedtuple("Line", "start length target args")


def _line(text):
    start, length, target, *args = text.split()
    return Line(int(start), int(length), target, args)


class Device:
    """One device-mapper device of the guest."""

    def __init__(self, guest, name):
        self.guest = guest
        self.name = name
        self.path = f"/dev/mapper/{name}"

    def __str__(self):
        return self.path

    def _dmsetup(self, words, **options):
        return self.guest.run(f"dmsetup {words}", **options)

    def load(self, table, check=True):
        """Puts a table into the inactive slot (runs the targets' ctr); resume() makes it active."""
        return self._dmsetup(f"load {self.name}", stdin=table, check=check)

    def suspend(self, *options, check=True):
        """suspend("--noflush", "--nolockfs")"""
        return self._dmsetup(f"suspend {' '.join(options)} {self.name}", check=check)

    def resume(self, check=True):
        """Resumes, with the table loaded before if there is one."""
        return self._dmsetup(f"resume {self.name}", check=check)

    def reload(self, table):
        """Swaps the table: load, suspend, resume."""
        self.load(table)
        self.suspend()
        self.resume()

    def remove(self, check=True):
        """Removes the device."""
        return self._dmsetup(f"remove {self.name}", check=check)

    def message(self, *words, sector=0, check=True):
        """Sends a message to the target at a sector; the reply is the Result's stdout."""
        return self._dmsetup(f"message {self.name} {sector} {shlex.join(map(str, words))}", check=check)

    def status(self, *options):
        """The status of each target, as (start, length, target, args)."""
        return [_line(text) for text in self.status_text(*options).splitlines()]

    def status_text(self, *options):
        """What `dmsetup status` prints."""
        return self._dmsetup(f"status {' '.join(options)} {self.name}").stdout

    def table(self):
        """The active table, in the form of status()."""
        return [_line(text) for text in self._dmsetup(f"table {self.name}").stdout.splitlines()]

    def events(self):
        """How many events there were since the device was created."""
        return int(self.guest.output(f"dmsetup info -c --noheadings -o events {self.name}"))

    def wait(self, event):
        """Waits for an event with a higher number than this one."""
        self._dmsetup(f"wait {self.name} {event}")

    def wait_until(self, condition):
        """Waits until condition(status of the first target) is true, looking again at each event."""
        while True:
            # The number is read before the status: an event in between ends the wait at once.
            event = self.events()
            status = self.status()[0]
            if condition(status):
                return status
            self.wait(event)

    def sectors(self):
        """The size of the device."""
        return int(self.guest.output(f"blockdev --getsz {self.path}"))


class Dm:
    """Makes device-mapper devices. After the test all are removed, whoever made them."""

    def __init__(self, guest):
        self.guest = guest

    def create(self, name, table, *options):
        """Creates an active device: `dmsetup create name options... < table`."""
        self.guest.run(f"dmsetup create {name} {' '.join(options)}", stdin=table)
        return Device(self.guest, name)

    def refuse(self, name, table, *options):
        """Creates a device that must be refused; returns the kernel's line with the reason."""
        where = self.guest.console_size()
        result = self.guest.run(f"dmsetup create {name} {' '.join(options)}", stdin=table, check=False)
        assert result.returncode, f"the table was accepted: {table}"
        mark = f"lab: {name} refused {where}"
        self.guest.run(f"echo '{mark}' > /dev/kmsg")
        assert self.guest.wait_for_console(mark, where, 10)
        lines = [line for line in self.guest.console(where).splitlines() if "device-mapper: table:" in line]
        assert lines, f"refused without a reason in the kernel's log: {table}"
        return lines[0].partition("device-mapper: table: ")[2]

    def names(self):
        """The devices there are."""
        text = self.guest.output("dmsetup info -c --noheadings -o name")
        return [] if text == "No devices found" else text.split()
