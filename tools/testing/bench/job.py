# SPDX-License-Identifier: GPL-2.0
"""The job that a guest runs to measure a row: its files, and which rows are chosen."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent / "tests"
# What rows use of the tests' scripts.
IN_GUEST = [TESTS / "in_guest/dm_ioctl.py", TESTS / "dmstats/in_guest/fragmented.py"]
FILES = [HERE / "main", *IN_GUEST, *HERE.glob("*.py")]
sys.path.insert(1, str(IN_GUEST[0].parent))

from rows import ROWS  # noqa: E402


def chosen(words):
    """The rows whose names have one of these words; all if there are none."""
    rows = [row for row in ROWS.values() if not words or any(word in row.name for word in words)]
    if not rows:
        sys.exit(f"no row has a name with one of {words}; there are: {', '.join(ROWS)}")
    return rows
