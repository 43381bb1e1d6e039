"""Registries: a dict, a decorator, and a walk over the folder. Duplicates raise; misses say "did you mean"."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from targets.api import Backend, DeviceKind, Task, UserError
from targets.optimization import Optimization
from targets.probe import ProbeFactory

T = TypeVar("T")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The nearest known name as a question, and the list of what is known; begins with a space."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"{hint} Known: {', '.join(known) or 'none'}."


class Registry(Generic[T]):
    """Names to things of one kind. `package` is walked on first use: importing its modules registers what they hold."""

    def __init__(self, noun: str, package: str) -> None:
        self.noun = noun
        self.package = package
        self._things: dict[str, T] = {}
        self._walked = False

    def register(self, name: str) -> Callable[[T], T]:
        """A decorator (or a call with an instance) that files a thing under its name."""

        def file(thing: T) -> T:
            if name in self._things:
                raise ValueError(f"{self.noun} {name!r} is registered twice")
            self._things[name] = thing
            return thing

        return file

    def __getitem__(self, name: str) -> T:
        self._walk()
        if name not in self._things:
            raise UserError(f"unknown {self.noun} {name!r}.{did_you_mean(name, self._things)}")
        return self._things[name]

    def __contains__(self, name: str) -> bool:
        self._walk()
        return name in self._things

    def __iter__(self) -> Iterator[str]:
        self._walk()
        return iter(self._things)

    def items(self) -> Iterable[tuple[str, T]]:
        """Names and things, in the order they were registered."""
        self._walk()
        return self._things.items()

    def _walk(self) -> None:
        if self._walked:
            return
        package = importlib.import_module(self.package)
        for found in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self.package}.{found.name}")
        self._walked = True  # only a whole walk counts: after a failed import the next access fails as well


tasks: Registry[Task] = Registry("task", "targets.tasks")
backends: Registry[Backend] = Registry("backend", "targets.backends")
optimizations: Registry[Optimization] = Registry("optimization", "targets.optimizations")
devices: Registry[DeviceKind] = Registry("device kind", "targets.devices")
probes: Registry[ProbeFactory] = Registry("probe", "targets.probes")
"""By the name of the device kind; a kind without one of its own is probed as a CPU."""


def import_plugins(modules: Iterable[str]) -> None:
    """Import modules outside this package that register targets of their own."""
    for name in modules:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name and not name.startswith(f"{error.name}."):
                raise
            raise UserError(f"--targets {name}: no such module; it must be importable from here") from error
