# SPDX-License-Identifier: GPL-2.0
"""Which accelerator QEMU shall use: KVM where it really runs a guest, else TCG."""

import os
import subprocess
import time

from . import places

TCG = "tcg,thread=multi"
# The guest's CPUs take turns on one thread of the host: what one of them writes into code, no other executes
# at that moment.
TCG_IN_TURNS = "tcg,thread=single"
PROBE_SECONDS = 2


def choose(in_turns=False):
    """Returns the value for QEMU's -accel.

    in_turns: the kernel's code is changed while it runs, which the emulator does not always survive with a
    thread for each CPU. KVM does, as a processor does.
    """
    chosen = _choose()
    return TCG_IN_TURNS if in_turns and chosen == TCG else chosen


def _choose():
    """KVM or TCG; the answer is remembered for this boot of the host."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return TCG
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        boot = file.read().strip()
    memory = places.cache() / f"accel-{boot}"
    if not memory.exists():
        for old in places.cache().glob("accel-*"):
            old.unlink()
        part = memory.with_suffix(".part")
        part.write_text("kvm" if _kvm_boots() else TCG)
        part.rename(memory)
    return memory.read_text()


def _kvm_boots():
    """/dev/kvm can be there and not run an ordinary kernel: try whether ours says a first line."""
    qemu = subprocess.Popen(
        ["qemu-system-x86_64", "-accel", "kvm", "-cpu", "max", "-m", "512", "-nodefaults",
         "-display", "none", "-no-reboot", "-serial", "stdio",
         "-kernel", places.kernel_folder() / "vmlinuz",
         "-append", "console=ttyS0 earlyprintk=ttyS0 panic=-1"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )
    os.set_blocking(qemu.stdout.fileno(), False)
    said = b""
    end = time.monotonic() + PROBE_SECONDS
    while time.monotonic() < end and qemu.poll() is None and b"Linux version" not in said:
        said += qemu.stdout.read() or b""
        time.sleep(0.05)
    qemu.kill()
    qemu.wait()
    return b"Linux version" in said
