# SPDX-License-Identifier: GPL-2.0
"""An `interpose` device on a disk, what is built on it, and users that check what they read."""

import collections
import contextlib
import re
import shlex

Status = collections.namedtuple("Status", "state top redirected in_flight bypassed stragglers held errors freeze drain")

NUMBERS = ["redirected", "in_flight", "bypassed", "stragglers", "held", "errors", "freeze_us", "drain_us"]

# Makes a file system, on so many MiB at least, and checks one that is not mounted.
# All of ext4 is made at once: what it would write later are zeroes, which not every top takes as such.
FILE_SYSTEMS = {
    "ext4": ("mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0", 32, "e2fsck -fn"),
    "xfs": ("mkfs.xfs -q -f -K", 320, "xfs_repair -n"),
    "btrfs": ("mkfs.btrfs -q -f -K", 128, "btrfs check"),
}

# The functions that are hooked: while something is attached, and while something may come from before that.
ENTRY, SECOND = "submit_bio_noacct", "__submit_bio"

# The emulated CPUs are for the commands of the test as well.
PAUSES = ["--thinktime=5000", "--thinktime_blocks=4"]


class Low:
    """An `interpose` device."""

    def __init__(self, rig, name, disk):
        self.guest, self.dm = rig.guest, rig.dm
        self.disk = disk
        self.sectors = int(self.guest.output(f"blockdev --getsz {disk}"))
        self.device = self.dm.create(name, f"0 {self.sectors} interpose {disk}")

    def __str__(self):
        return str(self.device)

    def top(self, name, target="linear", before="", after="0"):
        """A mapped device on this one, as large: `0 N TARGET BEFORE LOW AFTER`."""
        words = f"0 {self.sectors} {target} {before} {self} {after}"
        return self.dm.create(name, " ".join(words.split()))

    def send(self, *words, check=True):
        """A message."""
        return self.device.message(*words, check=check)

    def refuse(self, *words):
        """A message that must be refused: (errno in words, the reason in the kernel's log)."""
        where = self.guest.console_size()
        result = self.send(*words, check=False)
        assert result.returncode, f"accepted: {words}"
        mark = f"lab: refused {where}"
        self.guest.run(f"echo '{mark}' > /dev/kmsg")
        assert self.guest.wait_for_console(mark, where, 10)
        lines = re.findall(r"device-mapper: interpose: (.*)", self.guest.console(where))
        assert lines, f"refused without a reason: {words}"
        errno = re.search(r"failed: (.*)", result.stderr)
        assert errno, result.stderr
        return errno[1], lines[-1]

    def attach(self, top, *words):
        """Attaches a device."""
        self.send("attach", str(top), *words)
        status = self.status()
        assert status.state == "attached", status

    def switch(self, top, *words):
        """Attaches another device in place of the one before."""
        self.send("switch", str(top), *words)
        status = self.status()
        assert status.state == "attached", status

    def detach(self, *words):
        """Detaches, which must leave nothing behind."""
        self.send("detach", *words)
        status = self.status()
        assert (status.state, status.top, status.in_flight) == ("idle", "-", 0), status

    def status(self):
        """The status."""
        state, top, *pairs = self.device.status()[0].args
        assert pairs[::2] == NUMBERS, pairs
        return Status(state, top, *map(int, pairs[1::2]))


class Rig:
    """Makes what tests of `interpose` need."""

    def __init__(self, guest, dm):
        self.guest, self.dm = guest, dm

    def low(self, disk, name="low"):
        """An `interpose` device on a disk."""
        return Low(self, name, disk)

    def number(self, path):
        """major:minor of a device."""
        return self.guest.output(f"stat -L -c '%Hr:%Lr' {path}")

    def same(self, one, other):
        """Whether two devices have the same content."""
        self.guest.run(f"echo 1 > /proc/sys/vm/drop_caches; cmp {one} {other}")

    def hooks(self):
        """The functions that are hooked."""
        listed = self.guest.output("cat /sys/kernel/tracing/enabled_functions").splitlines()
        return {line.split()[0] for line in listed if line} & {ENTRY, SECOND}

    def wait_for_one_hook(self):
        """Until nothing can come any more from before the attach."""
        self.guest.run(f"while grep -q '^{SECOND} ' /sys/kernel/tracing/enabled_functions; do sleep 0.01; done",
                       timeout=30)
        assert self.hooks() == {ENTRY}

    def make_fs(self, disk, kind="ext4"):
        """Makes a file system on a disk and mounts it: where.

        It discards nothing by itself, as btrfs else does after a while: some tops refuse that.
        """
        make, *_ = FILE_SYSTEMS[kind]
        self.guest.run(f"{make} {disk} && mkdir -p /mnt/x && mount -o nodiscard {disk} /mnt/x")
        return "/mnt/x"

    def check_fs(self, disk, kind="ext4"):
        """Unmounts the file system, which must be without a fault."""
        *_, check = FILE_SYSTEMS[kind]
        self.guest.run(f"umount /mnt/x && {check} {disk}")

    @contextlib.contextmanager
    def load(self, path, size="1m", direct=1, name="load", words=("--ioengine=libaio", "--iodepth=8")):
        """Reads and writes a file or a disk all the while, and checks every block that comes back.

        Ends after a whole pass, of which nothing may have failed or be wrong. It gives a function that returns
        when the pass under way is over: called twice, when there has been a whole one.
        """
        job = shlex.join([
            "fio", f"--name={name}", f"--filename={path}", f"--size={size}", f"--direct={direct}", "--rw=randwrite",
            "--bsrange=4k-64k", *words, "--verify=crc32c", "--verify_fatal=1", "--verify_backlog=32",
            "--allow_mounted_write=1", "--minimal", *PAUSES,
        ])
        run = self.guest.start(
            f"rm -f /tmp/{name}.*; n=0; echo 0 > /tmp/{name}.n;"
            f" until [ -e /tmp/{name}.stop ]; do {job} > /tmp/{name}.out 2>&1 || {{ cat /tmp/{name}.out; exit 1; }};"
            f" n=$((n + 1)); echo $n > /tmp/{name}.n; echo $n; done; echo end"
        )
        over = 0

        def one_pass():
            """Returns when the pass under way is over."""
            nonlocal over
            if over:
                over = max(over, int(self.guest.output(f"cat /tmp/{name}.n") or 0))
            before = over
            while over <= before:
                line = run.stdout.readline()
                assert line.strip().isdigit(), f"the load failed: {line}{run.stdout.read()}"
                over = int(line)

        one_pass()
        try:
            yield one_pass
            self.guest.run(f"touch /tmp/{name}.stop")
            said = run.communicate()[0]
            assert run.returncode == 0 and said.endswith("end\n"), f"the load failed: {said}"
        finally:
            run.kill()
