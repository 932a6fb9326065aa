# SPDX-License-Identifier: GPL-2.0
"""How long to wait: limits are written for stock kernels on a quiet machine; it may have other things to do, and a
kernel that checks each access takes longer."""

from . import places

SLOWNESS = 4 if places.is_debug() else 1
FACTOR = 2 * SLOWNESS


def seconds(on_a_stock_kernel):
    """A limit as it is on the kernel that guests boot now."""
    return on_a_stock_kernel * FACTOR


def busy(on_a_stock_kernel):
    """How many seconds it takes the kernel that guests boot now to do as much."""
    return on_a_stock_kernel * SLOWNESS
