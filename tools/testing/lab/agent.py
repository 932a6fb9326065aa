# SPDX-License-Identifier: GPL-2.0
"""The host's side of guest/agent, which runs commands in a guest without a connection for each.

A connection costs the emulated processor as much as two programs that start, and a test runs some twenty commands.
A request is the length of the command and the command; the reply is the exit status, or the negated signal, the
lengths of what it wrote to stdout and stderr, and both. Numbers have four bytes, the highest first.
"""

import os
import select
import struct
import subprocess
import time

LENGTH = struct.Struct("!I")
REPLY = struct.Struct("!iII")


class Agent:
    """One agent, for one command at a time. words: what runs a program in the guest, up to its name."""

    def __init__(self, words):
        self._process = subprocess.Popen(
            [*words, "exec /lab/agent"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )

    def run(self, command, timeout):
        """(status, stdout, stderr) of a command; timeout in seconds, or None. After any exception it is of no use."""
        end = timeout and time.monotonic() + timeout
        command = command.encode()
        self._process.stdin.write(LENGTH.pack(len(command)) + command)
        status, out, err = REPLY.unpack(self._read(REPLY.size, end))
        said = self._read(out + err, end)
        return status, said[:out], said[out:]

    def close(self):
        """Ends it, and not what it runs."""
        self._process.kill()
        self._process.communicate()

    def _read(self, count, end):
        pipe = self._process.stdout.fileno()
        parts = []
        while count:
            left = end and max(0, end - time.monotonic())
            if not select.select([pipe], [], [], left)[0]:
                raise TimeoutError
            parts.append(os.read(pipe, min(count, 1 << 20)))
            if not parts[-1]:
                raise EOFError
            count -= len(parts[-1])
        return b"".join(parts)
