# SPDX-License-Identifier: GPL-2.0
"""dmstats and LVM2's program of that name on the same devices: each reads what the other has made."""

import json
import shlex

import pytest

from tests.dmstats.filemaps import LOCK, LVM2


@pytest.fixture
def device(dm, disks):
    """A device of 32 MiB with two targets, in memory."""
    ram = disks.ram(32)[0]
    return dm.create("d", f"0 32768 linear {ram} 0\n32768 32768 linear {ram} 32768")


def rows(guest, device):
    """What the kernel has, as it tells it itself."""
    text = guest.output(f"dmsetup message {device.name} 0 @stats_list")
    return dict(line.split(": ", 1) for line in text.splitlines())


# Reports of all forms, on regions whose last area is whole: see test_the_last_area_ends_with_its_region.
SAME = """
list list|-v list|--histogram list|--area list|--region list|--group list|--noheadings list|--nameprefixes
list|--rows list|--rows|--noheadings list|--rows|--nameprefixes list|--nameprefixes|--unquoted|--separator|;
list|--separator|, list|--head|none list|--headings|full list|--allprograms list|--programid|other list|--units|s
list|--units|b list|--units|H list|--units|R|--nosuffix list|--units|3M list|--units|k list|-o|name_all,info_all
list|-o|deps_all,splitname_all list|-o|devs_used,device_ref_count,names_using_dev,devnos_using_dev
list|-o+area_id,precise list|-o|AreaCount,hist_bounds,hist_ranges,hist_bins list|-O|-region_start,region_id
list|-S|region_len>1k list|-S|region_id=1#region_id=0 list|-S|!(obj_type=group)&&stats_name=~^g
list|-S|program_id=dmstats,region_len<20m list|-o|selected,region_id|-S|region_id=1 list|-S|region_id=99 list|d|d
list|/dev/mapper/d report report|--raw report|--histogram report|--histogram|--relative report|--area report|--group
report|--noheadings report|-o|stats_all report|-o|stats_all|--noheadings
report|-o|hist_count_ranges,hist_percent_ranges|--notimesuffix report|-o|all|-S|util>=0
report|-v print|--regionid|0 list|-v|--histogram report|--raw|--histogram report|--raw|--histogram|--relative
list|-o|start,len list|-O|-start list|-S|len>1k list|--count|2
"""


def test_reports_are_those_of_lvm2_to_the_byte(guest, device):
    guest.run(f"""set -e
        {LVM2} create --segments d --alias grp --userdata uu >/dev/null
        {LVM2} create d --start 32768s --length 32768s --userdata uu >/dev/null
        {LVM2} create d --areas 4 --bounds 10ms,100ms >/dev/null
        {LVM2} create d --start 8 --length 8 --precise --bounds 10us,2500us,1s >/dev/null
        {LVM2} create d --programid other >/dev/null
        {LVM2} create d --programid other --userdata vv >/dev/null
        {LVM2} create d --programid other --userdata vv --areas 2 >/dev/null""")
    script = ""
    # LVM2 takes a number that is none for the first sector of a region of many areas: here it is "0b" for 0.
    for arguments in (words.split("|") for words in SAME.split()):
        shown = shlex.join(arguments)
        script += f"""
            {LVM2} {shown} > /tmp/theirs 2>&1; theirs=$?
            dmstats {shown} > /tmp/ours 2>&1; ours=$?
            sed -i 's/ 0b/  0/g; s/:0b/:0/g' /tmp/theirs
            cmp -s /tmp/theirs /tmp/ours && [ $theirs = $ours ] ||
                {{ echo {shlex.quote(shown)}: $theirs $ours; diff /tmp/theirs /tmp/ours; }}"""
    assert guest.output(script) == ""


REFUSED = [
    "bogus", "", "list nope", "list -o bogus", "list -O bogus", "list -S bogus=1", "list -S region_id=",
    "list -u nope", "list -j 253", "list -S stats_name=[d,grp]", "list --headings bogus", "list --units x", "print d",
    "clear d", "delete", "delete d", "delete --regionid 99 d", "delete --groupid 99 d",
    "delete --regionid 0 --allregions d", "create", "create nope", "create d --bounds 3,2", "create d --bounds 0",
    "create d --programid ''", "create d --start x", "create d --areas 2 --areasize 8", "group d",
    "group --regions 99 d", "group --regions 2-1 d", "ungroup d", "ungroup --groupid 9 d", "report d --interval 0",
    "create --filemap /etc/hostname", "create --filemap", "update_filemap /etc/hostname",
    "create --filemap --segments /etc/hostname", "list --un",
    "create --alias X --nogroup d", "create --allregions d", "create --allprograms --segments d",
    "list --allprograms --programid x d", "delete --allregions --allprograms --programid x d",
]


def test_what_lvm2_refuses_is_refused_with_a_reason(guest, device):
    script = "".join(f"""
        for program in {LVM2} dmstats; do
            $program {arguments} > /tmp/out 2> /tmp/err
            [ $? = 1 ] && [ -s /tmp/err ] || echo $program: {shlex.quote(arguments)}
        done""" for arguments in REFUSED)
    assert guest.output(script) == ""
    # And what LVM2 takes for something else.
    for arguments in ("--areasize 4x", "--areas x", "--userdata DMS_GROUP=x", "--bounds 1ms,",
                      "--userdata precise_timestamps", "--userdata 'x histogram:1'"):
        assert guest.run(f"dmstats create d {arguments}", check=False).returncode == 1
    assert rows(guest, device) == {}


ALIASES = ["db1", "a b", 'q"uo"te', "hash#=,-", "back\\slash", "t\tab", "voilà.img", "日本"]


def test_lvm2_lists_and_deletes_what_we_make(guest, device):
    script = "set -e\n"
    for alias in ALIASES:
        script += f"dmstats create --segments d --alias {shlex.quote(alias)} >/dev/null\n"
    guest.run(script)
    names = guest.output(f"{LVM2} list --group --noheadings -o stats_name,region_id,region_len --separator '|' d")
    assert names.splitlines() == [f"{alias}|{2 * i}-{2 * i + 1}|32.00m" for i, alias in enumerate(ALIASES)]
    guest.run(f"{LVM2} ungroup --groupid 2 d && {LVM2} delete --groupid 0 d && {LVM2} delete --regionid 5 d")
    assert rows(guest, device)["4"] == r'0+32768 32768 dmstats DMS_GROUP="q"uo"te":4#-'
    guest.run(f"{LVM2} delete --allregions d")
    assert rows(guest, device) == {}


def test_we_list_and_delete_what_lvm2_makes(guest, device):
    guest.run(f"""set -e
        {LVM2} create --segments d --alias db1 --userdata u >/dev/null
        {LVM2} create --segments d >/dev/null
        {LVM2} create d >/dev/null""")
    text = guest.output("dmstats list --noheadings -o stats_name,region_id,user_data d")
    assert text == "db1:0:u\ndb1:1:u\n2-3:2:\n2-3:3:\nd:4:\ndb1:0-1:\n2-3:2-3:"
    assert guest.output("dmstats ungroup --groupid 2 d") == "Removed group ID 2 on d"
    assert guest.output("dmstats delete --groupid 0 d") == "Deleted statistics group 0."
    guest.run("dmstats delete --allregions d")
    assert rows(guest, device) == {}


def test_a_colon_in_an_alias_does_not_lose_its_group(guest, device):
    guest.run("dmstats create --segments d --alias a:b")
    assert guest.output(f"{LVM2} list --group --noheadings -o stats_name d") == "a_b"
    # LVM2 writes it as it is, and cannot read it any more; we can.
    guest.run(f"{LVM2} create --segments d --alias c:d")
    assert guest.output("dmstats list --group --noheadings -o stats_name --separator ' ' d") == "a_b\nc:d"


def test_bytes_that_are_no_text_break_nothing(guest, device):
    guest.run("dmstats create d && dmstats create d && printf 'DMS_GROUP=\"caf\\351\":0#-' > /tmp/word"
              " && dmsetup message d 0 @stats_set_aux 0 \"$(cat /tmp/word)\"")
    found = guest.output("dmstats list d -o stats_name --noheadings | od -An -c | tr -d ' \\n'")
    assert found == r"caf351\nd\ncaf351\n"
    assert json.loads(guest.output("dmstats list --json d"))["rows"][0]["name"] == "caf\ufffd"


def test_b4_a24_ids_that_do_not_exist_are_told_and_left_out(guest, device):
    guest.run("for i in 0 1; do dmstats create d; done")
    device.message('@stats_set_aux 0 DMS_GROUP="x":0-3,40000000#-')
    listed = guest.run("dmstats list --group --noheadings -o region_id d")
    assert (listed.stdout, listed.stderr) == ("0-1\n", "Group descriptor 0 contains non-existent region_id 2.\n")
    # LVM2 crashes, which is why we never write such a thing.
    assert guest.run(f"{LVM2} list d", check=False).returncode not in (0, 1)
    guest.run("dmstats ungroup --groupid 0 d && dmstats delete --allregions d")


def test_a25_a_group_without_its_leader_is_no_group(guest, device):
    guest.run("for i in 0 1 2; do dmstats create d; done")
    device.message("@stats_set_aux 0 DMS_GROUP=img:2#")
    listed = guest.run("dmstats list --noheadings -o region_id,group_id d")
    assert listed.stdout == "0:-\n1:-\n2:-\n"
    assert listed.stderr == "Found invalid group descriptor in region 0 aux_data.\n"


def test_b5_a_group_of_regions_with_and_without_histograms_is_reported(guest, device):
    guest.run("dmstats create d --bounds 10ms; dmstats create d; dmstats group --regions 0-1 d")
    guest.run("dd if=/dev/mapper/d of=/dev/null bs=64k count=4 iflag=direct status=none")
    text = guest.output("dmstats report --group --noheadings -o obj_type,hist_count d")
    assert text == "group:"
    assert guest.run(f"{LVM2} report --histogram d", check=False).returncode not in (0, 1)


def test_a42_a_region_and_a_group_have_the_sums_of_their_areas(guest, device):
    guest.run("dmstats create d --areas 4 --bounds 10us,10s; dmstats create d --start 32768 --length 32768 "
              "--bounds 10us,10s; dmstats group --regions 0-1 d")
    # The first area and the third, where the second region begins.
    guest.run("dd if=/dev/mapper/d of=/dev/null bs=64k count=5 iflag=direct status=none; "
              "dd if=/dev/mapper/d of=/dev/null bs=64k count=3 skip=256 iflag=direct status=none")
    rows = json.loads(guest.output("dmstats report --area --region --group --json d"))["rows"]
    areas = [row["histogram"] for row in rows if row["object"] == "area" and row.get("region_id") == 0]
    assert [sum(bins) for bins in areas] == [5, 0, 3, 0]
    summed = {row["object"]: row["histogram"] for row in rows if row["object"] != "area" and row.get("region_id") != 1}
    assert summed["region"] == [sum(column) for column in zip(*areas, strict=True)]
    assert sum(summed["group"]) == 5 + 3 + 3 and len(summed["group"]) == 3


def test_a38_a39_groups_know_what_was_deleted(guest, device):
    guest.run("for i in 0 1 2 3; do dmstats create d; done; dmstats group --regions 0-3 --alias g d")
    guest.run("dmstats delete --regionid 2 d")
    assert rows(guest, device)["0"].endswith('DMS_GROUP="g":0-1,3#-')
    guest.run("dmstats delete --regionid 0 d")
    assert {id: row.split()[-1] for id, row in rows(guest, device).items()} == {"1": "-", "3": "-"}


def test_programs_with_numbers_for_names_are_kept_apart(guest, device):
    guest.run("dmstats create d --programid 5; dmstats create d --programid 0; dmstats create d --programid ' ' ; true")
    assert [row.split()[2] for row in rows(guest, device).values()] == ["5", "0"]
    guest.run("dmstats delete --allregions d; dmstats delete --allregions --programid 5 d")
    assert list(rows(guest, device)) == ["1"]


def test_names_of_devices_may_be_strange(guest, dm):
    dm.create("'we ird:x'", "0 8 zero")
    guest.run("dmstats create 'we ird:x' && dmstats create '/dev/mapper/we ird:x' && dmstats create /dev/dm-0")
    ours = guest.output("dmstats list 'we ird:x' -o name_all,region_id")
    assert ours == guest.output(f"{LVM2} list 'we ird:x' -o name_all,region_id")
    guest.run("dmstats delete --allregions --alldevices")


def test_the_last_area_ends_with_its_region(guest, device):
    guest.run("dmstats create d --start 10 --length 1000 --areasize 300s")
    text = guest.output("dmstats report --noheadings --units s -o obj_type,region_len,area_start,area_len d")
    assert text.splitlines()[3:] == ["area:1000:910:100", "region:1000:10:300"]


def test_counts_are_exact_and_kept_for_others(guest, device):
    guest.run("dmstats create d --areas 2 --bounds 100s")
    guest.run("dd if=/dev/zero of=/dev/mapper/d bs=64k count=10 oflag=direct status=none")
    keep = "dmstats report --keep --interval 0.2 --count 1 --noheadings"
    kept = guest.output(f"{keep} -o obj_type,area_id,write_count,write_sector_count d").splitlines()
    assert kept == ["area:0:0:0", "area:1:0:0", "region:0:0:0"]
    take = "report --noheadings -o obj_type,area_id,write_count,write_sector_count,writes_per_sec,hist_count d"
    taken = guest.output(f"dmstats {take}").splitlines()
    assert taken == ["area:0:10:1280:10.00:10:0", "area:1:0:0:0.00:0:0", "region:0:10:1280:10.00:10:0"]
    assert guest.output(f"{LVM2} {take}").splitlines()[0] == "area:0:0:0:0.00:0:0"


def test_only_what_is_shown_is_cleared(guest, device):
    guest.run("dmstats create d; dmstats create d; dmstats create d; dmstats group --regions 1-2 d")
    guest.run("dd if=/dev/mapper/d of=/dev/null bs=64k count=5 iflag=direct status=none")
    counts = "dmstats report --region --noheadings -o read_count"
    assert guest.output(f"{counts} --regionid 0 d") == "5"
    assert guest.output(f"{counts} --keep --interval 0.1 --count 1 d") == "0\n0\n0"
    assert guest.output(f"{counts} --groupid 1 d") == "5\n5"
    assert guest.output(f"{counts} d") == "0\n0\n0"


def test_print_tells_each_region_once(guest, device):
    guest.run("dmstats create --segments d && dd if=/dev/zero of=/dev/mapper/d bs=64k count=2 oflag=direct status=none")
    first = guest.output("dmstats print --allregions --clear d").splitlines()
    assert [line.split()[0] for line in first] == ["0+32768", "32768+32768"]
    assert first[0].split()[5] == "2"
    assert guest.output("dmstats print --regionid 0 d").split()[5] == "0"


def test_a_region_of_another_program_is_none_of_ours(guest, device):
    guest.run("dmstats create d --programid other; dmstats create d")
    guest.run("dd if=/dev/zero of=/dev/mapper/d bs=64k count=2 oflag=direct status=none")
    refused = guest.run("dmstats clear --regionid 0 d", check=False)
    assert (refused.returncode, refused.stderr) == (1, "No such region: 0.\nCommand failed.\n")
    assert guest.output("dmstats print --allprograms --regionid 0 d").split()[5] == "2"
    guest.run("dmstats clear --allprograms --regionid 0 d")
    assert guest.output("dmstats print --allprograms --regionid 0 d").split()[5] == "0"
    # Nor can it be in a group of ours; and what is in one of theirs is in no other.
    refused = guest.run("dmstats group --regions 0-1 d", check=False)
    assert refused.returncode == 1 and "Region ID 0 does not exist" in refused.stderr
    guest.run("dmstats group --allprograms --regions 0-1 d")
    refused = guest.run("dmstats group --regions 1 d", check=False)
    assert refused.returncode == 1 and "Region ID 1 already a member of group ID 0" in refused.stderr


def test_who_changes_groups_is_waited_for_with_what_is_to_be_grouped(guest, device):
    said = guest.output(f"""
        dmstats delete --allregions d
        exec 3<> {LOCK} && flock 3
        dmstats create --segments d 3>&- > /dev/null & sleep 0.5
        dmsetup message d 0 @stats_list; echo made:
        exec 3>&-; wait; dmstats list --group --noheadings -o group_id,region_id d""")
    assert said.splitlines()[-2:] == ["made:", "0:0-1"] and "dmstats" not in said


# Runs a command whose stderr is a terminal that is stopped, as by ^S, until there is a line to read.
STOPPED = """
import os, subprocess, sys, termios
slave = os.openpty()[1]
termios.tcflow(slave, termios.TCOOFF)
program = subprocess.Popen(sys.argv[1:], stderr=slave)
input()
termios.tcflow(slave, termios.TCOON)
print(program.wait())
"""


def test_nobody_waits_for_a_terminal_that_is_stopped(guest, dm):
    dm.create("d", "\n".join(f"{8 * index} 8 zero" for index in range(600)))
    guest.run(f"cat > /tmp/stopped.py <<'END'\n{STOPPED}\nEND")
    for command, lines in (("create --segments", 600), ("delete --allregions", 0)):
        program = guest.start(f"exec python3 /tmp/stopped.py dmstats {command} d")
        guest.run(f"until [ $(dmsetup message d 0 @stats_list | grep -c dmstats) = {lines} ]; do sleep 0.05; done")
        guest.run(f"flock {LOCK} true")
        assert program.communicate("\n")[0].splitlines()[-1] == "0"


def test_what_fails_on_one_of_all_devices_is_done_on_the_others(guest, dm):
    for name in "abc":
        dm.create(name, "0 8 zero")
    guest.run("dmstats create a && dmstats create c && dmstats group --regions 0 a && dmstats group --regions 0 c")
    for command in ("ungroup --groupid 0", "clear --regionid 0", "delete --regionid 0"):
        refused = guest.run(f"dmstats {command} {'' if command[0] == 'c' else '--alldevices'}", check=False)
        said = refused.stderr.splitlines()
        assert (refused.returncode, said[0][:3], said[-1]) == (1, "b: ", "Command failed.")
        assert refused.stderr.count("Command failed.") == 1 and "a: " not in refused.stderr
    assert guest.output("dmstats list --noheadings -o region_id") == ""
    # Of devices that are named the first that fails is the last.
    guest.run("dmstats create c")
    assert guest.run("dmstats delete --regionid 0 b c", check=False).returncode == 1
    assert guest.output("dmstats list --noheadings -o region_id c") == "0"


def test_a_device_whose_list_cannot_be_read_hides_no_other(guest, dm):
    for name in "abc":
        dm.create(name, "0 8 zero")
    guest.run("dmstats create a && dmstats create c")
    # A word with a line end has a row that the kernel would never write.
    row = r"5:\ 0+many\ 1\ dmstats\ -"
    guest.run(f"dmsetup message b 0 '@stats_create - /1 dmstats x\\\n{row}'")
    for command in ("list -v", "report"):
        for names, shown in (("", "a:0\nc:0\n"), ("a b c", "a:0\n"), ("b", "")):
            said = guest.run(f"dmstats {command} --region --noheadings -o name,region_id {names}", check=False)
            assert (said.returncode, said.stdout) == (1, shown)
            assert "5: 0+many" in said.stderr and said.stderr.endswith("Command failed.\n")


def test_intervals_may_be_shorter_than_a_second(guest, device):
    guest.run("dmstats create d")
    text = guest.output("dmstats report --interval 0.3 --count 3 --noheadings -o interval d").splitlines()
    # Between them is an empty line, as with LVM2's program.
    assert text[1::2] == ["", ""] and text[0] == "0.300000" and all(0.1 < float(line) < 0.9 for line in text[::2])


def test_every_command_can_answer_in_json(guest, device):
    def ask(words):
        return json.loads(guest.output(f"dmstats {words} --json"))

    made = ask("create --segments d --alias g")["results"]
    assert made[1] == {"device": "d", "region_id": 1, "areas": 1, "group_id": 0}
    listed = [(row["object"], row["length_bytes"]) for row in ask("list d")["rows"]]
    assert listed == [("region", 2**24), ("region", 2**24), ("group", 2**25)]
    guest.run("dd if=/dev/zero of=/dev/mapper/d bs=64k count=3 oflag=direct status=none")
    reported = ask("report d")
    assert reported["rows"][-1]["counters"]["write_bytes"] == 3 * 65536 and reported["interval_ns"] == 10**9
    assert ask("print --regionid 0 d")["results"][0]["rows"][0].startswith("0+32768 ")
    assert ask("clear --regionid 0 d")["results"] == [{"device": "d", "region_id": 0}]
    assert ask("ungroup --groupid 0 d")["results"] == [{"device": "d", "group_id": 0}]
    assert ask("group --regions 0-1 d")["results"] == [{"device": "d", "group_id": 0, "regions": "0-1"}]
    assert ask("delete --groupid 0 d")["results"] == [{"device": "d", "group_id": 0}]
    assert ask("version")["results"][0]["driver"].startswith("4.")
    # Where there is nothing to be done too.
    for command, results in (("clear", []), ("print", []), ("delete", [{"device": "d", "regions": ""}])):
        assert ask(f"{command} --allregions --alldevices") == {"command": command, "results": results}
    assert ask("list --alldevices")["rows"] == []


def test_a_plan_foretells_what_the_kernel_accounts_and_makes_nothing(guest, device):
    account = "cat /sys/module/dm_mod/parameters/stats_current_allocated_bytes"
    words = "create d --areas 1024 --bounds 1ms,20ms"
    before = int(guest.output(account))
    plan = json.loads(guest.output(f"dmstats {words} --plan --json"))["results"][0]
    assert rows(guest, device) == {} and plan["fits"]
    assert (plan["regions"], plan["areas"], plan["instructions_for_each_io"]) == (1, 1024, 24)
    guest.run(f"dmstats {words}")
    assert abs(int(guest.output(account)) - before - plan["kernel_bytes"]) <= plan["kernel_bytes"] // 100


def test_a32_the_kernels_limit_is_told_with_what_is_in_use(guest, dm):
    dm.create("big", "0 8388608 zero")
    failed = guest.run("dmstats create big --areasize 1s", check=False)
    assert failed.returncode == 1
    assert "The kernel's limit for statistics is reached" in failed.stderr and "bytes were in use" in failed.stderr


def test_a_reader_that_leaves_is_no_fault(guest, device):
    guest.run("dmstats create d --areas 60000")
    result = guest.run("set -o pipefail; dmstats list --area d | head -1", check=False)
    assert "panicked" not in result.stderr and result.stdout.startswith("Name")


def test_a33_many_regions_take_as_few_requests_as_can_be(guest, dm):
    count = 600
    dm.create("d", "\n".join(f"{8 * index} 8 zero" for index in range(count)))

    def requests(words):
        said = guest.run(f"dmstats {words} -vv d").stderr.splitlines()[-1]
        return int(said.split()[0])

    # The table and its length; the list; two for the helper that makes each delete cheap.
    assert requests("create --segments --nogroup") == count + 2
    assert requests("list") == 1
    assert requests("report") == count + 1
    assert requests("delete --allregions") == count + 3
    assert guest.output("dmsetup message d 0 @stats_list") == ""


def test_a18_what_is_in_no_group_has_none_to_be_changed(guest, device):
    guest.run("dmstats create d")
    before = rows(guest, device)
    for command in ("delete", "ungroup"):
        refused = guest.run(f"dmstats {command} --groupid 0 d", check=False)
        assert refused.returncode == 1 and "Group ID 0 does not exist" in refused.stderr
    assert guest.output("dmstats report --groupid 0 --noheadings d") == "" and rows(guest, device) == before


def test_a19_a_list_that_fails_leaves_nothing_to_report(guest, device):
    guest.run("dmstats create d")
    report = guest.start("dmstats report --interval 0.2 --noheadings -o region_id d 2> /dev/null; echo status $?")
    assert report.stdout.readline() == "0\n"
    guest.run("dmsetup remove d")
    *reported, last = report.stdout.read().splitlines()
    assert set(reported) <= {"0", ""} and last == "status 1"


def test_a36_what_is_not_there_and_what_is_not_known_are_two_errors(guest, device):
    said = [guest.run(f"dmstats print --regionid 7 {name}", check=False).stderr for name in ("d", "none")]
    assert said == ["No such region: 7.\nCommand failed.\n", "Device none not found\nCommand failed.\n"]


def test_a43_sums_are_those_of_each_report(guest, device):
    guest.run("dmstats create d --areas 4 --bounds 100s")
    guest.run("dd if=/dev/mapper/d of=/dev/null bs=64k count=5 iflag=direct status=none")
    reports = guest.output("dmstats report --region --interval 0.2 --count 2 --json d").splitlines()
    bins = [json.loads(report)["rows"][0]["histogram"] for report in reports]
    assert bins == [[5, 0], [0, 0]]


def test_a37_a40_a41_what_is_not_asked_for_is_not_said(guest, device):
    guest.run("for i in 0 1 2 3; do dmstats create d; done; dmstats group --regions 0-3 d")
    quiet = guest.run("dmstats clear --regionid 0 d; dmstats delete --regionid 2 d")
    assert (quiet.stdout, quiet.stderr) == ("", "")
    assert "Cleared statistics region 0." in guest.run("dmstats clear --regionid 0 -vv d").stderr
    nothing = guest.run("dmstats delete --allregions d; dmstats list --noheadings -o name d")
    assert (nothing.stdout, nothing.stderr) == ("", "")


def test_shells_can_complete(guest):
    guest.run("dmstats completion bash > /tmp/complete && bash -n /tmp/complete")

    def completed(*words):
        """What bash makes of words, the last of which is not complete."""
        asked = f"COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}; _dmstats {' '.join(words[:1])} " \
                f"{words[-1]} {words[-2]}; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        return guest.output(f"bash -c {shlex.quote(f'. /tmp/complete; {asked}')}").split()

    assert completed("dmstats", "upd") == ["update_filemap"]
    assert completed("dmstats", "list", "--allr") == ["--allregions"]
    refused = guest.run("dmstats completion csh", check=False)
    assert refused.returncode == 1 and "bash, elvish, fish" in refused.stderr
