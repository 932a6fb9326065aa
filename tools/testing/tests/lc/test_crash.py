# SPDX-License-Identifier: GPL-2.0
"""Power cuts of a cache: after each what was flushed is there, and nothing else than what was written is."""

import pytest

from lab.keeper import log_folder
from tests.power_cuts import SMALL_CACHE, PowerCuts, Use


@pytest.mark.limit(240)
def test_every_power_cut_of_a_record(request, guest):
    cuts = PowerCuts(guest, log_folder(request.node.nodeid))
    use = Use(**SMALL_CACHE, operations=250)
    record = cuts.record(use)
    states = record.with_suffix(".states")
    right, said = cuts.check(record, "--choose", 50, "--states", states)
    assert right, said
    for flushes in ("data", "own"):
        right, said = cuts.check(record, "--without", flushes)
        assert not right, f"these flushes are not missed: {flushes}"
    cuts.open(use, states, "rs")


@pytest.mark.limit(240)
def test_runs_that_went_around_the_log_are_flushed(request, guest):
    """With sequential_cutoff, after every power cut; and what is flushed there is needed."""
    cuts = PowerCuts(guest, log_folder(request.node.nodeid))
    use = Use(**SMALL_CACHE, operations=250, options="--sequential-cutoff 16")
    record = cuts.record(use)
    right, said = cuts.check(record)
    assert right, said
    right, said = cuts.check(record, "--without", "data")
    assert not right, "no flush of the disk of data is missed"


@pytest.mark.limit(240)
def test_backing_device_alone_is_as_at_a_flush(request, guest):
    """With prefix_consistent, after every power cut."""
    cuts = PowerCuts(guest, log_folder(request.node.nodeid))
    use = Use(**SMALL_CACHE, operations=250, options="--ordered")
    right, said = cuts.check(cuts.record(use))
    assert right, said
    assert "states of the disk of data alone" in said
