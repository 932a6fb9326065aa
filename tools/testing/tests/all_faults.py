# SPDX-License-Identifier: GPL-2.0
"""Faults, one at a time, which a test must notice, by its name (`make test-faults`).

They are in the faults.py of each target; those that only a power cut brings out are in all_power_cuts.py.
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
from tests.clone import faults as clone
from tests.interpose import faults as interpose
from tests.lc import faults as lc

# Target and fault: what it is.
FAULTS = {
    f"{folder}: {name}": dataclasses.replace(fault, noticed_by=re.sub("^(?=.*::)", f"{folder}/", fault.noticed_by))
    for folder, faults in {"clone": clone, "lc": lc, "interpose": interpose}.items()
    for name, fault in faults.FAULTS.items()
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
        # A folder of its own: what cargo has built of the checkout it takes for what it builds of a copy.
        env=os.environ | {"CARGO_TARGET_DIR": str(sources / "build/host")},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )
    print(ran.stdout)
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
