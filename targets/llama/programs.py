"""What every user of llama.cpp shares: where its own programs are."""

from __future__ import annotations

import os
import shutil

BUILDS = ("", "bin", "build/bin", "tools/bin")
"""Folders below LLAMA_CPP_DIR that its builds and releases put programs into."""
PROGRAMS = "build llama.cpp (cmake, targets llama-server llama-bench llama-cli) and set LLAMA_CPP_DIR to its folder"


def program(name: str) -> str | None:
    """The path of a program of llama.cpp, for example "llama-server": below LLAMA_CPP_DIR, else on PATH; or None."""
    root = os.environ.get("LLAMA_CPP_DIR")
    folders = [os.path.join(root, build) for build in BUILDS] if root else []  # noqa: PTH118 - "" joins to the root
    return shutil.which(name, path=os.pathsep.join(folders)) or shutil.which(name)
