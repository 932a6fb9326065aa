# SPDX-License-Identifier: GPL-2.0
"""The status line, word by word, what asking for it does, and the events that say to look at it."""

import itertools
import re

import pytest

from lab import modules
from tests.clone.tables import try_tables
from tests.scripts import run_script

LENGTH = 16384
REGIONS = LENGTH // 8
FEATURES = ["no_hydration", "no_discard_passdown"]


def create(dm, disks, options="1 no_hydration", metadata="/dev/mapper/metadata"):
    """A clone at rest; its metadata are on a device that can be replaced."""
    ram, dest, source = disks.ram(8, 3)
    dm.create("metadata", f"0 {LENGTH} linear {ram} 0")
    return dm.create("clone", f"0 {LENGTH} clone {metadata} {dest} {source} 8 {options}")


def test_line(clone_module, guest, disks):
    metadata, dest, source = disks.ram(8, 3)
    combinations = [
        (features, threshold, batch)
        for count in range(3) for features in itertools.permutations(FEATURES, count)
        for threshold, batch in ((None, None), (5, None), (None, 6), (4294967295, 0))
    ]
    lines, expected = [], []
    for features, threshold, batch in combinations:
        core = {"hydration_threshold": threshold, "hydration_batch_size": batch}
        words = [f"{key} {value}" for key, value in core.items() if value is not None]
        lines.append((LENGTH, " ".join([
            metadata, dest, source, "8", str(len(features)), *features, str(2 * len(words)), *words,
        ])))
        shown = "".join(f" {feature}" for feature in FEATURES if feature in features)
        threshold = 1 if threshold is None else threshold
        batch = 1 if batch is None else batch
        # 6 of 2048 blocks: superblock, space map (3), bitset (2).
        expected.append(f"8 6/2048 8 0/2048 0 {len(features)}{shown}"
                        f" 4 hydration_threshold {threshold} hydration_batch_size {batch} rw")
    tried = try_tables(guest, lines, blank=[metadata])
    assert [one.status for one in tried] == expected


def test_counts_are_those_of_c(guest, dm, disks):
    """The same history gives the same lines, the numbers of blocks in use among them."""
    seen = {}
    for module in ("c", "rs"):
        modules.load_clone(guest, module)
        clone = create(dm, disks, "2 no_hydration no_discard_passdown")
        seen[module] = guest.output(f"""
            dmsetup status clone
            for region in 0 1 64 700 1500; do
                blkdiscard -o $((region * 4096)) -l $((region * 4096 + 4096)) {clone}
                dmsetup status clone
                dd if=/dev/zero of={clone} bs=512 seek=$((region * 8 + 4097)) count=16 oflag=direct status=none
                dmsetup status clone
            done
            dmsetup suspend clone; dmsetup status clone; dmsetup resume clone; dmsetup status clone""")
        guest.run("/lab/cleanup")
    assert seen["rs"] == seen["c"]
    assert len(set(seen["c"].splitlines())) > 8


@pytest.mark.parametrize("discards, reason", [
    (0, "discard unsupported"), (1, "max discard sectors smaller than a region"),
], ids=["none", "short"])
def test_disables_passdown(clone_module, guest, dm, disks, discards, reason):
    metadata, source = disks.ram(8, 2)
    dest = disks.null("dest", 8, discard=discards)
    if discards:
        guest.run("echo 4096 > /sys/block/dest/queue/discard_max_bytes")
    where = guest.console_size()
    clone = dm.create("clone", f"0 {LENGTH} clone {metadata} {dest} {source} 16 1 no_hydration")
    assert clone.status()[0].args[5:8] == ["2", "no_hydration", "no_discard_passdown"]
    assert clone.table()[0].args[4:] == ["1", "no_hydration"]
    assert guest.wait_for_console(f"{reason}: Disabling discard passdown.", where, 5)
    line = next(line for line in guest.console(where).splitlines() if "passdown" in line)
    assert re.search(r"device-mapper: clone: Destination device \(\S+\) ", line), line


# What becomes of the metadata device, by the mode that it leads to.
FAILURES = {"read-only": "flakey /dev/ram0 0 0 3600 1 error_writes", "fail": "error"}


@pytest.mark.parametrize("mode", FAILURES)
def test_modes(clone_module, guest, dm, disks, mode):
    """A commit that fails changes the mode, with an event and lines that say so."""
    clone = create(dm, disks)
    before, events = clone.status_text(), clone.events()
    where = guest.console_size()
    guest.run(f"""
        dmsetup load metadata --table "0 {LENGTH} {FAILURES[mode]}"
        dmsetup suspend --nolockfs metadata; dmsetup resume metadata
        dd if=/dev/zero of={clone} bs=4k count=1 seek=9 oflag=direct status=none
        dmsetup status clone""")
    clone.wait(events)
    assert guest.wait_for_console(f"Switching to {mode} mode", where, 5)
    log = guest.console(where)
    assert "Aborting current metadata transaction" in log
    assert re.search(r"Metadata operation `\w+' failed: error = -\d+", log)
    status = clone.status_text().strip()
    if mode == "fail":
        assert status == f"0 {LENGTH} clone Fail"
    else:
        assert status == before.strip().removesuffix("rw") + "ro"
    assert guest.run(f"dd if=/dev/zero of={clone} bs=4k count=1 seek=99 oflag=direct", check=False).returncode
    if clone_module == "rs":
        assert clone.events() == events + 1


def test_noflush_does_not_commit(clone_module, guest, dm, disks):
    """A plain status commits what was written, `--noflush` writes nothing."""
    create(dm, disks)
    rows = [row.split() for row in run_script(guest, "clone/ask_status.py", "clone", "metadata", 5).splitlines()]
    assert [hydrated for *_, hydrated in rows] == [f"{count}/{REGIONS}" for count in range(1, 6)]
    # The clone commits by itself within a second, so a single measurement may be disturbed.
    assert any(noflush == "0" and plain != "0" for noflush, plain, _ in rows), rows


@pytest.mark.c_fails("counts what is not committed, and waits for a commit that is under way")
def test_counts_what_is_durable_and_waits_for_nothing(rig, guest):
    """While nothing can be committed, nothing new counts as hydrated: its source is still needed."""
    rig.create("1 no_hydration")
    rig.metadata.hold()
    guest.run(f"dd if=/dev/urandom of={rig.clone} bs={rig.region * 512} count=1 oflag=direct status=none")
    # The timer's commit has come as far as it can.
    guest.run("until grep -qs 'write_transaction\\|dm_bufio' /proc/[0-9]*/stack; do sleep 0.05; done")
    asking = guest.start("dmsetup status --noflush clone > /tmp/line")
    guest.run("""
        waits() { pgrep -x dmsetup -r D > /dev/null; }
        until [ -s /tmp/line ] || { waits && sleep 0.2 && waits; }; do sleep 0.05; done""")
    waited = guest.output("wc -c < /tmp/line") == "0"
    rig.metadata.release()
    assert asking.wait() == 0
    assert not waited
    assert guest.output("awk '{ print $7 }' /tmp/line") == f"0/{rig.regions}"
    rig.wait(lambda now: now.hydrated == 1)


@pytest.fixture
def ours(guest):
    """Our module."""
    modules.load_clone(guest, "rs")


def test_one_event_at_the_end_when_it_is_durable(ours, guest, dm, disks):
    """Writes of metadata take a while; whoever is told of the end finds it on the disk all the same."""
    ram, dest, source = disks.ram(8, 3)
    dm.create("slow", f"0 1024 delay {ram} 0 0 {ram} 0 200")
    clone = dm.create("clone", f"0 {LENGTH} clone /dev/mapper/slow {dest} {source} 8 1 no_hydration")
    events = clone.events()
    clone.message("hydration_batch_size", 256)
    clone.message("hydration_threshold", 4096)
    run_script(guest, "clone/copy_at_event.py", "clone", events, ram, 1024 * 512, "/tmp/then")
    # A commit that comes later has nothing to tell.
    clone.suspend()
    clone.resume()
    assert clone.status()[0].args[3] == f"{REGIONS}/{REGIONS}"
    assert clone.events() == events + 1
    clone.remove()
    then = guest.output("modprobe loop; losetup --find --show /tmp/then; /lab/settle")
    copy = dm.create("copy", f"0 {LENGTH} clone {then} {dest} {source} 8 1 no_hydration")
    assert copy.status()[0].args[3] == f"{REGIONS}/{REGIONS}"


def test_no_event_if_complete_from_the_start(clone_module, guest, dm, disks):
    clone = create(dm, disks, "1 no_hydration")
    guest.run(f"""
        table=$(dmsetup table clone)
        blkdiscard {clone}
        dmsetup status clone; dmsetup remove clone
        dmsetup create clone --table "$table"; dmsetup status clone
        dmsetup suspend clone; dmsetup resume clone""")
    assert clone.status()[0].args[3] == f"{REGIONS}/{REGIONS}"
    assert clone.events() == 0


@pytest.mark.c_fails("has nothing to be measured")
def test_ima_measures_the_line(clone_module, guest, dm, disks):
    """What a remote verifier learns of the clone when its table is loaded."""
    guest.run("""
        mountpoint -q /sys/kernel/security || mount -t securityfs securityfs /sys/kernel/security
        cd /sys/kernel/security/ima
        grep -q device-mapper policy 2> /dev/null || [ ! -w policy ] ||
            echo 'measure func=CRITICAL_DATA label=device-mapper' > policy""")
    metadata, dest, source = disks.ram(8, 3)
    name = f"measured_by_{clone_module}"
    dm.create(name, f"0 {LENGTH} clone {metadata} {dest} {source} 8 1 no_hydration")
    log = guest.output("cat /sys/kernel/security/ima/ascii_runtime_measurements")
    data = [bytes.fromhex(line.split()[5]).decode() for line in log.splitlines() if "dm_table_load" in line]
    assert any(
        f"name={name}," in text and "target_name=clone,target_version=1.0.0,metadata_device_name=1:0,"
        "destination_device_name=1:1,source_device_name=1:2,region_size=8;" in text for text in data
    ), data
