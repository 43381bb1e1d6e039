from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from suites.meta.runs import ROOT

HOARD = """
import ctypes
from fixtures.memory import resident_mb, settled_mb
blocks = [ctypes.create_string_buffer(64_000) for _ in range(1_000)]
for block in blocks:
    block.raw = b"x" * 64_000
last = blocks.pop()
full = settled_mb()
del block, blocks
print(full - settled_mb(), len(last))
"""


MAPPED = """
import mmap, os, sys
import psutil
from fixtures.memory import anonymous_mb, resident_mb
before, resident = anonymous_mb(os.getpid()), resident_mb()
with open(sys.argv[1], "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as pages:
    sum(pages[::4096])
    print(resident_mb() - resident, anonymous_mb(os.getpid()) - before)
kept = bytearray(os.urandom(32 << 20))
print(anonymous_mb(os.getpid()) - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux; run it there")
def test_a_mapped_file_is_not_a_process_s_own(tmp_path: Path) -> None:
    """32 MB of a mapped file are resident and not anonymous; 32 MB that were asked for are."""
    (tmp_path / "weights").write_bytes(bytes(32 << 20))
    command = [sys.executable, "-c", MAPPED, str(tmp_path / "weights")]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    resident, anonymous, asked = map(float, said.split())
    assert resident > 31
    assert anonymous < 2
    assert asked > 31


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks glibc; run it on Linux")
def test_what_is_free_does_not_count_though_it_lies_below_what_lives() -> None:
    """64 MB of freed blocks leave the memory of a process although the block above them is still held."""
    said = subprocess.run([sys.executable, "-c", HOARD], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert float(said.split()[0]) > 55
