# SPDX-License-Identifier: GPL-2.0
"""dmfilemapd: the groups of files fit them as they change, and nothing is in the way of anybody."""

import json
import re
import time

import pytest

from tests.dmstats.filemaps import LOCK, LVM2, fragmented, places, regions

pytestmark = [
    pytest.mark.limit(60),
    pytest.mark.any_kernel("its kernel side is in test_interop.py and test_targets.py"),
]

WAIT_FOR_NONE = "while pidof dmfilemapd > /dev/null; do sleep 0.05; done"


def fits(guest, group, path):
    """Waits until the group is where the file is."""
    guest.run("sync")
    while regions(guest, group) != places(guest, path):
        time.sleep(0.1)


def until(guest, condition):
    """Waits until a command in the guest succeeds."""
    guest.run(f"until {condition}; do sleep 0.05; done")


def groups(guest):
    """The groups' ids, names and members."""
    return guest.output("dmstats list --group --noheadings -o group_id,stats_name,region_id d").splitlines()


class Daemon:
    """dmfilemapd in the foreground, and what it says."""

    def __init__(self, guest, words, folder="."):
        self.process = guest.start(f"cd {folder} && echo $$; exec dmfilemapd {words} 2>&1")
        self.pid = int(self.process.stdout.readline())

    def says(self, pattern):
        """Waits for a line with this in it."""
        for line in self.process.stdout:
            if re.search(pattern, line):
                return line
        raise AssertionError(f"it has ended without saying {pattern!r}")

    def ends(self):
        """Waits for its end; returns the last line that it said and its exit status."""
        said = self.process.communicate()[0].splitlines()
        return (said or [""])[-1], self.process.returncode


def new_file(guest, path, kib=64):
    """A file that has been written to disk, long ago."""
    guest.run(f"dd if=/dev/urandom of={path} bs=1k count={kib} status=none && sync && touch -d '1 hour ago' {path}")


def follow(guest, mode="inode", options="", path="/mnt/f"):
    """Maps a file as group 1, and follows it; returns when the daemon has looked at it."""
    guest.run(f"dmstats create --filemap --nomonitor {path}")
    daemon = Daemon(guest, f"{options} 3 1 {path} {mode} 1 2 3< {path}")
    daemon.says("place")
    return daemon


def test_a1_a2_a10_f8_f12_a_mapped_file_is_followed_in_the_background_until_it_is_gone(guest, mounted):
    new_file(guest, "/mnt/f")
    guest.run("dmstats create --filemap --alias db1 /mnt/f && pidof dmfilemapd")
    guest.run("dd if=/mnt/f of=/dev/null bs=64k iflag=direct status=none")
    guest.run("dd if=/dev/urandom bs=64k count=4 status=none >> /mnt/f")
    fits(guest, 1, "/mnt/f")
    # F17: what was counted is not lost.
    assert guest.output("dmstats report --group --noheadings -o read_sector_count d") == "128"
    for change in ("fallocate -p -o 128k -l 4k /mnt/f", "fallocate -p -o 0 -l 4k /mnt/f", "truncate -s 100k /mnt/f"):
        guest.run(change)
        fits(guest, 1, "/mnt/f")
    # A17: it kept its id, and LVM2 reads what we wrote.
    assert guest.output(f"{LVM2} list --group --noheadings -o stats_name,group_id d") == "db1:1"
    assert guest.run(f"{LVM2} report d").stderr == ""
    guest.run("rm /mnt/f")
    guest.run(WAIT_FOR_NONE)
    assert groups(guest) == []
    assert guest.output("dmstats list --allprograms --noheadings -o region_id,program_id d") == "0:other"


def test_f3_f4_another_file_under_the_path_is_followed_from_then_on(guest, mounted):
    new_file(guest, "/mnt/f")
    daemon = follow(guest, "path")
    new_file(guest, "/mnt/g", 96)
    guest.run("mv /mnt/g /mnt/f")
    daemon.says("the path names another file")
    fits(guest, 1, "/mnt/f")
    # It is the new one that is watched.
    guest.run("dd if=/dev/urandom bs=64k count=2 status=none >> /mnt/f")
    fits(guest, 1, "/mnt/f")
    instances = guest.output(f"ls -l /proc/{daemon.pid}/fd | grep -c inotify")
    assert instances == "1"
    guest.run("rm /mnt/f")
    last, status = daemon.ends()
    assert last.endswith("/mnt/f: File removed: exiting.") and status == 0 and groups(guest) == []


def test_a_name_that_is_missing_when_it_is_to_be_followed_may_come_back(guest, mounted):
    new_file(guest, "/mnt/f")
    guest.run("dmstats create --filemap --nomonitor /mnt/f")
    # It returns when it is sure that it can follow the file.
    guest.run("exec 3< /mnt/f; mv /mnt/f /mnt/g && dmfilemapd --interval 3600 3 1 /mnt/f path && mv /mnt/g /mnt/f")
    # The file itself is watched, and its folder, and that of the locks.
    until(guest, "[ $(cat /proc/$(pidof dmfilemapd)/fdinfo/* | grep -c '^inotify wd') = 3 ]")
    guest.run("dd if=/dev/urandom bs=64k count=2 status=none >> /mnt/f")
    fits(guest, 1, "/mnt/f")
    guest.run("kill $(pidof dmfilemapd)")
    guest.run(WAIT_FOR_NONE)
    # If not, it was removed.
    ended = guest.run("exec 3< /mnt/f; mv /mnt/f /mnt/g && timeout 20 dmfilemapd 3 1 /mnt/f path 1 1", check=False)
    assert ended.returncode == 0 and ended.stderr.endswith("/mnt/f: File removed: exiting.\n")
    assert groups(guest) == []


def is_followed_without_names(guest, unlink):
    """A file that somebody has open is followed until he has not, when unlink has removed its names."""
    daemon = follow(guest)
    user = guest.start(f"exec 4<>/mnt/f; {unlink}; read; "
                       "dd if=/dev/urandom of=/dev/fd/4 bs=64k count=4 status=none; sync; read")
    until(guest, "[ ! -e /mnt/f -a ! -e /mnt/g ]")
    user.stdin.write("\n")
    user.stdin.flush()
    daemon.says("region.s. created")
    # XFS may give a file that is open more than it asks for.
    until(guest, "[ $(dmstats list --group --noheadings --units s -o region_len d) -ge 512 ]")
    user.communicate("\n")
    last, status = daemon.ends()
    assert last.endswith("File removed: exiting.") and status == 0 and groups(guest) == []


def test_f1_f2_a_file_without_a_name_is_followed_while_somebody_has_it_open(guest, mounted):
    new_file(guest, "/mnt/f")
    is_followed_without_names(guest, "mv /mnt/f /mnt/g; rm /mnt/g")


def test_f2_a_file_that_is_open_by_one_of_two_names_is_followed_without_both(guest, mounted):
    new_file(guest, "/mnt/f")
    guest.run("ln /mnt/f /mnt/g")
    is_followed_without_names(guest, "rm /mnt/f; rm /mnt/g")


def test_f10_a_file_system_can_be_unmounted_while_its_files_are_followed(guest, mounted):
    new_file(guest, "/mnt/f")
    daemon = follow(guest, "path")
    guest.run("umount /mnt")
    last, status = daemon.ends()
    assert last.endswith("File system unmounted: exiting.") and status == 0
    # The file is still there, and so is its group.
    assert groups(guest) == ["1:f:1"]


def test_f10_the_folder_that_it_was_started_in_can_be_unmounted(guest, mounted):
    new_file(guest, "/mnt/f")
    daemon = Daemon(guest, "-vv --map f", "/mnt")
    daemon.says("place")
    guest.run("umount /mnt")
    last, status = daemon.ends()
    assert last.endswith("/mnt/f: File system unmounted: exiting.") and status == 0 and groups(guest) == []


def test_a13_a12_the_daemon_ends_with_its_group(guest, mounted):
    new_file(guest, "/mnt/f")
    # Our own program tells the daemon; the next look for what was not told is far away.
    daemon = follow(guest, options="--interval 3600")
    guest.run("dmstats delete --groupid 1 d")
    last, status = daemon.ends()
    assert last.endswith("Filemap group removed: exiting.") and status == 0
    # LVM2's does not.
    daemon = follow(guest, options="--interval 0.5")
    guest.run(f"{LVM2} delete --groupid 1 d")
    last, status = daemon.ends()
    assert last.endswith("Filemap group removed: exiting.") and status == 0


def test_a8_a_group_that_has_another_id_is_followed(guest, mounted):
    fragmented(guest, "/mnt/f", 3)
    daemon = follow(guest, options="--interval 3600")
    # Somebody takes the id of the first region as soon as it is free. Until there is a group again the daemon must
    # not look: it would find none, and end.
    guest.run(f"kill -STOP {daemon.pid} && dmsetup message d 0 @stats_delete 1 && "
              "dmstats create d --programid rival && dmstats group --regions 2-3 --alias f d && "
              f"kill -CONT {daemon.pid}")
    daemon.says("group_id changed from 1 to 2")
    fits(guest, 2, "/mnt/f")
    guest.run("fallocate -p -o 12k -l 4k /mnt/f")
    fits(guest, 2, "/mnt/f")
    guest.run("rm /mnt/f")
    assert daemon.ends()[1] == 0
    assert guest.output("dmstats list --allprograms --noheadings -o program_id d") == "other\nrival"


def test_f7_f6_a_file_may_be_cut_to_nothing_and_grow_again_or_move(guest, mounted):
    new_file(guest, "/mnt/f")
    daemon = follow(guest)
    guest.run("truncate -s 0 /mnt/f")
    until(guest, "[ -z \"$(dmstats list --group --noheadings d)\" ]")
    new_file(guest, "/mnt/f", 32)
    fits(guest, 1, "/mnt/f")
    # F6: as many blocks as before, in other places.
    guest.run("dd if=/dev/urandom of=/mnt/g bs=32k count=1 status=none; sync; fallocate -p -o 0 -l 32k /mnt/f; "
              "rm /mnt/g; dd if=/dev/urandom of=/mnt/f bs=32k count=1 conv=notrunc status=none")
    fits(guest, 1, "/mnt/f")
    guest.run(f"kill {daemon.pid}")
    # A daemon that is asked to stop leaves the group as it is.
    assert daemon.ends()[1] == 0 and groups(guest) == ["1:f:1"]


def test_f5_what_a_map_of_memory_writes_is_found(guest, mounted):
    new_file(guest, "/mnt/f")
    guest.run("truncate -s 1M /mnt/f")
    follow(guest, options="--interval 0.5")
    # It keeps its map, so that no sign comes of a close either.
    guest.run("cat > /tmp/writer.py <<'END'\nimport mmap\nwith open('/mnt/f', 'r+b') as file:\n"
              "    memory = mmap.mmap(file.fileno(), 0)\n    memory[524288] = 1\n    memory.flush()\n"
              "    print('written', flush=True)\n    input()\nEND")
    writer = guest.start("exec python3 /tmp/writer.py")
    assert writer.stdout.readline() == "written\n"
    fits(guest, 1, "/mnt/f")
    writer.communicate("\n")


def test_a16_f11_nothing_is_written_for_a_look_and_what_the_kernel_writes_later_is_found(guest, mounted):
    settings = "cd /proc/sys/vm; grep -H . dirty_writeback_centisecs dirty_expire_centisecs"
    before = guest.output(settings)
    guest.run("echo 0 > /proc/sys/vm/dirty_writeback_centisecs")
    new_file(guest, "/mnt/f")
    daemon = follow(guest, options="--interval 3600")
    guest.run("dd if=/dev/urandom bs=64k count=2 status=none >> /mnt/f")
    daemon.says("[1-9] without")
    assert "delalloc" in guest.output("filefrag -v /mnt/f")
    # Now the kernel gives it its place, and tells nobody.
    guest.run("cd /proc/sys/vm; echo 10 > dirty_expire_centisecs; echo 10 > dirty_writeback_centisecs")
    until(guest, "! filefrag -v /mnt/f | grep -q delalloc")
    until(guest, "[ $(dmstats list --group --noheadings --units s -o region_len d) = 384 ]")
    for name, value in (line.split(":") for line in before.splitlines()):
        guest.run(f"echo {value} > /proc/sys/vm/{name}")


def test_f9_a_group_has_one_daemon(guest, mounted):
    new_file(guest, "/mnt/f")
    daemon = follow(guest)
    second = guest.run("dmfilemapd 3 1 /mnt/f inode 0 0 3< /mnt/f", check=False)
    assert second.returncode == 1
    assert second.stderr == f"dmfilemapd: Group ID 1 is followed by process {daemon.pid} already\n"
    # An update by hand starts none either, and is made all the same.
    guest.run("dd if=/dev/urandom bs=64k count=2 status=none >> /mnt/f")
    updated = guest.run("dmstats update_filemap --groupid 1 /mnt/f")
    assert "Updated group ID 1" in updated.stdout and "Failed to start filemap monitoring daemon" in updated.stderr
    assert regions(guest, 1) == places(guest, "/mnt/f")


def test_f9_a_file_whose_group_has_the_id_of_one_that_was_deleted_just_now_is_followed(guest, mounted):
    new_file(guest, "/mnt/f")
    new_file(guest, "/mnt/g")
    daemon = follow(guest, options="--interval 3600")
    # It sees neither of the two, and has the lock of group 1, until the next has asked for that.
    guest.run(f"kill -STOP {daemon.pid} && dmstats delete --groupid 1 d && dmstats create --filemap --nomonitor /mnt/g")
    second = Daemon(guest, "3 1 /mnt/g inode 1 2 3< /mnt/g")
    until(guest, f"ls -l /proc/{second.pid}/fd | grep -q inotify")
    guest.run(f"kill -CONT {daemon.pid}")
    last, status = daemon.ends()
    assert last.endswith("/mnt/f: Filemap group removed: exiting.") and status == 0
    second.says("place")
    guest.run("dd if=/dev/urandom bs=64k count=2 status=none >> /mnt/g")
    fits(guest, 1, "/mnt/g")


def test_f16_nothing_is_asked_while_nothing_happens(guest, mounted):
    new_file(guest, "/mnt/f")
    # Each 30th look asks for the groups, whatever there was.
    daemon = follow(guest, options="--interval 0.5")
    requests = f"timeout 2.5 strace -q -e trace=ioctl,open_by_handle_at -p {daemon.pid} 2>&1"
    said = "ioctl("
    # What has happened before may be news for one more look.
    while "ioctl(" in said:
        said = guest.run(requests, check=False).stdout
    # It looked, without a request.
    assert said.count("open_by_handle_at") > 1


# A service manager, which says how many groups there are when the daemon says that it is ready.
MANAGER = """
import os, socket, subprocess, sys
manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
manager.bind("/tmp/notify")
os.environ["NOTIFY_SOCKET"] = "/tmp/notify"
daemon = subprocess.Popen(sys.argv[1:], stderr=open("/tmp/said", "w"))
said = manager.recv(999).decode().split()
groups = subprocess.run("dmstats list --group --noheadings d", shell=True, capture_output=True).stdout
print(*said, len(groups.splitlines()), flush=True)
input()
daemon.terminate()
print(manager.recv(999).decode().strip(), daemon.wait(), flush=True)
"""


def managed(guest, words):
    """dmfilemapd as a service; what it says is in /tmp/said."""
    guest.run(f"rm -f /tmp/notify /tmp/said; cat > /tmp/manager.py <<'END'\n{MANAGER}\nEND")
    return guest.start(f"exec python3 /tmp/manager.py dmfilemapd {words}")


def test_a_service_is_ready_when_its_groups_are_there(guest, mounted):
    new_file(guest, "/mnt/f")
    holder = guest.start(f"mkdir -p /run/dmfilemapd; exec 3<> {LOCK}; flock 3; echo locked; read")
    assert holder.stdout.readline() == "locked\n"
    manager = managed(guest, "-vv --map /mnt/f")
    # It does not wait at its start any more, but looks again and again.
    until(guest, "[ $(grep -c place /tmp/said) -ge 3 ]")
    holder.communicate("\n")
    assert manager.stdout.readline() == "READY=1 STATUS=Following 1 file(s) 1\n"
    assert manager.communicate("\n")[0].strip() == "STOPPING=1 0"
    assert groups(guest) == []


def test_many_files_are_followed_by_one_process_for_a_service_manager(guest, mounted):
    count = 100
    guest.run(f"for i in $(seq {count}); do dd if=/dev/urandom of=/mnt/$i bs=4k count=1 status=none; done; sync; "
              "touch -d '1 hour ago' /mnt/*")
    manager = managed(guest, "--map $(ls -d /mnt/[0-9]*)")
    assert manager.stdout.readline() == f"READY=1 STATUS=Following {count} file(s) {count}\n"
    memory = guest.output("awk '/VmRSS/ { print $2 }' /proc/$(pidof dmfilemapd)/status")
    assert int(memory) < 5 * 1024
    group = guest.output("dmstats list --group --noheadings -o group_id -S stats_name=77 d")
    guest.run("dd if=/dev/urandom bs=64k count=2 status=none >> /mnt/77")
    fits(guest, int(group), "/mnt/77")
    assert manager.communicate("\n")[0].strip() == "STOPPING=1 0"
    assert groups(guest) == []


def test_a_group_that_a_killed_process_left_is_followed_by_the_next(guest, mounted):
    new_file(guest, "/mnt/f")
    daemon = Daemon(guest, "-v --map /mnt/f")
    daemon.says("region.s. created")
    guest.run("dd if=/mnt/f of=/dev/null bs=64k iflag=direct status=none")
    guest.run(f"kill -KILL {daemon.pid}")
    daemon.ends()
    assert groups(guest) == ["1:f:1"]
    daemon = Daemon(guest, "-v --map /mnt/f")
    daemon.says("group ID 1 was left by another")
    # While that lives, the next has a group of its own.
    second = Daemon(guest, "-v --map /mnt/f")
    second.says("region.s. created")
    assert groups(guest) == ["1:f:1", "2:f:2"]
    guest.run(f"kill {second.pid}")
    assert second.ends()[1] == 0 and groups(guest) == ["1:f:1"]
    assert guest.output("dmstats report --group --noheadings -o read_sector_count d") == "128"
    guest.run(f"kill {daemon.pid}")
    assert daemon.ends()[1] == 0 and groups(guest) == []


def test_a_link_is_mapped_as_the_file_that_it_leads_to(guest, mounted):
    new_file(guest, "/mnt/f")
    guest.run("ln -s f /mnt/link")
    daemon = Daemon(guest, "-v --map /mnt/link")
    daemon.says("region.s. created")
    assert groups(guest) == ["1:f:1"]
    guest.run(f"kill {daemon.pid}")
    assert daemon.ends()[1] == 0 and groups(guest) == []


def test_a_group_that_a_user_has_made_is_not_taken_for_one_that_was_left(guest, mounted):
    new_file(guest, "/mnt/f")
    daemon = Daemon(guest, "-v --map /mnt/f")
    daemon.says("region.s. created")
    guest.run(f"kill -KILL {daemon.pid}")
    daemon.ends()
    # It has the id of the other, whose lock is there still.
    guest.run("dmstats delete --groupid 1 d && dmstats create --filemap --nomonitor /mnt/f")
    daemon = Daemon(guest, "-v --map /mnt/f")
    daemon.says("region.s. created")
    assert groups(guest) == ["1:f:1", "2:f:2"]
    guest.run(f"kill {daemon.pid}")
    assert daemon.ends()[1] == 0 and groups(guest) == ["1:f:1"]


def test_a_daemon_leaves_the_group_of_another_alone(guest, mounted):
    new_file(guest, "/mnt/f")
    first, second = (Daemon(guest, "-v --map /mnt/f"), Daemon(guest, "-v --map /mnt/f"))
    first.says("region.s. created")
    second.says("region.s. created")
    until(guest, "[ $(dmstats list --group --noheadings d | wc -l) = 2 ]")
    guest.run("dmstats delete --groupid 1 d")
    # Whichever it was that had it.
    until(guest, "[ $(pidof dmfilemapd | wc -w) = 1 ]")
    assert groups(guest) == ["2:f:2"]
    guest.run("kill $(pidof dmfilemapd)")
    guest.run(WAIT_FOR_NONE)
    assert groups(guest) == []


REFUSED = {
    "3 1 /mnt/f": "Wrong number of arguments.",
    "3 1 /mnt/f inode 1 0 0": "Wrong number of arguments.",
    "3 1 /mnt/f bogus 1": "Could not parse dmfilemapd mode: bogus",
    "9 1 /mnt/f inode 1": "Could not use file descriptor 9: Bad file descriptor (os error 9)",
    "x 1 /mnt/f inode 1": "Could not parse file descriptor: x is not from 0 to 2147483647",
    "3 1 /mnt/f inode 2": "Could not parse foreground argument: 2 is not from 0 to 1",
    "3 1 mnt/f inode 1": "Path argument must specify an absolute path: mnt/f",
    "3 5 /mnt/f inode 1": "Group ID 5 does not exist",
    "4 1 /mnt/f inode 1": "Cannot map file: not a regular file.",
    "5 1 /tmp/f inode 1": "Cannot map file: tmpfs keeps files in memory, not on a device.",
    "--map": "--map requires files.",
    "--map /mnt/none": "/mnt/none: No such file or directory (os error 2)",
}


def test_a3_a5_f15_what_makes_no_sense_is_refused_in_a_line(guest, mounted):
    new_file(guest, "/mnt/f")
    guest.run("echo > /tmp/f; dmstats create --filemap --nomonitor /mnt/f")
    before = guest.output("dmsetup message d 0 @stats_list")
    script = "".join(f"dmfilemapd {words} 3< /mnt/f 4< /dev/null 5< /tmp/f 2>&1; echo $?\n" for words in REFUSED)
    assert guest.output(script).splitlines() == [
        line for why in REFUSED.values() for line in (f"dmfilemapd: {why}", "1")
    ]
    assert guest.output("dmsetup message d 0 @stats_list") == before


def test_a_pipe_is_refused_and_not_waited_for(guest, mounted):
    guest.run("mkfifo /mnt/p")
    for command in ("dmstats create --filemap", "dmstats update_filemap --groupid 0", "dmfilemapd --map"):
        said = guest.run(f"timeout 20 {command} /mnt/p", check=False)
        assert said.returncode == 1 and said.stderr


# A file server that has told a client that nobody else has the file open.
LEASE = """
import fcntl, os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGIO})
file = os.open("/mnt/f", os.O_WRONLY)
fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("leased", flush=True)
signal.sigwait({signal.SIGIO})
fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
"""


def test_who_has_a_lease_on_a_file_is_waited_for(guest, mounted):
    new_file(guest, "/mnt/f")
    for command in ("create --filemap", "update_filemap --groupid 1"):
        holder = guest.start(f"python3 -c '{LEASE}'")
        assert holder.stdout.readline() == "leased\n"
        guest.run(f"dmstats {command} --nomonitor /mnt/f")
        assert holder.wait() == 0
    holder = guest.start(f"python3 -c '{LEASE}'")
    assert holder.stdout.readline() == "leased\n"
    daemon = Daemon(guest, "--map -v /mnt/f")
    daemon.says("created")
    assert holder.wait() == 0
    guest.run(f"kill {daemon.pid}")
    assert daemon.ends()[1] == 0


def test_what_was_done_is_told_before_the_daemon_takes_over(guest, mounted):
    new_file(guest, "/mnt/f")
    daemon = guest.start("exec dmstats create --filemap --foreground --json -v /mnt/f 2>&1")
    made = json.loads(daemon.stdout.readline())
    assert made["command"] == "create" and made["results"][0]["group_id"] == 1
    guest.run("rm /mnt/f")
    assert daemon.communicate()[0].splitlines()[-1].endswith("exiting.") and daemon.returncode == 0


def test_a_file_is_followed_even_if_nobody_could_be_told(guest, mounted):
    new_file(guest, "/mnt/f")
    for command in ("create --filemap", "update_filemap --groupid 1"):
        said = guest.run(f"dmstats {command} /mnt/f > /dev/full", check=False)
        assert said.returncode == 1 and "No space left" in said.stderr
        guest.run("kill $(pidof dmfilemapd)")
        guest.run(WAIT_FOR_NONE)
    assert groups(guest) == ["1:f:1"]


def test_a4_a6_a7_it_does_what_it_is_told_and_says_as_much_as_that(guest, mounted):
    new_file(guest, "/mnt/f")
    new_file(guest, "/mnt/g")
    guest.run("dmstats create --filemap --nomonitor /mnt/f && dmstats create --filemap --nomonitor /mnt/g")
    daemon = Daemon(guest, "3 2 /mnt/g inode 1 3 3< /mnt/g")
    daemon.says("@stats_list")
    # In the foreground it is the process that was started.
    assert guest.output("pidof dmfilemapd") == str(daemon.pid)
    before = places(guest, "/mnt/f")
    guest.run("dd if=/dev/urandom bs=64k count=2 status=none >> /mnt/f; sync")
    guest.run("dd if=/dev/urandom bs=64k count=2 status=none >> /mnt/g; sync")
    daemon.says("@stats_set_aux 2 ")
    fits(guest, 2, "/mnt/g")
    assert regions(guest, 1) == before
    guest.run(f"kill {daemon.pid}")
    assert daemon.ends()[1] == 0
    # In the background, and silent, it has let go of everything: this returns.
    assert guest.run("dmfilemapd 0 1 /mnt/f inode < /mnt/f").stderr == ""
    guest.run("pidof dmfilemapd; rm /mnt/f")
    guest.run(WAIT_FOR_NONE)


def test_a9_others_may_take_and_free_ids_all_the_while(guest, mounted):
    fragmented(guest, "/mnt/f", 6)
    daemon = follow(guest)
    guest.run("""rival() {
            while [ ! -e /tmp/enough ]; do
                for _ in 1 2 3; do dmsetup message d 0 @stats_create - /1 0 rival - > /dev/null; done
                dmstats delete --allregions --programid rival d
            done
        }
        rival & for i in $(seq 25); do
            fallocate -p -o 4k -l 4k /mnt/f; sync
            dd if=/dev/urandom of=/mnt/f bs=4k seek=1 count=1 conv=notrunc status=none; sync
        done; touch /tmp/enough; wait""")
    guest.run("sync")
    # Its id is that of its first region, and changes with that.
    while regions(guest, groups(guest)[0].split(":")[0]) != places(guest, "/mnt/f"):
        time.sleep(0.1)
    listed = guest.run("dmstats list --allprograms --area --noheadings -o program_id,group_id,region_len --units s d")
    assert listed.stderr == "" and listed.stdout.splitlines().count("other:-:819200") == 1
    assert "rival" not in listed.stdout and groups(guest)[0].split(":")[1] == "f"
    guest.run(f"kill {daemon.pid}")
    assert daemon.ends()[1] == 0
