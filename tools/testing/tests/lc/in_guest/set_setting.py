# SPDX-License-Identifier: GPL-2.0
"""set_setting.py DEVICE NUMBER: changes one setting of a cache again and again, and looks whether it stays."""

import os
import sys

from dm_ioctl import Device

KEYS = ["nr_max_batched_migration", "barrier_deadline_ms"]
TIMES = 1500


def main():
    key = KEYS[int(sys.argv[2])]
    device = Device(os.path.basename(sys.argv[1]), create=False)
    for value in range(1, TIMES + 1):
        value = value % 8 + 1
        device.message(f"{key} {value}")
        status = device.status()
        assert f" {key} {value} " in f"{status} ", f"{key} {value}: {status}"


main()
