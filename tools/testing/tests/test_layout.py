# SPDX-License-Identifier: GPL-2.0
"""The build's layout check: it must stop the compiler, with the struct's name, when a layout differs."""

import importlib.machinery
import importlib.util
import pathlib
import subprocess

import pytest

LAYOUT = pathlib.Path(__file__).parents[2] / "setup/layout"

# As bpftool tells of `struct bio { u64 next; u32 type; u32 idle:1, sync:1; union { ... }; }`.
BIO = {
    "kind": "STRUCT",
    "name": "bio",
    "size": 24,
    "members": [
        {"name": "next", "bits_offset": 0},
        {"name": "type", "bits_offset": 64},
        {"name": "idle", "bits_offset": 96, "bitfield_size": 1},
        {"name": "sync", "bits_offset": 97, "bitfield_size": 1},
        {"name": "(anon)", "bits_offset": 128},
    ],
}

SAME = "pub next: u64, pub type_: u32, pub _bitfield_1: [u8; 4], pub __bindgen_anon_1: u64"


@pytest.fixture(scope="module")
def layout():
    """The script as a module."""
    loader = importlib.machinery.SourceFileLoader("layout", str(LAYOUT))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("layout", loader))
    loader.exec_module(module)
    return module


def compile_against(layout, fields, folder):
    """Compiles the assertions about BIO against a Rust struct with these fields: (succeeded, messages)."""
    asserted = "\n".join(layout.assertions("bio", "vmlinux", BIO, []))
    source = folder / "lib.rs"
    source.write_text(
        f"#![allow(non_camel_case_types)]\n#[repr(C)]\npub struct bio {{ {fields} }}\nmod layout {{\n{asserted}\n}}\n"
    )
    ran = subprocess.run(
        ["rustc", "--edition=2021", "--crate-type=lib", "--emit=metadata", f"--out-dir={folder}", source],
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.returncode == 0, ran.stderr


def test_equal_layouts_compile(layout, tmp_path):
    succeeded, messages = compile_against(layout, SAME, tmp_path)
    assert succeeded, messages


@pytest.mark.parametrize(
    ("fields", "difference"),
    [
        (SAME + ", pub more: u64", "struct bio: its size is not 24"),
        (SAME.replace("next: u64, pub type_: u32", "type_: u32, pub next: u64"), "struct bio: next is not at 0"),
        (SAME.replace("u32, pub _bitfield_1: [u8; 4]", "u64, pub _bitfield_1: [u8; 4]"), "struct bio: _bitfield_1"),
        (SAME.replace("type_", "kind"), "no field `type_`"),
    ],
)
def test_a_difference_is_named(layout, tmp_path, fields, difference):
    succeeded, messages = compile_against(layout, fields, tmp_path)
    assert not succeeded
    assert difference in messages
