# SPDX-License-Identifier: GPL-2.0
"""The host's side of guest/agent, which runs commands in a guest without a connection for each.

A connection costs the emulated processor as much as two programs that start, and a test runs some twenty commands.
A request is the command and the text that it reads, each with a NUL at its end. What it writes comes as it is; then
stdout has a mark and the exit status, a line, and stderr the mark.
"""

import os
import secrets
import select
import subprocess
import time


class Agent:
    """One agent, for one command at a time. words: what runs a program in the guest, up to its name."""

    def __init__(self, words):
        self._mark = secrets.token_hex(8).encode()
        self._process = subprocess.Popen(
            [*words, f"exec /lab/agent {self._mark.decode()}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
        )

    def run(self, command, text, timeout):
        """(status, stdout, stderr) of a command that reads a text, whose last line is given its end if it lacks it.

        timeout in seconds, or None. After any exception the agent is of no use.
        """
        end = timeout and time.monotonic() + timeout
        text = text.removesuffix("\n")
        request = memoryview(f"{command}\0{text}\0".encode())
        while request:
            request = request[os.write(self._process.stdin.fileno(), request):]
        said = {self._process.stdout: b"", self._process.stderr: b""}
        open_ones = list(said)
        while open_ones:
            left = end and max(0, end - time.monotonic())
            ready = select.select(open_ones, [], [], left)[0]
            if not ready:
                raise TimeoutError
            for stream in ready:
                part = os.read(stream.fileno(), 1 << 20)
                if not part:
                    raise EOFError
                said[stream] += part
                if self._mark in said[stream][-64:] and part.endswith(b"\n"):
                    open_ones.remove(stream)
        out, _, status = said[self._process.stdout].rpartition(self._mark)
        err, _, _ = said[self._process.stderr].rpartition(self._mark)
        return int(status), out, err

    def close(self):
        """Ends it, and not what it runs, for which ssh may keep its ends of the pipes."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            pipe.close()
