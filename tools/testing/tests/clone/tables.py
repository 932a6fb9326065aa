# SPDX-License-Identifier: GPL-2.0
"""Runs the scripts of in_guest/ in the guest, and tries table lines with one of them."""

import dataclasses
import io
import json
import pathlib
import tarfile

FOLDER = pathlib.Path(__file__).parent


def run_script(guest, script, *words, stdin="", parallel=None):
    """Runs a script of in_guest/, or of this path, and returns what it printed.

    parallel: runs it once for each of these numbers at the same time, with $worker as the number.
    """
    with io.BytesIO() as memory:
        with tarfile.open(fileobj=memory, mode="w") as tar:
            for file in (*FOLDER.glob("in_guest/*.py"), FOLDER / "in_guest" / script):
                tar.add(file, file.name)
        guest.run("mkdir -p /tmp/clone && tar -x --no-same-owner -C /tmp/clone", stdin=memory.getvalue())
    command = f"python3 -S -B /tmp/clone/{pathlib.Path(script).name} {' '.join(map(str, words))}"
    if parallel:
        numbers = " ".join(map(str, parallel))
        command = f"""
            for worker in {numbers}; do {command} > /tmp/clone/said.$worker & jobs+=($!); done
            for job in "${{jobs[@]}}"; do wait $job || exit; done
            for worker in {numbers}; do cat /tmp/clone/said.$worker; done"""
    return guest.run(command, stdin=stdin).stdout


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
    printed = run_script(guest, "try_tables.py", *blank, stdin=json.dumps(tables))
    return [Tried(**one) for one in json.loads(printed)]
