# SPDX-License-Identifier: GPL-2.0
"""Modules with one fault each, which the tests must notice. Not among those of `make test`: each has to be built.

tools/setup/enter tools/testing/run-tests tools/testing/tests/interpose/all_faults.py
"""

import pytest

from tests.interpose import test_snapshot
from tests.interpose.rig import Rig
from tests.interpose.snapshots import Snapshots

# Name: a file, what is there, what is there instead, and who must notice.
FAULTS = {
    "the original is not drained": (
        "drivers/md/dm-interpose/origin.rs",
        ("let drained = self.original.drain(DRAIN_MS);", "let drained = Ok(());"),
        ("        self.original.drain(DRAIN_MS)\n", "        Ok(())\n"),
        test_snapshot.test_snapshot_has_what_the_original_was_given,
    ),
    "no second hook": (
        "rust/dm/interpose/hook.rs",
        ("if unsafe { (*bio).bi_flags } & mark == 0 {", "if !straggler && unsafe { (*bio).bi_flags } & mark == 0 {"),
        test_snapshot.test_snapshot_below_a_throttle,
    ),
}


@pytest.mark.limit(300)
@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_noticed(guest, dm, disks, workshop, fault):
    file, *changes, test = FAULTS[fault]
    module = workshop.spoilt("dm_interpose_rs", file, *changes)
    guest.put(module, "/tmp/spoilt.ko")
    guest.run("/lab/load /tmp/spoilt.ko")
    rig = Rig(guest, dm)
    have = {"guest": guest, "dm": dm, "disks": disks, "interpose": rig, "snapshots": Snapshots(rig, guest)}
    wants = test.__code__.co_varnames[:test.__code__.co_argcount]
    with pytest.raises(AssertionError):
        test(**{name: have[name] for name in wants})
