# SPDX-License-Identifier: GPL-2.0
"""The stock kernel's modules that guests may load. As a program: prints their paths, for KERNEL-FOLDER."""

import pathlib
import sys

# Besides everything in drivers/md. What they need comes along.
MODULES = {
    "brd", "btrfs", "crc32c_generic", "f2fs", "kmemleak_test", "kunit", "lkdtm", "loop", "nbd", "null_blk", "overlay",
    "scsi_debug", "sd_mod", "ublk_drv", "virtio_blk", "virtio_net", "xfs", "xxhash_generic",
}


def wanted(kernel_folder):
    """Their paths below KERNEL-FOLDER/modules, sorted."""
    needs = {}
    for line in (kernel_folder / "modules/modules.dep").read_text().splitlines():
        module, _, others = line.partition(":")
        needs[module] = others.split()
    paths = set()
    for module, others in needs.items():
        name = pathlib.Path(module).name.partition(".")[0]
        if module.startswith("kernel/drivers/md/") or name.replace("-", "_") in MODULES:
            paths.update([module, *others])
    return sorted(paths)


if __name__ == "__main__":
    print("\n".join(wanted(pathlib.Path(sys.argv[1]))))
