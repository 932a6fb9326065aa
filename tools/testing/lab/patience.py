# SPDX-License-Identifier: GPL-2.0
"""How long to wait: limits are written for stock kernels, and longer on one that checks each access."""

from . import places

FACTOR = 8 if places.is_debug() else 1


def seconds(on_a_stock_kernel):
    """A limit as it is on the kernel that guests boot now."""
    return on_a_stock_kernel * FACTOR
