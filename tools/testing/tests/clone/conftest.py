# SPDX-License-Identifier: GPL-2.0
"""Fixtures of the tests of `clone`."""

import pytest

from tests.clone.rig import Rig

MIB = 2048  # sectors


@pytest.fixture
def rig(clone_module, guest, dm, disks):
    """Memory disks for a clone of 8 MiB with regions of 64 KiB."""
    assert clone_module
    return Rig(guest, dm, disks.ram(8, 3), 8 * MIB, 128)
