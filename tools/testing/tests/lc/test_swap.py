# SPDX-License-Identifier: GPL-2.0
"""Swap on a cache: what writes it back must not need the memory that it is to free."""

import pytest

from tests.lc.rig import Rig
from tests.scripts import run_script

MIBS = 160
ROOM_MIBS = 64  # for a process with twice as much


@pytest.mark.limit(240)
def test_swap(lc_module, guest, dm, disks):
    """A process that does not fit finds all that it wrote, also while the log is full and is written back."""
    rig = Rig(guest, dm, disks, MIBS)
    rig.cache = dm.create("small", f"0 {40 * 2048} linear {rig.cache} 0")
    rig.create()
    guest.run(f"mkswap {rig.device} && swapon {rig.device}")
    group = "/tmp/group/small"
    guest.run(f"""set -e
        mkdir -p /tmp/group && mount -t cgroup2 none /tmp/group
        echo +memory > /tmp/group/cgroup.subtree_control
        mkdir {group} && echo {ROOM_MIBS}M > {group}/memory.max""")
    try:
        run_script(guest, "lc/too_large.py", f"{group}/cgroup.procs", 2 * ROOM_MIBS)
        status = rig.status()
        assert status["user_sectors"] > ROOM_MIBS * 2048
        assert status["written_back"] > 0
        assert status["crc_errors"] == 0
    finally:
        guest.run(f"swapoff -a; rmdir {group}; umount /tmp/group")
