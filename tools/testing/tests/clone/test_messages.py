# SPDX-License-Identifier: GPL-2.0
"""The messages that a clone takes, and what they do."""

import json

import pytest

from tests.scripts import run_script

LENGTH = 16384
INVALID = "Invalid argument"

# A message, and what the status then says; None: the message is refused.
MESSAGES = [
    ("hydration_threshold 0", "1 no_hydration 4 hydration_threshold 0 hydration_batch_size 1 rw"),
    ("hydration_batch_size 7", "1 no_hydration 4 hydration_threshold 0 hydration_batch_size 7 rw"),
    ("Hydration_BATCH_size +8", "1 no_hydration 4 hydration_threshold 0 hydration_batch_size 8 rw"),
    ("hydration_batch_size 4294967295",
     "1 no_hydration 4 hydration_threshold 0 hydration_batch_size 4294967295 rw"),
    ("hydration_batch_size 0", "1 no_hydration 4 hydration_threshold 0 hydration_batch_size 0 rw"),
    ("Enable_Hydration", "0 4 hydration_threshold 0 hydration_batch_size 0 rw"),
    ("enable_hydration again and again", "0 4 hydration_threshold 0 hydration_batch_size 0 rw"),
    ("DISABLE_hydration", "1 no_hydration 4 hydration_threshold 0 hydration_batch_size 0 rw"),
    ("disable_hydration 1", "1 no_hydration 4 hydration_threshold 0 hydration_batch_size 0 rw"),
    ("hydration_threshold", None),
    ("hydration_threshold x", None),
    ("hydration_threshold -1", None),
    ("hydration_threshold 1k", None),
    ("hydration_threshold 4294967296", None),
    ("hydration_threshold 1 2", None),
    ("hydration_batch_size 4294967296", None),
    ("unknown", None),
    ("unknown word", None),
    ("unknown word word", None),
    ("no_hydration", None),
    ("hydration_threshold 4294967295",
     "1 no_hydration 4 hydration_threshold 4294967295 hydration_batch_size 0 rw"),
    ("HYDRATION_THRESHOLD 3", "1 no_hydration 4 hydration_threshold 3 hydration_batch_size 0 rw"),
]


def send(guest, clone, messages):
    """[(errno, replied, status, log)...]"""
    return json.loads(run_script(guest, "clone/send_messages.py", clone.name, stdin=json.dumps(messages)))


def assert_answers(answers, last):
    """They are as MESSAGES says; a message that is refused changes nothing."""
    for (words, expected), (errno, replied, status, log) in zip(MESSAGES, answers, strict=True):
        last = expected or last
        assert errno == (None if expected else INVALID), words
        assert status.endswith(f" {last}"), (words, status)
        assert not replied
        if words == "unknown word":
            assert any(line.endswith(": Unsupported message `unknown'") for line in log)


@pytest.fixture
def clone(clone_module, dm, disks):
    """A clone at rest."""
    metadata, dest, source = disks.ram(8, 3)
    return dm.create("clone", f"0 {LENGTH} clone {metadata} {dest} {source} 8 1 no_hydration")


def test_messages(clone, guest):
    assert_answers(send(guest, clone, [words for words, _ in MESSAGES]), None)
    assert clone.status()[0].args[3] == "0/2048"


def test_messages_while_suspended(clone, guest):
    clone.suspend()
    assert_answers(send(guest, clone, [words for words, _ in MESSAGES]), None)
    clone.resume()
    last = MESSAGES[-1][1]
    assert clone.status_text().strip().endswith(f" {last}")


def test_threshold_0_stops(clone_module, guest, dm, disks):
    """No region is copied any more while others read; a threshold then goes on."""
    metadata, dest, source = disks.ram(8, 3)
    dm.create("slow", f"0 {LENGTH} delay {dest} 0 0 {dest} 0 4")
    clone = dm.create("clone", f"0 {LENGTH} clone {metadata} /dev/mapper/slow {source} 8 0 2 hydration_threshold 1")
    before, after = guest.output(f"""
        hydrated() {{ dmsetup status clone | awk '{{ sub("/.*", "", $7); print $7, $8 }}'; }}
        until [[ $(hydrated) != "0 "* ]]; do sleep 0.01; done
        dmsetup message clone 0 hydration_threshold 0
        until [[ $(hydrated) == *" 0" ]]; do sleep 0.01; done
        hydrated
        for i in 1 2 3 4 5; do dd if={clone} of=/dev/null bs=512 skip=16000 count=384 iflag=direct status=none; done
        hydrated""").splitlines()
    assert before == after
    assert 0 < int(before.split()[0]) < LENGTH // 8
    clone.message("hydration_batch_size", 128)
    clone.message("hydration_threshold", 1024)
    clone.wait_until(lambda status: status.args[3] == "2048/2048")
