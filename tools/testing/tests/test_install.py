# SPDX-License-Identifier: GPL-2.0
"""What `make install-dmstats` installs, on this machine."""

import re
import subprocess

from lab import places


def options(program):
    text = subprocess.run([program, "--help"], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"(?<![\w-])--[a-z]+", text))


def test_dmstats_is_installed_with_pages_that_have_all_its_options(tmp_path):
    places.program("dmstats")
    subprocess.run([places.TOP / "tools/setup/install-dmstats", tmp_path, "/usr"], check=True)
    for program in ("dmstats", "dmfilemapd"):
        page = (tmp_path / f"usr/share/man/man8/{program}.8").read_text().replace("\\-", "-")
        assert page.startswith(".\\\"") and f'.TH "{program.upper()}" "8"' in page
        assert options(tmp_path / "usr/sbin" / program) - set(re.findall(r"--[a-z]+", page)) == set()
    unit = (tmp_path / "usr/lib/systemd/system/dmfilemapd@.service").read_text()
    assert "ExecStart=/usr/sbin/dmfilemapd " in unit
    bash = tmp_path / "usr/share/bash-completion/completions/dmstats"
    subprocess.run(["bash", "-n", bash], check=True)
