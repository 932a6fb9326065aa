# SPDX-License-Identifier: GPL-2.0
"""The plainest way: a mounted disk gets a linear device beneath it, and loses it again."""

from tests.interpose.rig import ENTRY


def test_mounted_disk_gets_a_top_and_loses_it(interpose, guest, disks):
    """No bio of the system runs through the module before the first attach, nor after the last detach."""
    (disk,) = disks.ram(32)
    where = interpose.make_fs(disk)
    guest.run(f"cd {where}; dd if=/dev/urandom of=before bs=1M count=4 status=none; sync; sha256sum before > s")
    low = interpose.low(disk)
    top = low.top("top")
    assert low.status().state == "idle" and not interpose.hooks()
    low.attach(top)
    assert low.status().top == interpose.number(top) and ENTRY in interpose.hooks()
    guest.run(f"cd {where}; dd if=/dev/urandom of=during bs=1M count=4 status=none conv=fsync; sha256sum during >> s;"
              " sync; echo 3 > /proc/sys/vm/drop_caches; sha256sum -c s")
    through = low.status()
    assert through.redirected >= 8 and through.bypassed >= through.redirected and through.errors == 0
    low.detach()
    assert not interpose.hooks()
    guest.run(f"cd {where}; echo 3 > /proc/sys/vm/drop_caches; sha256sum -c s")
    top.remove()
    low.device.remove()
    interpose.check_fs(disk)
    guest.run("rmmod dm_interpose_rs")
