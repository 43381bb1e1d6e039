"""What is installed here, found out without importing it."""

from __future__ import annotations

from importlib.machinery import PathFinder
from importlib.util import find_spec

from targets.registry import backends


def missing(backend: str) -> str | None:
    """What a backend needs and this machine lacks, with how to get it; None if everything is there."""
    for requirement in backends[backend].requires:
        if not (requirement.find() if requirement.find else importable(requirement.module)):
            return f"{backend} needs {requirement.module}, which is not installed: {requirement.install}"
    return None


def importable(module: str) -> bool:
    """Whether a module can be found, importing nothing: not even the packages it stands in, which may be heavy."""
    whole, *inner = module.split(".")
    spec = find_spec(whole)
    for name in inner:
        if spec is None or spec.submodule_search_locations is None:
            return False
        whole = f"{whole}.{name}"
        spec = PathFinder.find_spec(whole, spec.submodule_search_locations)
    return spec is not None
