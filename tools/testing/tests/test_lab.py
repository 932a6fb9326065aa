# SPDX-License-Identifier: GPL-2.0
"""The harness judges itself: a pytest inside this one runs tests that do harm to their guest."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

from lab import judge, keeper, patience, places

HARNESS = pathlib.Path(__file__).resolve().parent.parent

# In this order: each test after a harmful one shows that its guest is a fresh one, or clean.
HARMFUL = '''
import os
import signal
import subprocess
import time

import pytest

def test_healthy(guest):
    assert guest.output("uname -s") == "Linux"

def test_warning(guest):
    guest.run("touch /tmp/mark; echo 'WARNING: provoked' > /dev/kmsg")

def test_fresh_after_warning(guest):
    guest.run("! [ -e /tmp/mark ]")

@pytest.mark.kernel_says("WARNING: announced")
def test_announced_warning(guest):
    guest.run("echo 'WARNING: announced' > /dev/kmsg")

@pytest.mark.kernel_says("WARNING: announced")
def test_announced_but_not_heard(guest):
    guest.run("true")

def test_panic(guest):
    guest.run("echo c > /proc/sysrq-trigger")

@pytest.mark.limit(5)
def test_hang_in_guest(guest):
    guest.run("echo 'a hang begins' > /dev/kmsg; sleep 1000")

@pytest.mark.limit(2)
def test_hang_in_test(guest):
    while True:
        pass

STALL = "echo 'rcu: INFO: rcu_preempt self-detected stall on CPU' > /dev/kmsg"

def stand_still():
    subprocess.Popen(["sh", "-c", f"sleep 11; kill -CONT {os.getpid()}"])
    os.kill(os.getpid(), signal.SIGSTOP)

def test_stall(guest):
    guest.run(STALL)

def test_stall_while_the_host_stands_still(guest):
    stand_still()
    guest.run(STALL)

def test_more_than_a_stall_while_the_host_stands_still(guest):
    stand_still()
    guest.run(STALL + "; echo 'WARNING: beside it' > /dev/kmsg")

def test_stall_as_the_clock_of_the_guest_leaps(guest, monkeypatch):
    of_the_host = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: of_the_host() - 11)
    guest.run(STALL)

def test_leaves_much(guest, dm, disks):
    ram = disks.ram(32)[0]
    top = dm.create("lower", f"0 65536 linear {ram} 0")
    dm.create("upper", f"0 65536 linear {top} 0")
    guest.run("mkfs.ext4 -q /dev/mapper/upper && mkdir -p /mnt/x && mount /dev/mapper/upper /mnt/x")
    guest.start("cd /mnt/x && sleep 1000")
    top.suspend("--noflush", "--nolockfs")
    guest.run("touch /tmp/mark")

def test_same_guest_but_clean(guest, dm):
    guest.run("[ -e /tmp/mark ]; ! grep /mnt /proc/mounts; ! grep ^brd /proc/modules")
    assert dm.names() == []

def make_group(guest, disk):
    guest.run(f"pvcreate -q -y {disk} && vgcreate -q -y vg {disk} && lvcreate -q -y -W n -L 4M -n lv vg")

def test_leaves_a_volume_group(guest, disks):
    make_group(guest, disks.scratch()[0])

def test_can_make_one_of_that_name(guest, disks):
    make_group(guest, disks.ram(32)[0])

@pytest.mark.c_fails("a control")
@pytest.mark.parametrize("clone_module", ["c"], indirect=True)
def test_control_that_fails(clone_module):
    assert clone_module == "rs"

@pytest.mark.c_fails("a control")
@pytest.mark.parametrize("clone_module", ["c"], indirect=True)
def test_control_that_passes(clone_module):
    pass

@pytest.mark.c_fails("a control", command="cmp")
@pytest.mark.parametrize("clone_module", ["c"], indirect=True)
def test_control_that_fails_by_the_command_for_that(clone_module, guest):
    guest.run("cmp /etc/passwd /etc/group")

@pytest.mark.c_fails("a control")
@pytest.mark.parametrize("clone_module", ["c"], indirect=True)
def test_control_that_fails_by_another_command(clone_module, guest):
    guest.run("false")
'''


# Harm that only the debug kernel's checkers see.
HIDDEN = '''
def test_uses_freed_memory(guest):
    guest.run("modprobe lkdtm && echo WRITE_AFTER_FREE > /sys/kernel/debug/provoke-crash/DIRECT")

def test_leaks(guest):
    guest.run("modprobe kmemleak_test")

def test_last_of_its_file(guest):
    pass
'''

# What checkers say, each in its own words.
COMPLAINTS = '''\
WARNING: possible circular locking dependency detected
WARNING: possible recursive locking detected
WARNING: possible irq lock inversion dependency detected
WARNING: HARDIRQ-safe -> HARDIRQ-unsafe lock order detected
WARNING: inconsistent lock state
[ BUG: Invalid wait context ]
WARNING: lock held when returning to user space!
BUG: MAX_LOCKDEP_CHAINS too low!
turning off the locking correctness validator.
WARNING: suspicious RCU usage
BUG: sleeping function called from invalid context at kernel/locking/mutex.c:609
BUG: scheduling while atomic: dmsetup/231/0x00000002
BUG: using smp_processor_id() in preemptible [00000000] code: dmsetup/231
BUG: KASAN: slab-use-after-free in dm_clone_map+0x4a/0x90
BUG kmalloc-64 (Tainted: G           O       ): Redzone overwritten
kmemleak: 8 new suspected memory leaks (see /sys/kernel/debug/kmemleak)
ODEBUG: free active (active state 0) object: 00000000c0ffee00 object type: timer_list
list_add corruption. prev->next should be next (ffff888), but was ffff889.
refcount_t: underflow; use-after-free.
device-mapper: block manager: recursive lock detected in metadata
rust_kernel: panicked at drivers/md/dm-clone/region_map.rs:80:9:
INFO: task dmsetup:231 blocked for more than 320 seconds.
rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:
'''


def run_inside(folder, tests):
    """Runs tests in a pytest of their own: what it printed. Each boots a guest, or several."""
    (folder / "test_harm.py").write_text(tests)
    (folder / "conftest.py").write_text((HARNESS / "conftest.py").read_text())
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-rx", "-p", "no:cacheprovider", "."],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(HARNESS)}, stdout=subprocess.PIPE, text=True, check=False,
    )
    print(ran.stdout)
    return ran.stdout


def outcome(printed, name):
    """How a test inside ended: PASSED, FAILED, ..."""
    found = re.search(rf"test_harm\.py::{re.escape(name)} .*?(PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)", printed, re.S)
    return found.group(1)


@pytest.mark.skipif(not places.is_default(), reason="the harness is judged on the default kernel")
def test_harm_fails_the_test_that_did_it(tmp_path):
    printed = run_inside(tmp_path, HARMFUL)
    for name, ended in (
        ("test_healthy", "PASSED"),
        ("test_warning", "FAILED"),
        ("test_fresh_after_warning", "PASSED"),
        ("test_announced_warning", "PASSED"),
        ("test_announced_but_not_heard", "FAILED"),
        ("test_panic", "FAILED"),
        ("test_hang_in_guest", "FAILED"),
        ("test_hang_in_test", "FAILED"),
        ("test_stall", "FAILED"),
        ("test_stall_while_the_host_stands_still", "PASSED"),
        ("test_more_than_a_stall_while_the_host_stands_still", "FAILED"),
        ("test_stall_as_the_clock_of_the_guest_leaps", "PASSED"),
        ("test_leaves_much", "PASSED"),
        ("test_same_guest_but_clean", "PASSED"),
        ("test_leaves_a_volume_group", "PASSED"),
        ("test_can_make_one_of_that_name", "PASSED"),
        ("test_control_that_fails[c]", "XFAIL"),
        ("test_control_that_passes[c]", "FAILED"),
        ("test_control_that_fails_by_the_command_for_that[c]", "XFAIL"),
        ("test_control_that_fails_by_another_command[c]", "FAILED"),
    ):
        assert outcome(printed, name) == ended, name
    for reason in (
        "WARNING: provoked",
        "sysrq triggered crash",
        f"no end after {patience.seconds(5)} s",
        f"no end after {patience.seconds(2)} s",
        "WARNING: announced",
    ):
        assert reason in printed
    logs = keeper.log_folder("test_harm.py::test_hang_in_guest")
    assert "sleep 1000" in (logs / "commands.log").read_text()
    log = (logs / "dmesg.log").read_text()
    assert "a hang begins" in log
    assert "sysrq: Show" in log


@pytest.mark.parametrize("line", COMPLAINTS.splitlines())
def test_complaint_is_known(line):
    assert judge.complaints(f"loop: module loaded\n[   12.345678] {line}\n") == [f"[   12.345678] {line}"]


@pytest.mark.debug_kernel
def test_hidden_harm_is_found(tmp_path):
    printed = run_inside(tmp_path, HIDDEN)
    for name, ended in (
        ("test_uses_freed_memory", "FAILED"),
        ("test_leaks", "PASSED"),
        ("test_last_of_its_file", "FAILED"),
    ):
        assert outcome(printed, name) == ended, name
    for reason in ("BUG: KASAN: slab-use-after-free", "unreferenced object", "kmemleak_test_init"):
        assert reason in printed


@pytest.mark.debug_kernel
def test_lockdep_is_awake(guest):
    """It turns itself off when it has found something, or has no room."""
    assert "debug_locks: 1" in " ".join(guest.output("cat /proc/lockdep_stats").split())
