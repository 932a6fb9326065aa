# SPDX-License-Identifier: GPL-2.0
"""One guest: a QEMU process, a way to run commands in it, and its console's log."""

import dataclasses
import itertools
import os
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile
import time

from . import accel, patience, payload, places
from .agent import Agent
from .qmp import Qmp

BOOT_SECONDS = patience.seconds(90)
# Its checkers keep accounts of all memory.
MEMORY = "3G" if places.is_debug() else "2G"
# $DM_CPUS: how many processors a guest has.
CPUS = os.environ.get("DM_CPUS") or "2"
# It takes one byte at a time.
AGENT_READS = 16 << 10
HUNG_TASK_SECONDS = patience.seconds(40)
# Less than the emulator could: each look at memory takes the longer for them, or each string instruction.
CPU = "max,-la57,-smap,-smep,-pku,-umip,-erms,-fsrm,-fsrs"
# The root is the disk of tools/setup/guest, by the id in its MBR, first partition. A panic ends QEMU.
# The clock is one that the kernel does not doubt, whatever else the host does.
CMDLINE = (
    "console=ttyS0 loglevel=7 panic=-1 root=PARTUUID=646d7273-01 rw rootfstype=ext4 net.ifnames=0"
    f" tsc=reliable lab.hung_task={HUNG_TASK_SECONDS}"
    # As on the stock kernel, whose dm-persistent-data counts on it: a space map that is made looks into the one of
    # the transaction before, which nothing has set.
    " init_on_alloc=1"
)


class GuestDied(Exception):
    """The guest panicked, or was switched off, while somebody used it."""


class CommandFailed(AssertionError):
    """A command in the guest returned other than 0."""

    def __init__(self, result):
        said = result.stdout + result.stderr
        super().__init__(f"in the guest: {result.command}\nreturned {result.returncode}\n{said}")
        self.command = result.command


@dataclasses.dataclass
class Result:
    """What a command in the guest gave back."""

    command: str
    returncode: int
    stdout: str
    stderr: str


class Guest:
    """A virtual machine of the lab.

    disks: {name: file}: raw files that appear as /dev/disk/by-id/virtio-NAME.
    The root file system is new at every boot; the disks keep what was written to them.
    """

    def __init__(self, disks=None, cmdline="", serial=None):
        self.disks = disks or {}
        self.cmdline = cmdline
        self.serial = serial
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="dm-guest-"))
        self.console_log = self.folder / "console.log"
        self.transcript = None
        self.boot_seconds = None
        # NVMe disks that were plugged in: {name: serial number}.
        self._plugged = {}
        self._plugs = itertools.count()
        self._qemu = None
        self._qmp = None
        self._agent = None

    # -- life ---------------------------------------------------------------------------------

    def boot(self):
        """Starts the machine and returns when commands can run in it."""
        self.make_payload()
        began = time.monotonic()
        self.start_qemu()
        self._wait_for_ready()
        self._connect()
        self.boot_seconds = time.monotonic() - began

    def kill(self):
        """Ends QEMU with SIGKILL, as a power cut would: nothing is flushed."""
        self._drop_agent()
        if self._qemu:
            self._ssh_control("exit")
            self._qemu.kill()
            self._qemu.wait()
            self._qemu = None
        if self._qmp:
            self._qmp.close()
            self._qmp = None

    def close(self):
        """Ends the machine and removes its files, apart from the disks."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def alive(self):
        """Whether QEMU runs. A panic ends it."""
        return self._qemu is not None and self._qemu.poll() is None

    def processor(self):
        """QEMU's words for what runs the guest: how it is executed, its CPUs and its memory."""
        return ["-accel", accel.choose(), "-cpu", CPU, "-smp", CPUS, "-m", MEMORY]

    def qemu_command(self):
        """The words that start QEMU."""
        words = [
            "qemu-system-x86_64", "-machine", "pc", *self.processor(),
            "-nodefaults", "-display", "none", "-no-reboot",
            "-kernel", places.kernel_folder() / "vmlinuz",
            "-append", f"{CMDLINE} {self.cmdline}",
            "-drive", f"if=none,id=root,format=raw,snapshot=on,file={places.guest_image()}",
            "-device", "nvme,serial=root,drive=root",
            "-drive", f"if=none,id=payload,format=raw,readonly=on,file={self.folder}/payload",
            "-device", "nvme,serial=payload,drive=payload",
            "-nic", "user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:0-:22",
            "-device", "virtio-rng-pci",
            "-device", "virtio-serial-pci",
            "-chardev", f"socket,id=lab,server=on,wait=off,path={self.folder}/lab",
            "-device", "virtserialport,chardev=lab,name=lab",
            "-qmp", f"unix:{self.folder}/qmp,server=on,wait=off",
        ]
        words += ["-serial", self.serial or "chardev:console"]
        if not self.serial:
            words += ["-chardev", f"file,id=console,append=on,path={self.console_log}"]
        for name, file in self.disks.items():
            words += [
                "-drive", f"if=none,id={name},format=raw,discard=unmap,file={file}",
                "-device", f"virtio-blk-pci,drive={name},serial={name}",
            ]
        return words

    def plug_in(self, name, mib):
        """Plugs in an NVMe disk: its path in the guest."""
        # One of that name before may not be gone yet.
        serial = self._plugged[name] = f"{name}{next(self._plugs)}"
        file = self.folder / f"{serial}.disk"
        with open(file, "wb") as disk:
            disk.truncate(mib << 20)
        self._monitor(f"drive_add 0 if=none,id={serial},format=raw,file={file}")
        self._monitor(f"device_add nvme,id={serial},serial={serial},drive={serial}")
        return self.output(
            f"until controller=$(grep -lsw {serial} /sys/class/nvme/nvme*/serial) &&"
            " disk=$(ls -d ${controller%/serial}/nvme*n1) && [ -b /dev/${disk##*/} ]; do sleep 0.01; done;"
            " /lab/settle; echo /dev/${disk##*/}"
        )

    def pull_out(self, name):
        """Takes that disk out again, which needs the guest's consent."""
        serial = self._plugged.pop(name, None)
        if serial and self.alive:
            self._monitor(f"device_del {serial}")

    def make_payload(self, job=()):
        """Makes the second drive, with keys for this boot only. job: files for /lab/job."""
        for key in ("host_key", "user_key"):
            (self.folder / key).unlink(missing_ok=True)
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", key, "-f", self.folder / key],
                check=True,
            )
        host_key = (self.folder / "host_key").read_text()
        user_key = (self.folder / "user_key.pub").read_text()
        payload.make(self.folder / "payload", host_key, user_key, job)
        host_public = (self.folder / "host_key.pub").read_text()
        (self.folder / "known_hosts").write_text(f"guest {host_public}")

    def start_qemu(self):
        """Starts the machine, and connects to QEMU's monitor."""
        for name in ("qmp", "lab", "ssh"):
            (self.folder / name).unlink(missing_ok=True)
        with open(self.folder / "qemu.log", "w", encoding="utf-8") as log:
            self._qemu = subprocess.Popen(
                self.qemu_command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        while True:
            try:
                self._qmp = Qmp(self.folder / "qmp")
                return
            except (FileNotFoundError, ConnectionRefusedError):
                if not self.alive:
                    raise GuestDied(f"QEMU did not start: {(self.folder / 'qemu.log').read_text()}") from None
                time.sleep(0.01)

    def _wait_for_ready(self):
        with socket.socket(socket.AF_UNIX) as ready:
            ready.connect(str(self.folder / "lab"))
            ready.settimeout(BOOT_SECONDS)
            try:
                said = ready.recv(100)
            except TimeoutError:
                said = b""
        if said != b"ready\n":
            tail = "\n".join(self.console().splitlines()[-30:])
            self.kill()
            raise GuestDied(f"the guest did not boot in {BOOT_SECONDS} s; its console ends with:\n{tail}")

    # -- commands -----------------------------------------------------------------------------

    def run(self, command, *, check=True, timeout=None, stdin=""):
        """Runs a shell command (or a script of many lines) in the guest and returns its Result.

        Other results than 0 raise CommandFailed unless check=False. After timeout seconds:
        TimeoutError (a test's own time limit holds anyway); see patience.py.

        stdin: a text, whose last line is given its end if it lacks it; or bytes or an open file, by a
        connection of their own.
        """
        began = time.monotonic()
        timeout = timeout and patience.seconds(timeout)
        self._note(f"$ {command}\n")
        try:
            if isinstance(stdin, str) and len(stdin) < AGENT_READS:
                status, out, err = self._ask_agent(command, stdin, timeout)
            else:
                status, out, err = self._feed(command, timeout, stdin)
        except TimeoutError as error:
            self._note(f"# no end after {timeout} s\n")
            raise TimeoutError(f"in the guest, after {timeout} s: {command}") from error
        result = Result(command, status, out.decode(errors="replace"), err.decode(errors="replace"))
        seconds = time.monotonic() - began
        self._note(f"{result.stdout}{result.stderr}# {result.returncode} ({seconds:.2f} s)\n")
        if result.returncode == 255:
            self._raise_if_dead()
        if check and result.returncode:
            raise CommandFailed(result)
        return result

    def output(self, command, **options):
        """What a command in the guest wrote to stdout, without the last line end."""
        return self.run(command, **options).stdout.rstrip("\n")

    def start(self, command):
        """Starts a command in the guest and returns a Popen with pipes; the caller waits for it."""
        self._note(f"$ {command} &\n")
        return subprocess.Popen(
            self._ssh(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True,
        )

    def put(self, local, remote):
        """Copies a file into the guest."""
        with open(local, "rb") as file:
            self.run(f"cat > '{remote}'", stdin=file)

    def get(self, remote, local):
        """Copies a file out of the guest."""
        with open(local, "wb") as file:
            subprocess.run(self._ssh(f"cat '{remote}'"), stdout=file, check=True)

    def _ask_agent(self, command, text, timeout):
        """(status, stdout, stderr) of a command that reads a text; 255 if there is no connection."""
        self._agent = self._agent or Agent(self._ssh())
        try:
            return self._agent.run(command, text, timeout)
        except BaseException as error:
            # It may still run the command: the next one needs another agent.
            self._drop_agent()
            if isinstance(error, EOFError | BrokenPipeError):
                return 255, b"", b""
            raise

    def _feed(self, command, timeout, stdin):
        """(status, stdout, stderr) of a command that reads much text, bytes or a file."""
        if isinstance(stdin, str):
            stdin = (stdin.removesuffix("\n") + "\n").encode()
        feed = {"input": stdin} if isinstance(stdin, bytes) else {"stdin": stdin}
        try:
            ran = subprocess.run(self._ssh(command), capture_output=True, timeout=timeout, check=False, **feed)
        except subprocess.TimeoutExpired as expired:
            raise TimeoutError from expired
        return ran.returncode, ran.stdout, ran.stderr

    def _drop_agent(self):
        if self._agent:
            self._agent.close()
            self._agent = None

    def _connect(self):
        port = re.search(
            r"HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)",
            self._monitor("info usernet"),
        ).group(1)
        master = subprocess.run(
            ["ssh", "-F", "none", "-p", port, "-i", self.folder / "user_key",
             "-o", f"ControlPath={self.folder}/ssh", "-o", "ControlMaster=yes", "-o", "ControlPersist=yes",
             "-o", f"UserKnownHostsFile={self.folder}/known_hosts", "-o", "HostKeyAlias=guest",
             "-o", "BatchMode=yes", "-o", "LogLevel=ERROR",
             "-o", "KexAlgorithms=curve25519-sha256", "-o", "Ciphers=aes128-ctr",
             "-f", "-N", "root@127.0.0.1"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            timeout=patience.seconds(60), check=False,
        )
        if master.returncode:
            raise GuestDied(f"no ssh to the guest: {master.stderr}")

    def _monitor(self, line):
        return self._qmp.command("human-monitor-command", **{"command-line": line})

    def _ssh(self, *command):
        return ["ssh", "-F", "none", "-S", self.folder / "ssh", "-o", "LogLevel=ERROR", "guest", *command]

    def _ssh_control(self, word):
        subprocess.run(
            ["ssh", "-F", "none", "-S", self.folder / "ssh", "-O", word, "guest"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
        )

    def _raise_if_dead(self):
        """After ssh failed: QEMU needs a moment from a panic to its end."""
        try:
            self._qemu.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return
        raise GuestDied("the guest died: its kernel's last words are in console.log")

    def _note(self, text):
        if self.transcript:
            self.transcript.write(text)
            self.transcript.flush()

    # -- the kernel's log -----------------------------------------------------------------------

    def console(self, offset=0):
        """What the console said, from an offset in its log on."""
        if not self.console_log.exists():
            return ""
        with open(self.console_log, "rb") as file:
            file.seek(offset)
            return file.read().decode(errors="replace").replace("\r\n", "\n")

    def console_size(self):
        """How much the console has said so far, as an offset for console()."""
        return os.path.getsize(self.console_log) if self.console_log.exists() else 0

    def wait_for_console(self, text, offset, timeout):
        """Waits until the console says text after offset; False if it does not in time."""
        end = time.monotonic() + patience.seconds(timeout)
        while text not in self.console(offset):
            if time.monotonic() > end or not self.alive:
                return text in self.console(offset)
            time.sleep(0.02)
        return True

    def dump_tasks(self):
        """Has the kernel write what all CPUs and all blocked tasks do to the console (magic SysRq)."""
        for key in "lw":
            self._monitor(f"sendkey alt-sysrq-{key}")
            self._settle()

    def _settle(self):
        """Waits until the console has been silent for a second."""
        size = -1
        while self.alive and size != self.console_size():
            size = self.console_size()
            time.sleep(1)
