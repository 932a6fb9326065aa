# SPDX-License-Identifier: GPL-2.0
"""Fixtures and rules for tests that run in a guest; README.md shows how to write one."""

import signal

import pytest

from lab import disks as lab_disks
from lab import dm as lab_dm
from lab import keeper as lab_keeper
from lab import modules as lab_modules
from lab import patience, places
from lab import workshop as lab_workshop
from lab.guest import CommandFailed

DEFAULT_LIMIT = 120


class LimitReached(Exception):
    """The test took longer than it may."""


class OtherFailure(Exception):
    """The stock module failed a test that it must fail, but not as it must."""


def pytest_configure(config):
    config.addinivalue_line("markers", f"limit(seconds): see lab/patience.py; {DEFAULT_LIMIT} by default")
    config.addinivalue_line("markers", "kernel_says(pattern...): complaints in the kernel's log that must be there")
    config.addinivalue_line("markers", "any_kernel(reason): proven on one stock kernel, it is for all of them")
    config.addinivalue_line("markers", "debug_kernel: needs the debug kernel, is skipped on others")
    config.addinivalue_line("markers", "c_fails(reason, command=None): the stock C module must fail this test, by an"
                            " assertion, or by the command in the guest that has these words")
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    config.stash[KEEPER] = lab_keeper.Keeper(lambda text: terminal and terminal.write_line(f"  [{text}]"))


KEEPER = pytest.StashKey[lab_keeper.Keeper]()
# Whether the tests that follow are of another file: what those of this one leaked is looked for.
LAST = pytest.StashKey[bool]()


def pytest_unconfigure(config):
    config.stash[KEEPER].close()


def _is_of_stock_module(item):
    return hasattr(item, "callspec") and item.callspec.params.get("clone_module") == "c"


def _must_fail(item):
    """The marker of a test that the stock module must fail, if this is about that one."""
    return item.get_closest_marker("c_fails") if _is_of_stock_module(item) else None


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("debug_kernel") and not places.is_debug():
            item.add_marker(pytest.mark.skip(reason="needs the checkers of `make test KERNEL=debug`"))
        if (once := item.get_closest_marker("any_kernel")) and places.is_second():
            item.add_marker(pytest.mark.skip(reason=f"is judged on the default kernel: {once.args[0]}"))
        if not _is_of_stock_module(item):
            continue
        if not places.is_default():
            item.add_marker(pytest.mark.skip(reason="the stock module is judged on the default kernel"))
        elif marker := _must_fail(item):
            item.add_marker(pytest.mark.xfail(strict=True, raises=AssertionError, reason=marker.args[0]))


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem):
    """Where the stock module must fail, a command that does proves nothing, but for the one whose business it is."""
    try:
        return (yield)
    except CommandFailed as error:
        marker = _must_fail(pyfuncitem)
        if not marker or marker.kwargs.get("command", "\0") in error.command:
            raise
        raise OtherFailure(f"not a command that c_fails names: {error.command}") from error


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item, nextitem):
    """Notes which tests are the last of their file here; others of the file may run in another guest."""
    item.stash[LAST] = nextitem is None or nextitem.path != item.path
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    """A guest that could not be made ready for a test is none for the next one."""
    try:
        return (yield)
    except Exception:
        if "guest" in item.fixturenames:
            item.config.stash[KEEPER].drop()
        raise


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Runs a test within its limit; a guest that comes back damaged fails it."""
    if "guest" not in item.fixturenames:
        return (yield)
    seconds = limit(item)

    def stop(_signal, _frame):
        raise LimitReached(f"no end after {seconds} s")

    expected = [pattern for marker in item.iter_markers("kernel_says") for pattern in marker.args]
    overrun = False
    old = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return (yield)
    except LimitReached:
        overrun = True
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
        item.config.stash[KEEPER].take_back(item.nodeid, expected, overrun, item.stash.get(LAST, False))


def limit(item):
    """The time limit of a test in seconds, on this kernel."""
    marker = item.get_closest_marker("limit")
    return patience.seconds(marker.args[0] if marker else DEFAULT_LIMIT)


@pytest.fixture
def guest(request):
    """A running guest, as clean as after boot. What the test leaves in it is taken down afterwards."""
    return request.config.stash[KEEPER].lend(request.node.nodeid)


@pytest.fixture
def dm(guest):
    """dmsetup in the guest."""
    return lab_dm.Dm(guest)


@pytest.fixture
def disks(guest):
    """Disks in the guest, made on demand."""
    return lab_disks.Disks(guest)


@pytest.fixture
def cgroup(guest):
    """A cgroup whose I/O is counted, and may be throttled."""
    guest.run("""set -e
        mkdir -p /tmp/cg && mount -t cgroup2 none /tmp/cg
        echo +io > /tmp/cg/cgroup.subtree_control
        mkdir -p /tmp/cg/slow""")
    yield "/tmp/cg/slow"
    guest.run("rmdir /tmp/cg/slow; umount /tmp/cg", check=False)


@pytest.fixture
def failing(guest):
    """Allocations fail that may wait for memory, too; nothing is said of it. Gives /sys/kernel/debug's folders.

    Those for the files about a slab cache do not: they are many, and missing files do no harm.
    """
    folders = ["/sys/kernel/debug/failslab", "/sys/kernel/debug/fail_page_alloc"]
    for folder in folders:
        guest.run(rf"""set -e; cd {folder}
            echo 0 > probability; echo N > ignore-gfp-wait; echo 0 > verbose
            echo 0 > require-start; printf 0x%x -1 > require-end; echo 32 > stacktrace-depth
            range=($(sort /proc/kallsyms | grep -A 1 ' sysfs_slab_add$' | cut -d' ' -f1))
            echo 0x${{range[0]}} > reject-start; echo 0x${{range[1]}} > reject-end""")
    guest.run(f"echo 0 > {folders[1]}/min-order && echo N > {folders[1]}/ignore-gfp-highmem")
    yield folders
    for folder in folders:
        guest.run(f"echo 0 > {folder}/probability")


@pytest.fixture
def no_accounts(guest, request):
    """No account is kept of each allocation, which takes most of the time of a call; the guest is not used again."""
    guest.run("echo off > /sys/kernel/debug/kmemleak")
    yield
    request.config.stash[KEEPER].drop()


@pytest.fixture(scope="session")
def workshop():
    """Where spoilt modules are built."""
    workshop = lab_workshop.Workshop()
    yield workshop
    workshop.close()


@pytest.fixture
def say(capsys):
    """Tells how far a long test is."""

    def speak(text):
        with capsys.disabled():
            print(f"\n{text}", end="", flush=True)

    return speak


@pytest.fixture(params=["rs", "c"])
def clone_module(guest, request):
    """The target `clone`, from our module ("rs") and from the stock kernel's ("c")."""
    lab_modules.load_clone(guest, request.param)
    return request.param
