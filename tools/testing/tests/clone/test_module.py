# SPDX-License-Identifier: GPL-2.0
"""The module: loaded and unloaded fifty times without a trace, and in its place among others."""

from lab import modules, places

LENGTH = 16384
MANY = 1 << 22  # regions: a map of them has 512 KiB

# What the kernel holds, in bytes: small objects, memory mapped for somebody, all that is not free.
USAGE = r"""
usage() {
    sync; echo 3 > /proc/sys/vm/drop_caches
    awk '/^kmalloc/ { bytes += $2 * $4 } END { printf "%d ", bytes }' /proc/slabinfo
    awk '{ bytes += $2 } END { printf "%d ", bytes }' /proc/vmallocinfo
    awk '/^MemFree/ { printf "%d\n", -1024 * $2 }' /proc/meminfo
}
"""


def test_fifty_times(guest, dm, disks):
    """Nothing is left: no thread, no cache, no target, no memory worth the name."""
    (metadata,) = disks.ram(8)
    dest, source = (dm.create(name, f"0 {MANY * 8} zero") for name in ("dest", "source"))
    before, after = guest.output(USAGE + rf"""
        round() {{
            /lab/load /lab/dm_clone_rs.ko || exit
            if [ $(($1 % 5)) = 0 ]; then
                dmsetup create clone --table "0 {MANY * 8} clone {metadata} {dest} {source} 8" || exit
                ps -e -o comm | grep -q kworker/R-dm-cl || {{ echo "no rescuer"; exit 1; }}
                dd if=/dev/zero of=/dev/mapper/clone bs=64k count=4 oflag=direct status=none || exit
                dmsetup remove --retry clone || exit
            fi
            rmmod dm_clone_rs || exit
        }}
        for i in 1 2 3 4 5; do round $i; done
        usage
        for i in $(seq 50); do round $i; done
        usage""").splitlines()
    growth = [int(b) - int(a) for a, b in zip(before.split(), after.split(), strict=True)]
    # Ten clones have had 1.5 MiB of maps each, fifty modules 200 KiB each.
    limits = {"small": 512 << 10, "mapped": 256 << 10, "all": 14 << 20}
    for (kind, most), bytes_more in zip(limits.items(), growth, strict=True):
        # The debug kernel keeps what is freed for a while, to find who uses it; and it looks for leaks itself.
        assert bytes_more < most or places.is_debug(), f"{kind}: {bytes_more} bytes more than before"
    left = guest.output("ps -e -o comm | grep kworker/R-dm-cl; grep clone /proc/slabinfo /proc/modules"
                        " | grep -v skbuff_fclone_cache;"
                        " dmsetup targets | grep clone; :")
    assert left == ""


def test_stays_while_in_use(clone_module, guest, dm, disks):
    name = "dm_clone_rs" if clone_module == "rs" else "dm_clone"
    metadata, dest, source = disks.ram(8, 3)
    clone = dm.create("clone", f"0 {LENGTH} clone {metadata} {dest} {source} 8 1 no_hydration")
    refused = guest.run(f"rmmod {name}", check=False)
    assert refused.returncode and "in use" in refused.stderr
    assert clone.status()[0].args[-1] == "rw"
    clone.remove()
    guest.run(f"rmmod {name}")


def test_is_refused_besides_the_stock_module(guest):
    modules.load_clone(guest, "c")
    where = guest.console_size()
    refused = guest.run("insmod /lab/dm_clone_rs.ko", check=False)
    assert refused.returncode and "Device or resource busy" in refused.stderr
    assert guest.wait_for_console("'clone' target already registered", where, 5)
    assert "dm_clone_rs" not in guest.output("cat /proc/modules")
    guest.run("rmmod dm_clone")
    modules.load_clone(guest, "rs")


def test_says_what_it_is(guest):
    fields = {
        name: guest.output(f"modinfo -F {name} /lab/dm_clone_rs.ko").split("\n")
        for name in ("name", "alias", "license", "description", "author", "depends", "vermagic")
    }
    assert fields["name"] == ["dm_clone_rs"]
    assert fields["alias"] == ["dm-clone"]
    assert fields["license"] == ["GPL"]
    assert fields["description"][0] and fields["author"][0]
    assert set(fields["depends"][0].split(",")) == {"dm-mod", "dm-persistent-data"}
    assert fields["vermagic"][0].split()[0] == places.release()


def test_has_type_information(guest):
    """BTF, which tracers read, also once it is loaded."""
    modules.load_clone(guest, "rs")
    guest.run("test -s /sys/kernel/btf/dm_clone_rs")
