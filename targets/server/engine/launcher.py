"""Starting engine processes: forks of one process that has imported the heavy libraries once.

multiprocessing's fork server answers each start after its imports only, seconds after the first, so it is asked from a
thread. That thread lives as long as this process: the kernel ends the fork server when the thread that started it ends.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess

from targets.availability import importable
from targets.environment import environment
from targets.server.engine.worker import Order, serve

ENVIRONMENT: Mapping[str, str] = {
    "HF_HUB_OFFLINE": "1",  # what is served lies on the disk
    "TRANSFORMERS_VERBOSITY": "error",
    "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin while they wait take the cores from the other engines
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
}
_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="launcher")


@dataclass(frozen=True)
class Started:
    """A process, our end of its channel, and where its prints come from."""

    process: ForkServerProcess
    control: socket.socket
    said: socket.socket


async def start(order: Order, preload: Iterable[str]) -> Started:
    """A new process that serves the order; the first start of all takes as long as the imports."""
    loop = asyncio.get_running_loop()
    future = _thread.submit(_start, order, tuple(preload))
    try:
        return await asyncio.shield(asyncio.wrap_future(future, loop=loop))
    except asyncio.CancelledError:
        future.add_done_callback(_discard)
        raise


def _start(order: Order, preload: tuple[str, ...]) -> Started:
    context = multiprocessing.get_context("forkserver")
    modules = [name for name in dict.fromkeys(preload) if importable(name)]
    context.set_forkserver_preload(
        [*modules, "targets.server.engine.worker", *order.targets, "targets.server.engine.preloaded"]
    )
    control, theirs = socket.socketpair()
    said, their_said = socket.socketpair()
    process = context.Process(target=serve, args=(theirs, their_said, order), daemon=True, name=f"engine-{order.task}")
    try:
        with environment(ENVIRONMENT), theirs, their_said:
            process.start()
    except BaseException:  # out of memory or descriptors
        control.close()
        said.close()
        raise
    return Started(process, control, said)


def _discard(future: Future[Started]) -> None:
    """Nobody waits for it any more."""
    if not future.cancelled() and future.exception() is None:
        started = future.result()
        started.process.kill()
        started.control.close()
        started.said.close()
