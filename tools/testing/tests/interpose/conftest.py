# SPDX-License-Identifier: GPL-2.0
"""Fixtures of the tests of `interpose`."""

import pytest

from lab import modules
from tests.interpose.rig import Rig


@pytest.fixture
def interpose(guest, dm):
    """The module is loaded; makes what the tests need of it."""
    modules.load(guest, "dm_interpose_rs")
    return Rig(guest, dm)
