# SPDX-License-Identifier: GPL-2.0
"""Which accelerator QEMU shall use: KVM where it really runs a guest, else TCG."""

import os
import subprocess
import time

from . import places

# The guest's CPUs take turns on one thread of the host. With a thread for each, the emulator does not always survive
# that the kernel changes its code while it runs, as it does for tracers and for each static key; and for as many
# guests as there are processors it is a fourth slower.
TCG = "tcg,thread=single"
TCG_PARALLEL = "tcg,thread=multi"
PROBE_SECONDS = 2


def choose():
    """Returns the value for QEMU's -accel. With $DM_PARALLEL set, emulated CPUs run at the same time."""
    if _has_kvm():
        return "kvm"
    return TCG_PARALLEL if os.environ.get("DM_PARALLEL") else TCG


def _has_kvm():
    """Whether KVM runs a guest; the answer is remembered for this boot of the host."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        boot = file.read().strip()
    memory = places.cache() / f"accel-{boot}"
    if not memory.exists():
        for old in places.cache().glob("accel-*"):
            old.unlink()
        part = memory.with_suffix(".part")
        part.write_text("kvm" if _kvm_boots() else "tcg")
        part.rename(memory)
    return memory.read_text() == "kvm"


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
