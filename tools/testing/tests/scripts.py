# SPDX-License-Identifier: GPL-2.0
"""Runs scripts in the guest: for what takes thousands of requests, or has to be at once."""

import io
import pathlib
import tarfile

TESTS = pathlib.Path(__file__).parent


def run_script(guest, script, *words, stdin="", parallel=None):
    """Runs the script SUITE/NAME, which is tests/SUITE/in_guest/NAME, and returns what it printed.

    It finds the others of its folder, and those of tests/in_guest.
    parallel: runs it once for each of these numbers at the same time, with $worker as the number.
    """
    suite, name = script.split("/")
    with io.BytesIO() as memory:
        with tarfile.open(fileobj=memory, mode="w") as tar:
            for folder in (TESTS, TESTS / suite):
                for file in folder.glob("in_guest/*.py"):
                    tar.add(file, file.name)
        guest.run("mkdir -p /tmp/scripts && tar -x --no-same-owner -C /tmp/scripts", stdin=memory.getvalue())
    command = f"python3 -S -B /tmp/scripts/{name} {' '.join(map(str, words))}"
    if parallel:
        numbers = " ".join(map(str, parallel))
        command = f"""
            for worker in {numbers}; do {command} > /tmp/scripts/said.$worker & jobs+=($!); done
            for job in "${{jobs[@]}}"; do wait $job || exit; done
            for worker in {numbers}; do cat /tmp/scripts/said.$worker; done"""
    return guest.run(command, stdin=stdin).stdout
