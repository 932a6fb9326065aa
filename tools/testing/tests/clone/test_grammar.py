# SPDX-License-Identifier: GPL-2.0
"""The words of a table line: what is refused, with which words, and what is accepted."""

import pathlib
import tempfile

import pytest

from tests.clone import images
from tests.clone.tables import try_tables

LENGTH = 16384
DEVICES = "/dev/mapper/metadata /dev/mapper/dest /dev/mapper/source"
INVALID = "Invalid argument"

# Words after the devices, the reason in the kernel's log, and what ours says about it a line before.
REFUSED_WORDS = [
    ("7", "Invalid region size", "region size `7': expected a number from 8 to 2097152"),
    ("0", "Invalid region size", "region size `0': expected a number from 8 to 2097152"),
    ("4194304", "Invalid region size", "region size `4194304': expected a number from 8 to 2097152"),
    ("-8", "Invalid region size", "region size `-8': expected a number from 8 to 2097152"),
    ("8k", "Invalid region size", "region size `8k': expected a number from 8 to 2097152"),
    ("0x8", "Invalid region size", "region size `0x8': expected a number from 8 to 2097152"),
    ("24", "Region size is not a power of 2", "region size `24': expected a power of 2"),
    ("2097151", "Region size is not a power of 2", "region size `2097151': expected a power of 2"),
    ("8 3", "Invalid number of feature arguments",
     "number of feature arguments `3': expected a number from 0 to 2"),
    ("8 x", "Invalid number of feature arguments",
     "number of feature arguments `x': expected a number from 0 to 2"),
    ("8 -1", "Invalid number of feature arguments",
     "number of feature arguments `-1': expected a number from 0 to 2"),
    ("8 no_hydration", "Invalid number of feature arguments",
     "number of feature arguments `no_hydration': expected a number from 0 to 2"),
    ("8 2 no_hydration", "Invalid number of feature arguments",
     "number of feature arguments `2': only 1 words follow"),
    ("8 1 no_hydrations", "Invalid feature argument",
     "feature `no_hydrations': expected no_hydration or no_discard_passdown"),
    ("8 2 no_hydration hydration_threshold", "Invalid feature argument",
     "feature `hydration_threshold': expected no_hydration or no_discard_passdown"),
    ("8 0 5", "Invalid number of core arguments", "number of core arguments `5': expected a number from 0 to 4"),
    ("8 0 x", "Invalid number of core arguments", "number of core arguments `x': expected a number from 0 to 4"),
    ("8 0 2 hydration_threshold", "Invalid number of core arguments",
     "number of core arguments `2': only 1 words follow"),
    ("8 0 1 hydration_threshold", "Number of core arguments must be even", None),
    ("8 0 3 hydration_threshold 1 x", "Number of core arguments must be even", None),
    ("8 0 2 hydration_threshold x", "Invalid value for argument `hydration_threshold'",
     "hydration_threshold `x': expected a number from 0 to 4294967295"),
    ("8 0 2 hydration_threshold -1", "Invalid value for argument `hydration_threshold'",
     "hydration_threshold `-1': expected a number from 0 to 4294967295"),
    ("8 0 2 hydration_threshold 4294967296", "Invalid value for argument `hydration_threshold'",
     "hydration_threshold `4294967296': expected a number from 0 to 4294967295"),
    ("8 0 2 hydration_batch_size 1k", "Invalid value for argument `hydration_batch_size'",
     "hydration_batch_size `1k': expected a number from 0 to 4294967295"),
    ("8 0 4 hydration_threshold 1 hydration_batch_size 99999999999999999999",
     "Invalid value for argument `hydration_batch_size'",
     "hydration_batch_size `99999999999999999999': expected a number from 0 to 4294967295"),
    ("8 0 2 threshold 1", "Invalid core argument",
     "core argument `threshold': expected hydration_threshold or hydration_batch_size"),
    ("8 0 4 hydration_threshold 1 no_hydration 1", "Invalid core argument",
     "core argument `no_hydration': expected hydration_threshold or hydration_batch_size"),
]

# Whole lines, with their length.
REFUSED_LINES = [
    (LENGTH, "", "Invalid number of arguments (-EINVAL)", INVALID),
    (LENGTH, DEVICES, "Invalid number of arguments (-EINVAL)", INVALID),
    (LENGTH, "/dev/nope /dev/mapper/dest /dev/mapper/source 8",
     "Error opening metadata device (-ENOENT)", "No such file or directory"),
    (LENGTH, "/dev/mapper/metadata /dev/nope /dev/mapper/source 8",
     "Error opening destination device (-ENOENT)", "No such file or directory"),
    (LENGTH, "/dev/mapper/metadata /dev/mapper/dest /dev/nope 8",
     "Error opening source device (-ENOENT)", "No such file or directory"),
    (LENGTH, "/dev/mapper/metadata /dev/mapper/dest /dev/null 8",
     "Error opening source device (-ENOTBLK)", "Block device required"),
    (8 * 2**31 + 1, f"{DEVICES} 8",
     "Too many regions. Consider increasing the region size (-EINVAL)", INVALID),
]

# Words after the devices, and what the status then ends with.
ACCEPTED = [
    ("8", "0 4 hydration_threshold 1 hydration_batch_size 1 rw"),
    ("2097152", "0 4 hydration_threshold 1 hydration_batch_size 1 rw"),
    ("8 0", "0 4 hydration_threshold 1 hydration_batch_size 1 rw"),
    ("8 0 0", "0 4 hydration_threshold 1 hydration_batch_size 1 rw"),
    ("8 1 no_hydration", "1 no_hydration 4 hydration_threshold 1 hydration_batch_size 1 rw"),
    ("8 1 NO_Hydration 0", "1 no_hydration 4 hydration_threshold 1 hydration_batch_size 1 rw"),
    ("8 2 no_hydration no_hydration", "1 no_hydration 4 hydration_threshold 1 hydration_batch_size 1 rw"),
    ("8 2 no_discard_passdown no_hydration",
     "2 no_hydration no_discard_passdown 4 hydration_threshold 1 hydration_batch_size 1 rw"),
    ("8 1 No_Discard_PassDown 2 HYDRATION_threshold 7",
     "1 no_discard_passdown 4 hydration_threshold 7 hydration_batch_size 1 rw"),
    ("8 1 no_hydration 4 hydration_batch_size 5 hydration_threshold 6",
     "1 no_hydration 4 hydration_threshold 6 hydration_batch_size 5 rw"),
    ("8 0 4 hydration_threshold 2 hydration_threshold +3",
     "0 4 hydration_threshold 3 hydration_batch_size 1 rw"),
    ("8 0 4 hydration_threshold 0 hydration_batch_size 0", "0 4 hydration_threshold 0 hydration_batch_size 0 rw"),
    ("8 1 no_hydration 4 hydration_threshold 4294967295 hydration_batch_size 4294967295",
     "1 no_hydration 4 hydration_threshold 4294967295 hydration_batch_size 4294967295 rw"),
    ("8 1 no_hydration 0 words that Mean nothing",
     "1 no_hydration 4 hydration_threshold 1 hydration_batch_size 1 rw"),
]


def roles(dm, metadata, dest, source):
    """The devices of a clone as dm devices of their own, so that dmsetup can tell whether they are open."""
    for name, path in (("metadata", metadata), ("dest", dest), ("source", source)):
        dm.create(name, f"0 {LENGTH} linear {path} 0")


def assert_unused(guest, metadata="/dev/mapper/metadata"):
    """Nobody has the devices open, and the metadata are still blank."""
    assert guest.output("dmsetup info -c --noheadings -o open metadata dest source").split() == ["0", "0", "0"]
    guest.run(f"blockdev --flushbufs {metadata} && cmp -n {LENGTH * 512} {metadata} /dev/zero")


def test_refuses_words(clone_module, guest, dm, disks):
    roles(dm, *disks.ram(8, 3))
    tried = try_tables(guest, [(LENGTH, f"{DEVICES} {words}") for words, *_ in REFUSED_WORDS])
    for (words, reason, hint), one in zip(REFUSED_WORDS, tried, strict=True):
        assert one.errno == INVALID, words
        assert one.reason == f"{reason} (-EINVAL)", words
        if clone_module == "rs" and hint:
            assert one.log[0] == f"device-mapper: clone: {hint}"
    assert_unused(guest)


def test_refuses_lines(clone_module, guest, dm, disks):
    roles(dm, *disks.ram(8, 3))
    tried = try_tables(guest, [line[:2] for line in REFUSED_LINES])
    for (_, words, reason, errno), one in zip(REFUSED_LINES, tried, strict=True):
        assert (one.reason, one.errno) == (reason, errno), (words, clone_module)
    assert_unused(guest)


def test_refuses_regions_smaller_than_a_block(clone_module, guest, dm, disks):
    """Of the source as of the destination; a region may be as small as a block of theirs."""
    metadata, dest, source = disks.ram(8, 3)
    large = guest.output("""
        modprobe loop && truncate -s 8M /tmp/large && losetup --find --show --sector-size 8192 /tmp/large
        /lab/settle""")
    roles(dm, metadata, dest, source)
    reason = "Region size is not a multiple of device logical block size (-EINVAL)"
    tried = try_tables(guest, [
        (LENGTH, f"/dev/mapper/metadata /dev/mapper/dest {large} 8"),
        (LENGTH, f"/dev/mapper/metadata {large} /dev/mapper/source 8"),
    ])
    assert [one.reason for one in tried] == [reason, reason]
    assert_unused(guest)
    as_large = try_tables(guest, [(LENGTH, f"/dev/mapper/metadata {large} /dev/mapper/source 16")])
    assert as_large[0].errno is None


def test_accepts_and_echoes(clone_module, guest, dm, disks):
    metadata, dest, source = disks.ram(8, 3)
    lines = [(LENGTH, f"{metadata} {dest} {source} {words}") for words, _ in ACCEPTED]
    for (words, ending), one in zip(ACCEPTED, try_tables(guest, lines, blank=[metadata]), strict=True):
        assert one.errno is None, (words, one.log)
        assert one.table == f"1:0 1:1 1:2 {words}"
        assert one.status.endswith(f" {ending}"), one.status


def test_accepts_a_read_only_device(clone_module, guest, dm, disks):
    metadata, dest, source = disks.ram(8, 3)
    guest.run(f"dd if=/dev/urandom of={source} bs=1M count=8 oflag=direct status=none")
    clone = dm.create("clone", f"0 {LENGTH} clone {metadata} {dest} {source} 8 1 no_hydration", "--readonly")
    guest.run(f"cmp {clone} {source}")
    assert guest.output(f"blockdev --getro {clone}") == "1"
    assert guest.run(f"dd if=/dev/zero of={clone} bs=4k count=1 oflag=direct", check=False).returncode


@pytest.mark.c_fails("formats the metadata, and is refused by device-mapper for the size after that", command="cmp")
@pytest.mark.parametrize("small", ["source", "dest"])
def test_refuses_small_devices_before_it_formats(clone_module, guest, dm, disks, small):
    roles(dm, *disks.ram(8, 3))
    dm.create("small", f"0 {LENGTH - 8} linear /dev/ram{1 if small == 'dest' else 2} 0")
    words = f"{DEVICES} 8".replace(f"/dev/mapper/{small}", "/dev/mapper/small")
    one = try_tables(guest, [(LENGTH, words)])[0]
    assert_unused(guest)
    assert one.reason == "Device is smaller than the target (-EINVAL)"
    name = "destination" if small == "dest" else "source"
    assert one.log[0].startswith(f"device-mapper: clone: {name} device ")
    assert one.log[0].endswith(f": expected at least {LENGTH} sectors, has {LENGTH - 8}")


@pytest.mark.c_fails("formats the metadata, and is refused by device-mapper for the length after that", command="cmp")
def test_refuses_part_of_a_block_before_it_formats(clone_module, guest, dm, disks):
    roles(dm, *disks.ram(8, 3))
    large = disks.null("large", 8, blocksize=4096)
    one = try_tables(guest, [(LENGTH - 4, f"{DEVICES} 8".replace("/dev/mapper/dest", large))])[0]
    assert_unused(guest)
    assert one.reason == "Length is no multiple of a block of the devices (-EINVAL)"


@pytest.mark.c_fails("lets one device have two roles, and destroys what is on it")
@pytest.mark.parametrize("one, other", [("metadata", "dest"), ("metadata", "source"), ("dest", "source")])
def test_refuses_a_device_in_two_roles(clone_module, guest, dm, disks, one, other):
    roles(dm, *disks.ram(8, 3))
    words = f"{DEVICES} 8".replace(f"/dev/mapper/{other}", f"/dev/mapper/{one}")
    tried = try_tables(guest, [(LENGTH, words)])[0]
    assert tried.reason == "A device has two roles (-EINVAL)"
    names = " and ".join({"dest": "destination"}.get(name, name) for name in (one, other))
    assert tried.log[0].startswith(f"device-mapper: clone: {names}: expected different devices, both are 253:")
    assert_unused(guest)


@pytest.mark.c_fails("lets them pass in silence")
def test_warns_of_words_after_the_last_group(clone_module, guest, disks):
    tried = try_tables(guest, [(LENGTH, f"{' '.join(disks.ram(8, 3))} 8 0 0 hydration_treshold 7")])[0]
    assert tried.errno is None
    warning = "`hydration_treshold' and what follows it has no meaning after the core arguments"
    assert f"device-mapper: clone: {warning}" in tried.log


def damaged(superblock, field, value, seal=True):
    """A superblock with another number in a field."""
    block = images.put(superblock, field, value)
    return images.seal(block, images.SUPERBLOCK) if seal else block


# How the superblock is damaged, the errno, and what is said about it besides.
REFUSED_METADATA = [
    (lambda block: damaged(block, images.BLOCK_NUMBER, 3), "ENOTBLK",
     "Superblock check failed: blocknr 3, expected 0"),
    (lambda block: damaged(block, images.MAGIC, 77), "EILSEQ",
     f"Superblock check failed: magic 77, expected {0x8AF27F64}"),
    (lambda block: damaged(block, (1000, 1), 1, seal=False), "EILSEQ",
     "Superblock check failed: checksum {computed}, expected {stored}"),
    (lambda block: damaged(block, images.VERSION, 2), "EINVAL",
     "Clone metadata version 2 found, but only versions between 1 and 1 supported."),
    (lambda block: damaged(block, images.REGION_SIZE, 16), "EINVAL",
     "Region and/or target size don't match the ones in metadata"),
    (lambda block: damaged(block, images.TARGET_SIZE, LENGTH - 1), "EINVAL",
     "Region and/or target size don't match the ones in metadata"),
]
SLICE = 128


def test_refuses_metadata(clone_module, guest, dm, disks):
    """Damaged, of another clone, too small, unreadable: each with its errno and a line that says why."""
    metadata, dest, source = disks.ram(8, 3)
    dm.create("slice", f"0 {SLICE} linear {metadata} 0")
    try_tables(guest, [(LENGTH, f"/dev/mapper/slice {dest} {source} 8")])
    guest.run("head -c 4096 /dev/mapper/slice > /tmp/superblock && dmsetup remove slice")
    with tempfile.NamedTemporaryFile() as file:
        guest.get("/tmp/superblock", file.name)
        superblock = pathlib.Path(file.name).read_bytes()
    assert superblock[:4096] == images.seal(superblock, images.SUPERBLOCK)

    blocks = [damage(superblock) for damage, *_ in REFUSED_METADATA]
    guest.run(f"dd of={metadata} bs=64k oflag=direct iflag=fullblock status=none",
              stdin=b"".join(block.ljust(SLICE * 512, b"\0") for block in blocks))
    tables = "".join(f"m{i}: 0 {SLICE} linear {metadata} {i * SLICE}\n" for i in range(len(blocks)))
    tables += f"small: 0 32 linear {metadata} 8192\nunreadable: 0 {SLICE} error\n"
    guest.run("while IFS=: read -r name table; do dmsetup create $name --table \"$table\"; done",
              stdin=tables)
    names = [f"m{i}" for i in range(len(blocks))] + ["small", "unreadable"]
    tried = try_tables(guest, [(LENGTH, f"/dev/mapper/{name} {dest} {source} 8") for name in names])

    assert [one.reason for one in tried] == [
        f"Failed to load metadata (-{errno})" for _, errno, _ in REFUSED_METADATA
    ] + ["Failed to load metadata (-ENOSPC)", "Failed to load metadata (-EIO)"]
    for block, (_, _, words), one in zip(blocks, REFUSED_METADATA, tried, strict=False):
        words = words.format(computed=images.checksum(block, images.SUPERBLOCK), stored=images.get(block, (0, 4)))
        assert f"device-mapper: clone metadata: {words}" in one.log
    assert "device-mapper: clone metadata: Failed to read_lock superblock" in tried[-1].log
    # None of them is still open.
    guest.run(f"dmsetup remove {' '.join(names)}")
