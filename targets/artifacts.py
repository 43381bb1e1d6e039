"""A cache of built artifacts: an entry is whole or it is rebuilt.

An entry is a folder with a manifest of the sha256 of each file. It is built under another name and renamed when
complete, so that a crash leaves no half entry; what is damaged afterwards fails the manifest and is built again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path

MANIFEST = "manifest.json"


def versions(*distributions: str) -> dict[str, str]:
    """The installed version of each distribution; "absent" where there is none."""
    found = {}
    for name in distributions:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def artifact(cache: Path, name: str, facts: Mapping[str, str], build: Callable[[Path], None]) -> Path:
    """The folder built by `build(folder)`, from the cache if it holds a whole one made from the same facts.

    Args:
        cache: the folder of all entries.
        name: a readable start of the entry's name.
        facts: everything that determines the content: digests, versions, options.
        build: fills an empty folder.
    """
    key = hashlib.sha256(json.dumps(dict(facts), sort_keys=True).encode()).hexdigest()[:16]
    entry = cache / f"{name}-{key}"
    if is_whole(entry):
        return entry
    cache.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=cache))
    try:
        build(draft)
        seal(draft, facts)
        shutil.rmtree(entry, ignore_errors=True)
        draft.replace(entry)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return entry


def seal(folder: Path, facts: Mapping[str, str]) -> None:
    """Write the manifest of a complete folder."""
    files = {str(path.relative_to(folder)): digest(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    (folder / MANIFEST).write_text(json.dumps({"facts": dict(facts), "files": files}, indent=1))


def is_whole(entry: Path) -> bool:
    """Whether every file of the entry is what the manifest says."""
    try:
        files = json.loads((entry / MANIFEST).read_text())["files"]
        return bool(files) and all(digest(entry / name) == value for name, value in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def digest(path: Path) -> str:
    """The sha256 of a file."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()


def size_mb(folder: Path, suffixes: tuple[str, ...]) -> float:
    """The size of a folder's files with these suffixes, or of a single file, in MB (2**20 bytes)."""
    files = [folder] if folder.is_file() else [path for path in folder.rglob("*") if path.name.endswith(suffixes)]
    return sum(path.stat().st_size for path in files) / 2**20
