"""What a server is told: which targets it serves, within which limits, and where. Inert: nothing is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from targets.server import menu, options

T = TypeVar("T")
ZOO = Path(__file__).parents[2] / "fixtures/zoo"
"""Where the embedded models lie in a checkout or an installation."""


@dataclass(frozen=True)
class ServedTask:
    """One target: a task, what runs it, and its model: "embedded", a folder in Hugging Face layout, or a GGUF file."""

    task: str
    backend: str
    optimization: str
    model: str = menu.EMBEDDED


@dataclass(frozen=True)
class Batching:
    """How requests are gathered: at most so many, for at most so long; more than `max_queue` waiting are refused."""

    max_batch_size: int = 16
    max_wait_ms: float = 2.0
    max_queue: int = 256


@dataclass(frozen=True)
class Limits:
    """What one client may ask for. `deadline_s` counts from when a request has arrived until its answer."""

    max_body_bytes: int = 1 << 20
    max_texts: int = 64
    max_text_chars: int = 20_000
    max_output_tokens: int = 512
    max_connections: int = 512
    max_chats: int = 64
    deadline_s: float = 30.0


@dataclass(frozen=True)
class Settings:
    """A server. See `parse` for how it comes about, and targets/server/options.py for what each value means.

    `threads`: of each engine; None: one for a small model, else all cores (see targets/server/engine/allotment.py).
    `artifacts`: the folder where what is built from models is kept. `models`: the folder of the embedded models.
    `start_s` and `hang_s`: an engine that takes longer to load, or shows no sign of life for as long, is ended.
    `targets`: modules to import that register tasks, backends or optimizations of one's own.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    tasks: Mapping[str, ServedTask] = field(default_factory=dict)
    batching: Batching = Batching()
    limits: Limits = Limits()
    cache: str = "memory"
    cache_mb: int = 64
    api_key_file: Path | None = None
    cors_origins: tuple[str, ...] = ()
    enable_monitoring: bool = False
    threads: int | None = None
    artifacts: Path = field(default_factory=lambda: options.user_cache({}))
    shutdown_s: float = 20.0
    log_level: str = "info"
    models: Path = ZOO
    start_s: float = 600.0
    hang_s: float = 60.0
    targets: tuple[str, ...] = ()


def parse(argv: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """The settings that the command line asks for, over the environment, over `--config FILE`, over the defaults.

    Raises:
        UserError: a value is out of range, an option is unknown, or a combination does not exist.
        SystemExit: `--help` was asked for, and printed.
    """
    given = options.read(argv, environ)
    given.setdefault("artifacts", options.user_cache(environ))
    return Settings(
        **_of(Settings, given, besides=("tasks", "batching", "limits")),
        tasks={task: ServedTask(*choice) for task, choice in menu.choose(given).items()},
        batching=Batching(**_of(Batching, given)),
        limits=Limits(**_of(Limits, given)),
    )


def _of(kind: type[Any], given: Mapping[str, Any], besides: Sequence[str] = ()) -> dict[str, Any]:
    """Those of the values that the dataclass has fields for."""
    names = {each.name for each in fields(kind)} - set(besides)
    return {name: value for name, value in given.items() if name in names}
