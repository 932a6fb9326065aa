# SPDX-License-Identifier: GPL-2.0
"""The bench can be started: it measures for minutes what no test has time for."""

import os
import subprocess

from lab import places


def test_rows_are_found_by_name():
    ran = subprocess.run(
        [places.TOP / "tools/testing/bench/bench"], env=os.environ | {"FILTER": "no-such-row"},
        stderr=subprocess.PIPE, text=True, check=False,
    )
    assert "no row has a name with one of ['no-such-row']; there are: " in ran.stderr
