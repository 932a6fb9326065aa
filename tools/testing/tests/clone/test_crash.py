# SPDX-License-Identifier: GPL-2.0
"""Power cuts: what was acknowledged as durable is there afterwards."""

import pytest

from lab import patience, places
from lab.keeper import log_folder
from lab.modules import load_clone
from tests.clone.rig import SOURCE_TAG, Rig
from tests.power_cuts import PowerCuts, Use

SECTORS = 32768
REGION = 128
AREA = f"--sectors {SECTORS}"


@pytest.mark.limit(240)
def test_flushed_writes_survive_power_cuts(guest, dm, disks):
    """A cut of ours, one of the stock module, while hydrating; after each it judges first, then ours."""
    paths = disks.scratch(3)
    load_clone(guest, "rs")
    rig = Rig(guest, dm, paths, SECTORS, REGION)
    tag = SOURCE_TAG
    ledgers = ""
    for cut, cut_module in enumerate(["rs", "c"]):
        if cut_module == "c":
            guest.run("dmsetup remove source dest metadata; rmmod dm_clone_rs")
            load_clone(guest, "c")
            rig = Rig(guest, dm, paths, SECTORS, REGION, stamp=False)
        rig.source.slow_down(patience.busy(50))
        rig.create("0 2 hydration_threshold 2")
        writer = guest.start(f"iomodel ledger {rig.clone} {AREA} --seed {cut} --after {tag}")
        lines = [writer.stdout.readline() for _ in range(100)]
        hydrated = rig.progress("--noflush").hydrated
        assert 0 < hydrated < rig.regions, "the cut must come while hydrating"
        guest.kill()
        lines += writer.communicate()[0].splitlines(keepends=True)
        ledgers += "".join(line for line in lines if len(line.split()) == 3 and line.endswith("\n"))
        guest.boot()
        guest.run("cat > /tmp/ledger", stdin=ledgers)
        for module in ("c", "rs"):
            load_clone(guest, module)
            rig = Rig(guest, dm, paths, SECTORS, REGION, stamp=False)
            rig.create("1 no_hydration")
            # The stock module's status also tells of regions of which no commit knows.
            assert rig.progress().hydrated >= hydrated or cut_module == "c"
            guest.run(f"iomodel ledger-check {rig.clone} {AREA} --source {SOURCE_TAG} /tmp/ledger")
            if module == "c":
                guest.run("dmsetup remove clone; dmsetup remove source dest metadata; modprobe -r dm_clone")
        rig.clone.remove()
        # Tags of writes that nobody was told of may be on the disk too.
        tag = max(int(line.split()[2]) for line in ledgers.splitlines()) + 1000
    rig.create("1 no_hydration")
    rig.hydrate()
    guest.run(f"iomodel ledger-check {rig.dest} {AREA} --source {SOURCE_TAG} /tmp/ledger")


@pytest.mark.limit(240)
@pytest.mark.parametrize("region", [8, 128] if places.is_default() else [8])
def test_every_power_cut_of_a_record(request, guest, region):
    """What was flushed is there, nothing else than what was written is, and both modules open the metadata."""
    cuts = PowerCuts(guest, log_folder(request.node.nodeid))
    use = Use(region=region, sectors=128 * region, operations=150)
    record = cuts.record(use)
    states = record.with_suffix(".states")
    right, said = cuts.check(record, "--choose", 50, "--states", states)
    assert right, said
    for flushes in ("data", "own", "before-superblock"):
        right, said = cuts.check(record, "--without", flushes)
        assert not right, f"these flushes are not missed: {flushes}"
    for module in ("c", "rs"):
        cuts.open(use, states, module)
