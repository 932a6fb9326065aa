# SPDX-License-Identifier: GPL-2.0
"""Loading of the modules under test, and building of modules for tests alone."""

import contextlib
import os
import pathlib
import subprocess

from . import places


def load_clone(guest, implementation):
    """Loads the target `clone`: "rs" is ours, "c" the stock kernel's. One can be loaded at a time."""
    if implementation == "c":
        guest.run("modprobe dm_clone")
        return
    load(guest, "dm_clone_rs")
    # Without a target of this name device-mapper would load the stock module at the first table.
    targets = guest.output("dmsetup targets")
    assert "\nclone " in f"\n{targets}", f"dm_clone_rs.ko registers no target `clone`; there are:\n{targets}"


def load(guest, name, *parameters):
    """Loads a module of ours, after the stock modules that it needs."""
    if not (places.modules() / f"{name}.ko").exists():
        raise places.SetupError(f"build/{places.kernel()}/{name}.ko is missing: run `make modules` first")
    guest.run(f"/lab/load /lab/{name}.ko {' '.join(parameters)}")


@contextlib.contextmanager
def stock_clone(guest, implementation):
    """The stock kernel's `clone` in place of the one that is loaded; no device of it may be left."""
    if implementation == "rs":
        guest.run("rmmod dm_clone_rs")
        load_clone(guest, "c")
    yield
    if implementation == "rs":
        guest.run("rmmod dm_clone")
        load_clone(guest, implementation)


def build(guest, source):
    """Builds the module of a folder with a Kbuild, and brings it to the guest: its path there."""
    module = compile(source, guest.folder / source.name)
    guest.put(module, f"/tmp/{module.name}")
    return f"/tmp/{module.name}"


@contextlib.contextmanager
def inserted(guest, source, *parameters):
    """The module of a folder with a Kbuild is in the guest's kernel: gives the folder of its parameters there."""
    path = build(guest, source)
    name = pathlib.Path(path).stem
    guest.run(f"insmod {path} {' '.join(parameters)}")
    try:
        yield f"/sys/module/{name}/parameters"
    finally:
        guest.run(f"rmmod {name}")


def compile(source, out):
    """Builds the module of a folder with a Kbuild, into a folder: its path."""
    built = subprocess.run(
        [places.TOP / "tools/setup/build"], env=os.environ | {"SOURCE": str(source), "OUT": str(out)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )
    assert built.returncode == 0, built.stdout
    (module,) = out.glob("*.ko")
    return module
