# SPDX-License-Identifier: GPL-2.0
"""Tables that replace one another while the clone is in use."""

import pytest

from tests.clone.rig import MODEL, SOURCE_TAG

pytestmark = pytest.mark.limit(60)

OURS = pytest.mark.parametrize("clone_module", ["rs"], indirect=True)
CONTENT = f"--source {SOURCE_TAG} --state {MODEL}"
FORGETS = "reads the map when the table is loaded, and forgets what is hydrated until it is resumed"


@pytest.mark.c_fails(FORGETS)
def test_what_is_hydrated_between_load_and_resume_stays(rig):
    clone = rig.create("1 no_hydration")
    clone.load(rig.table("1 no_hydration"))
    rig.write(3 * rig.region, 2 * rig.region, 2)
    rig.write(9 * rig.region + 8, 16, 3)
    before = rig.progress()
    clone.suspend()
    clone.resume()
    assert rig.progress() == before
    rig.holds(3 * rig.region, 2 * rig.region, 2)
    rig.holds(9 * rig.region + 8, 16, 3)


@pytest.mark.c_fails(FORGETS, command="iomodel")
def test_hydration_goes_on_over_a_reload(rig, guest):
    """Random I/O before the load, between load and resume, and after, while hydrating."""
    rig.source.slow_down(20)
    clone = rig.create("0 2 hydration_threshold 4")
    run = f"iomodel run {clone} {CONTENT} --ops 150 --threads 2"
    guest.run(f"{run} --seed 1")
    clone.load(rig.table("0 2 hydration_threshold 8"))
    guest.run(f"{run} --seed 2")
    clone.suspend()
    clone.resume()
    guest.run(f"{run} --seed 3")
    rig.source.become()
    rig.hydrate()
    guest.run(f"iomodel verify {clone} {CONTENT} && iomodel verify {rig.dest} {CONTENT}")


@OURS
def test_reloads_under_load(rig, guest):
    rig.source.slow_down(20)
    clone = rig.create("0 2 hydration_threshold 4")
    with rig.under_load("--threads 2"):
        for _ in range(5):
            clone.reload(rig.table("0 2 hydration_threshold 4"))
    rig.source.become()
    rig.hydrate()
    guest.run(f"iomodel verify {clone} {CONTENT} && iomodel verify {rig.dest} {CONTENT}")


def test_reload_changes_the_settings(rig):
    clone = rig.create("1 no_hydration")
    clone.reload(rig.table("2 no_hydration no_discard_passdown 4 hydration_threshold 7 hydration_batch_size 3"))
    assert clone.status()[0].args[5:] == (
        "2 no_hydration no_discard_passdown 4 hydration_threshold 7 hydration_batch_size 3 rw".split()
    )
    clone.reload(rig.table("0 2 hydration_threshold 64"))
    rig.hydrate()


def test_table_that_is_never_resumed_changes_nothing(rig, guest):
    clone = rig.create("1 no_hydration")
    rig.write(0, rig.region, 2)
    clone.load(rig.table())
    guest.run("dmsetup clear clone")
    rig.write(rig.region, rig.region, 3)
    assert rig.progress().hydrated == 2
    rig.holds(0, rig.region, 2)
    clone.remove()
    rig.create("1 no_hydration")
    assert rig.progress().hydrated == 2
    rig.holds(rig.region, rig.region, 3)


def test_linear_takes_over_under_load(rig, guest):
    """What a user does at the end: the destination alone, without anybody who uses the device noticing."""
    clone = rig.create("1 no_hydration")
    with rig.under_load("--threads 2"):
        rig.hydrate()
        clone.reload(f"0 {rig.sectors} linear {rig.dest} 0")
        rig.source.break_all()
    guest.run(f"iomodel verify {rig.dest} {CONTENT}")


@OURS
def test_metadata_of_another_clone_are_refused(rig, dm):
    clone = rig.create("1 no_hydration")
    rig.write(0, rig.region, 2)
    reason = dm.refuse("second", rig.table("1 no_hydration"))
    assert reason.endswith("clone: Failed to load metadata (-EBUSY)")
    # The one that has them is none the worse.
    rig.write(rig.region, rig.region, 3)
    assert rig.progress().hydrated == 2
    clone.remove()
    dm.create("second", rig.table("1 no_hydration"))


@pytest.mark.parametrize("change", [{"sectors": 8192}, {"region": 64}])
def test_another_geometry_is_refused(rig, change):
    clone = rig.create("1 no_hydration")
    rig.write(0, rig.region, 2)
    right = {name: getattr(rig, name) for name in change}
    vars(rig).update(change)
    assert clone.load(rig.table("1 no_hydration"), check=False).returncode
    vars(rig).update(right)
    assert rig.progress().hydrated == 1
    clone.reload(rig.table("1 no_hydration"))
    rig.holds(0, rig.region, 2)


@pytest.mark.c_fails("lets several clones have one device")
def test_a_device_has_one_role_in_all_clones(rig, guest, dm, disks):
    """A second clone may share the source, and nothing else."""
    guest.run(f"modprobe loop; truncate -s {rig.sectors * 512} /tmp/x /tmp/y")
    spare, other = guest.output("for i in x y; do losetup --find --show /tmp/$i; done; /lab/settle").split()
    rig.create("1 no_hydration")
    metadata, dest, source = rig.metadata, rig.dest, rig.source
    for devices, role in [
        (f"{spare} {dest} {other}", "destination"),
        (f"{spare} {metadata} {other}", "metadata"),
        (f"{spare} {other} {metadata}", "metadata"),
        (f"{dest} {other} {spare}", "destination"),
        (f"{source} {other} {spare}", "source"),
        (f"{spare} {source} {other}", "source"),
        (f"{spare} {other} {dest}", "destination"),
    ]:
        where = guest.console_size()
        reason = dm.refuse("second", f"0 {rig.sectors} clone {devices} {rig.region} 1 no_hydration")
        assert reason.endswith("clone: Failed to load metadata (-EBUSY)"), devices
        assert f"in use by clone {rig.number()}, as its {role} device" in guest.console(where), devices
    second = dm.create("second", f"0 {rig.sectors} clone {spare} {other} {source} {rig.region} 1 no_hydration")
    second.remove()


@pytest.mark.c_fails("formats the destination of the table in use")
def test_next_table_formats_nothing_that_is_in_use(rig, guest):
    """A device that begins with zeroes, as one with btrfs does, stands in the place of the metadata."""
    guest.run(f"modprobe loop; truncate -s {rig.sectors * 512} /tmp/x /tmp/y")
    spare, other = guest.output("for i in x y; do losetup --find --show /tmp/$i; done; /lab/settle").split()
    guest.run(f"dd if=/dev/zero of={rig.source} bs=4k count=1 oflag=direct status=none")
    clone = rig.create("1 no_hydration")
    for device, role in ((rig.dest, "destination"), (rig.source, "source")):
        where = guest.console_size()
        line = f"0 {rig.sectors} clone {device} {spare} {other} {rig.region} 1 no_hydration"
        assert clone.load(line, check=False).returncode, role
        assert f"in use by clone {rig.number()}, as its {role} device" in guest.console(where), role
        guest.run(f"cmp -n 4096 {device} /dev/zero")
    # What was the destination may be the next source: that is read only.
    clone.reload(f"0 {rig.sectors} clone {spare} {other} {rig.dest} {rig.region} 1 no_hydration")


@pytest.mark.c_fails("lets two lines of a table have one device")
def test_a_device_has_one_role_in_a_table(rig, guest, dm, disks):
    """Each line is a clone of its own."""
    guest.run(f"modprobe loop; truncate -s {rig.sectors * 512} /tmp/x /tmp/y")
    spare, other = guest.output("for i in x y; do losetup --find --show /tmp/$i; done; /lab/settle").split()
    first = rig.table("1 no_hydration")
    for devices in (f"{rig.metadata} {other} {rig.source}", f"{spare} {rig.dest} {rig.source}"):
        second = f"{rig.sectors} {rig.sectors} clone {devices} {rig.region} 1 no_hydration"
        reason = dm.refuse("clone", f"{first}\n{second}")
        assert reason.endswith("clone: Failed to load metadata (-EBUSY)"), devices
    both = f"{first}\n{rig.sectors} {rig.sectors} clone {spare} {other} {rig.source} {rig.region} 1 no_hydration"
    dm.create("clone", both).remove()


@pytest.mark.c_fails("lets several clones have one device")
def test_destination_in_use_is_kept_whatever_was_loaded_since(rig, guest, dm, disks):
    guest.run(f"modprobe loop; truncate -s {rig.sectors * 512} /tmp/x /tmp/y")
    spare, other = guest.output("for i in x y; do losetup --find --show /tmp/$i; done; /lab/settle").split()
    rig.create("1 no_hydration")
    rig.clone.load(rig.table("1 no_hydration").replace(str(rig.dest), other))
    guest.run(f"dmsetup clear {rig.clone}")
    reason = dm.refuse("second", f"0 {rig.sectors} clone {spare} {rig.dest} {rig.source} {rig.region} 1 no_hydration")
    assert reason.endswith("clone: Failed to load metadata (-EBUSY)")
    dm.create("second", f"0 {rig.sectors} clone {spare} {other} {rig.source} {rig.region} 1 no_hydration").remove()
