# SPDX-License-Identifier: GPL-2.0
"""Fixtures of the tests of `interpose`, which change the kernel's code each time they attach."""

import pytest

from lab import modules
from tests.interpose.rig import Rig


def pytest_collection_modifyitems(items):
    """All tests of this folder attach something."""
    for item in items:
        if "tests/interpose/" in item.nodeid:
            item.add_marker(pytest.mark.changes_code)


@pytest.fixture
def interpose(guest, dm):
    """The module is loaded; makes what the tests need of it."""
    modules.load(guest, "dm_interpose_rs")
    return Rig(guest, dm)
