# SPDX-License-Identifier: GPL-2.0
"""TOP LOW MODULE: resumes the top, detaches it, removes both and unloads the module, in a few milliseconds."""

import ctypes
import errno
import os
import sys

from dm_ioctl import Device

DELETE_MODULE = 176


def unload(module):
    """As rmmod, which takes longer to start than a timer to run."""
    libc = ctypes.CDLL(None, use_errno=True)
    # Whoever has just closed a device may have it a moment longer.
    while libc.syscall(DELETE_MODULE, module.encode(), os.O_NONBLOCK) != 0:
        number = ctypes.get_errno()
        if number not in (errno.EBUSY, errno.EAGAIN):
            sys.exit(os.strerror(number))


def main():
    """Does it."""
    top, low, module = sys.argv[1:]
    top, low = Device(top, create=False), Device(low, create=False)
    top.resume()
    try:
        low.message("detach")
    except OSError as error:
        # It has left by itself.
        if not low.status().startswith("idle "):
            sys.exit(str(error))
    top.remove()
    low.remove()
    unload(module)


main()
