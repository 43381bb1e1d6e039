"""Where a fork server's children find modules: also where libraries have put more of theirs.

multiprocessing gives each child the parent's sys.path, and so takes away what a library has added to it when the fork
server imported it: onnxruntime.transformers, for one, whose modules then cannot be imported by the names it uses.
"""

from __future__ import annotations

import sys

_known: list[str] = []


def remember() -> None:
    """Note the path as it is now: in the fork server, after all imports."""
    _known[:] = sys.path


def restore() -> None:
    """Add what was noted and is missing: in the child, before anything else."""
    sys.path += [each for each in _known if each not in sys.path]
