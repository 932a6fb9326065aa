# SPDX-License-Identifier: GPL-2.0
"""write_changing.py DEVICE: writes 1 MiB again and again, directly, while another thread changes it."""

import mmap
import os
import sys
import threading

SIZE = 1 << 20
TIMES = 20


def main():
    data = mmap.mmap(-1, SIZE)
    done = threading.Event()

    def change():
        count = 0
        while not done.is_set():
            count += 1
            data[count * 4099 % SIZE] = count & 0xFF

    changer = threading.Thread(target=change)
    changer.start()
    device = os.open(sys.argv[1], os.O_WRONLY | os.O_DIRECT)
    for number in range(TIMES):
        assert os.pwritev(device, [data], number % 4 * SIZE) == SIZE
    os.fsync(device)
    done.set()
    changer.join()


main()
