# SPDX-License-Identifier: GPL-2.0
"""What a row measures, marked for `make profile`: its plugin counts what runs between two marks."""

import contextlib
import ctypes
import mmap
import pathlib

# The kernel's own code, as /proc/kallsyms has it.
CODE = ("t", "T", "w", "W")
IS_PROFILED = "lab.profile" in pathlib.Path("/proc/cmdline").read_text(encoding="ascii").split()


def _mark(number):
    """A function that does nothing, in an instruction that the plugin knows."""
    memory = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    # nopl number(%rax); ret
    memory.write(b"\x0f\x1f\x80dmr" + bytes([number]) + b"\xc3")
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    return ctypes.CFUNCTYPE(None)(address), memory


def _loaded():
    """The modules that are loaded, and where."""
    return sorted(tuple(line.split()[i] for i in (0, -1))
                  for line in pathlib.Path("/proc/modules").read_text(encoding="ascii").splitlines())


_told = []
if IS_PROFILED:
    (_begin, _keep_begin), (_end, _keep_end) = _mark(1), _mark(0)


@contextlib.contextmanager
def measured():
    """What a row measures. Where it is profiled, the host is told afterwards where the kernel's functions are."""
    if not IS_PROFILED:
        yield
        return
    _begin()
    yield
    _end()
    if _told != (loaded := _loaded()):
        _told[:] = loaded
        print("functions")
        with open("/proc/kallsyms", encoding="ascii") as symbols:
            for line in symbols:
                address, kind, name, *module = line.split()
                if kind in CODE:
                    print("function", address, name, *module)
    print("profiled", flush=True)
