# SPDX-License-Identifier: GPL-2.0
"""Caches as they are used: reloaded, attached, detached, in each mode, told what to do, and broken."""

import pytest

from lab import patience, places
from tests.lc.breakable import become, fill, flip, read
from tests.lc.rig import STATE, Rig, Status
from tests.scripts import run_script


@pytest.fixture
def cache(rig):
    """A cache over a stamped disk."""
    rig.begin_model()
    return rig


def run(rig, seed, words="--overlap --discards 4 --flushes 3 --ops 600"):
    rig.iomodel(f"run --source 1 --state {STATE} --seed {seed} {words}")


# -- tables -----------------------------------------------------------------------------------------


def test_writes_between_load_and_resume_stay(cache):
    """Defect E: the new table is loaded, and only then is written."""
    run(cache, 1)
    cache.device.load(cache.table("2 high_watermark 60"))
    run(cache, 2)
    cache.device.suspend()
    cache.device.resume()
    assert cache.device.table()[0].args[2:] == ["2", "high_watermark", "60"]
    run(cache, 3)


def test_reload_while_in_use(cache):
    """Twenty reloads beside random I/O."""
    writer = cache.guest.start(
        f"iomodel run {cache.device} --source 1 --state {STATE} --seed 4 --overlap --discards 4 --flushes 3 --ops 3000"
    )
    for number in range(20):
        cache.device.reload(cache.table(f"2 high_watermark {50 + number}"))
    said = writer.communicate()[0]
    assert writer.returncode == 0, said


def test_attach_and_detach_while_in_use(rig):
    """From linear to lc, and back when all is written back; I/O goes on all the time."""
    guest = rig.guest
    guest.run(f"rm -f {STATE} && iomodel stamp {rig.backing} 1")
    linear = f"0 {rig.sectors} linear {rig.backing} 0"
    rig.device = rig.dm.create("lc", linear)
    writer = guest.start(
        f"iomodel run {rig.device} --source 1 --state {STATE} --seed 5 --overlap --flushes 3 --ops 4000"
    )
    rig.device.reload(rig.table())
    guest.run(f"until [ $(dmsetup status {rig.device} | awk '{{ print $16 }}') -gt 100 ]; do sleep 0.05; done")
    rig.device.message("mode", "cleaner")
    rig.device.message("flush")
    # Writes of what the cache still had may have come since.
    rig.device.load(linear)
    rig.wait_until(lambda status: status["log_used"] == 0)
    rig.device.suspend()
    assert rig.status()["log_used"] == 0
    rig.device.resume()
    said = writer.communicate()[0]
    assert writer.returncode == 0, said
    guest.run(f"iomodel verify {rig.backing} --source 1 --state {STATE}")


def test_second_user_is_refused(cache, dm, guest):
    for table in (
        cache.table(),
        f"0 {cache.sectors} lc {cache.cache} {cache.backing}",
    ):
        refused = guest.run("dmsetup create other", stdin=table, check=False)
        assert refused.returncode


def test_table_is_what_makes_it_again(cache):
    words = (
        "34 mode writearound allow_migrate 0 force_migrate 1 migrate_threshold 70 update_interval 2"
        " nr_max_batched_migration 4 high_watermark 70 low_watermark 20 barrier_deadline_ms 3"
        " flush_current_buffer_interval 5 commit_super_block_interval 60 verify_reads 1"
        " read_cache_threshold 8 nr_read_cache_cells 100 bypass_on_error 1 sequential_cutoff 512"
        " max_age_ms 600000"
    )
    cache.again(words)
    assert cache.device.table()[0].args[2:] == words.split()
    cache.again("6 mode writearound allow_migrate 0 low_watermark 20")
    cache.device.message("high_watermark", 80)
    cache.device.message("writeback_threshold", 50)
    cache.device.message("mode", "writeback")
    line = cache.device.table()[0]
    assert line.args[2:] == "8 allow_migrate 0 migrate_threshold 50 high_watermark 80 low_watermark 20".split()
    cache.device.load(f"{line.start} {line.length} lc {' '.join(line.args)}")
    cache.device.suspend()
    cache.device.resume()
    assert cache.device.table()[0].args[2:] == line.args[2:]


WRONG_WORDS = {
    "1 mode": "number of arguments `1': expected an even number",
    "2 mode": "number of arguments `2': only 1 words follow",
    "40 mode": "number of arguments `40': expected a number from 0 to 38",
    "2 mode fast": "mode `fast': expected writeback, writethrough, writearound, passthrough or cleaner",
    "2 nr_read_cache_cells 2049": "expected a number from 1 to 2048",
    "4 bypass_on_error 1 prefix_consistent 1": "expected bypass_on_error 0 with prefix_consistent 1",
    "4 sequential_cutoff 4 prefix_consistent 1": "expected sequential_cutoff 0 with prefix_consistent 1",
    "2 sequential_cutoff 1048577": "sequential_cutoff `1048577': expected a number from 0 to 1048576",
    "2 max_age_ms 86400001": "max_age_ms `86400001': expected a number from 0 to 86400000",
    "2 speed 3": "key `speed': expected mode, ",
    "2 high_watermark 101": "high_watermark `101': expected a number from 0 to 100",
    "4 mode writeback mode cleaner": "key `mode': expected each key once",
    "2 high_watermark 10": "expected a low_watermark that is not above the high_watermark",
    "4 mode cleaner prefix_consistent 1": "expected the mode writeback with prefix_consistent 1",
    "2 mode cleaner more": "word `more': expected no word after",
    "2 flush_current_buffer_interval 3601": "expected a number from 0 to 3600",
}


def test_wrong_words_are_refused(rig):
    """Defect Q."""
    for words, reason in WRONG_WORDS.items():
        where = rig.guest.console_size()
        assert "Invalid argument" in rig.dm.refuse("lc", rig.table(words))
        assert reason in rig.guest.console(where)


def test_wrong_devices_are_refused(rig, guest, dm):
    assert "Error opening backing device" in dm.refuse("lc", f"0 {rig.sectors} lc")
    assert "Error opening cache device" in dm.refuse("lc", f"0 {rig.sectors} lc {rig.backing}")
    assert "Error opening cache device" in dm.refuse("lc", f"0 {rig.sectors} lc {rig.backing} /dev/none")
    assert "are one device" in dm.refuse("lc", f"0 {rig.sectors} lc {rig.backing} {rig.backing}")
    assert "smaller than the target" in dm.refuse("lc", f"0 {rig.sectors + 8} lc {rig.backing} {rig.cache}")
    small = dm.create("small", f"0 16384 linear {rig.cache} 0")
    where = guest.console_size()
    assert "Cache device is too small" in dm.refuse("lc", f"0 {rig.sectors} lc {rig.backing} {small}")
    assert "expected at least 35072 sectors, has 16384" in guest.console(where)


# -- modes and messages -----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["writethrough", "writearound", "cleaner"])
def test_mode(cache, mode):
    """What is cached is found, what is not goes to the backing device, and all is as modelled."""
    run(cache, 1)
    before = cache.status()
    cache.device.message("mode", mode)
    for seed in (2, 3):
        run(cache, seed)
    if mode == "cleaner":
        cache.device.message("flush")
        assert cache.status()["log_used"] == 0
    cache.device.message("mode", "writeback")
    run(cache, 4)
    assert cache.status()["crc_errors"] == before["crc_errors"] == 0


def test_writes_go_around_what_is_not_cached(cache):
    cache.device.message("mode", "writearound")
    cache.guest.run(f"dd if=/dev/urandom of={cache.device} bs=1M count=4 oflag=direct conv=fsync,notrunc status=none")
    assert cache.status().valid == 0
    assert cache.status()["user_sectors"] == 0


def test_writethrough_leaves_nothing_to_the_cache_alone(cache):
    """What is cached as well: the backing device and the cache have the same, also when it is made anew."""
    cache.guest.run("dd if=/dev/urandom of=/tmp/data bs=4k count=24 status=none")

    def write(blocks, skip, flags):
        cache.guest.run(
            f"dd if=/tmp/data of={cache.device} bs=4k count={blocks} skip={skip} oflag=direct{flags} conv=notrunc"
            " status=none"
        )

    write(8, 0, ",dsync")
    cache.device.message("mode", "writethrough")
    before = cache.status()
    write(8, 8, "")
    write(4, 16, ",dsync")
    # Hits, and what goes around.
    cache.guest.run(f"dd if=/tmp/data of={cache.device} bs=32k count=2 oflag=direct conv=fsync,notrunc status=none"
                    f" && dd if={cache.backing} bs=32k count=2 iflag=direct status=none | cmp -n 65536 - /tmp/data")
    assert cache.status()["user_sectors"] > before["user_sectors"]
    assert cache.status()["written_back"] == 0
    cache.again("2 mode writethrough")
    cache.guest.run(f"cmp -n 65536 {cache.device} /tmp/data")


def test_passthrough_needs_a_clean_cache(cache):
    guest = cache.guest
    cache.again("2 high_watermark 100")
    write = f"dd if=/dev/urandom of={cache.device} bs=64k count=8 oflag=direct conv=fsync,notrunc status=none"
    guest.run(write)
    where = guest.console_size()
    assert cache.device.message("mode", "passthrough", check=False).returncode
    assert guest.wait_for_console("expected a cache of which all is written back", where, 5)
    # A table with it is loaded, but not resumed; the one before goes on.
    cache.device.load(cache.table("2 mode passthrough"))
    assert guest.run(f"dmsetup suspend {cache.device} && dmsetup resume {cache.device}", check=False).returncode
    cache.device.load(cache.table("2 high_watermark 100"))
    cache.device.suspend()
    cache.device.resume()
    cache.device.message("flush")
    cache.device.message("mode", "passthrough")
    before = cache.status()
    guest.run(write)
    after = cache.status()
    assert after.mode == "passthrough"
    assert after["cache_sectors"] == before["cache_sectors"]
    assert after["log_used"] == 0
    cache.again("2 mode passthrough")
    assert cache.status().mode == "passthrough"


def test_cleaner_tells_when_it_is_done(cache):
    cache.device.message("allow_migrate", 0)
    run(cache, 1, "--ops 300")
    assert cache.status()["log_used"] > 0
    cache.device.message("mode", "cleaner")
    cache.wait_until(lambda status: status["log_used"] == 0)


def test_forced_writing_back(cache):
    """Below the watermarks, whatever allow_migrate says, in as many batches as are allowed."""
    sequence = 32
    batches = []
    for records in (1, 16):
        cache.again(f"4 allow_migrate 0 nr_max_batched_migration {records}")
        cache.guest.run(f"dd if=/dev/urandom of={cache.device} bs=512k count=8 oflag=direct conv=fsync,notrunc"
                        " status=none")
        before = cache.superblock(sequence)
        cache.device.message("force_migrate", 1)
        cache.wait_until(lambda status: status["log_used"] == 0)
        batches.append(cache.superblock(sequence) - before)
    assert batches[0] >= 8
    assert batches[1] <= 2


@pytest.fixture
def slow(lc_module, guest, dm, disks, rig):
    """A cache over a disk that can be busy."""
    rig.backing = disks.null("slow", 48, irqmode=2, completion_nsec=10000000)
    return rig


def test_idle_backing_device_is_used(slow):
    """Below the watermarks: not while users keep it busy, but when they leave."""
    slow.create("2 migrate_threshold 1")
    reader = slow.guest.start(
        f"fio --name=r --filename={slow.device} --ioengine=psync --direct=1 --rw=randread --bs=4k --offset=24m"
        " --size=24m --time_based --runtime=600 --output=/dev/null"
    )
    slow.wait_for("backing_load", "$0 >= 60")
    slow.guest.run(f"dd if=/dev/urandom of={slow.device} bs=64k count=8 oflag=direct conv=fsync,notrunc status=none")
    slow.wait_for("backing_load", "$0 >= 60")
    assert slow.status()["written_back"] == 0
    slow.guest.run("pkill fio")
    reader.wait()
    slow.wait_until(lambda status: status["log_used"] == 0)


def test_writes_are_slowed_down_before_all_is_dirty(lc_module, guest, dm, disks):
    """More than the log has room for, faster than it can be written back: nobody has to wait until it is full."""
    rig = Rig(guest, dm, disks, mib=20)
    rig.backing = disks.null("slow", 20, irqmode=2, completion_nsec=patience.busy(10000000), hw_queue_depth=1)
    rig.create()
    words = "--ioengine=libaio --iodepth=16 --direct=1 --rw=randwrite --bs=64k --size=20m --randseed=3 --verify=crc32c"
    guest.run(f"fio --name=w --filename={rig.device} {words} --loops=2 --verify_fatal=1 --output=/tmp/fio.log")
    status = rig.status()
    assert 0 < status["throttled"] <= status["stalls"]
    assert status["written_back"] > 0
    rig.device.message("flush")
    guest.run(f"fio --name=w --filename={rig.backing} {words} --verify_only --verify_fatal=1 --output=/tmp/fio.log")


def test_flushes_wait_for_others_when_told_to(cache):
    cache.device.message("barrier_deadline_ms", 1000)
    before = cache.status()
    cache.guest.run(f"for i in 1 2 3 4 5 6 7 8; do xfs_io -c fsync {cache.device} & done; wait")
    after = cache.status()
    assert after["flushes"] - before["flushes"] >= 8
    assert after["log_flushes"] - before["log_flushes"] <= 4


def test_superblock_is_written_when_told_to(cache):
    """And by the clock."""
    durable_id = 88
    write = f"dd if=/dev/zero of={cache.device} bs=4k count=1 oflag=direct conv=fsync,notrunc status=none"
    cache.guest.run(write)
    assert cache.superblock(durable_id) == 1
    cache.device.message("commit_super_block")
    assert cache.superblock(durable_id) == 2
    cache.guest.run(write)
    cache.device.message("update_sb_record_interval", 1)
    cache.guest.run(f"until [ $(od -An -t u8 -j {durable_id} -N 8 {cache.cache}) = 3 ]; do"
                    f" blockdev --flushbufs {cache.cache}; sleep 0.05; done")


def test_flush_of_what_is_in_memory_only(cache):
    """Defect O."""
    cache.device.message("flush_current_buffer_interval", 0)
    cache.guest.run(f"dd if=/dev/urandom of=/tmp/data bs=4k count=4 status=none"
                    f" && dd if=/tmp/data of={cache.device} bs=4k oflag=direct conv=notrunc status=none")
    cache.device.message("flush")
    cache.guest.run(f"dd if={cache.backing} bs=4k count=4 iflag=direct status=none | cmp - /tmp/data")


def test_flush_takes_what_is_in_memory_along(cache):
    """One batch, of what is in the log and of what is not: each writes the superblock once."""
    sequence = 32
    cache.device.message("flush_current_buffer_interval", 0)
    cache.guest.run("dd if=/dev/urandom of=/tmp/data bs=4k count=8 status=none")
    for first, flags in ((0, ",fsync"), (4, "")):
        cache.guest.run(f"dd if=/tmp/data of={cache.device} bs=4k count=4 skip={first} seek={first} oflag=direct"
                        f" conv=notrunc{flags} status=none")
    before = cache.superblock(sequence)
    cache.device.message("flush")
    assert cache.superblock(sequence) == before + 1
    cache.guest.run(f"dd if={cache.backing} bs=4k count=8 iflag=direct status=none | cmp - /tmp/data")


def test_counters(cache):
    """By number: 1 write, 2 hit, 4 in memory, 8 whole block."""
    cache.device.message("clear_stat")
    cache.device.message("flush_current_buffer_interval", 0)
    guest, device = cache.guest, cache.device
    io = "oflag=direct conv=notrunc status=none"
    guest.run(f"dd if=/dev/zero of={device} bs=4k seek=9 count=1 {io}")
    guest.run(f"dd if=/dev/zero of={device} bs=4k seek=9 count=1 {io}")
    guest.run(f"dd if=/dev/zero of={device} bs=512 seek=72 count=1 {io}")
    guest.run(f"dd if={device} of=/dev/null bs=4k skip=20 count=1 iflag=direct status=none")
    cache.device.message("flush_current_buffer")
    guest.run(f"dd if={device} of=/dev/null bs=512 skip=79 count=1 iflag=direct status=none")
    expected = [0] * 16
    expected[1 + 8] = expected[1 + 2 + 4 + 8] = expected[1 + 2 + 4] = expected[8] = expected[2] = 1
    assert cache.status().counters == expected
    lines = cache.device.message("stats").stdout.splitlines()
    assert lines[0] == "write? hit? on_buffer? fullsize?"
    assert lines[1:] == [f"{n & 1} {n >> 1 & 1} {n >> 2 & 1} {n >> 3 & 1} {expected[n]}" for n in range(16)]
    cache.device.message("clear_stat")
    assert cache.status().counters == [0] * 16


def test_wrong_messages_are_refused(cache):
    before = cache.device.table()
    for words in ("", "jump", "flush now", "mode", "mode fast", "high_watermark 5", "format 1"):
        assert cache.device.message(*words.split(), check=False).returncode, words
    assert cache.device.table() == before


def test_names_are_those_of_the_cache(cache):
    """The uuid is the superblock's, and stays."""
    uuid = cache.status()["cache_uuid"]
    raw = cache.guest.output(f"dd if={cache.cache} bs=4k count=1 iflag=direct status=none | od -An -t x1 -j 16 -N 16")
    assert uuid.replace("-", "") == raw.replace(" ", "").strip()
    cache.again()
    assert cache.status()["cache_uuid"] == uuid


def test_memory_is_what_the_status_says(cache):
    """At most 10 MiB for each GiB of cache, and what is fixed."""
    status = cache.status()
    batch = 16 * 1032 * 512 + 1024 * 4096
    fixed = 8 * 1032 * 512 + 2 * batch + (2 << 20)
    assert status.ram_bytes <= 48 * (10 << 20) / 1024 + fixed


def test_ima_measures_the_line(cache):
    """What a remote verifier learns of the cache when its table is loaded."""
    guest = cache.guest
    guest.run("""
        mountpoint -q /sys/kernel/security || mount -t securityfs securityfs /sys/kernel/security
        cd /sys/kernel/security/ima
        grep -q device-mapper policy 2> /dev/null || [ ! -w policy ] ||
            echo 'measure func=CRITICAL_DATA label=device-mapper' > policy""")
    uuid = cache.status()["cache_uuid"]
    cache.device.remove()
    guest.run("dmsetup create measured_lc && dmsetup remove measured_lc", stdin=cache.table("2 mode writearound"))
    log = guest.output("cat /sys/kernel/security/ima/ascii_runtime_measurements")
    data = [bytes.fromhex(line.split()[5]).decode() for line in log.splitlines() if "dm_table_load" in line]
    assert any(
        "name=measured_lc," in text and "target_name=lc,target_version=1.0.0,backing_device_name=1:0,"
        f"cache_device_name=1:1,cache_uuid={uuid},mode=writearound;" in text for text in data
    ), data


def test_no_wakeup_is_lost(cache):
    """Defect M: no clock helps here, so what is not woken at once waits for ever."""
    cache.device.message("flush_current_buffer_interval", 0)
    before = cache.status()["flushes"]
    cache.guest.run(
        f"fio --name=w --filename={cache.device} --ioengine=psync --direct=1 --rw=randwrite --bs=4k --fsync=1"
        " --numjobs=4 --size=8m --offset_increment=8m --number_ios=750 --group_reporting --output=/dev/null",
        timeout=100,
    )
    # Not after the last write of each.
    assert cache.status()["flushes"] - before >= 2996


def test_addresses_beyond_two_tib(lc_module, guest, dm, disks):
    """Of which 32 bits do not tell the sector."""
    disk, fast = disks.ram(48, 2)
    far = 1 << 32
    backing = dm.create("large", f"0 {far} error\n{far} 98304 linear {disk} 0")
    table = f"0 {far + 98304} lc {backing} {fast} 2 read_cache_threshold 16"
    device = dm.create("lc", table)
    block = far // 8 + 5
    io = f"bs=4k seek={block} oflag=direct conv=fsync,notrunc status=none"
    guest.run(f"dd if=/dev/urandom of=/tmp/data bs=4k count=3 status=none && dd if=/tmp/data of={device} {io}")
    same = f"dd if={device} bs=4k skip={block} count=3 iflag=direct status=none | cmp -n 12288 - /tmp/data"
    guest.run(same)
    device.remove()
    device = dm.create("lc", table)
    guest.run(same)
    device.message("flush")
    guest.run(f"dd if={disk} bs=4k skip=5 count=3 iflag=direct status=none | cmp -n 12288 - /tmp/data; {same}")
    guest.run(f"blkdiscard -f -o {block * 4096} -l 4096 {device}")
    status = Status(device.status()[0].args)
    assert (status.state, status.valid, status["discards"]) == ("rw", 2, 1)


def test_settings_that_change_at_the_same_time_are_all_kept(cache):
    """Two processes, each with a setting of its own, of which no other message may make anything else."""
    run_script(cache.guest, "lc/set_setting.py", cache.device, "$worker", parallel=range(2))


# -- failures ---------------------------------------------------------------------------------------


def test_cache_device_fails(parts):
    """Defect H: a flush fails at once, the state is clear, reads of the backing device go on."""
    fill(parts)
    become(parts.cache, f"0 {parts.sectors} error")
    event = parts.device.events()
    assert fill(parts, check=False).returncode
    parts.device.wait(event)
    assert parts.status().state == "ro"
    assert parts.status()["cache_errors"] >= 1
    assert fill(parts, check=False).returncode
    flush = f"dd if=/dev/null of={parts.device} conv=fsync,notrunc status=none"
    assert parts.guest.run(flush, check=False, timeout=20).returncode
    parts.guest.run(f"dd if={parts.device} of=/dev/null bs=4k skip=100 count=1 iflag=direct status=none")
    parts.device.remove()
    # What was flushed before is there when the device is.
    become(parts.cache, f"0 {parts.sectors} linear DISK 0")
    parts.create()
    parts.guest.run(f"dd if={parts.device} bs=4k count=8 iflag=direct status=none | cmp - /tmp/data")


def test_backing_device_fails(parts):
    """What is dirty is kept, and written back when the device returns."""
    fill(parts)
    become(parts.backing, f"0 {parts.sectors} flakey DISK 0 0 3600 1 error_writes")
    event = parts.device.events()
    assert parts.device.message("flush", check=False).returncode
    parts.device.wait(event)
    assert parts.status().state == "rw"
    assert parts.status()["backing_errors"] >= 1
    # The cache works on.
    fill(parts)
    parts.guest.run(f"dd if={parts.device} bs=4k count=8 iflag=direct status=none | cmp - /tmp/data")
    become(parts.backing, f"0 {parts.sectors} linear DISK 0")
    parts.wait_until(lambda status: status["log_used"] == 0)
    parts.guest.run(f"dd if={parts.backing} bs=4k count=8 iflag=direct status=none | cmp - /tmp/data")


def test_one_block_that_cannot_be_written_keeps_little_back(parts):
    """All of a batch fails with it, but there are smaller ones."""
    good = parts.sectors - 8
    become(parts.backing, f"0 {good} linear DISK 0\n{good} 8 error")
    write = f"dd if=/dev/zero of={parts.device} oflag=direct status=none conv=fsync,notrunc"
    parts.guest.run(f"{write} bs=512k count=4 && {write} bs=4k seek={good // 8} count=1")
    parts.device.message("mode", "cleaner")
    parts.wait_for("written_back", "$0 == 4096")
    assert parts.status().dirty == 1
    become(parts.backing, f"0 {parts.sectors} linear DISK 0")
    parts.wait_until(lambda status: status["log_used"] == 0)


def test_check_finds_a_flipped_bit(parts):
    fill(parts)
    checked = parts.device.message("check").stdout.split(", ")
    assert checked[1:] == ["64 sectors", "0 damaged\n"]
    assert parts.status().needs_check == "-"
    flip(parts, 3)
    where = parts.guest.console_size()
    assert parts.device.message("check").stdout.endswith(" 1 damaged\n")
    assert parts.guest.wait_for_console("record 1: data of sectors 0 to 7 is damaged", where, 5)
    assert parts.status()["crc_errors"] == 1
    assert parts.status().needs_check == "needs_check"
    # It was wrong for a while only.
    flip(parts, 3)
    assert parts.device.message("check").stdout.endswith(" 0 damaged\n")
    assert parts.status().needs_check == "-"


def fails(rig, *words):
    return read(rig, *words, check=False).returncode != 0


def test_flipped_bit_is_lost_and_nothing_else(parts):
    """It is noticed, and neither spread, nor written back, nor forgotten; until it is written again."""
    fill(parts)
    flip(parts, 9 + 3)
    event = parts.device.events()
    result = parts.device.message("flush", check=False)
    assert "multibyte" in result.stderr + result.stdout
    parts.device.wait(event)
    status = parts.status()
    assert status.state == "rw"
    assert (status["log_used"], status["crc_errors"], status["lost_sectors"]) == (0, 1, 8)
    assert parts.device.message("check").stdout.endswith(" 0 damaged\n")
    assert parts.status().needs_check == "needs_check"
    parts.guest.run(
        f"dd if={parts.backing} bs=4k count=8 iflag=direct status=none > /tmp/back; cmp -n 4096 /tmp/back /tmp/data"
        " && cmp -i 8192 /tmp/back /tmp/data && ! cmp -s /tmp/back /tmp/data"
    )
    parts.again()
    assert (parts.status()["lost_sectors"], parts.status().needs_check) == (8, "needs_check")
    for block in range(8):
        assert fails(parts, block) == (block == 1)
    # Half of it is written, whichever way writes go.
    parts.device.message("mode", "writearound")
    parts.guest.run(f"dd if=/tmp/data of={parts.device} bs=2k skip=2 seek=2 count=1 oflag=direct conv=notrunc"
                    " status=none")
    read(parts, 1, 2048)
    assert fails(parts, 1, 2048, 1)
    assert fails(parts, 1)
    parts.device.message("mode", "writeback")
    fill(parts)
    parts.device.message("flush")
    assert (parts.status()["lost_sectors"], parts.status().needs_check) == (0, "-")
    for block in range(8):
        read(parts, block)


def test_flipped_bit_is_not_read(parts):
    """With verify_reads: an error for a read of that block or of a part of it, and for no other."""
    parts.again("4 flush_current_buffer_interval 0 verify_reads 1")
    fill(parts)
    # In memory still, and behind a write that replaces a part of a block.
    parts.guest.run(f"dd if=/tmp/data of={parts.device} bs=512 skip=34 seek=34 count=1 oflag=direct conv=fsync,notrunc"
                    " status=none")
    flip(parts, 9 + 3)
    event = parts.device.events()
    for block in range(8):
        assert fails(parts, block) == (block == 1)
        assert fails(parts, block, 512, 5) == (block == 1)
    parts.device.wait(event)
    assert fails(parts, 0, 32768)
    # The block of which a sector was replaced: what is left of it has the checksum of all.
    for skip in range(8):
        read(parts, 4, 512, skip)
    assert parts.status()["crc_errors"] == 3
    # The data itself is as it was: it was wrong on the device only.
    flip(parts, 9 + 3)
    read(parts, 0, 32768)
    parts.device.message("verify_reads", 0)
    flip(parts, 9 + 3)
    assert read(parts, 1, check=False).stdout.count("differ") == 1


def test_verified_reads_are_as_modelled(cache):
    cache.again("2 verify_reads 1")
    for seed in range(2):
        run(cache, seed)
    cache.again("2 verify_reads 1")
    cache.iomodel(f"verify --source 1 --state {STATE}")
    assert cache.status()["crc_errors"] == cache.status()["read_errors"] == 0


# -- the module -------------------------------------------------------------------------------------


@pytest.mark.limit(180)
def test_nothing_is_left(guest, disks):
    """Defect P: modules and caches come and go without a trace."""
    backing, cache = disks.ram(48, 2)
    memory = "sync; echo 3 > /proc/sys/vm/drop_caches; awk '/^MemFree/ { print -$2 * 1024 }' /proc/meminfo"
    # A memory disk takes memory as it is written: the log goes on where it was.
    guest.run(f"for disk in {backing} {cache}; do dd if=/dev/zero of=$disk bs=1M oflag=direct status=none; done; :")
    before, after = guest.output(f"""
        round() {{
            /lab/load /lab/dm_lc_rs.ko || exit
            dmsetup create lc --table "0 98304 lc {backing} {cache}" || exit
            dd if=/dev/zero of=/dev/mapper/lc bs=64k count=40 oflag=direct status=none || exit
            dmsetup remove --retry lc || exit
            rmmod dm_lc_rs || exit
        }}
        for i in 1 2 3; do round; done
        {memory}
        for i in $(seq 20); do round; done
        {memory}""").splitlines()
    # Twenty caches have had 25 MiB each. The debug kernel keeps what is freed for a while.
    assert int(after) - int(before) < 14 << 20 or places.is_debug()
