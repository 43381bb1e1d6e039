"""The vocabulary of the suite: what a task, a backend, an optimization, a device and a runner are.

Nothing here imports a framework, so that cases can be collected in milliseconds. Requests and answers are plain
JSON-ready mappings: the same objects travel through pipes, into `answers.jsonl`, and over HTTP.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Request: TypeAlias = Mapping[str, Any]
"""What is asked, in the task's own keys: `{"text": str}`, or `{"question": str, "context": str}`."""

Answer: TypeAlias = Mapping[str, Any]
"""What came back. Every answer has `tokens` (int, tokens the model read) and `truncated` (bool)."""

Tick: TypeAlias = Callable[[], None]
"""Called once per produced token, so that the harness owns the clock. Encoders never call it."""

Labels: TypeAlias = Mapping[int, str]
"""A model's `id2label`."""

Floats: TypeAlias = NDArray[np.floating[Any]]


def no_tick() -> None:
    """The tick of a task that produces no tokens."""


class UserError(Exception):
    """Bad input, told in one sentence: what was wrong, what was allowed, what to do."""


class Unavailable(Exception):
    """This cell exists, but this machine cannot run it; the message says why and how to get it."""


@dataclass(frozen=True)
class Example:
    """One labelled request. `gold` is the task's own truth; `slices` name the groups it is reported in."""

    id: str
    request: Request
    gold: Any
    slices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Requirement:
    """An importable module that something needs, and the command that installs it."""

    module: str
    install: str


@dataclass(frozen=True)
class Score:
    """A quality metric of a task in [0, 1]. `higher_is_better` is its direction."""

    name: str
    higher_is_better: bool = True


@dataclass(frozen=True)
class Device:
    """Detected hardware joined with its profile from `fixtures/devices.yaml`.

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


class Tokenizer(Protocol):
    """The part of a Hugging Face fast tokenizer that tasks use."""

    model_max_length: int
    model_input_names: list[str]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """A BatchEncoding; see transformers.PreTrainedTokenizerFast.__call__."""
        ...


@dataclass(frozen=True)
class Encoded:
    """A batch ready for a model.

    `features`: int64 arrays (rows, sequence length) by model input name, `attention_mask` among them. `owner`: for each
    row, the index of its request (question answering cuts one request into several rows). `tokens` and `truncated`: per
    request. `rows`: what the tokenizer knows of each row (tokenizers.Encoding), for tasks that quote the text.
    """

    features: Mapping[str, NDArray[np.int64]]
    owner: Sequence[int]
    tokens: Sequence[int]
    truncated: Sequence[bool]
    rows: Sequence[Any]


class Task(Protocol):
    """What is asked: the shape of request and answer, and how an answer is scored. One file in `targets/tasks/`.

    Scoring goes through tallies: each example yields a small vector of counts; scores are functions of their sum.
    Slices, confidence intervals and the total so come from one pass.
    """

    name: str
    head: str
    """The Auto class suffix, for example "SequenceClassification"."""
    primary: str
    """The score that limits and contracts speak of."""
    scores: tuple[Score, ...]
    fields: tuple[str, ...]
    """The keys of a request, each a string; the last one is the one that may be long."""
    per_token: bool
    """Whether each output has one row of numbers per token (else one per input row)."""

    def read(self, path: Path) -> list[Example]:
        """Examples from a file in one of the task's formats. Raises UserError with file and line."""
        ...

    def encode(self, tokenizer: Tokenizer, requests: Sequence[Request]) -> Encoded:
        """Tokenize a batch; longer inputs than the model reads are cut by tokens and say so, or windowed."""
        ...

    def decode(
        self, outputs: Sequence[Floats], encoded: Encoded, requests: Sequence[Request], labels: Labels
    ) -> list[Answer]:
        """Turn the model's outputs (one array a head, each (rows, ...)) into one answer per request, in order."""
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
        """Whether two answers say the same (label, entities, span), whatever their scores."""
        ...

    def problems(self, request: Request, answer: Answer) -> list[str]:
        """Which laws of a well-formed answer this one breaks, each a sentence; empty when it is well-formed."""
        ...


@dataclass(frozen=True)
class ModelFiles:
    """A provisioned model: a local directory in Hugging Face layout with safetensors weights.

    `digest` is the sha256 over its files, and keys every artifact made from it.
    """

    name: str
    path: Path
    digest: str
    source: str
    trust_pickle: bool = False


@runtime_checkable
class Runner(Protocol):
    """A loaded target; a context manager. `run` returns only when the device is idle."""

    def run(self, batch: Sequence[Request], tick: Tick = no_tick) -> list[Answer]:
        """Answer a batch, in order."""
        ...

    def logits(self, batch: Sequence[Request]) -> list[list[Floats]]:
        """The raw outputs per request: one float array per row and head, cut to the row's real tokens."""
        ...

    def evidence(self) -> Evidence:
        """What was asked for and what really runs."""
        ...

    @property
    def labels(self) -> Labels:
        """The model's id2label."""
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


@dataclass(frozen=True, kw_only=True)
class Optimization(abc.ABC):
    """A technique: a name, where it applies, and what it may cost by its own contract. One file each.

    `needs`: names that must be in the device's `supports`. `dtype`: the number format it computes in, which the device
    must have natively. `kinds`: the device kinds it exists on (empty: all).
    `max_drop`: the largest allowed loss of the primary score against the FP32 reference, absolute.
    `min_agreement`: the smallest allowed share of examples answered as the reference does.
    `logit_tolerance`: the largest allowed absolute difference of a logit from the reference's; None where the technique
    changes the arithmetic and only the contract above holds.
    """

    name: str
    group: str
    summary: str
    backends: frozenset[str]
    max_drop: float
    min_agreement: float
    logit_tolerance: float | None = None
    needs: frozenset[str] = frozenset()
    dtype: str = "float32"
    kinds: frozenset[str] = frozenset()

    def unavailable(self, device: Device) -> str | None:
        """Why this technique cannot run on the device, or None."""
        missing = self.needs - device.supports
        if missing:
            return f"{self.name} needs {', '.join(sorted(missing))}, which {device.name} does not offer"
        if self.dtype not in device.native:
            return f"{device.model} does not compute {self.dtype} natively (it has {', '.join(sorted(device.native))})"
        return None

    @property
    def weights_dtype(self) -> str:
        """The format that unconverted weights are loaded in."""
        return self.dtype if self.dtype in ("float16", "bfloat16") else "float32"

    def torch_place(self, device: Device) -> str:
        """The torch device type it runs on."""
        return device.torch_device

    def torch_options(self, device: Device) -> dict[str, Any]:
        """Extra arguments for `from_pretrained`."""
        return {}

    def rewrite_torch(self, model: Any, features: Mapping[str, Any]) -> Any:
        """The loaded PyTorch module, changed. `features`: example inputs as tensors on the module's device."""
        return model

    def torch_proof(self, module: Any) -> dict[str, tuple[str, str]]:
        """Facts that show the technique at work in a module that has run: name to (wanted, found)."""
        dtypes = {str(parameter.dtype).removeprefix("torch.") for parameter in module.parameters()}
        return {"dtype": (self.weights_dtype, "+".join(sorted(dtypes)))}

    def release_torch(self) -> None:  # noqa: B027 - most techniques leave nothing behind
        """Give back what a rewritten module leaves in the process when it is dropped."""

    def convert_onnx(self, source: Path, target: Path, device: Device) -> None:
        """Write `target/model.onnx` from `source/model.onnx` (both are directories)."""
        raise NotImplementedError(f"{self.name} makes no ONNX artifact")

    @property
    def converts_onnx(self) -> bool:
        """Whether this technique makes another ONNX artifact than the plain export."""
        return type(self).convert_onnx is not Optimization.convert_onnx

    def onnx_provider(self, device: Device) -> str | None:
        """The execution provider it insists on; None leaves it to the device profile."""
        return None

    def onnx_proof(self, operators: Mapping[str, int]) -> dict[str, tuple[str, str]]:
        """Facts that show the technique in an ONNX file, from its operator counts: name to (wanted, found)."""
        return {}
