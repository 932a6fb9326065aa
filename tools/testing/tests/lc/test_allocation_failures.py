# SPDX-License-Identifier: GPL-2.0
"""Memory that is not there: each call is refused cleanly or served all the same, and the cache goes on."""

import json

import pytest

from tests.scripts import run_script


@pytest.mark.debug_kernel
@pytest.mark.limit(300)
@pytest.mark.usefixtures("no_accounts", "lc_module", "failing")
def test_each_allocation_of_each_call(guest, disks):
    backing, cache = disks.ram(20, 2)
    said = json.loads(run_script(guest, "lc/fail_calls.py", 20 * 2048, backing, cache))
    print(json.dumps(said, indent=1))
    for call, outcomes in said.items():
        assert outcomes["done"] == 1 and set(outcomes) <= {"done", "served", "Cannot allocate memory"}, call
    # It was refused for want of memory. What recovery needs is found elsewhere if it is not found at once.
    assert said["open"]["Cannot allocate memory"] >= 1, said
