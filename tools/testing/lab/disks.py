# SPDX-License-Identifier: GPL-2.0
"""Disks for tests, made on demand. After the test they are taken down, see guest/cleanup."""

import contextlib
import os
import tempfile

SCRATCH_DISKS = 4
SCRATCH_BYTES = 1 << 30


def make_scratch_files(count=SCRATCH_DISKS):
    """Files for the scratch disks of a guest: {name: path}. They are sparse."""
    files = {}
    for number in range(count):
        handle, path = tempfile.mkstemp(prefix=f"dm-scratch{number}-", dir="/var/tmp")
        os.truncate(handle, SCRATCH_BYTES)
        os.close(handle)
        files[f"scratch{number}"] = path
    return files


def remove_scratch_files(files):
    """Removes what make_scratch_files made."""
    for path in files.values():
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def sysfs(path):
    """A shell word for the folder of a block device in /sys."""
    return f"/sys/dev/block/$(printf '%d:%d' $(stat -Lc '0x%t 0x%T' {path}))"


class Disks:
    """The kinds of disk that a test can have."""

    def __init__(self, guest):
        self.guest = guest

    def scratch(self, count=1):
        """virtio-blk disks of 1 GiB, zeroed. They outlive a kill and reboot of the guest in a test."""
        paths = [f"/dev/disk/by-id/virtio-scratch{number}" for number in range(count)]
        self.guest.run("\n".join(f"blkdiscard -f {path}" for path in paths))
        return paths

    def ram(self, mib, count=1):
        """brd: memory disks; count of mib MiB each."""
        self.guest.run(f"modprobe brd rd_nr={count} rd_size={mib * 1024} && /lab/settle")
        return [f"/dev/ram{number}" for number in range(count)]

    def null(self, name, mib, **attributes):
        """null_blk: a memory-backed disk /dev/name; attributes are those of its configfs folder.

        null("slow", 64, irqmode=2, completion_nsec=4000000, hw_queue_depth=1) takes 4 ms for each I/O,
        one at a time.
        """
        attributes = {"size": mib, "memory_backed": 1, "discard": 1, **attributes}
        folder = f"/sys/kernel/config/nullb/{name}"
        lines = ["set -e", f"mkdir {folder}"]
        lines += [f"echo {value} > {folder}/{attribute}" for attribute, value in attributes.items()]
        lines += [f"echo 1 > {folder}/power", "/lab/settle"]
        self.guest.run("\n".join(lines))
        return f"/dev/{name}"

    def mirror(self, mib, disks, level="raid1"):
        """md: an array of RAID 1, or 10, on two disks that are as large at least. It goes by `stop_mirror`."""
        members = "".join(f"""
            cat /sys/block/{disk.removeprefix("/dev/")}/dev > new_dev
            echo {mib * 1024} > dev-{disk.removeprefix("/dev/")}/size
            echo {number} > dev-{disk.removeprefix("/dev/")}/slot""" for number, disk in enumerate(disks))
        self.guest.run(f"""set -e
            modprobe -a md_mod {level}
            echo md_lab > /sys/module/md_mod/parameters/new_array
            cd /sys/block/md_lab/md
            echo none > metadata_version
            echo {level} > level
            echo {len(disks)} > raid_disks
            echo {mib * 1024} > component_size
            [ {level} = raid1 ] || {{ echo 65536 > chunk_size; echo $((0x102)) > layout; }}{members}
            echo none > resync_start
            echo active > array_state
            /lab/settle""")
        return "/dev/md_lab"

    def stop_mirror(self):
        """Takes the array down, and all mapped devices before, which may be on it."""
        # A device may go only when the one on it has, and when udev has looked at it.
        self.guest.run("until echo clear > /sys/block/md_lab/md/array_state; do dmsetup remove_all; /lab/settle; done"
                       " 2> /dev/null; /lab/settle", timeout=30)

    def scsi_debug(self, mib, **parameters):
        """scsi_debug: a SCSI disk in memory; parameters are the module's (lbpu=1, sector_size=4096, ...)."""
        words = " ".join(f"{name}={value}" for name, value in parameters.items())
        self.guest.run(
            f"modprobe -a sd_mod && modprobe scsi_debug dev_size_mb={mib} {words} && /lab/settle"
        )
        name = self.guest.output("ls /sys/bus/pseudo/drivers/scsi_debug/adapter0/host*/target*/*/block")
        return f"/dev/{name}"

    def loop(self, mib):
        """A loop device over a new sparse file in the guest's memory."""
        return self.guest.output(
            f"modprobe loop && file=$(mktemp /tmp/loop.XXXXXX) && truncate -s {mib}M $file"
            " && losetup --find --show $file && /lab/settle"
        )
