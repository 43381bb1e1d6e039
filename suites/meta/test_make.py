from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from suites.meta.runs import ROOT, outside


@pytest.mark.parametrize("target", ["bench", "serving"])
def test_a_path_from_elsewhere_may_follow_its_option(target: str, tmp_path: Path) -> None:
    """What make runs takes `--cache DIR` in two words, although pytest itself takes DIR for a folder of tests."""
    words = f"--collect-only -q --cache {tmp_path}"
    told = subprocess.run(
        ["make", "-n", target, f"ARGS={words}"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    (line,) = [line for line in told.splitlines() if "-m pytest" in line]
    command = shlex.split(line.partition(";")[0])
    done = subprocess.run(
        [sys.executable, *command[1:]], cwd=ROOT, env=outside(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "collected" in done.stdout


@pytest.mark.parametrize(
    ("header", "left_out"),
    [
        ('__asm__ volatile ("ldtilecfg\\t%X0" :: "m" (*((const void **)__config)));', True),
        ("__builtin_ia32_ldtilecfg (__config);", False),
        (None, False),
    ],
)
def test_amx_is_left_out_where_the_compiler_spoils_it(header: str | None, left_out: bool, tmp_path: Path) -> None:
    """A compiler that may drop what configures AMX's tiles builds llama.cpp without them; any other is left alone."""
    compiler, there = tmp_path / "cc", tmp_path / "amxtileintrin.h"
    compiler.write_text(f"#!/bin/sh\necho {there}\n")
    compiler.chmod(0o755)
    if header:
        there.write_text(header)
    told = subprocess.run(
        ["make", "-n", "llama-tools", f"CC={compiler}", f"XDG_CACHE_HOME={tmp_path}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (line,) = [line for line in told.splitlines() if "-m pip wheel" in line]
    assert line.startswith('CFLAGS="')
    assert line.count("-mno-amx-int8") == (2 if left_out else 0)


def test_a_build_for_another_processor_is_not_taken(tmp_path: Path) -> None:
    """llama.cpp lies in the cache by what its processor can do: one folder for one kind, another for another."""
    folders = []
    for number, able in enumerate(("flags : sse2 avx2", "flags : sse2", "Features : fp asimd", "flags : sse2")):
        cpuinfo = tmp_path / str(number)
        cpuinfo.write_text(f"processor : 0\n{able}\n\nprocessor : 1\n{able}\n")
        words = ["make", "-n", "llama-tools", f"CPUINFO={cpuinfo}", f"XDG_CACHE_HOME={tmp_path}"]
        told = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        folders.append(next(line for line in told.splitlines() if line.startswith("rm -rf")))
    assert len(set(folders)) == 3
    assert folders[1] == folders[3]
