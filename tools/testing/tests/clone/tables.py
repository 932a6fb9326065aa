# SPDX-License-Identifier: GPL-2.0
"""Tries table lines, with a script in the guest."""

import dataclasses
import json

from tests.scripts import run_script


@dataclasses.dataclass
class Tried:
    """What became of a table line."""

    words: str
    log: list  # what the kernel said
    errno: str = None  # in words, as dmsetup says it, if it was refused
    table: str = None  # as `dmsetup table` says it, if it was accepted
    status: str = None

    @property
    def reason(self):
        """What device-mapper logged as the reason of the refusal: the target's words and the errno."""
        reasons = [line.partition(": clone: ")[2] for line in self.log if line.startswith("device-mapper: table: ")]
        return reasons[0] if reasons else None


def try_tables(guest, tables, blank=()):
    """Loads each table, a pair (length, words), and drops it again: a list of Tried.

    blank: metadata devices to be blanked before each.
    """
    printed = run_script(guest, "clone/try_tables.py", *blank, stdin=json.dumps(tables))
    return [Tried(**one) for one in json.loads(printed)]
