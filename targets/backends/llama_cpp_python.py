"""llama.cpp inside Python: GGUF files by llama-cpp-python."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from targets.api import (
    Answer,
    Device,
    Evidence,
    Floats,
    Labels,
    ModelFiles,
    Request,
    Requirement,
    Runner,
    Task,
    Tick,
    no_tick,
)
from targets.chat import fit
from targets.closing import Closing
from targets.generation import (
    ContextOverflow,
    Decoding,
    GeneratorTask,
    Message,
    Say,
    answer,
    as_generator,
    cut_at_stop,
)
from targets.gguf.file import check, inspect
from targets.gguf.model import DEFAULT_TYPE, INSTALL, gguf_file
from targets.growing_text import GrowingText
from targets.llama.engine import LlamaEngine, text_of
from targets.llama.evidence import evidence
from targets.llama.load import load
from targets.llama.settings import LlamaSettings
from targets.llama.template import Template
from targets.optimization import Optimization
from targets.registry import backends


class LlamaCppPython:
    """GGUF files in this process, one request after another."""

    name = "llama-cpp-python"
    requires: tuple[Requirement, ...] = (Requirement("llama_cpp", INSTALL), Requirement("gguf", INSTALL))
    tasks = frozenset({"generation", "chat"})
    formats = frozenset({"safetensors", "gguf"})
    preload: tuple[str, ...] = ("llama_cpp", "gguf")
    one_by_one = True
    """A batch is answered one request after another: whoever gathers requests gains nothing here."""

    def build(self, model: ModelFiles, task: Task, optimization: Optimization, device: Device, cache: Path) -> Path:
        """The GGUF file: the user's own, or the model's folder converted and quantized."""
        made = gguf_file(model, optimization, cache)
        check(made)
        return made

    def load(self, model: ModelFiles, artifact: Path, task: Task, optimization: Optimization, device: Device) -> Runner:
        """One context; its settings are the profile's, changed by the optimization."""
        task, info = as_generator(task), inspect(artifact)
        settings = LlamaSettings.of(info, optimization, device)
        engine = load(artifact, settings)
        template = Template.of(engine.llm, artifact) if task.chat else None
        level = info.file_type if model.format == "gguf" else optimization.gguf_type or DEFAULT_TYPE
        return LlamaRunner(task, engine, template, lambda: evidence(info, settings, engine, level))


class LlamaRunner(Closing):
    """A loaded model that answers requests one after another; nothing of an earlier one is reused."""

    def __init__(
        self, task: GeneratorTask, engine: LlamaEngine, template: Template | None, proof: Callable[[], Evidence]
    ) -> None:
        self.task = task
        self.engine = engine
        self.labels: Labels = {}
        self._template = template
        self._evidence = proof
        self._open = True

    def run(self, batch: Sequence[Request], tick: Tick = no_tick) -> list[Answer]:
        """Answer a batch, in order."""
        return [self._answer(request, tick) for request in batch]

    @property
    def context(self) -> int | None:
        """Tokens that the context was made for."""
        return self.engine.context

    def stream(self, request: Request, say: Say, tick: Tick = no_tick) -> Answer:
        """Answer one request, and say its text while it comes."""
        text = GrowingText(say, Decoding.of(request, self.task.max_tokens).stop)
        made = self._answer(request, tick, text)
        text.end(made["text"])
        return made

    def tokens(self, request: Request) -> list[int]:
        """The ids of the prompt as the model reads them."""
        return self._prompt(request, self._room(request))[0]

    def logits(self, batch: Sequence[Request]) -> list[list[Floats]]:
        """For each request the logits after each token of its prompt, (tokens, vocabulary)."""
        return [[self.engine.score(self._prompt(request, self._room(request))[0])] for request in batch]

    def evidence(self) -> Evidence:
        """What was asked for and what really runs."""
        return self._evidence()

    def close(self) -> None:
        """Free the model; a second call does nothing."""
        if self._open:
            self._open = False
            self.engine.close()
            gc.collect()

    def _answer(self, request: Request, tick: Tick, text: GrowingText | None = None) -> Answer:
        asked = Decoding.of(request, self.task.max_tokens)
        prompt, dropped = self._prompt(request, asked.max_tokens)
        ids: list[int] = []
        said = bytearray()
        finish = "length"
        with closing(self.engine.stream(prompt, asked)) as tokens:
            for token in tokens:
                if token in self.engine.ends:
                    finish = "stop"
                    break
                ids.append(token)
                tick()
                said += self.engine.piece(token)
                if text is not None:
                    text.upto(text_of(said))
                if asked.stop and cut_at_stop(text_of(said), asked.stop)[1]:
                    finish = "stop"
                    break
                if len(ids) == asked.max_tokens:
                    break
        kept, _ = cut_at_stop(text_of(said), asked.stop)
        return answer(kept, ids, output_tokens=len(ids), tokens=len(prompt), finish=finish, dropped_turns=dropped)

    def _room(self, request: Request) -> int:
        """Tokens to leave room for where nothing is to be generated: a chat is cut as it would be for its answer."""
        return Decoding.of(request, self.task.max_tokens).max_tokens if self._template else 0

    def _prompt(self, request: Request, output: int) -> tuple[list[int], int]:
        """The ids of the prompt, with room for `output` tokens, and how many turns of a chat were dropped for that."""
        context = self.engine.context
        if self._template is None:
            ids = self.engine.tokenize(self.task.prompt(request))
            if len(ids) + output > context:
                raise ContextOverflow.of(len(ids), output, context)
            return ids, 0
        template = self._template

        def read(messages: Sequence[Message]) -> list[int]:
            return self.engine.tokenize(template.render(messages), whole=False)

        kept, dropped = fit(self.task.messages(request), lambda messages: len(read(messages)), output, context)
        return read(kept), dropped


backends.register("llama-cpp-python")(LlamaCppPython())
