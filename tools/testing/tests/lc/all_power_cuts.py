# SPDX-License-Identifier: GPL-2.0
"""Thousands of power cuts of a cache (`make test-crash`), and modules with one fault each, which they must bring out.

Its records and seeds differ from SEED to SEED; `make test` has a small sample, in test_crash.py.
"""

import dataclasses
import os

import pytest

from lab.keeper import log_folder
from tests.lc.test_crash import SMALL
from tests.power_cuts import PowerCuts, Use

SEED = int(os.environ.get("DM_SEED") or 1)

# Name: how the cache is used, and how many of its states are opened.
USES = {
    # The log goes round several times.
    "round": (Use(**SMALL, operations=2500), 300),
    "as-it-likes": (Use(**SMALL, operations=1000, options="--no-settings"), 100),
}


@pytest.mark.limit(3000)
@pytest.mark.parametrize("name", USES)
def test_all_power_cuts(request, guest, name, say):
    use, opened = USES[name]
    cuts = PowerCuts(guest, log_folder(request.node.nodeid))
    cuts.all_of(name, dataclasses.replace(use, seed=SEED), opened, say)


# Name: a file below drivers/md/dm-lc, what is there, and what is there instead.
FAULTS = {
    "a tail that passes what the backing device may lose": (
        "writeback.rs",
        ("        self.cache.backing.flush()\n", "        Ok(())\n"),
    ),
    "flushes that end before the log is durable": (
        "commit.rs",
        ("again(|| cache.disk.device.flush())", "again(|| Ok(()))"),
    ),
    "flushes that leave out what went around the log": (
        "commit.rs",
        ("cache.backing_written.xchg(0, Full) != 0", "cache.backing_written.xchg(0, Full) > 1"),
    ),
    "a tail that passes copies whose successors may be lost": (
        "writeback.rs",
        ("if self.cache.durable.load(Relaxed) >= end {", "if self.cache.durable.load(Relaxed) < u64::MAX.max(end) {"),
    ),
}


@pytest.mark.limit(1200)
@pytest.mark.parametrize("fault", FAULTS)
def test_power_cuts_bring_out_faults(request, guest, workshop, fault):
    file, *changes = FAULTS[fault]
    module = workshop.spoilt("dm_lc_rs", f"drivers/md/dm-lc/{file}", *changes)
    cuts = PowerCuts(guest, log_folder(request.node.nodeid))
    use = Use(**SMALL, operations=400, seed=SEED)
    assert not cuts.miss_nothing_of(use, module), f"nobody misses anything, although there is {fault}"
