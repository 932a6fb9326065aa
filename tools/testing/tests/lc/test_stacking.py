# SPDX-License-Identifier: GPL-2.0
"""A cache among other targets: over mirrored and encrypted disks, and below a thin pool."""

import pytest

MIB = 2048  # sectors
MIBS = 48
KEY = "5a" * 64


@pytest.mark.limit(240)
def test_cache_between_other_targets(lc_module, guest, dm, disks):
    """What a thin volume on it holds is there when all is made anew, and without the cache."""
    one, other, fast, metadata = disks.ram(MIBS, 4)
    sectors = MIBS * MIB
    lower = {
        "slow": f"0 {sectors} mirror core 2 1024 nosync 2 {one} 0 {other} 0",
        "fast": f"0 {sectors} crypt aes-xts-plain64 {KEY} 0 {fast} 0",
    }
    made = []

    def make(name, table):
        made.append(dm.create(name, table))
        return made[-1]

    def thin(data):
        """The volume, on a pool with its data on that device."""
        pool = make("pool", f"0 {sectors} thin-pool {metadata} {data} 128 0 1 skip_block_zeroing")
        if new:
            pool.message("create_thin", 0)
        return make("thin", f"0 {32 * MIB} thin {pool} 0")

    def take_down():
        while made:
            made.pop().remove()

    new = True
    for seed in range(2):
        slow, cache = (make(name, table) for name, table in lower.items())
        # What an encrypted disk has that nobody wrote is anything.
        words = f"8 verify_reads 1 high_watermark 30 low_watermark 20 format {int(new)}"
        lc = make("lc", f"0 {sectors} lc {slow} {cache} {words}")
        volume = thin(lc)
        if new:
            guest.run(f"rm -f /tmp/model && iomodel stamp {volume} 1")
        new = False
        guest.run(
            f"iomodel run {volume} --source 1 --state /tmp/model --seed {seed} --overlap --discards 4 --flushes 3"
            " --ops 500"
        )
        if seed:
            lc.message("flush")
        take_down()
    thin(make("slow", lower["slow"]))
    guest.run(f"iomodel verify {made[-1]} --source 1 --state /tmp/model")
    # Both halves of the mirror.
    take_down()
    guest.run(f"cmp {one} {other}")
