# SPDX-License-Identifier: GPL-2.0
"""Misuse of the device-mapper layer (rust/dm) is refused by the compiler, for the right reason.

Each file in tools/testing/compile-fail is compiled as a target of its own, as the module build compiles
targets. A line in its head says what must come of it: the error, as rustc prints it, or "compiles".
"""

import functools
import json
import os
import shlex
import subprocess

import pytest

from lab import places

FOLDER = places.TOP / "tools/testing/compile-fail"
CRATE = "drivers/md/dm-clone/dm_clone_main"


@functools.cache
def build_command():
    """(environment, words): how the module build compiles a target's crate, less its source and results."""
    saved = places.build() / f"{CRATE}.o".replace("dm_clone_main", ".dm_clone_main")
    saved = saved.with_name(f"{saved.name}.cmd")
    if not saved.exists():
        raise places.SetupError(f"{saved} is missing: run `make modules` first")
    words = shlex.split(saved.read_text().splitlines()[0].partition(":=")[2])
    # The kernel is built with unstable features of a stable compiler.
    environment = os.environ | {"RUSTC_BOOTSTRAP": "1"}
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        environment[name] = value
    at = words.index("--out-dir")
    del words[at : at + 2]
    return environment, [word for word in words if not word.startswith("--emit=") and f"{CRATE}.rs" not in word]


def compile_errors(source, result):
    """The errors of compiling a crate, as (headline, whole text). Code is generated, since some are found then."""
    environment, words = build_command()
    ran = subprocess.run(
        [*words, "--error-format=json", f"--emit=obj={result}", source],
        cwd=places.build(), env=environment, stderr=subprocess.PIPE, text=True, check=False,
    )
    errors = []
    for line in ran.stderr.splitlines():
        told = json.loads(line)
        if told["level"] == "error" and not told["message"].startswith("aborting due to"):
            code = f"[{told['code']['code']}]" if told["code"] else ""
            errors.append((f"error{code}: {told['message']}", told["rendered"]))
    assert ran.returncode == 0 or errors, f"rustc failed without an error:\n{ran.stderr}"
    return errors


def expected(source):
    """What the head of a file says will come of it."""
    head = [line.removeprefix("//! ") for line in source.read_text().splitlines() if line.startswith("//! ")]
    lines = [line for line in head if line == "compiles" or line.startswith("error")]
    assert len(lines) == 1, f"{source}: the head needs one line with the expected error, or with `compiles`"
    return lines[0]


@pytest.mark.parametrize("source", sorted(FOLDER.glob("*.rs")), ids=lambda source: source.stem)
def test_compile_fail(source, tmp_path):
    errors = compile_errors(source, tmp_path / "crate.o")
    if expected(source) == "compiles":
        assert not errors, "\n".join(text for _, text in errors)
        return
    assert errors, "it compiles, but must not"
    code, _, message = expected(source).partition(": ")
    for headline, text in errors:
        assert headline.startswith(f"{code}: ") and message in headline, f"another error was expected:\n{text}"
