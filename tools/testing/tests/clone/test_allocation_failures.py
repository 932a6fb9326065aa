# SPDX-License-Identifier: GPL-2.0
"""Memory that is not there: each call is refused cleanly or served all the same, and the clone goes on."""

import json

import pytest

from tests.clone.rig import MODEL, SOURCE_TAG, Rig
from tests.scripts import run_script

pytestmark = [pytest.mark.debug_kernel, pytest.mark.limit(300)]

OURS = pytest.mark.parametrize("clone_module", ["rs"], indirect=True)
LENGTH = 16384


@pytest.fixture
def rams(guest, disks):
    """Memory disks that have all their memory: they take it as they are written, which is not to fail."""
    made = disks.ram(8, 3)
    guest.run(f"for disk in {' '.join(made)}; do dd if=/dev/zero of=$disk bs=1M oflag=direct status=none; done; :")
    return made


@OURS
@pytest.mark.usefixtures("no_accounts", "clone_module", "failing")
def test_each_allocation_of_each_call(guest, rams):
    metadata, dest, source = rams
    said = json.loads(run_script(guest, "clone/fail_allocations.py", LENGTH, metadata, dest, source))
    print(json.dumps(said, indent=1))
    for call, outcomes in said.items():
        assert outcomes["done"] == 1, call
    # Those calls need memory, and were refused for want of it.
    for call in ("format", "open", "reload"):
        assert said[call]["Cannot allocate memory"] >= 1, said
    # What users have written becomes durable without any, and what is loaded can be resumed.
    for call in ("commit", "flush", "suspend", "resume"):
        assert set(said[call]) <= {"done", "served", "Cannot allocate memory"}, said


@OURS
@pytest.mark.usefixtures("clone_module")
@pytest.mark.parametrize("interval", [1, 3, 10])
def test_io_goes_on_without_memory(guest, dm, rams, failing, interval):
    """Allocations that the module makes in its work items and in the users' calls fail; no I/O does."""
    rig = Rig(guest, dm, rams, LENGTH, 8)
    clone = rig.create("1 no_hydration")
    sections = "/sys/module/dm_clone_rs/sections"
    for folder in failing:
        guest.run(f"""
            set -e; cd {folder}
            cat {sections}/.text > require-start
            size=$(awk '$1 == "dm_clone_rs" {{ print $2 }}' /proc/modules)
            printf '0x%x' $(($(cat {sections}/.text) + size)) > require-end
            echo -1 > times; echo {interval} > interval; echo 100 > probability""")
    clone.message("enable_hydration")
    guest.run(f"iomodel run {clone} --source {SOURCE_TAG} --ops 400 --threads 4 --state {MODEL}")
    assert rig.progress().mode == "rw"
    for folder in failing:
        guest.run(f"echo 0 > {folder}/probability")
    rig.hydrate()
    guest.run(f"iomodel verify {rig.dest} --source {SOURCE_TAG} --state {MODEL}")
