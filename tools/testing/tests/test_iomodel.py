# SPDX-License-Identifier: GPL-2.0
"""The judge of the data path is judged: iomodel passes a sound device and finds the faults of others."""

import pytest

SECTORS = 65536


@pytest.fixture
def ram(disks, guest):
    """A memory disk with stamps of tag 1."""
    path = disks.ram(SECTORS // 2048)[0]
    guest.run(f"iomodel stamp {path} 1")
    return path


def test_sound_device_passes(guest, ram, dm):
    # Two halves swapped twice: a table with more than one target.
    half = SECTORS // 2
    disk = dm.create("two", f"0 {half} linear {ram} 0\n{half} {half} linear {ram} {half}")
    guest.run(f"iomodel run {disk} --source 1 --ops 2000 --threads 4 --overlap --discards 10 --flushes 5 --seed 7")


def test_model_is_kept_between_runs(guest, ram):
    run = f"iomodel run {ram} --source 1 --state /tmp/model --ops 200"
    guest.run(f"{run} --seed 1 && {run} --seed 2 && iomodel verify {ram} --state /tmp/model")
    assert guest.run(f"iomodel verify {ram} --source 1", check=False).returncode


def test_area_of_a_device(guest, ram):
    area = "--first 1024 --sectors 2048"
    guest.run(f"iomodel stamp {ram} {area} 5 && iomodel run {ram} {area} --source 5 --ops 200")
    guest.run(f"iomodel verify {ram} --sectors 1024 --source 1")


def test_file_as_reference(guest, ram):
    guest.run(f"head -c {SECTORS * 512} /dev/urandom > /tmp/file && dd if=/tmp/file of={ram} bs=1M status=none")
    guest.run(f"iomodel run {ram} --reference /tmp/file --ops 200")


def test_changed_byte_is_found(guest, ram):
    guest.run(f"printf x | dd of={ram} bs=1 seek=512100 conv=notrunc status=none; sync")
    found = guest.run(f"iomodel verify {ram} --source 1", check=False)
    assert found.returncode == 1
    assert "sector 1000 (byte 512000): expected sector 1000 of tag 1; got no stamp" in found.stderr


def test_lost_writes_are_found(guest, ram, dm):
    disk = dm.create("lossy", f"0 {SECTORS} flakey {ram} 0 0 1000 1 drop_writes")
    found = guest.run(f"iomodel run {disk} --source 1 --ops 500 --seed 3", check=False)
    assert found.returncode == 1
    assert "seed 3: thread" in found.stderr


def test_swapped_halves_are_found(guest, ram, dm):
    half = SECTORS // 2
    disk = dm.create("swapped", f"0 {half} linear {ram} {half}\n{half} {half} linear {ram} 0")
    found = guest.run(f"iomodel verify {disk} --source 1", check=False)
    assert f"sector 0 (byte 0): expected sector 0 of tag 1; got sector {half} of tag 1" in found.stderr


def test_ledger_survives_a_power_cut(guest, disks):
    disk = disks.scratch()[0]
    area = "--sectors 8192"
    guest.run(f"iomodel stamp {disk} {area} 1")
    writer = guest.start(f"iomodel ledger {disk} {area}")
    lines = "".join(writer.stdout.readline() for _ in range(200))
    guest.kill()
    lines += writer.communicate()[0]
    guest.boot()
    guest.run("cat > /tmp/ledger", stdin=lines)
    guest.run(f"iomodel ledger-check {disk} {area} /tmp/ledger")
    first = lines.split()[0]
    guest.run(f"iomodel stamp {disk} --first {first} --sectors 8 1")
    lost = guest.run(f"iomodel ledger-check {disk} {area} /tmp/ledger", check=False)
    assert f"sector {first}: expected tag" in lost.stderr
