"""The options of the server, each with three spellings: `--max-queue`, EDGE_NLP_MAX_QUEUE, and `max-queue` in a file.

Every value is text first, wherever it stands, and is read by the same reader, so that all three refuse alike.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import yaml

from targets.api import UserError
from targets.located import read_text
from targets.registry import did_you_mean, tasks
from targets.server.http.readers import Reader, file, flag, list_of, name, number, one_of, path, store, text, whole

PREFIX = "EDGE_NLP_"
CONFIG = "config"
LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True)
class Option:
    """One option. `name` is its spelling on the command line; `read` turns its text into its value."""

    name: str
    read: Reader
    help: str

    @property
    def field(self) -> str:
        """Its spelling as a field."""
        return self.name.replace("-", "_")

    @property
    def variable(self) -> str:
        """Its spelling in the environment."""
        return PREFIX + self.field.upper()


GENERAL = (
    Option("host", name, "address to listen on (default 127.0.0.1: this machine only)"),
    Option("port", whole(0, 65535), "port to listen on; 0 takes a free one (default 8000)"),
    Option("tasks", list_of(name), "tasks to serve, separated by commas (default: all)"),
    Option("backend", name, "engine of every task (default: the fastest that is installed)"),
    Option("optimization", name, "technique of every task (default: none for encoders and T5, q8_0 for llama.cpp)"),
    Option("models", path, "folder of the embedded models (default: the project's own)"),
    Option("artifacts", path, "folder for what is built from models (default: the user's cache folder)"),
    Option("threads", whole(1), "threads of each engine (default: 1 for a small model, else all cores)"),
    Option("targets", list_of(name), "modules that register targets of your own, separated by commas"),
    Option("max-batch-size", whole(1), "requests run at once at most (default 16)"),
    Option("max-wait-ms", number(0), "how long a request may wait for others to join it (default 2)"),
    Option("max-queue", whole(1), "requests of a task that may wait; more are refused with 429 (default 256)"),
    Option("max-body-bytes", whole(1024), "bytes of a request's body (default 1048576)"),
    Option("max-texts", whole(1), "texts of one request (default 64)"),
    Option("max-text-chars", whole(1), "characters of one text (default 20000)"),
    Option("max-output-tokens", whole(1), "tokens of one answer (default 512)"),
    Option("max-connections", whole(1), "open connections (default 512)"),
    Option("max-chats", whole(1), "open chats over WebSocket (default 64)"),
    Option("deadline-s", number(0.001), "seconds until a request is given up with 504 (default 30)"),
    Option("start-s", number(0.001), "seconds that an engine may take to build and load its model (default 600)"),
    Option("hang-s", number(0.001), "seconds without a sign of life after which a busy engine is ended (default 60)"),
    Option("shutdown-s", number(0), "seconds to finish what was accepted after SIGTERM (default 20)"),
    Option("cache", store, "where answers are remembered: memory, off, or redis://HOST[:PORT][/DB] (default memory)"),
    Option("cache-mb", whole(1), "megabytes (2**20 bytes) of remembered answers in memory (default 64)"),
    Option("api-key-file", file, "file with the key that every request must bring (default: none is asked for)"),
    Option("cors-origins", list_of(name), "origins whose pages may ask from a browser, by commas (default: none)"),
    Option("enable-monitoring", flag, "put device telemetry into /metrics"),
    Option("log-level", one_of(*LEVELS), f"{', '.join(LEVELS)} (default info)"),
)


@cache
def table() -> dict[str, Option]:
    """Every option by its field: the general ones, and three of each task that is registered here."""
    own = [
        option
        for task in tasks
        for option in (
            Option(f"{task}-model", text, f"model of {task}: a folder, a .gguf file, or embedded (default embedded)"),
            Option(f"{task}-backend", name, f"engine of {task}"),
            Option(f"{task}-optimization", name, f"technique of {task}"),
        )
    ]
    return {option.field: option for option in (*GENERAL, *own)}


def read(argv: Sequence[str], environ: Mapping[str, str]) -> dict[str, Any]:
    """The values given, by field, those of the command line over the environment over the file.

    Raises:
        UserError: an unknown option, or a value that its reader refuses; names where it stands.
        SystemExit: `--help`.
    """
    asked = {key: value for key, value in vars(parser().parse_args(argv)).items() if value is not None}
    named = asked.pop(CONFIG, None) or environ.get(f"{PREFIX}{CONFIG.upper()}")
    found: dict[str, Any] = {}
    for layer in (_of_file(Path(named)) if named else (), _of_environment(environ), _of_command_line(asked)):
        found |= {option.field: _value(option, raw, where) for option, raw, where in layer}
    return found


def user_cache(environ: Mapping[str, str]) -> Path:
    """The folder for artifacts where none is named: in the user's cache folder, as the XDG specification has it."""
    home = environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "edge-nlp-suite/server"


class _Parser(argparse.ArgumentParser):
    """Says what is wrong by raising, as everything here does."""

    def error(self, message: str) -> NoReturn:
        """Raise."""
        raise UserError(f"{message}; see --help")


@cache
def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = _Parser(
        prog="python -m targets.server",
        description="Serves NLP tasks over HTTP, each by an engine in a process of its own.",
        epilog=f"Every option may also stand in the environment ({PREFIX}MAX_QUEUE=64) or in the file of --config "
        "(YAML; max-queue: 64, sentiment: {model: DIR}). The command line wins over the environment, it over the file.",
        allow_abbrev=False,
    )
    made.add_argument(f"--{CONFIG}", metavar="FILE", help="YAML file with any of these options")
    for option in table().values():
        bare: dict[str, Any] = {"nargs": "?", "const": "true"} if option.read is flag else {}
        made.add_argument(f"--{option.name}", dest=option.field, metavar=option.read.metavar, help=option.help, **bare)
    return made


Given = Iterator[tuple[Option, str, str]]
"""An option, its text, and where that stands."""


def _value(option: Option, raw: str, where: str) -> Any:
    try:
        return option.read(raw)
    except ValueError as error:
        raise UserError(f"{where} {raw!r}: should be {error}") from None


def _of_command_line(asked: Mapping[str, str]) -> Given:
    for key, raw in asked.items():
        option = table()[key]
        yield option, raw, f"--{option.name}"


def _of_environment(environ: Mapping[str, str]) -> Given:
    known = {option.variable: option for option in table().values()}
    for variable, raw in environ.items():
        if variable in known:
            yield known[variable], raw, variable
        elif variable.startswith(PREFIX) and variable != f"{PREFIX}{CONFIG.upper()}":
            raise UserError(f"unknown environment variable {variable}.{did_you_mean(variable, known)}")


def _of_file(path: Path) -> Given:
    for key, value in _flat(path):
        field = key.replace("-", "_")
        if field not in table():
            known = (option.name for option in table().values())
            raise UserError(f"{path}: unknown option {key!r}.{did_you_mean(key, known)}")
        yield table()[field], _as_text(value, f"{path}: {key}"), f"{path}: {key}"


def _flat(path: Path) -> Iterator[tuple[str, Any]]:
    """Keys and values; those of a mapping below a task's name as TASK-KEY."""
    try:
        found = yaml.load(read_text(path), Loader=yaml.BaseLoader)  # text only: `cache: off` is no boolean
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: should hold options, a line each, such as `port: 8000`")
    for key, value in found.items():
        if isinstance(value, dict) and key in tasks:
            yield from ((f"{key}-{inner}", each) for inner, each in value.items())
        else:
            yield str(key), value


def _as_text(value: Any, where: str) -> str:
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return ",".join(value)
    if isinstance(value, str):
        return value
    raise UserError(f"{where} is {value!r}; text, a number, true, false or a list of texts was expected")
