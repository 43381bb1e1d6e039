"""The vocabulary of the suite: what a task, a backend, an optimization, a device and a runner are.

Nothing here imports a framework, so that cases can be collected in milliseconds. Requests and answers are plain
JSON-ready mappings: the same objects travel through pipes, into `answers.jsonl`, and over HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from targets.optimization import Optimization

Request: TypeAlias = Mapping[str, Any]
"""What is asked, in the task's own keys: `{"text": str}`, or `{"question": str, "context": str}`."""

Answer: TypeAlias = Mapping[str, Any]
"""What came back. Every answer has `tokens` (int, tokens the model read) and `truncated` (bool); what a generator's
answer has beside them stands in targets/generation.py."""

Tick: TypeAlias = Callable[[], None]
"""Called once per produced token, so that the harness owns the clock. Encoders never call it."""

Labels: TypeAlias = Mapping[int, str]
"""A model's `id2label`."""

Floats: TypeAlias = NDArray[np.floating[Any]]


ROUNDING = 6
"""Digits of a relative growth: what is smaller is the rounding of 32-bit arithmetic summed in another order."""


def no_tick() -> None:
    """The tick of a task that produces no tokens."""


class UserError(Exception):
    """Bad input, told in one sentence: what was wrong, what was allowed, what to do."""


class Unavailable(Exception):
    """This cell exists, but this machine cannot run it; the message says why and how to get it."""


class Unsupported(Exception):
    """This engine has no such output or ability, as the message says: a check that needs it is skipped, no more."""


@dataclass(frozen=True)
class Example:
    """One labelled request. `gold` is the task's own truth; `slices` name the groups it is reported in."""

    id: str
    request: Request
    gold: Any
    slices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Requirement:
    """Something a backend needs, and how to get it: an importable module, or with `program` one that `find` finds."""

    module: str
    install: str
    find: Callable[[], str | None] | None = None
    """For what is no module: returns where it is, or None; cheap, because it is asked at collection."""


@dataclass(frozen=True)
class Score:
    """A quality metric of a task. `higher_is_better` is its direction; `top` its best value (None: it has none).

    Accuracies and F1 lie in [0, 1]; BLEU and chrF, as their field writes them, in [0, 100]; perplexity has no top.
    """

    name: str
    higher_is_better: bool = True
    top: float | None = 1.0

    def loss(self, before: Floats, after: Floats) -> Floats:
        """What is lost from one value to another: a share of `top`, or without one the relative growth."""
        lost: Floats = (before - after) / self.top if self.top else np.round(after / before - 1, ROUNDING)
        return lost


@dataclass(frozen=True)
class Device:
    """Detected hardware joined with its profile from `targets/devices.yaml`.

    `supports` names the techniques offered on this device (onnx, quantization, int8, half, cuda, mps);
    `native` the number formats it computes natively. `backends` holds per-backend settings.
    Memory is in MB (2**20 bytes); `memory_budget_mb` is what a target may use.
    """

    name: str
    kind: str
    model: str
    cores: int
    threads: int
    memory_mb: int
    memory_budget_mb: int
    max_batch: int
    supports: frozenset[str]
    native: frozenset[str]
    torch_device: str = "cpu"
    flash_attention: bool = False
    power_mode: str | None = None
    backends: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    detected: bool = True

    def as_json(self) -> dict[str, Any]:
        """The device as results.json keeps it."""
        kept = asdict(self)
        kept["supports"], kept["native"] = sorted(self.supports), sorted(self.native)
        return kept


@dataclass(frozen=True)
class Found:
    """What a device kind found out about this machine. A value that could not be read is absent."""

    kind: str
    profile: str
    model: str
    memory_mb: int
    cores: int
    native: frozenset[str]
    power_mode: str | None = None
    facts: Mapping[str, str] = field(default_factory=dict)


class DeviceKind(Protocol):
    """One kind of hardware, one file in `targets/devices/`."""

    name: str
    rank: int
    """Kinds are asked in ascending rank; the first that finds itself is the device."""

    def detect(self, root: Path) -> Found | None:
        """What this machine is, read below `root` (`/`, or a recorded tree in tests); None if it is not this kind."""
        ...


class Task(Protocol):
    """What is asked: the shape of request and answer, and how an answer is scored. One file in `targets/tasks/`.

    This is what every task has; an encoder's task is an `EncoderTask` (targets/encoding.py), a generator's a
    `GeneratorTask` (targets/generation.py). Scoring goes through tallies: each example yields a small vector of counts;
    scores are functions of their sum. Slices, confidence intervals and the total so come from one pass.
    """

    name: str
    family: str
    """"encoder", "seq2seq" or "causal": how the model answers, and so which laws and metrics it has."""
    head: str
    """The Auto class suffix, for example "SequenceClassification"."""
    architectures: tuple[str, ...]
    """How the class names of its models end, as `architectures` in config.json has them."""
    primary: str
    """The score that limits and contracts speak of."""
    scores: tuple[Score, ...]

    def read(self, path: Path) -> list[Example]:
        """Examples from a file in one of the task's formats. Raises UserError with file and line."""
        ...

    def ask(self, text: str) -> Request:
        """A request made of any one text."""
        ...

    def match_labels(self, data: Sequence[str], model: Sequence[str]) -> dict[str, str]:
        """Map each label of the model to the data's name for it. Raises UserError that shows both sides."""
        ...

    def relabel(self, answer: Answer, names: Mapping[str, str]) -> Answer:
        """The answer with the model's labels replaced by the data's."""
        ...

    def labels_of(self, examples: Sequence[Example]) -> tuple[str, ...]:
        """The label names that occur in the gold answers, sorted; empty for tasks without labels."""
        ...

    def tally(self, gold: Any, answer: Answer, labels: Sequence[str]) -> tuple[float, ...]:
        """The counts that one example adds to the scores."""
        ...

    def totals_to_scores(self, totals: Floats) -> dict[str, Floats]:
        """Scores from summed tallies of shape (..., k); each score has shape (...)."""
        ...

    def same(self, left: Answer, right: Answer) -> bool:
        """Whether two answers say the same (label, entities, span, text), whatever their scores."""
        ...

    def problems(self, request: Request, answer: Answer) -> list[str]:
        """Which laws of a well-formed answer this one breaks, each a sentence; empty when it is well-formed."""
        ...


@dataclass(frozen=True)
class ModelFiles:
    """A provisioned model: a local directory in Hugging Face layout with safetensors weights.

    `digest` is the sha256 over its files, and keys every artifact made from it. `format`: "safetensors"; "gguf", where
    `path` is the file; or the name of the backend that serves it ("ollama", "openai"), where `name` is what it is
    called there and `path` means nothing.
    """

    name: str
    path: Path
    digest: str
    source: str
    trust_pickle: bool = False
    format: str = "safetensors"


@runtime_checkable
class Runner(Protocol):
    """A loaded target; a context manager. `run` returns only when the device is idle."""

    def run(self, batch: Sequence[Request], tick: Tick = no_tick) -> list[Answer]:
        """Answer a batch, in order."""
        ...

    def logits(self, batch: Sequence[Request]) -> list[list[Floats]]:
        """The raw outputs per request: one float array per row and head, cut to the row's real tokens.

        Of a causal model: one array (tokens of the prompt, vocabulary), row i being the logits after token i. Raises
        Unsupported where the engine does not give them.
        """
        ...

    def evidence(self) -> Evidence:
        """What was asked for and what really runs."""
        ...

    @property
    def labels(self) -> Labels:
        """The model's id2label; empty for generators."""
        ...

    def close(self) -> None:
        """Give every resource back."""
        ...

    def __enter__(self) -> Runner: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@dataclass(frozen=True)
class Evidence:
    """Proof of engagement: for each fact asked for, what was found in the loaded target.

    `requested` and `actual` have the same keys (for example device, dtype, provider). `details` is free.
    """

    requested: Mapping[str, str]
    actual: Mapping[str, str]
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def mismatches(self) -> list[str]:
        """One sentence for each fact that is not as requested."""
        return [
            f"{key}: asked for {wanted}, got {self.actual.get(key, 'nothing')}"
            for key, wanted in self.requested.items()
            if self.actual.get(key) != wanted
        ]


class Backend(Protocol):
    """An engine; one file in `targets/backends/`. Frameworks are imported inside the methods only."""

    name: str
    requires: tuple[Requirement, ...]
    tasks: frozenset[str]
    formats: frozenset[str]
    """The model formats it loads, or makes its artifact from (see ModelFiles)."""
    preload: tuple[str, ...]
    """Modules that the fork server imports once, so that a start costs no import."""

    def build(self, model: ModelFiles, task: Task, optimization: Optimization, device: Device, cache: Path) -> Path:
        """Make (or find in `cache`) the artifact that `load` reads; the model's own directory if none is needed.

        Runs in a process of its own, so that its memory and time are not the case's.
        """
        ...

    def load(self, model: ModelFiles, artifact: Path, task: Task, optimization: Optimization, device: Device) -> Runner:
        """Load the artifact. Raises Unavailable if this machine cannot run it, UserError if the files are bad."""
        ...
