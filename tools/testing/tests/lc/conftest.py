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
