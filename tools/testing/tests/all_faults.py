# SPDX-License-Identifier: GPL-2.0
"""Faults, one at a time, which a test must notice, by its name (`make test-faults`).

Those that only a power cut brings out are in all_power_cuts.py.
"""

import dataclasses
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest

from lab import places
from lab.keeper import log_folder


@dataclasses.dataclass
class Fault:
    """What is changed in a file, and who must notice: a test in guests, FILE::TEST, or a file of host tests."""

    file: str
    changes: list  # of what is there, and what is there instead
    noticed_by: str


FAULTS = {
    "clone: a discard marks a region whose copy is in flight": Fault(
        "drivers/md/dm-clone/discard.rs",
        [("let busy = flights.table.first_of(from..end).unwrap_or(end..end);", "let busy = end..end;")],
        "clone/test_discard.py::test_late_copy_does_not_overwrite_a_write_after_a_discard",
    ),
    "clone: a block that a commit takes is clean only when the commit ends": Fault(
        "drivers/md/dm-clone/uncommitted.rs",
        [("        self.dirty.remove(block);\n        self.taken_blocks.insert(block);\n",
          "        self.taken_blocks.insert(block);\n"),
         ("        self.taken_blocks.remove(block);\n",
          "        self.taken_blocks.remove(block);\n        self.dirty.remove(block);\n")],
        "uncommitted",
    ),
    "lc: a flush takes a write around the log for done that is on its way": Fault(
        "drivers/md/dm-lc/target.rs",
        [("bio.per_bio().around = Some((sector, sectors));\n            return",
          "cache.backing_written.store(1, Relaxed);\n            return")],
        "lc/test_flush.py::test_flush_reaches_what_was_on_its_way_around_during_another",
    ),
    "lc: a copy that was read during a write around the log is kept": Fault(
        "drivers/md/dm-lc/target.rs",
        [("        write::forget_clean(&self.cache, sector, sectors);\n", "        let _ = (sector, sectors);\n")],
        "lc/test_read_caching.py::test_write_around_during_the_copy",
    ),
    "lc: a write leaves a copy that is on its way": Fault(
        "drivers/md/dm-lc/index.rs",
        [("if overlap == 0 {", "if overlap == 0 || entry.is_expected() {")],
        "lc_promote",
    ),
    "lc: bypassed though a discard is not durable": Fault(
        "drivers/md/dm-lc/log.rs",
        [("if !extent.promoted {", "if extent.is_written() {")],
        "lc/test_bypass.py::test_discard_that_is_not_durable_forbids_it",
    ),
    "lc: promoted extents count when the log is read": Fault(
        "drivers/md/dm-lc/recovery.rs",
        [(".filter(|(extent, ..)| !extent.promoted)", ".filter(|(extent, ..)| extent.sectors != 0)")],
        "lc_promote",
    ),
    "interpose: the original is not drained": Fault(
        "drivers/md/dm-interpose/origin.rs",
        [("let drained = self.original.drain(DRAIN_MS);", "let drained = Ok(());"),
         ("        self.original.drain(DRAIN_MS)\n", "        Ok(())\n")],
        "interpose/test_snapshot.py::test_snapshot_has_what_the_original_was_given",
    ),
    "interpose: no second hook": Fault(
        "rust/dm/interpose/hook.rs",
        [("may_have(device) && flags & PASSED == 0 {", "may_have(device) && flags & PASSED == 1 {")],
        "interpose/test_snapshot.py::test_snapshot_below_a_throttle",
    ),
    "interpose: the second hook goes while a thread has bios to hand on": Fault(
        "rust/dm/interpose/stragglers.rs",
        [("threads.retain(|thread| thread.has_bios());", "threads.clear();")],
        "interpose/test_stragglers.py::test_what_waits_in_the_list_of_a_thread",
    ),
    "interpose: the second hook goes although there is a throttle": Fault(
        "rust/dm/helpers.c",
        [("	if (READ_ONCE(bdev_get_queue(bdev)->td))", "	if (false)")],
        "interpose/test_snapshot.py::test_snapshot_below_a_throttle",
    ),
    "interpose: an atomic write of one block stays one for a top that knows of none": Fault(
        "rust/dm/interpose/hook.rs",
        [("            (*bio).bi_opf &= !bindings::REQ_ATOMIC;\n", "")],
        "interpose/test_messages.py::test_an_atomic_write_of_one_block_needs_no_promise",
    ),
    "interpose: what is led is charged for the original": Fault(
        "rust/dm/interpose/hook.rs",
        [("        bindings::bio_associate_blkg(bio);\n", "")],
        "interpose/test_tops.py::test_cgroup_is_charged_for_the_device_that_a_bio_is_led_to",
    ),
    "interpose: the timer outlives the module": Fault(
        "drivers/md/dm-interpose/origin.rs",
        [("        this.originals.queue().cancel_delayed_arc(this);\n", "")],
        "interpose/test_lifecycle.py::test_module_goes_right_after_a_detach",
    ),
}


def failures_in_guest(modules, test, folder):
    """The names of this test's failures, with modules from a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    report = folder / "report.xml"
    report.unlink(missing_ok=True)
    with open(folder / "output.log", "w", encoding="utf-8") as log:
        subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={report}",
             places.TOP / "tools/testing/tests" / test],
            cwd=places.TOP, env=os.environ | {"DM_MODULES": str(modules)}, stdout=log, stderr=log, check=False,
        )
    cases = ElementTree.parse(report).iter("testcase")
    return [case.get("name") for case in cases if case.find("failure") is not None]


def failures_on_host(sources, tests):
    """The names of the failures of a file of host tests, with these sources."""
    ran = subprocess.run(
        ["cargo", "test", "--locked", "--manifest-path", sources / "tools/Cargo.toml", "--package", "pure",
         "--test", tests],
        env=os.environ | {"CARGO_TARGET_DIR": str(places.TOP / "tools/target")},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )
    return re.findall(r"^test (\S+) \.\.\. FAILED$", ran.stdout, re.MULTILINE)


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_noticed(request, workshop, name, say):
    fault = FAULTS[name]
    with workshop.fault(fault.file, *fault.changes):
        if "::" in fault.noticed_by:
            noticed = failures_in_guest(workshop.modules(), fault.noticed_by, log_folder(request.node.nodeid))
        else:
            noticed = failures_on_host(workshop.folder, fault.noticed_by)
    assert noticed, f"{fault.noticed_by} passes, although {name}"
    say(f"{name}: noticed by {', '.join(noticed)}")
