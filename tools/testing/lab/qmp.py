# SPDX-License-Identifier: GPL-2.0
"""As much of QEMU's machine protocol as the lab needs."""

import json
import socket


class Qmp:
    """A connection to QEMU's monitor."""

    def __init__(self, path):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(10)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("r")
        self._lines.readline()  # the greeting
        self.command("qmp_capabilities")

    def command(self, name, **arguments):
        """Runs a command and returns its result; events that come meanwhile are passed over."""
        words = {"execute": name, "arguments": arguments}
        self._socket.sendall(json.dumps(words).encode() + b"\n")
        while line := self._lines.readline():
            answer = json.loads(line)
            if "error" in answer:
                raise OSError(f"QEMU refuses {name}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
        raise OSError(f"QEMU ended before it answered {name}")

    def close(self):
        """Ends the connection; QEMU goes on."""
        self._lines.close()
        self._socket.close()
