"""Prints what extras of pyproject.toml require, one a line: the image needs these, and not what the tests need beside.

`python requirements.py onnxruntime,server`; stands alone, since the project is not installed where it runs.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    from pip._vendor import tomli as tomllib

CORE = ("numpy", "psutil", "pyyaml")
"""Of the project's own dependencies those that `targets` imports; the others serve the suite."""
OWN = re.compile(r"edge-nlp-suite\[([^\]]+)\]")


def requirements(project: dict[str, Any], extras: list[str]) -> list[str]:
    """The requirements of these extras, with those that they name in turn.

    Raises:
        SystemExit: one of them does not exist.
    """
    known = project["optional-dependencies"]
    wanted = [each for each in project["dependencies"] if re.split(r"[^\w-]", each)[0] in CORE]
    for extra in extras:
        if extra not in known:
            raise SystemExit(f"EXTRAS: there is no extra {extra!r}; known: {', '.join(sorted(known))}")
        for each in known[extra]:
            inner = OWN.match(each)
            wanted += requirements(project, inner[1].split(",")) if inner else [each]
    return list(dict.fromkeys(wanted))


if __name__ == "__main__":
    pyproject = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
    print("\n".join(requirements(pyproject["project"], sys.argv[1].split(","))))
