# SPDX-License-Identifier: GPL-2.0
"""What is read is what was written: byte-exact models of clones in many shapes, on many kinds of disk."""

import pytest

from lab.disks import sysfs
from tests.clone.rig import MODEL, SOURCE_TAG, Rig

pytestmark = [pytest.mark.limit(90), pytest.mark.usefixtures("clone_module")]

OURS = pytest.mark.parametrize("clone_module", ["rs"], indirect=True)
MIB = 2048  # sectors
CONTENT = f"--source {SOURCE_TAG} --state {MODEL}"


def exercise(rig, seed, ops=300, more=""):
    """Random I/O on the clone while it hydrates; then hydrates the rest, and compares the destination."""
    area = f"--sectors {rig.sectors}"
    rig.guest.run(f"iomodel run {rig.clone} {CONTENT} --seed {seed} --ops {ops} --threads 4 {more}")
    rig.hydrate()
    # Without the source: what is read now comes from the destination.
    rig.source.break_all()
    rig.guest.run(f"iomodel verify {rig.clone} {CONTENT} && iomodel verify {rig.dest} {area} {CONTENT}")


@pytest.mark.parametrize(
    ("region", "sectors", "words", "seed"),
    [
        (8, 8 * MIB, "0 4 hydration_threshold 256 hydration_batch_size 64", 11),
        (8, 8 * MIB - 8, "0 4 hydration_threshold 3 hydration_batch_size 2", 12),
        (128, 8 * MIB, "0 2 hydration_threshold 1", 13),
        (128, 8 * MIB - 88, "0 4 hydration_threshold 16 hydration_batch_size 5", 14),
        (2048, 8 * MIB - 1, "0 4 hydration_threshold 2 hydration_batch_size 2", 15),
        (2048, 8 * MIB - 2040, "1 no_hydration", 16),
    ],
)
def test_model(guest, dm, disks, region, sectors, words, seed):
    rig = Rig(guest, dm, disks.ram(8, 3), sectors, region)
    rig.source.slow_down(5)
    rig.create(words)
    exercise(rig, seed, more="--overlap --flushes 5")


@OURS
@pytest.mark.parametrize("region", [8, 128, 2048])
@pytest.mark.parametrize("feature", ["0", "1 no_discard_passdown"])
def test_model_with_discards(guest, dm, disks, region, feature):
    """The stock module loses writes here, see test_discard."""
    rig = Rig(guest, dm, disks.ram(8, 3), 8 * MIB - 24, region)
    rig.source.slow_down(5)
    rig.create(f"{feature} 4 hydration_threshold 16 hydration_batch_size 4")
    exercise(rig, region, more="--overlap --flushes 5 --discards 20")


@OURS
@pytest.mark.parametrize("kind", ["null_4k", "scsi", "virtio"])
def test_kinds_of_disk(guest, dm, disks, kind):
    ram = disks.ram(8)
    if kind == "null_4k":
        two = [disks.null(name, 8, blocksize=4096) for name in ("nulldest", "nullsource")]
    elif kind == "scsi":
        two = [disks.scsi_debug(8, lbpu=1), disks.loop(8)]
    else:
        two = disks.scratch(2)
    rig = Rig(guest, dm, ram + two, 8 * MIB, 128)
    rig.create("0 4 hydration_threshold 8 hydration_batch_size 4")
    if kind == "null_4k":
        # The model's random I/O is in units of 512 bytes, which this disk does not take.
        rig.write(24, 2048, 2)
        rig.hydrate()
        rig.holds(24, 2048, 2, rig.dest)
        rig.holds(0, 24, SOURCE_TAG, rig.dest)
        rig.holds(2072, rig.sectors - 2072, SOURCE_TAG, rig.dest)
    else:
        exercise(rig, 21)


def test_target_that_does_not_begin_the_device(guest, dm, disks):
    rig = Rig(guest, dm, disks.ram(8, 3), 8 * MIB - 40, 128)
    front = disks.null("front", 1)
    guest.run(f"iomodel stamp {front} 7")
    rig.create()
    rig.clone.reload(f"0 {MIB} linear {front} 0\n{rig.table('1 no_hydration', start=MIB)}")
    guest.run(f"iomodel run {rig.clone} --first {MIB} {CONTENT} --seed 31 --ops 300 --flushes 5")
    guest.run(f"iomodel verify {rig.clone} --sectors {MIB} --source 7")
    # Across the border between the two.
    guest.run("dd if=/dev/urandom of=/tmp/data bs=64k count=1 status=none")
    guest.run(f"dd if=/tmp/data of={rig.clone} bs=64k oflag=seek_bytes,direct seek={MIB * 512 - 4096} status=none")
    guest.run(f"cmp -n 65536 -i 0:{MIB * 512 - 4096} /tmp/data {rig.clone}")
    guest.run(f"cmp -n 61440 -i 4096:0 /tmp/data {rig.dest}")


def test_short_last_region(guest, dm, disks):
    """Written in part, and written whole."""
    rig = Rig(guest, dm, disks.ram(8, 3), 4 * MIB + 24, 128)
    clone = rig.create("1 no_hydration")
    rig.write(4 * MIB + 8, 8, 2)
    assert rig.progress().hydrated == 1
    rig.holds(4 * MIB + 8, 8, 2)
    rig.holds(4 * MIB, 8, SOURCE_TAG)
    rig.holds(4 * MIB + 16, 8, SOURCE_TAG)
    rig.write(4 * MIB, 24, 3)
    rig.holds(4 * MIB, 24, 3)
    rig.holds(4 * MIB, 24, 3, rig.dest)
    assert clone.status()[0].args[3] == "1/65"
    # Nothing behind the end of the target was touched.
    guest.run(f"cmp -n {4 * MIB * 512 - 24 * 512} -i {(4 * MIB + 24) * 512}:0 {rig.dest} /dev/zero")


@OURS
def test_short_last_region_is_overwritten_without_a_copy(guest, dm, disks):
    rig = Rig(guest, dm, disks.ram(8, 3), 4 * MIB + 24, 128)
    rig.create("1 no_hydration")
    rig.source.break_all()
    rig.write(4 * MIB, 24, 2)
    assert rig.progress().hydrated == 1


def test_bios_over_hydrated_and_other_regions(rig):
    """Every other region is hydrated; one read, and one write, go over many of both kinds."""
    rig.create("1 no_hydration")
    size = rig.region
    for number in range(1, 16, 2):
        rig.write(number * size, size, number + 1)
    guest = rig.guest
    guest.run(f"dd if={rig.clone} of=/tmp/read bs=1M count=1 iflag=direct status=none")
    for number in range(16):
        begin = number * size * 512
        if number % 2:
            guest.run(f"cmp -n {size * 512} -i {begin} /tmp/read {rig.dest}")
        else:
            guest.run(f"cmp -n {size * 512} -i {begin} /tmp/read {rig.source}")
    # 1 MiB that begins and ends inside regions.
    rig.write(1000, 2048, 99)
    rig.holds(1000, 2048, 99)
    rig.holds(1000 // size * size, 1000 % size, SOURCE_TAG if 1000 // size % 2 == 0 else 1000 // size + 1)


def test_read_of_many_parts(clone_module, guest, dm, disks):
    """Reads of several MiB go over 4096 regions, of which every other is hydrated."""
    *three, model = disks.ram(16, 4)
    rig = Rig(guest, dm, three, 16 * MIB, 8)
    rig.create("1 no_hydration")
    guest.run(f"""set -e
        cat {rig.source} >{model}
        for device in {rig.clone} {model}; do
            fio --name=w --filename=$device --direct=1 --rw=write:4k --bs=4k --size=16M --io_size=8M >/tmp/fio \
                --buffer_pattern=0xa5 || {{ cat /tmp/fio; exit 1; }}
        done
        # A buffer of huge pages takes few of a bio's vectors.
        echo always >/sys/kernel/mm/transparent_hugepage/enabled""")
    assert rig.progress().hydrated == 2048
    reads = f"awk '{{ print $1 }}' {sysfs(rig.clone)}/stat"
    before = int(guest.output(reads))
    guest.run(f"dd if={rig.clone} of=/tmp/read bs=16M count=1 iflag=direct status=none")
    guest.run(f"cmp -n {16 << 20} /tmp/read {model}")
    if clone_module == "rs":
        assert int(guest.output(reads)) - before < 4096 // 512


@pytest.mark.limit(120)
@pytest.mark.usefixtures("clone_module")
def test_file_system(clone_module, guest, dm, disks):
    """A file system of the source is used and written to while it is copied."""
    # The stock module may lose what is written after a discard, see test_discard.
    trim = "fstrim /mnt/fs" if clone_module == "rs" else "true"
    metadata, dest, source = disks.ram(24, 3)
    guest.run(
        f"set -e\nmkfs.ext4 -q {source}\nmkdir -p /mnt/fs\nmount {source} /mnt/fs\n"
        "cp -r /usr/lib/udev/rules.d /mnt/fs/one\n"
        "umount /mnt/fs"
    )
    dm.create("source", f"0 {24 * MIB} delay {source} 0 5")
    clone = dm.create("clone", f"0 {24 * MIB} clone {metadata} {dest} /dev/mapper/source 64 0 2 hydration_threshold 8")
    guest.run(
        f"set -e\nmount {clone} /mnt/fs\ncp -r /mnt/fs/one /mnt/fs/two\nsync\nrm /mnt/fs/one/60-*\n"
        f"{trim}\ncp -r /mnt/fs/two /mnt/fs/three\n{trim}"
    )
    clone.message("hydration_batch_size", 8)
    clone.wait_until(lambda status: status.args[3] == "768/768")
    guest.run(
        f"set -e\numount /mnt/fs\ndmsetup remove clone source\ne2fsck -fn {dest}\nmount {dest} /mnt/fs\n"
        "diff -r /usr/lib/udev/rules.d /mnt/fs/two\ndiff -r /usr/lib/udev/rules.d /mnt/fs/three\n! ls /mnt/fs/one/60-*"
    )


def test_hydration_goes_on_after_writes_that_took_its_room(rig, guest):
    """A write that covers its region is all that the threshold allows; when it ends, the rest comes over."""
    clone = rig.create("1 no_hydration 2 hydration_threshold 1")
    rig.dest.hold()
    writer = rig.write_behind(0, rig.region, 2)
    rig.wait(lambda now: now.in_flight == 1)
    clone.message("enable_hydration")
    # The sweep looks, and finds no room, long before another process has begun.
    guest.run("true")
    rig.dest.release()
    assert writer.wait() == 0
    rig.wait(lambda now: now.hydrated == rig.regions)
    rig.holds(0, rig.region, 2)
