# SPDX-License-Identifier: GPL-2.0
"""A network block device: a file of this machine, served to guests."""

import contextlib
import signal
import socket
import subprocess

from . import patience

# What a guest calls the machine that it runs on.
HOST = "10.0.2.2"


class Server:
    """nbdkit; it is ready for clients at once.

    filters: words for nbdkit before the file, parameters: those after it.
    """

    def __init__(self, file, filters=(), parameters=()):
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            self.port = listener.getsockname()[1]
            # It takes a listening socket as descriptor 3, so that nobody needs to wait until it listens.
            self._nbdkit = subprocess.Popen(
                ["bash", "-c", f'exec 3<&{listener.fileno()}; LISTEN_FDS=1 LISTEN_PID=$$ exec nbdkit "$@"', "bash",
                 "--foreground", "--exit-with-parent", *filters, "file", str(file), *parameters],
                pass_fds=[listener.fileno()],
            )

    def client(self, device, options=""):
        """The command that attaches a device of the guest to it."""
        return f"nbd-client {options} {HOST} {self.port} {device} && /lab/settle"

    def kill(self):
        """It ends without a word."""
        self._nbdkit.send_signal(signal.SIGKILL)
        self._nbdkit.wait(timeout=patience.seconds(10))


@contextlib.contextmanager
def serve(file, filters=(), parameters=()):
    """A Server, while the block lasts."""
    server = Server(file, filters, parameters)
    try:
        yield server
    finally:
        server.kill()
