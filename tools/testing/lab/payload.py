# SPDX-License-Identifier: GPL-2.0
"""The drive that brings a guest all that is not in its image: a tar, unpacked over / at boot."""

import io
import pathlib
import tarfile

from . import places, stock_modules

# Our own programs, and the crates of tools that make them. They come before others of their name: LVM2's is
# /usr/sbin/dmstats.
PROGRAMS = {"iomodel": "iomodel", "crash": "crash", "dmstats": "dmstats", "dmfilemapd": "dmstats"}

SSHD_CONFIG = """\
HostKey /lab/host_key
AuthorizedKeysFile /lab/authorized_keys
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
UseDNS no
PrintMotd no
LogLevel ERROR
MaxSessions 64
SetEnv PATH=/lab:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin{more}
"""


def make(path, host_key, authorized_key, job=()):
    """Writes the tar at path. The keys are those of one boot: a private and a public one, as text.

    job: files that go into /lab/job.
    """
    guest_files = pathlib.Path(__file__).parent.parent / "guest"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, text, mode in (
            ("sshd_config", SSHD_CONFIG.format(more=" DM_DISABLE_UDEV=1" if places.is_debug() else ""), 0o644),
            ("host_key", host_key, 0o600),
            ("authorized_keys", authorized_key, 0o600),
        ):
            _add_text(tar, f"lab/{name}", text, mode)
        for file in guest_files.iterdir():
            _add(tar, file, f"lab/{file.name}")
        _add_kernel_modules(tar)
        for file in sorted(places.modules().glob("*.ko")):
            _add(tar, file, f"lab/{file.name}")
        for name, crate in PROGRAMS.items():
            _add(tar, places.program(name, crate), f"lab/{name}")
        for file in job:
            _add(tar, file, f"lab/job/{file.name}")


def _add_kernel_modules(tar):
    folder = places.kernel_folder()
    # /lib is a link in a Debian root: unpacking "lib/..." would replace it.
    home = f"usr/lib/modules/{places.release()}"
    for module in stock_modules.wanted(folder):
        _add(tar, folder / "modules" / module, f"{home}/{module}")
    for index in sorted((folder / "modules").glob("modules.*")):
        _add(tar, index, f"{home}/{index.name}")


def _add(tar, file, name):
    tar.add(file, name, recursive=False, filter=_as_root)


def _add_text(tar, name, text, mode):
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(text.encode()), mode
    tar.addfile(info, io.BytesIO(text.encode()))


def _as_root(info):
    info.uid = info.gid = 0
    info.uname = info.gname = "root"
    return info
