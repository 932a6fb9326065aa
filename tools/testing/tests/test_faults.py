# SPDX-License-Identifier: GPL-2.0
"""The faults of `make test-faults` and `make test-crash` can still be made: what they change and name is there."""

import pytest

from lab import places
from tests import all_faults, all_power_cuts

# Name: the file that is changed, its changes, and who must notice if that is a test of its own.
FAULTS = {
    name: (fault.file, fault.changes, fault.noticed_by) for name, fault in all_faults.FAULTS.items()
} | {
    f"power cuts: {name}": (f"drivers/md/dm-{target}/{file}", changes, None)
    for name, (target, file, *changes) in all_power_cuts.FAULTS.items()
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_can_be_made(name):
    file, changes, noticed_by = FAULTS[name]
    text = (places.TOP / file).read_text()
    for old, _ in changes:
        assert text.count(old) == 1, f"{file} has this {text.count(old)} times: {old}"
    if noticed_by is None:
        return
    tests, _, test = noticed_by.partition("::")
    if test:
        source = (places.TOP / "tools/testing/tests" / tests).read_text()
        assert f"def {test.partition('[')[0]}(" in source, f"{tests} has no such test: {test}"
    else:
        assert (places.TOP / f"tools/testing/pure/tests/{tests}.rs").exists(), f"no host tests of that name: {tests}"
