"""llama.cpp's own server, started on a free port and spoken to by its native protocol, which tells token ids."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from targets.api import Device, Evidence, ModelFiles, Requirement, Runner, Task, Unavailable
from targets.generation import ContextOverflow, Decoding, as_generator
from targets.gguf.file import inspect
from targets.gguf.model import gguf_file
from targets.llama.programs import PROGRAMS, program
from targets.llama.proof import proof
from targets.llama.settings import LlamaSettings
from targets.optimization import Optimization
from targets.registry import backends
from targets.remote.client import CutOff, Garbled, HttpClient, Refused
from targets.remote.generator import Content, RemoteGenerator, Reply, Ticks
from targets.remote.process import ServerProcess, free_port

NAME = "llama-server"
START_S = 300.0
SLOTS = 4
"""Requests answered at a time, each with a context of its own, unless the profile's `n_parallel` says otherwise."""
CACHE_TYPES = {0: "f32", 1: "f16", 2: "q4_0", 3: "q4_1", 6: "q5_0", 7: "q5_1", 8: "q8_0", 20: "iq4_nl", 30: "bf16"}
"""ggml's numbers (ggml.h) of the types that a KV cache can have."""
FIELDS = ["content", "tokens", "tokens_predicted", "tokens_evaluated", "stop", "stop_type", "timings"]


class LlamaServer:
    """llama-server, as found below LLAMA_CPP_DIR or on PATH."""

    name = NAME
    requires: tuple[Requirement, ...] = (Requirement(NAME, PROGRAMS, find=lambda: program(NAME)),)
    tasks = frozenset({"generation", "chat"})
    formats = frozenset({"safetensors", "gguf"})
    preload: tuple[str, ...] = ()

    def build(self, model: ModelFiles, task: Task, optimization: Optimization, device: Device, cache: Path) -> Path:
        """The GGUF file."""
        return gguf_file(model, optimization, cache)

    def load(self, model: ModelFiles, artifact: Path, task: Task, optimization: Optimization, device: Device) -> Runner:
        """Start the server and wait until it has loaded the model."""
        found = program(NAME)
        if found is None:
            raise Unavailable(f"no {NAME} is found: {PROGRAMS}")
        info = inspect(artifact)
        settings = LlamaSettings.of(info, optimization, device)
        limits = device.backends.get("llama_cpp", {})
        slots = int(limits.get("n_parallel", min(SLOTS, device.max_batch)))
        port = free_port()
        process = ServerProcess(NAME, [found, *arguments(artifact, port, settings, slots)])
        client = HttpClient(f"http://127.0.0.1:{port}", timeout_s=float(limits.get("timeout_s", 60)))
        with ExitStack() as undo:
            undo.callback(process.stop)
            undo.callback(client.close)
            started_s = process.wait(client, "/health", START_S)
            undo.pop_all()

        def proved() -> tuple[dict[str, tuple[str, str]], dict[str, Any]]:
            facts, details = proof(info, settings, optimization, process.log, NAME)
            return facts, {**details, "slots": slots, "start_s": round(started_s, 3)}

        engine = NativeEngine(client, settings.context, proved)
        return RemoteGenerator(as_generator(task), engine, process=process)


def arguments(file: Path, port: int, settings: LlamaSettings, slots: int) -> list[str]:
    """The command line: one context a slot, no cache of prompts, no pages, nothing fetched.

    Raises:
        ValueError: an option that the server does not have.
    """
    options = dict(settings.options)
    types = {name: options.pop(name) for name in ("type_k", "type_v") if name in options}
    if options:
        raise ValueError(f"llama-server is not told of {', '.join(sorted(options))}")
    found = ["--model", str(file), "--host", "127.0.0.1", "--port", str(port)]
    found += ["--threads", str(settings.threads), "--threads-batch", str(settings.threads)]
    found += ["--n-gpu-layers", "all" if settings.gpu_layers < 0 else str(settings.gpu_layers)]
    found += ["--ctx-size", str(settings.context * slots), "--parallel", str(slots), "--no-kv-unified"]
    found += ["--batch-size", str(settings.batch), "--flash-attn", "on" if settings.flash_attention else "off"]
    for name, number in types.items():
        found += [f"--cache-type-{name[-1]}", CACHE_TYPES[int(number)]]
    found += ["--no-cache-prompt", "--cache-ram", "0", "--fit", "off", "--jinja", "--no-ui", "--offline"]
    return [*found, "--log-verbosity", "4"]  # at 4 it says how many layers went to the GPU


class NativeEngine:
    """The server's own routes: /completion, /tokenize, /apply-template."""

    at_once = None

    def __init__(
        self, client: HttpClient, context: int, proof: Callable[[], tuple[dict[str, tuple[str, str]], dict[str, Any]]]
    ) -> None:
        self.client = client
        self.context = context
        self._proof = proof
        self._reused = 0
        self._timings: dict[str, Any] = {}

    def ask(self, content: Content, decoding: Decoding, ticks: Ticks | None) -> Reply:
        """One answer, streamed where there are ticks; ids that a timed stream has not told are asked for once more."""
        body = {
            "prompt": self._prompt(content),
            "n_predict": decoding.max_tokens,
            "ignore_eos": decoding.ignore_eos,
            "stop": list(decoding.stop),
            "cache_prompt": False,
            "return_tokens": True,
            "response_fields": FIELDS,
            **sampling(decoding),
        }
        try:
            if ticks is None:
                return self._whole(body)
            reply = self._streamed(body, ticks)
            if reply.token_ids is None and ticks.text is None:
                whole = self._whole(body)
                reply = replace(reply, token_ids=whole.token_ids) if whole.text == reply.text else reply
            return reply
        except Refused as refusal:
            raise self._overflow(refusal, decoding.max_tokens) or refusal from None

    def count(self, content: Content) -> int:
        """Tokens of a prompt or chat."""
        return len(self.tokens(content))

    def tokens(self, content: Content) -> list[int]:
        """The ids that the server reads, as /completion makes them of a text."""
        body = {"content": self._prompt(content), "add_special": True, "parse_special": True}
        found: list[int] = self.client.post("/tokenize", body)["tokens"]
        return found

    def evidence(self) -> Evidence:
        """The file that the server names, what its log says of the GPU, and whether it has reused a prefix."""
        props = self.client.get("/props")
        facts, details = self._proof()
        slot = int(props["default_generation_settings"]["n_ctx"])  # rounded up to 256; we keep to what was asked for
        facts |= {
            "model": (str(details["file"]), Path(props["model_path"]).name),
            "context": (str(self.context), str(min(self.context, slot))),
            "reused prompt tokens": ("0", str(self._reused)),
        }
        return Evidence(
            {name: wanted for name, (wanted, _) in facts.items()},
            {name: found for name, (_, found) in facts.items()},
            {**details, "build": props.get("build_info"), "context": self.context, "last timings": self._timings},
        )

    def close(self) -> None:
        """Close connections."""
        self.client.close()

    def _prompt(self, content: Content) -> str:
        if isinstance(content, str):
            return content
        prompt: str = self.client.post("/apply-template", {"messages": [dict(turn) for turn in content]})["prompt"]
        return prompt

    def _whole(self, body: dict[str, Any]) -> Reply:
        found = self.client.post("/completion", body)
        return self._reply(found, found["content"], found["tokens"])

    def _streamed(self, body: dict[str, Any], ticks: Ticks) -> Reply:
        """Events carry one token each, but none comes for a token that does not complete a character: no ids then."""
        text: list[str] = []
        ids: list[int] = []
        with closing(self.client.lines("/completion", {**body, "stream": True})) as lines:
            for line in lines:
                if not line.startswith(b"data: "):
                    self._no_error(line)
                    continue
                event = json.loads(line[6:])
                if event["stop"]:
                    reply = self._reply(event, "".join(text), ids)
                    ticks.upto(reply.output_tokens)
                    return reply
                text.append(event["content"])
                ids += event["tokens"]
                ticks.upto(event["tokens_predicted"] - (not event["content"]))  # an end token has no text
                ticks.heard(text)
        raise CutOff(f"{self.client.url}/completion: the stream ended before the answer did")

    def _reply(self, last: dict[str, Any], text: str, ids: list[int]) -> Reply:
        self._timings = last["timings"]
        self._reused = max(self._reused, self._timings.get("cache_n", 0))
        count, ended = last["tokens_predicted"], last["stop_type"] == "eos"
        told = len(ids) == count
        return Reply(
            text=text.rstrip("\N{REPLACEMENT CHARACTER}") if last["stop_type"] == "limit" else text,
            output_tokens=count - ended,
            tokens=last["tokens_evaluated"],
            finish="length" if last["stop_type"] == "limit" else "stop",
            token_ids=(ids[:-1] if ended else ids) if told else None,
        )

    def _no_error(self, line: bytes) -> None:
        if line.startswith(b"error: "):
            raise Garbled(f"{self.client.url}/completion: the server reports {line[7:300].decode(errors='replace')}")

    def _overflow(self, refusal: Refused, output: int) -> ContextOverflow | None:
        size = re.search(r"request \((\d+) tokens\) exceeds", refusal.told)
        return ContextOverflow.of(int(size[1]), output, self.context) if size else None


def sampling(decoding: Decoding) -> dict[str, Any]:
    """Nothing but temperature and top_p: the server's own defaults would also cut by top_k and min_p."""
    if decoding.greedy:
        return {"temperature": 0, "top_k": 1}
    return {
        "temperature": decoding.temperature,
        "top_p": decoding.top_p,
        "top_k": 0,
        "min_p": 0,
        "seed": decoding.seed,
    }


backends.register(NAME)(LlamaServer())
