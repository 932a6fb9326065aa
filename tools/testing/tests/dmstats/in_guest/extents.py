# SPDX-License-Identifier: GPL-2.0
"""Where files are, by filefrag. Used on both sides: in tests, and by scripts in guests."""

import re

EXTENT = re.compile(r"\s*\d+:\s*\d+\.\.\s*\d+:\s*(\d+)\.\.\s*(\d+):")


def merged(runs):
    """Sorted runs (start, end), those side by side as one. Runs that lie over each other stay apart."""
    out = []
    for start, end in sorted(runs):
        if out and out[-1][1] == start:
            out[-1] = out[-1][0], end
        else:
            out.append((start, end))
    return out


def places(said):
    """The sectors of a file, of what `filefrag -v -b512` said of it."""
    # What has no place, as XFS keeps it behind the end of a file that grew, has the numbers of block 0.
    found = [EXTENT.match(line) for line in said.splitlines() if "unknown_loc" not in line]
    return merged((int(extent[1]), int(extent[2]) + 1) for extent in found if extent)
