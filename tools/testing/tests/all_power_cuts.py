# SPDX-License-Identifier: GPL-2.0
"""Thousands of power cuts of clones and caches (`make test-crash`), and modules
with one fault each, which the cuts must bring out.

Its records and seeds differ from SEED to SEED; `make test` has a small sample, in the test_crash.py of each.
"""

import dataclasses
import os

import pytest

from lab.keeper import log_folder
from tests.power_cuts import MIB, SMALL_CACHE, PowerCuts, Use

SEED = int(os.environ.get("DM_SEED") or 1)

# Name: how the target is used, and how many of its states are opened by each module.
USES = {
    "4k": (Use(region=8, sectors=4 * MIB, operations=2500), 500),
    "64k": (Use(region=128, sectors=8 * MIB, operations=1200), 300),
    "short-tail": (Use(region=16, sectors=3 * MIB + 9, operations=1500), 400),
    "as-it-likes": (Use(region=128, sectors=32 * MIB, operations=1200, options="--no-settings"), 60),
    # Two blocks of the bitset, with a tree above them.
    "two-blocks": (Use(region=8, sectors=33000 * 8, operations=1200), 12),
    # Few blocks more than are in use: the same ones are written again and again.
    "tight": (Use(region=8, sectors=2 * MIB, operations=1500, own_sectors=128), 400),
    # The log goes round several times.
    "lc-round": (Use(**SMALL_CACHE, operations=2500), 300),
    "lc-ordered": (Use(**SMALL_CACHE, operations=2500, options="--ordered"), 100),
    "lc-runs": (Use(**SMALL_CACHE, operations=2500, options="--sequential-cutoff 16"), 100),
    "lc-as-it-likes": (Use(**SMALL_CACHE, operations=1000, options="--no-settings"), 100),
}


@pytest.mark.limit(3000)
@pytest.mark.parametrize("name", USES)
def test_all_power_cuts(request, guest, name, say):
    use, opened = USES[name]
    cuts = PowerCuts(guest, log_folder(request.node.nodeid))
    cuts.all_of(name, dataclasses.replace(use, seed=SEED), opened, say)


# Name: a target and a file of its folder, what is there, and what is there instead.
FAULTS = {
    "an ordered log that is written back beyond a flush": (
        "lc", "batch.rs",
        ("due.id != tail.id && record.follows_flush()", "due.id != tail.id && record.follows_flush() && false"),
    ),
    "an ordered log of which only the newest copies are written back": (
        "lc", "batch.rs",
        ("let wanted = if ordered {", "let wanted = if false {"),
    ),
    "no flush of the destination": (
        "clone", "commit.rs",
        ("commit(|| this.dest.flush())", "commit(|| Ok(()))"),
    ),
    "a flush of the destination before the commit has taken its regions": (
        "clone", "store.rs",
        ("        changes.flush().map_err(CommitError::Flush)?;\n", ""),
        ("        let mut done = Done::All;\n",
         "        changes.flush().map_err(CommitError::Flush)?;\n        let mut done = Done::All;\n"),
    ),
    "no flush of the metadata before the superblock": (
        "clone", "disk.rs",
        ("        self.io.flush(&self.device)?;\n", ""),
    ),
    "a superblock that is not durable when the commit ends": (
        "clone", "disk.rs",
        ("block, Barrier::Fua)", "block, Barrier::None)"),
    ),
    "flushes that end during the commit which they need": (
        "clone", "uncommitted.rs",
        ("self.is_dirty() && (self.user || self.user_taken)", "self.is_dirty() && self.user"),
    ),
    "FUA writes that do not wait for the commit of their region": (
        "clone", "commit.rs",
        ("if metadata.note_write(regions) && bio.is_fua() {",
         "if metadata.note_write(regions) && bio.is_fua() && false {"),
    ),
    "a tail that passes what the backing device may lose": (
        "lc", "writeback.rs",
        ("cache.flush_backing(Asker::Batch)?;", ""),
    ),
    "flushes that end before the log is durable": (
        "lc", "commit.rs",
        ("let flushed = cache.disk.device.flush();", "let flushed: Result = Ok(());"),
    ),
    "flushes that leave out what went around the log": (
        "lc", "commit.rs",
        ("cache.flush_backing(asker)", "Result::<(), Error>::Ok(())"),
    ),
    "flushes that leave out runs that went around the log": (
        "lc", "commit.rs",
        ("cache.flush_backing(asker)", "Result::<(), Error>::Ok(())"),
    ),
    "a tail that passes copies whose successors may be lost": (
        "lc", "writeback.rs",
        ("if self.cache.durable.load(Relaxed) >= end {", "if self.cache.durable.load(Relaxed) < u64::MAX.max(end) {"),
    ),
}
# How the target is used with them.
SPOILT = {
    "clone": Use(region=8, sectors=2 * MIB, operations=400, seed=SEED),
    "lc": Use(**SMALL_CACHE, operations=400, seed=SEED),
}
# By a word of a fault's name.
OPTIONS = {"ordered": "--ordered", "runs": "--sequential-cutoff 16"}


@pytest.mark.limit(1200)
@pytest.mark.parametrize("fault", FAULTS)
def test_power_cuts_bring_out_faults(request, guest, workshop, fault):
    target, file, *changes = FAULTS[fault]
    module = workshop.spoilt(f"dm_{target}_rs", f"drivers/md/dm-{target}/{file}", *changes)
    cuts = PowerCuts(guest, log_folder(request.node.nodeid))
    options = [words for word, words in OPTIONS.items() if word in fault.split()]
    use = dataclasses.replace(SPOILT[target], options=" ".join(options))
    assert cuts.notice(use, module), f"nobody misses anything, although there is {fault}"
