# SPDX-License-Identifier: GPL-2.0
"""Memory that is not there: each step is refused, and has changed nothing, or is taken all the same."""

import json

import pytest

from tests.scripts import run_script


@pytest.mark.debug_kernel
@pytest.mark.limit(300)
@pytest.mark.usefixtures("no_accounts", "interpose", "failing")
def test_each_allocation_of_each_step(guest, disks):
    (disk,) = disks.ram(8)
    said = json.loads(run_script(guest, "interpose/fail_steps.py", 8 * 2048, disk))
    print(json.dumps(said, indent=1))
    for call, outcomes in said.items():
        assert outcomes["done"] == 1 and set(outcomes) <= {"done", "served", "Cannot allocate memory"}, call
    for call in ("create", "attach", "switch"):
        assert said[call]["Cannot allocate memory"] >= 1, said
