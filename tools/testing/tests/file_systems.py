# SPDX-License-Identifier: GPL-2.0
"""Small file systems: what mkfs needs to make one, on how many MiB, and the check that finds nothing wrong."""

KINDS = {
    "ext4": ("mkfs.ext4 -q -F", 96, "e2fsck -fn"),
    "xfs": ("mkfs.xfs -q -f -K", 320, "xfs_repair -n"),
}
