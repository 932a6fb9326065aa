# SPDX-License-Identifier: GPL-2.0
"""Device-mapper's ioctls, for scripts in guests: a thousand tables in the time that dmsetup takes for ten."""

import errno
import fcntl
import os
import struct
import time

DEV_CREATE, DEV_REMOVE, DEV_SUSPEND, DEV_STATUS, DEV_WAIT = 3, 4, 6, 7, 8
TABLE_LOAD, TABLE_CLEAR, TABLE_STATUS, TARGET_MSG = 9, 10, 12, 14
SUSPEND, STATUS_TABLE = 1 << 1, 1 << 4
NOFLUSH, INACTIVE, DATA_OUT = 1 << 11, 1 << 12, 1 << 16

# version, data_size, data_start, target_count, open_count, flags, event_nr, padding, dev, name, uuid
HEADER = struct.Struct("=3I3Ii2IIQ128s129s7x")
# sector_start, length, status, next, target_type
TARGET = struct.Struct("=QQiI16s")
ROOM = 16384


class Device:
    """A device-mapper device. Errors are OSErrors, as the ioctls give them."""

    control = None

    def __init__(self, name, create=True):
        Device.control = Device.control or os.open("/dev/mapper/control", os.O_RDWR)
        self.name = name
        number = self._ioctl(DEV_CREATE if create else DEV_STATUS)[10]
        self.major, self.minor = os.major(number), os.minor(number)
        self.path = f"/dev/dm-{self.minor}"

    def _ioctl(self, command, flags=0, data=b"", targets=0, event=0):
        buffer = bytearray(HEADER.size + ROOM)
        HEADER.pack_into(buffer, 0, 4, 0, 0, len(buffer), HEADER.size, targets, 0, flags, event, 0, 0,
                         self.name.encode(), b"")
        buffer[HEADER.size:HEADER.size + len(data)] = data
        fcntl.ioctl(Device.control, 3 << 30 | HEADER.size << 16 | 0xFD << 8 | command, buffer, True)
        return (*HEADER.unpack_from(buffer), bytes(buffer))

    def load(self, length, target, words):
        """Puts a table with one target into the inactive slot."""
        text = words.encode() + b"\0"
        spec = TARGET.pack(0, length, 0, TARGET.size + len(text), target.encode())
        self._ioctl(TABLE_LOAD, data=spec + text, targets=1)

    def clear(self):
        """Drops the inactive table."""
        self._ioctl(TABLE_CLEAR)

    def suspend(self):
        """Suspends."""
        self._ioctl(DEV_SUSPEND, SUSPEND)

    def resume(self):
        """Resumes, with the inactive table if there is one."""
        self._ioctl(DEV_SUSPEND)

    def status(self, flags=0):
        """The target's status, or with STATUS_TABLE its table: the words after the target's name."""
        answer = self._ioctl(TABLE_STATUS, flags)[-1]
        start, = struct.unpack_from("=I", answer, 16)
        return answer[start + TARGET.size:].partition(b"\0")[0].decode()

    def event(self):
        """The number of the last event."""
        return self._ioctl(DEV_STATUS)[6]

    def message(self, words):
        """Sends a message to the target at sector 0; returns whether there was a reply."""
        answer = self._ioctl(TARGET_MSG, data=struct.pack("=Q", 0) + words.encode() + b"\0")
        return bool(answer[7] & DATA_OUT)

    def wait(self, event):
        """Waits for an event after this one. A status would come with it, and wait for a commit; so a table does."""
        self._ioctl(DEV_WAIT, STATUS_TABLE, event=event)

    def remove(self):
        """Removes the device; waits for udev to be done with it."""
        while True:
            try:
                self._ioctl(DEV_REMOVE)
                return
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise


def log(text):
    """Writes a line into the kernel's log. Each file may write only a few; readers see it by its end."""
    with open("/dev/kmsg", "w", encoding="ascii") as kmsg:
        kmsg.write(f"{text}\n")


class KernelLog:
    """What the kernel says from now on."""

    def __init__(self):
        self._file = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(self._file, 0, os.SEEK_END)
        self._marks = 0

    def lines(self):
        """The lines since the last call."""
        # Up to a mark of our own: what is there may be hidden behind a line that another CPU still writes.
        self._marks += 1
        mark = f"lab: mark {self._marks} of {os.getpid()}"
        log(mark)
        lines = []
        while True:
            try:
                record = os.read(self._file, 8192)
            except BlockingIOError:
                time.sleep(0.001)
                continue
            line = record.partition(b";")[2].partition(b"\n")[0].decode(errors="replace")
            if line == mark:
                return lines
            lines.append(line)
