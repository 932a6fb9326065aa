# SPDX-License-Identifier: GPL-2.0
"""The plainest way of a clone: create, look, hydrate to the end, compare, remove."""

import pytest

MIB = 2048  # sectors
SIZE = 64 * MIB
REGION = 128


@pytest.fixture
def clone(clone_module, dm, disks, guest):
    """A clone of a disk with random bytes, not yet hydrating."""
    metadata, dest, source = disks.ram(64, 3)
    guest.run(f"dd if=/dev/urandom of={source} bs=1M count=64 status=none conv=fsync")
    return dm.create("clone", f"0 {SIZE} clone {metadata} {dest} {source} {REGION} 1 no_hydration")


def hydrated(status):
    """Whether all regions are at the destination."""
    done, _, regions = status.args[3].partition("/")
    return done == regions


def test_new_clone_reads_as_its_source(clone, guest):
    guest.run(f"cmp {clone} /dev/ram2")
    assert clone.status()[0].args[3] == f"0/{SIZE // REGION}"
    assert clone.status()[0].args[-1] == "rw"


def test_hydrates_to_the_end(clone, guest):
    clone.message("hydration_threshold", 64)
    clone.message("hydration_batch_size", 16)
    clone.message("enable_hydration")
    clone.wait_until(hydrated)
    guest.run("cmp /dev/ram1 /dev/ram2")


def test_write_goes_to_the_destination_only(clone, guest):
    before = guest.output("sha256sum < /dev/ram2")
    guest.run(f"dd if=/dev/urandom of={clone} bs=64k count=4 seek=7 oflag=direct status=none")
    assert clone.status()[0].args[3] == f"4/{SIZE // REGION}"
    assert guest.output("sha256sum < /dev/ram2") == before
    guest.run(f"cmp -n 262144 -i 458752 {clone} /dev/ram1")


def test_remove_leaves_nothing(clone, dm):
    clone.remove()
    assert dm.names() == []
