# SPDX-License-Identifier: GPL-2.0
"""A fault that a test must notice; each target's are in the faults.py beside its tests."""

import dataclasses


@dataclasses.dataclass
class Fault:
    """What is changed in a file, and who must notice: a test in guests, FILE::TEST, or a file of host tests."""

    file: str
    changes: list  # of what is there, and what is there instead
    noticed_by: str
