"""Runs of the suite in a process of their own, as a user starts them, on the fake engine."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 300.0
MARK = "EDGE_META_RUN"
"""Environment variable that every process of a run inherits, so that none can hide."""
TEXTS = (
    ("good", "positive"),
    ("awful", "negative"),
    ("a great film", "positive"),
    ("I hate the long queue", "negative"),
)
"""Texts that the fake engine gets right."""


@dataclass(frozen=True)
class Run:
    """A run that has ended. `output`: both streams."""

    code: int
    output: str
    build: Path

    @property
    def errors(self) -> list[str]:
        """The lines that pytest prints for bad input."""
        return [line for line in self.output.splitlines() if line.startswith("ERROR:")]

    @cached_property
    def results(self) -> dict[str, Any]:
        """The content of results.json."""
        found: dict[str, Any] = json.loads((self.build / "results.json").read_text())
        return found

    @property
    def cases(self) -> dict[str, dict[str, Any]]:
        """Records by the last part of the case id."""
        return {case["optimization"]: case for case in self.results["cases"]}

    def lines(self, name: str) -> list[dict[str, Any]]:
        """A file of the build folder that has a JSON object a line."""
        return [json.loads(line) for line in (self.build / name).read_text().splitlines()]


def outside() -> dict[str, str]:
    """The environment of who calls pytest, without what this pytest says to its own workers and plugins."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}


def hear_signals() -> None:
    """As at a terminal: a shell's background jobs ignore Ctrl-C, and hand that on."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup hands this one on


class Running:
    """A run under way, and every process that belongs to it."""

    def __init__(self, build: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        self.build = build
        self.mark = uuid.uuid4().hex
        build.mkdir(parents=True, exist_ok=True)
        self.log = build / "output.txt"
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--build={build}", *arguments]
        with self.log.open("w") as output:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**outside(), "COLUMNS": "160", MARK: self.mark, **(environment or {})},
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=hear_signals,
            )

    def wait(self) -> Run:
        """The run when it has ended by itself."""
        try:
            code = self.process.wait(PATIENCE_S)
        finally:
            self.end()
        return Run(code, self.log.read_text(), self.build)

    def kin(self) -> list[psutil.Process]:
        """Every living process of this run, pytest itself included."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def end(self) -> None:
        """Kill what is left."""
        for process in self.kin():
            process.kill()
        self.process.wait()


def run(build: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> Run:
    """One run from start to end; `--option=value` form, since pytest takes a lone path for a test folder."""
    return Running(build, *arguments, environment=environment).wait()


def until(what: Callable[[], bool], within_s: float = 120.0) -> bool:
    """Whether something becomes true in time."""
    deadline = time.monotonic() + within_s
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def traced(trace: Path, event: str = "load") -> list[tuple[str, int]]:
    """(technique, process id) of every load of the fake engine, or of what else it tells (see suites/meta/fake.py)."""
    lines = trace.read_text().splitlines() if trace.exists() else []
    found = [line.split() for line in lines]
    return [(name, int(pid)) for kind, name, pid in found if kind == event]


def held_at(trace: Path, technique: str) -> dict[str, str]:
    """The environment in which the fake engine leaves a trace and this technique ("": none) waits for `let_go`."""
    return {"FAKE_TRACE": str(trace), "FAKE_HELD": technique}


def let_go(trace: Path) -> None:
    """What was held goes on."""
    Path(f"{trace}.go").touch()


def model(folder: Path) -> Path:
    """The least folder that counts as a model: two labels, a tokenizer's name, weights of one number."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"id2label": {"0": "negative", "1": "positive"}}))
    (folder / "tokenizer.json").write_text("{}")
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    return folder


def data(file: Path, right: int = 40, wrong: int = 0) -> Path:
    """Labelled texts of which the fake engine gets that many right and wrong."""
    flipped = {"positive": "negative", "negative": "positive"}
    rows = [TEXTS[index % 4] for index in range(right)] + [
        (text, flipped[label]) for text, label in (TEXTS[index % 4] for index in range(wrong))
    ]
    file.write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows))
    return file


def limits(file: Path, body: str = "") -> Path:
    """A thresholds file; `body`: what stands below `cpu:`, each line indented by four."""
    file.write_text("schema: 1\nlimits:\n  cpu:\n" + body if body else "schema: 1\nlimits: {}\n")
    return file


def arguments(folder: Path, *techniques: str) -> list[str]:
    """The options of a run of the fake engine, with model, data and limits in `folder`."""
    return [
        "--targets=suites.meta.fake",
        "--backend=fake",
        *([f"--optimization={','.join(techniques)}"] if techniques else []),
        f"--model=sentiment={model(folder / 'tiny')}",
        f"--data=sentiment={data(folder / 'data.tsv')}",
        f"--thresholds={limits(folder / 'limits.yaml')}",
    ]


def interrupt(running: Running) -> None:
    """Ctrl-C as pytest gets it: the hosts have sessions of their own, so the terminal's signal reaches pytest alone."""
    os.kill(running.process.pid, signal.SIGINT)
