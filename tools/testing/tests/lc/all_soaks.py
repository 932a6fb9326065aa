# SPDX-License-Identifier: GPL-2.0
"""Much work at once, on four processors that run at the same time (`make test-soak`)."""

import os

import pytest

from tests.file_systems import KINDS
from tests.lc.rig import STATE, Rig
from tests.scripts import run_script

SEED = int(os.environ.get("DM_SEED") or 1)
OPERATIONS = 5000


@pytest.fixture(autouse=True)
def four_processors(guest):
    """They find what two that take turns do not."""
    assert guest.output("nproc") == "4"


@pytest.mark.limit(600)
@pytest.mark.parametrize("verified", [0, 1])
@pytest.mark.parametrize("seed", range(SEED, SEED + 10))
def test_lc_is_as_modelled(rig, seed, verified):
    """100,000 operations in all: threads that write the same sectors, over tables that come and go."""
    words = f"6 verify_reads {verified} high_watermark 30 low_watermark 20"
    rig.begin_model(words)
    for part in range(2):
        load = f"--overlap --threads 8 --discards 3 --flushes 3 --ops {OPERATIONS // 2}"
        rig.iomodel(f"run --source 1 --state {STATE} --seed {2 * seed + part} {load}")
        rig.again(words)
        rig.iomodel(f"verify --source 1 --state {STATE}")
    rig.end_model()


@pytest.mark.limit(600)
def test_lc_holds_what_fio_writes(rig):
    """Writes of all sizes by four jobs, more than the cache has room for, verified beside the others' writes."""
    rig.create()
    guest = rig.guest
    words = (
        f"--filename={rig.device} --direct=1 --ioengine=libaio --iodepth=16 --rw=randwrite --bsrange=512-1m"
        " --size=12m --offset_increment=12m --numjobs=4 --fsync=32"
        " --verify=crc32c --verify_fatal=1 --verify_backlog=64 --randrepeat=0 --output=/tmp/fio.log"
    )
    for _ in range(10):
        guest.run(f"fio --name=v {words} || (cat /tmp/fio.log; false)")
        rig.again()
    assert rig.status()["crc_errors"] == 0


@pytest.mark.limit(600)
@pytest.mark.parametrize("kind", KINDS)
def test_lc_holds_a_file_system(lc_module, guest, dm, disks, kind):
    """Which is changed, unmounted and checked again and again, each time on a cache that was made anew."""
    mkfs, mib, check = KINDS[kind]
    rig = Rig(guest, dm, disks, mib)
    rig.create()
    guest.run(f"rm -f /tmp/record*; mkdir -p /mnt/fs && {mkfs} {rig.device} && mount {rig.device} /mnt/fs")
    run_script(guest, "clone/churn.py", "make", "/mnt/fs", 40, "/tmp/record")
    for _ in range(5):
        run_script(guest, "clone/churn.py", "change", "/mnt/fs", 200, "/tmp/record")
        guest.run("umount /mnt/fs")
        rig.again()
        guest.run(f"{check} {rig.device} && mount -o discard {rig.device} /mnt/fs")
        run_script(guest, "clone/churn.py", "compare", "/mnt/fs", 0, "/tmp/record")
    guest.run("umount /mnt/fs")
    rig.device.message("flush")
    rig.device.remove()
    guest.run(f"{check} {rig.backing} && mount {rig.backing} /mnt/fs")
    run_script(guest, "clone/churn.py", "compare", "/mnt/fs", 0, "/tmp/record")
    guest.run("umount /mnt/fs")
