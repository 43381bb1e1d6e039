"""Interpreters of other environments for tests: scripts that start this one, otherwise."""

from __future__ import annotations

import sys
from pathlib import Path


def script(file: Path, body: str) -> Path:
    """An executable shell script."""
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(0o755)
    return file


def other_side(folder: Path, **variables: str) -> Path:
    """This interpreter in an environment that knows it is the other side."""
    settings = " ".join(f"{name}={value}" for name, value in {"OTHER_SIDE": "1", **variables}.items())
    return script(folder / "python-there", f'{settings} exec {sys.executable} "$@"')


def bare(folder: Path) -> Path:
    """This interpreter without any package."""
    return script(folder / "python-bare", f'exec {sys.executable} -I -S "$@"')
