# SPDX-License-Identifier: GPL-2.0
"""Which lines of a kernel's log mean that something is wrong with it."""

import re

# What a kernel says if time passed and nothing went on, which may be the host's fault (pauses.py).
STALLS = (
    r"rcu.*detected stalls?\b|detected expedited stalls",
    r"BUG: soft lockup",
    r"INFO: task .* blocked for more than",
)

# One pattern a kind of complaint; the debug kernels' checkers are among them.
COMPLAINTS = re.compile(
    r"WARNING:"
    r"|\bBUG:|\bBUG [\w-]+ \("
    r"|kernel BUG at"
    r"|\bOops\b"
    r"|Kernel panic"
    r"|general protection fault"
    r"|Unable to handle kernel|unable to handle page fault"
    r"|rust_kernel: panicked at"
    r"|UBSAN"
    r"|KASAN|KCSAN|KFENCE"
    r"|kmemleak: .*new suspected memory leaks"
    r"|possible circular locking|possible recursive locking|possible irq lock inversion"
    r"|inconsistent lock state|inconsistent \{"
    r"|turning off the locking correctness validator"
    r"|recursive lock detected in metadata"
    r"|suspicious RCU"
    r"|sleeping function called from invalid context|scheduling while atomic"
    r"|refcount_t: |list_(add|del) corruption"
    r"|ODEBUG:"
    "|" + "|".join(STALLS)
)


def complaints(log, expected=()):
    """The lines of a log that complain, without those that match one of the expected patterns."""
    return [
        line for line in log.splitlines()
        if COMPLAINTS.search(line) and not any(re.search(pattern, line) for pattern in expected)
    ]
