# SPDX-License-Identifier: GPL-2.0
"""A cache in the guest, for tests of the target `lc`."""

import pytest

from lab import modules
from tests.lc.rig import Rig


@pytest.fixture
def lc_module(guest):
    """Our module dm_lc_rs.ko, loaded."""
    modules.load(guest, "dm_lc_rs")


@pytest.fixture
def rig(lc_module, guest, dm, disks):
    """A backing disk and a cache disk, in memory, and what is done with them."""
    return Rig(guest, dm, disks)


@pytest.fixture
def parts(rig):
    """A cache on two devices that can be broken."""
    for name in ("backing", "cache"):
        disk = getattr(rig, name)
        setattr(rig, name, rig.dm.create(name, f"0 {rig.sectors} linear {disk} 0"))
        getattr(rig, name).disk = disk
    rig.create("2 flush_current_buffer_interval 0")
    rig.guest.run("dd if=/dev/urandom of=/tmp/data bs=4k count=8 status=none")
    return rig
