# SPDX-License-Identifier: GPL-2.0
"""Thousands of table lines and messages, right ones and nearly right ones: nothing breaks, and both modules make the
same of them, where the stock one is asked.

What they mean is tested on the host, a hundred thousand of each (tools/testing/pure/tests/table_line.rs and
message.rs). Damaged metadata: test_corruption.py.
"""

import json
import random

import pytest

from lab import places
from lab.modules import load_clone
from lab.udev import without_udev
from tests.scripts import run_script

pytestmark = pytest.mark.any_kernel("tables and messages are read by our code alone")

COUNT = 2000 if places.is_default() else 400
STOCK_TABLES = 500  # it takes as long with each as ours
WORKERS = 5  # they mostly wait for each other's tables to go
LENGTH = 16384
FEATURES = ["no_hydration", "no_discard_passdown"]
KEYS = ["hydration_threshold", "hydration_batch_size"]
MESSAGES = ["enable_hydration", "disable_hydration", *KEYS]
# Messages that only ours has; the stock module refuses them.
OURS = {"set_min_share", "stats"}


def word(rng):
    """A keyword, a number of any size, or what is almost one of them."""
    return rng.choice([
        lambda: rng.choice([*FEATURES, *MESSAGES]),
        lambda: str(rng.randrange(6)),
        lambda: str((1 << rng.randrange(70)) - rng.randrange(2)),
        lambda: rng.choice(["", "+", "-", "0", "0x", "0b"]) + str(rng.getrandbits(34)) + rng.choice(["", "", "k", "."]),
        lambda: "".join(chr(rng.randrange(33, 127)) for _ in range(rng.randrange(1, 12))).replace("\\", "/"),
        lambda: "x" * rng.choice([15, 16, 64, 500]),
    ])()


def changed(rng, words):
    """The words after something has happened to them, or nothing."""
    words = [*words]
    for _ in range(rng.choice([0, 0, 1, 1, 2, 3])):
        at = rng.randrange(len(words) + 1)
        if at == len(words) or rng.random() < 0.3:
            words.insert(at, word(rng))
        elif rng.random() < 0.3:
            del words[at]
        elif rng.random() < 0.5:
            words[at] = word(rng)
        else:
            words[at] = "".join(rng.choice([letter, letter.swapcase()]) for letter in words[at])
    return words


def table_words(rng):
    """The words of a table after the devices."""
    features = rng.choices(FEATURES, k=rng.randrange(3))
    core = [one for _ in range(rng.randrange(3)) for one in (rng.choice(KEYS), str(rng.getrandbits(32)))]
    words = [str(8 << rng.randrange(9)), str(len(features)), *features, str(len(core)), *core]
    return " ".join(changed(rng, words[:rng.choice([1, 2 + len(features), len(words), len(words)])]))


def message_words(rng):
    """A message."""
    name = rng.choice(MESSAGES)
    return " ".join(changed(rng, [name, str(rng.getrandbits(32))] if name in KEYS else [name])) or "x"


def unload(guest, module):
    """The other module is next."""
    guest.run(f"rmmod {'dm_clone_rs' if module == 'rs' else 'dm_clone'}")


def try_in_parallel(guest, lines):
    """[(words, errno, table, status)...]; the kernel's log has what all said, so it is left out."""
    for worker in range(WORKERS):
        metadata, *others = (f"/dev/ram{3 * worker + number}" for number in range(3))
        mine = [(LENGTH, f"{metadata} {' '.join(others)} {words}") for words in lines[worker::WORKERS]]
        guest.run(f"cat > /tmp/lines.{worker}", stdin=json.dumps(mine))
    said = run_script(guest, "clone/try_tables.py", "/dev/ram$((3 * worker)) < /tmp/lines.$worker",
                      parallel=range(WORKERS))
    by_worker = [json.loads(line) for line in said.splitlines()]
    results = (by_worker[number % WORKERS][number // WORKERS] for number in range(len(lines)))
    return [(one["words"], one.get("errno"), one.get("table"), one.get("status")) for one in results]


@pytest.mark.limit(300)
def test_tables_mean_the_same_to_both_modules(guest, disks):
    disks.ram(8, 3 * WORKERS)
    rng = random.Random(11)
    lines = [table_words(rng) for _ in range(COUNT)]

    def results(module, lines):
        load_clone(guest, module)
        with without_udev(guest):
            said = try_in_parallel(guest, lines)
        unload(guest, module)
        assert len(said) == len(lines)
        return said

    all_ours = results("rs", lines)
    if places.is_default():
        for ours, c in zip(all_ours, results("c", lines[:STOCK_TABLES]), strict=False):
            # The stock module takes the lower 32 bits of a count.
            if not (ours[1] and any(one.isdecimal() and int(one) >= 1 << 32 for one in ours[0].split())):
                assert ours == c
    refused = sum(errno is not None for _, errno, _, _ in all_ours)
    assert COUNT // 4 < refused < COUNT * 3 // 4


@pytest.mark.limit(180)
def test_messages_mean_the_same_to_both_modules(guest, dm, disks):
    metadata, dest, source = disks.ram(8, 3)
    rng = random.Random(12)
    messages = [message_words(rng) for _ in range(COUNT)]
    messages = [one for one in messages if one.split(maxsplit=1)[0].lower() not in OURS]

    def results(module):
        load_clone(guest, module)
        # The copying is not the matter: what is complete has none.
        clone = dm.create("clone", f"0 {LENGTH} clone {metadata} {dest} {source} 8 2 no_hydration no_discard_passdown")
        guest.run(f"blkdiscard -f {clone} && dmsetup status {clone}")
        said = run_script(guest, "clone/send_messages.py", clone.name, stdin=json.dumps(messages))
        clone.remove()
        unload(guest, module)
        return [(errno, replied, status) for errno, replied, status, _ in json.loads(said)]

    all_ours = results("rs")
    if places.is_default():
        for words, ours, c in zip(messages, all_ours, results("c"), strict=True):
            assert ours == c, words
    refused = sum(errno is not None for errno, _, _ in all_ours)
    assert COUNT // 4 < refused < COUNT * 3 // 4
