# SPDX-License-Identifier: GPL-2.0
"""Fixtures of the tests of dmstats and dmfilemapd."""

import pytest

from lab import places


# What the programs do does not depend on the kernel; where files are does on the file system.
@pytest.fixture(params=["ext4", "xfs"] if places.is_default() else ["ext4"])
def mounted(guest, dm, disks, request):
    """A file system on the device d, at /mnt. Region 0 is another program's, so that no group has the id 0."""
    ram = disks.ram(400)[0]
    device = dm.create("d", f"0 819200 linear {ram} 0")
    guest.run(f"mkfs.{request.param} -q {device} && mount {device} /mnt && dmstats create d --programid other")
    return device
