"""What happens inside an engine's process: it prepares or loads one target, and does one job after another.

A job comes as `{"job": number, "do": name, ...}` and is answered by `{"job": number, "done": {...}}`, `"failed"` or
`"cancelled"`. Before that, a stream sends its pieces, and every generator a sign of life each second. While a job runs,
the server may send `{"cancel": number}`.
"""

from __future__ import annotations

import faulthandler
import fcntl
import gc
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from targets import model_files
from targets.api import Device, ModelFiles, Request, Runner, Task, Unavailable, Unsupported, UserError, no_tick
from targets.artifacts import size_mb
from targets.generation import GeneratorTask
from targets.process_end import follow_parent
from targets.registry import backends, import_plugins, optimizations, tasks
from targets.remote.client import Refused, ServerTrouble
from targets.remote.process import ServerDied
from targets.server.engine.wire import Channel, Message

WEIGHTS = (".safetensors", ".gguf", ".bin", ".onnx", ".onnx_data")
SIGN_S = 1.0
"""How often a generator tells that it still produces tokens."""
WARM_TOKENS = 4
LOCK = ".building"
REQUESTS_FAULT = (400, 413, 422)
"""Statuses by which a server that we ask says that the request is at fault."""
STICKY = ("cuda error", "cublas_status", "cudnn_status", "device-side assert")
"""After these a process cannot use its GPU again (CUDA programming guide: errors of a context are sticky)."""


@dataclass(frozen=True)
class Order:
    """What a worker is for. `model`: a folder or a GGUF file; `name`: what it is called."""

    task: str
    backend: str
    optimization: str
    name: str
    model: Path
    device: Device
    artifacts: Path
    targets: tuple[str, ...] = ()


class Cancelled(Exception):
    """The server no longer wants the job."""


@dataclass
class Worker:
    """The state of an engine's process."""

    order: Order
    channel: Channel
    runner: Runner | None = None
    job: int = 0
    signed: float = 0.0
    unwanted: int = 0
    """The job that was cancelled last."""
    _listening: threading.Lock = field(default_factory=threading.Lock)

    @property
    def task(self) -> Task:
        """The task served."""
        return tasks[self.order.task]

    @property
    def target(self) -> Runner:
        """The loaded runner."""
        if self.runner is None:
            raise RuntimeError("nothing is loaded in this process")
        return self.runner

    def prepare(self) -> Message:
        """Check the model and make its artifact, or find it; one process at a time builds into a folder."""
        order = self.order
        is_file = order.model.is_file()
        files = (
            model_files.of_gguf(order.name, order.model, "path")
            if is_file
            else model_files.of_folder(order.task, order.name, order.model, "path")
        )
        with locked(order.artifacts):
            made = backends[order.backend].build(
                files, self.task, optimizations[order.optimization], order.device, order.artifacts
            )
        found = {**asdict(files), "path": str(files.path)}
        return {"files": found, "artifact": str(made), "size_mb": size_mb(made, WEIGHTS)}

    def load(self, files: dict[str, Any], artifact: str, threads: int, prove: bool) -> Message:
        """Load the target, and answer once: the first call pays for lazy work."""
        order = self.order
        device = of_its_own(order.device, threads)
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(order.artifacts / "inductor")
        began = time.perf_counter()
        self.runner = backends[order.backend].load(
            ModelFiles(**{**files, "path": Path(files["path"])}),
            Path(artifact),
            self.task,
            optimizations[order.optimization],
            device,
        )
        warm = {"max_tokens": WARM_TOKENS} if isinstance(self.task, GeneratorTask) else {}
        self.runner.run([{**self.task.ask("Hello."), **warm}])
        load_s = time.perf_counter() - began
        proof = asdict(self.runner.evidence()) if prove else None
        gc.collect()
        gc.freeze()
        labels = {str(number): label for number, label in self.runner.labels.items()}
        told = {"context": getattr(self.runner, "context", None), "streams": hasattr(self.runner, "stream")}
        return {"labels": labels, "load_s": load_s, "evidence": proof, **told}

    def run(self, batch: list[Request]) -> Message:
        """Answer one batch."""
        tick = self.alive if isinstance(self.task, GeneratorTask) else no_tick
        began = time.perf_counter()
        answers = self.target.run(batch, tick)
        run_s = time.perf_counter() - began
        return {"answers": answers, "run_s": run_s, "tokenize_s": getattr(self.target, "tokenize_s", None)}

    def stream(self, request: Request) -> Message:
        """Answer one request, piece by piece."""
        if not hasattr(self.target, "stream"):
            raise UserError(f"{self.order.backend} does not stream {self.order.task}: ask without streaming")
        began = time.perf_counter()
        answer = self.target.stream(request, self.say, self.alive)
        return {"answers": [answer], "run_s": time.perf_counter() - began, "tokenize_s": None}

    def say(self, piece: str) -> None:
        """Send a piece of the answer."""
        self.channel.send({"job": self.job, "piece": piece})

    def alive(self) -> None:
        """A token has come, in any thread: listen, and tell now and then. Raises Cancelled in each that asks."""
        with self._listening:
            while (message := self.channel.glance()) is not None:
                self.unwanted = message.get("cancel", self.unwanted)
            if self.unwanted == self.job:
                raise Cancelled
            now = time.monotonic()
            if now - self.signed >= SIGN_S:
                self.signed = now
                self.channel.send({"job": self.job, "alive": True})

    def outcome(self, message: Message) -> Message:
        """Do a job, and say how it went."""
        self.job, self.signed = message.pop("job"), time.monotonic()
        try:
            return {"job": self.job, "done": JOBS[message.pop("do")](self, **message)}
        except Cancelled:
            return {"job": self.job, "cancelled": True}
        except BaseException as error:  # the process's boundary: whatever happens in a target is told
            traceback.print_tb(error.__traceback__)  # without its message, which may quote a request
            return {"job": self.job, "failed": failure(error)}


JOBS: dict[str, Callable[..., Message]] = {
    "prepare": Worker.prepare,
    "load": Worker.load,
    "run": Worker.run,
    "stream": Worker.stream,
}


def serve(control: socket.socket, said: socket.socket, order: Order) -> None:
    """The main function of an engine's process."""
    os.setsid()  # helpers that a target starts die with our group
    follow_parent()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # sent to a whole group of processes: the server ends us in its time
    redirect(said)
    worker = Worker(order, Channel(control))
    import_plugins(order.targets)
    while (message := worker.channel.receive()) is not None:
        if "cancel" in message:
            continue  # it came after the job was done
        reply = worker.outcome(message)
        try:
            worker.channel.send(reply)
        except (TypeError, ValueError) as error:  # an answer that JSON cannot hold, such as a score of NaN
            worker.channel.send({"job": worker.job, "failed": failure(error)})
        except OSError:
            break
    if worker.runner is not None:
        worker.runner.close()


def failure(error: BaseException) -> Message:
    """An exception as it travels.

    `refused`: it is the request's fault. `upstream`: that of a server which this process asks. `spoiled`: why this
    process is of no more use.
    """
    message = str(error)
    upstream = isinstance(error, ServerTrouble) and not (isinstance(error, Refused) and error.status in REQUESTS_FAULT)
    spoiled = "an error of the GPU, after which this process cannot use it"
    if isinstance(error, ServerDied):
        spoiled = "the server that it had started has ended"
    elif not any(sign in message.lower() for sign in STICKY):
        spoiled = ""
    return {
        "kind": type(error).__name__,
        "message": message,
        "refused": isinstance(error, (UserError, Unsupported)) and not upstream,
        "upstream": upstream,
        "unavailable": isinstance(error, Unavailable),
        "died": isinstance(error, ServerDied),
        "spoiled": spoiled,
        "where": [f"{Path(frame.filename).name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)],
    }


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time: replicas and tasks may share the folder, and builds take much memory."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("w")
    except OSError:  # a read-only folder: what is there can be used, and nothing can be built
        yield
        return
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def of_its_own(device: Device, threads: int) -> Device:
    """The device as this engine may use it, and every thread pool told so before it starts."""
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if threads > 1 else "false"
    os.environ["RAYON_NUM_THREADS"] = str(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    onnxruntime = {**device.backends.get("onnxruntime", {}), "spinning": False}
    return replace(device, threads=threads, backends={**device.backends, "onnxruntime": onnxruntime})


def redirect(said: socket.socket) -> None:
    """Everything this process prints, native code included, goes to the server; crashes write their stack there."""
    os.dup2(said.fileno(), 1)
    os.dup2(said.fileno(), 2)
    said.close()
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115 - lives as long as the process
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    faulthandler.enable(sys.stderr)
    faulthandler.register(signal.SIGUSR1, sys.stderr)
