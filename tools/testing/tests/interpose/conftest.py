# SPDX-License-Identifier: GPL-2.0
"""Fixtures of the tests of `interpose`."""

import pytest

from lab import modules
from tests.interpose.rig import Rig
from tests.interpose.snapshots import Snapshots
from tests.interpose.tops import Tops


@pytest.fixture
def interpose(guest, dm):
    """The module is loaded; makes what the tests need of it."""
    modules.load(guest, "dm_interpose_rs")
    return Rig(guest, dm)


@pytest.fixture
def tops(guest, dm, disks):
    """Makes tops of all kinds."""
    return Tops(guest, dm, disks)


@pytest.fixture
def snapshots(interpose, guest):
    """Makes snapshots of an `interpose` device."""
    return Snapshots(interpose, guest)


@pytest.fixture
def nvme(guest):
    """Plugs an NVMe disk of so many MiB into the guest."""
    yield lambda mib: guest.plug_in("nvme", mib)
    guest.pull_out("nvme")
