# SPDX-License-Identifier: GPL-2.0
"""Memory that is not there: each step is refused, and has changed nothing, or is taken all the same."""

import json
import pathlib

import pytest

from tests.clone.tables import run_script

SCRIPT = pathlib.Path(__file__).parent / "in_guest/fail_steps.py"


@pytest.mark.debug_kernel
@pytest.mark.limit(300)
def test_each_allocation_of_each_step(interpose, guest, disks):
    assert interpose
    (disk,) = disks.ram(8)
    for folder in ("failslab", "fail_page_alloc"):
        guest.run(f"cd /sys/kernel/debug/{folder} && echo N > ignore-gfp-wait && echo 0 > verbose")
    guest.run("cd /sys/kernel/debug/fail_page_alloc && echo 0 > min-order && echo N > ignore-gfp-highmem")
    said = json.loads(run_script(guest, SCRIPT, 8 * 2048, disk))
    print(json.dumps(said, indent=1))
    for call, outcomes in said.items():
        assert outcomes["done"] == 1 and set(outcomes) <= {"done", "served", "Cannot allocate memory"}, call
    for call in ("create", "attach", "switch"):
        assert said[call]["Cannot allocate memory"] >= 1, said
