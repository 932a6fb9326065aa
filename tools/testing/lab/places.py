# SPDX-License-Identifier: GPL-2.0
"""Where things are: the checkout, the build's results, and what the set-up made."""

import functools
import os
import pathlib
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parents[3]


class SetupError(Exception):
    """Something that the set-up or the build should have made is not there."""


def _setup(script, *words):
    """Runs a script of tools/setup, which prints the path of what it makes."""
    ran = subprocess.run(
        [TOP / "tools/setup" / script, *words], stdout=subprocess.PIPE, text=True, check=False
    )
    if ran.returncode:
        raise SetupError(f"tools/setup/{' '.join([script, *words])} failed: see its words above")
    return pathlib.Path(ran.stdout.strip())


def cache():
    """The folder of everything that was downloaded or prepared."""
    if "DM_RS_CACHE" in os.environ:
        return pathlib.Path(os.environ["DM_RS_CACHE"])
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(home) / "dm-rs"


@functools.cache
def kernel():
    """The kernel that guests boot: KERNEL of the environment, else the default."""
    return os.environ.get("KERNEL") or default_kernel()


@functools.cache
def default_kernel():
    """The first of the stock kernels that we build for."""
    for line in (TOP / "tools/setup/versions").read_text().splitlines():
        if line.startswith("KERNEL_DEFAULT="):
            return line.partition("=")[2].strip("\"'")
    raise SetupError("tools/setup/versions names no KERNEL_DEFAULT")


def is_default():
    """Whether this is the kernel on which that is judged which is the same on all: the stock modules, the harness."""
    return kernel() == default_kernel()


def is_debug():
    """Whether this is the kernel of `make debug-kernel`: it checks much, is slow, and can be made to fail."""
    return kernel() == "debug"


def is_second():
    """Whether this is a stock kernel on which that is left out which the default one has proven for all."""
    return not is_default() and not is_debug()


@functools.cache
def release():
    """What the kernel calls itself, as `uname -r` in a guest says it."""
    return (kernel_folder() / "release").read_text().strip()


@functools.cache
def kernel_folder():
    """The prepared kernel: vmlinuz, modules/, release, ..."""
    return _setup("kernel", kernel())


@functools.cache
def guest_image():
    """The disk that guests boot from."""
    return _setup("guest")


def build():
    """Where the build of this kernel leaves our modules, and we our logs."""
    return TOP / "build" / kernel()


def modules():
    """Where our modules are that guests get: the build's, or those of a workshop."""
    return pathlib.Path(os.environ.get("DM_MODULES") or build())


@functools.cache
def program(name, crate=None):
    """A program of ours, built by cargo from a crate, which has its name if it is not told."""
    manifest = TOP / "tools/Cargo.toml"
    made = TOP / "tools/target/release" / name
    if not made.exists():
        print(f"building {name}", file=sys.stderr, flush=True)
    built = subprocess.run(
        ["cargo", "build", "-q", "--release", "--locked", "--package", crate or name, "--manifest-path",
         manifest],
        check=False,
    )
    if built.returncode:
        raise SetupError(f"the crate {name} does not build: cargo's words are above")
    return made
