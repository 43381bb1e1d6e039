from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from suites.meta.odd_engine import NAME, PLAIN, SILENT
from targets import model_files
from targets.api import Unavailable, UserError
from targets.registry import backends, optimizations, tasks
from targets.server.engine import engine as engine_module
from targets.server.engine.engine import Engine, EngineBusyStarting, EngineDied, TargetFailed, TargetRefused
from targets.server.engine.orders import here
from targets.server.settings import ServedTask, Settings

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0


class Lines:
    """What an engine logged."""

    def __init__(self) -> None:
        self.all: list[dict[str, Any]] = []

    def __call__(self, event: str, /, **facts: Any) -> None:
        self.all.append({"event": event, **facts})

    def of(self, event: str) -> list[dict[str, Any]]:
        """The facts of one kind of event."""
        return [line for line in self.all if line["event"] == event]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "FIRST_PAUSE_S", 0.01)


def settings(folder: Path, **changes: Any) -> Settings:
    """A server of the odd engine, whose artifacts lie in `folder`."""
    tasks = {task: ServedTask(task, NAME, PLAIN) for task in ("sentiment", "generation")}
    return Settings(tasks=tasks, artifacts=folder, targets=("suites.meta.odd_engine",), **changes)


def engine(folder: Path, task: str = "sentiment", optimization: str = PLAIN, **changes: Any) -> tuple[Engine, Lines]:
    log = Lines()
    return Engine(ServedTask(task, NAME, optimization), settings(folder, **changes), log=log), log


def played(play: Callable[[Engine, Lines], Awaitable[None]], made: tuple[Engine, Lines]) -> None:
    """Run `play` with the started engine, and close it."""

    async def whole() -> None:
        subject, log = made
        await subject.start()
        try:
            await asyncio.wait_for(play(subject, log), PATIENCE_S)
        finally:
            await subject.close()

    asyncio.run(whole())


async def echo(subject: Engine, text: str) -> dict[str, Any]:
    (answer,) = await subject.run([{"text": text}])
    return dict(answer)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what nothing announces, such as the end of another's process."""
    while not condition():
        await asyncio.sleep(0.01)


def gone(pid: int) -> bool:
    """Whether a process has ended (one that nobody has waited for yet counts as ended)."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def test_an_engine_answers_in_a_process_of_its_own(tmp_path: Path) -> None:
    """Answers come in the order of the batch, from the process whose id the engine tells."""

    async def play(subject: Engine, _: Lines) -> None:
        answers = await subject.run([{"text": text} for text in ("one", "two words", "three")])
        assert [answer["text"] for answer in answers] == ["one", "two words", "three"]
        assert {answer["pid"] for answer in answers} == {subject.pid}
        assert subject.pid != os.getpid()
        assert 0 < subject.last_timing.run_s < PATIENCE_S

    played(play, engine(tmp_path))


def test_an_engine_tells_what_it_has_loaded(tmp_path: Path) -> None:
    """The facts name task, model, digest, labels and threads; before the start there are none."""
    made, log = engine(tmp_path)
    with pytest.raises(EngineBusyStarting, match="the engine of sentiment is starting"):
        _ = made.facts

    async def play(subject: Engine, _: Lines) -> None:
        facts = subject.facts
        assert (facts.task, facts.model, facts.backend, facts.family) == ("sentiment", "embedded", NAME, "encoder")
        assert len(facts.digest) == 64
        assert facts.labels == {0: "odd", 1: "even"}
        assert facts.threads == 1
        assert facts.load_s > 0
        assert subject.state == "ready"

    played(play, (made, log))


def test_what_is_not_as_asked_for_is_logged(tmp_path: Path) -> None:
    """Evidence that something else runs than was asked for becomes a log line at the start."""

    async def play(subject: Engine, log: Lines) -> None:
        (line,) = log.of("engine_not_as_asked")
        assert line["mismatches"] == ["oddness: asked for odd, got even"]

    played(play, engine(tmp_path))


def test_the_identity_changes_with_everything_that_answers_depend_on(tmp_path: Path) -> None:
    """Engines of another task, model, backend, optimization or version have another identity."""

    async def play(subject: Engine, _: Lines) -> None:
        facts = subject.facts
        others = [
            replace(facts, task="other"),
            replace(facts, digest="other"),
            replace(facts, backend="other"),
            replace(facts, optimization="other"),
            replace(facts, versions={"torch": "other"}),
        ]
        assert len({each.identity for each in (facts, *others)}) == 1 + len(others)
        assert replace(facts, load_s=1e9).identity == facts.identity

    played(play, engine(tmp_path))


def test_calls_at_once_do_not_cross(tmp_path: Path) -> None:
    """Of many calls at once each gets its own answers."""

    async def play(subject: Engine, _: Lines) -> None:
        texts = [[f"text {call} {place}" for place in range(1 + call % 3)] for call in range(40)]
        found = await asyncio.gather(*(subject.run([{"text": text} for text in batch]) for batch in texts))
        assert [[answer["text"] for answer in answers] for answers in found] == texts

    played(play, engine(tmp_path))


@pytest.mark.parametrize(
    ("deed", "reason"), [("kill", "signal SIGKILL"), ("crash", "signal SIGSEGV"), ("leave", "exit code 7")]
)
def test_a_death_is_for_its_own_requests_only(tmp_path: Path, deed: str, reason: str) -> None:
    """A process that dies fails the call it has, is replaced by another, and leaves one line that says why."""

    async def play(subject: Engine, log: Lines) -> None:
        before = subject.pid
        with pytest.raises(EngineDied, match="the engine of sentiment died"):
            await echo(subject, deed)
        with pytest.raises(EngineBusyStarting, match="the engine of sentiment is restarting"):
            await echo(subject, "too early")
        assert await subject.wait_ready(PATIENCE_S)
        assert (await echo(subject, "again"))["pid"] == subject.pid != before
        assert subject.restarts == 1
        (line,) = log.of("engine_died")
        assert line["reason"].startswith(reason)
        assert (line["task"], line["pid"]) == ("sentiment", before)
        assert len(log.of("engine_restarted")) == 1

    played(play, engine(tmp_path))


def test_a_death_while_idle_is_noticed(tmp_path: Path) -> None:
    """A process that is killed while it has nothing to do is replaced without any request."""

    async def play(subject: Engine, log: Lines) -> None:
        assert subject.pid is not None
        os.kill(subject.pid, signal.SIGKILL)
        await until(lambda: subject.restarts == 1)
        assert (await echo(subject, "fine"))["text"] == "fine"

    played(play, engine(tmp_path))


def test_who_waits_for_a_turn_is_told_of_the_death(tmp_path: Path) -> None:
    """Calls that wait behind one that kills the process are not lost: each gets an answer or hears of the restart."""

    async def play(subject: Engine, _: Lines) -> None:
        texts = ["first", "kill", *("later" for _ in range(5))]
        found = await asyncio.gather(*(echo(subject, text) for text in texts), return_exceptions=True)
        assert isinstance(found[0], dict)
        assert isinstance(found[1], EngineDied)
        (waited,) = [each for each in found[2:] if isinstance(each, EngineDied)]
        assert not waited.begun, "it was at the process, and had not been begun"
        assert sum(isinstance(each, EngineBusyStarting) for each in found[2:]) == 4

    played(play, engine(tmp_path))


def test_a_hang_is_ended(tmp_path: Path) -> None:
    """A process without a sign of life is ended after `hang_s`, and the line says where it stood."""

    async def play(subject: Engine, log: Lines) -> None:
        with pytest.raises(EngineDied):
            await echo(subject, "hang")
        assert await subject.wait_ready(PATIENCE_S)
        (line,) = log.of("engine_died")
        assert line["reason"] == "no sign of life for 0.3 s"
        assert "odd_engine.py" in line["said"]

    played(play, engine(tmp_path, hang_s=0.3))


def test_a_frozen_process_is_ended(tmp_path: Path) -> None:
    """A process that was stopped (SIGSTOP) while it had a request is ended as one that hangs."""

    async def play(subject: Engine, log: Lines) -> None:
        assert subject.pid is not None
        os.kill(subject.pid, signal.SIGSTOP)
        with pytest.raises(EngineDied):
            await echo(subject, "anything")
        assert await subject.wait_ready(PATIENCE_S)
        assert log.of("engine_died")[0]["reason"] == "no sign of life for 0.3 s"

    played(play, engine(tmp_path, hang_s=0.3))


def test_tokens_are_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A generator that takes longer than `hang_s` for an answer is left alone as long as tokens come."""

    async def play(subject: Engine, _: Lines) -> None:
        (answer,) = await subject.run([{"prompt": "endless", "max_tokens": 600}])  # 3 s at least
        assert answer["output_tokens"] == 600
        assert subject.restarts == 0

    played(play, engine(tmp_path, "generation", hang_s=2.0))


@pytest.mark.parametrize(
    ("deed", "error", "message"),
    [
        ("refuse", TargetRefused, "this text is refused; ask for something else"),
        ("fail", TargetFailed, "the target fails"),
        ("object", TargetFailed, "not JSON serializable"),
    ],
)
def test_an_error_of_the_target_is_no_death(tmp_path: Path, deed: str, error: type[Exception], message: str) -> None:
    """What a target raises is told as refusal or failure, and the same process answers the next call."""

    async def play(subject: Engine, _: Lines) -> None:
        before = subject.pid
        with pytest.raises(error, match=message):
            await echo(subject, deed)
        assert (await echo(subject, "fine"))["pid"] == before

    played(play, engine(tmp_path))


def test_texts_of_users_are_not_logged(tmp_path: Path) -> None:
    """A failure is logged with its kind and place, and without its message, which may quote the request."""

    async def play(subject: Engine, log: Lines) -> None:
        with pytest.raises(TargetFailed):
            await echo(subject, "fail on private words")
        (line,) = log.of("target_failed")
        assert line["kind"] == "ValueError"
        assert line["where"][-1].startswith("odd_engine.py:")
        with pytest.raises(EngineDied):
            await echo(subject, "kill private words")
        assert await subject.wait_ready(PATIENCE_S)
        assert log.of("engine_died")
        assert "private" not in str(log.all)

    played(play, engine(tmp_path))


def test_a_process_whose_gpu_is_spoiled_is_replaced(tmp_path: Path) -> None:
    """After an error of CUDA that no call recovers from, the call fails and another process takes over."""

    async def play(subject: Engine, log: Lines) -> None:
        before = subject.pid
        with pytest.raises(TargetFailed, match="CUDA error"):
            await echo(subject, "spoil")
        await until(lambda: subject.restarts == 1)
        assert (await echo(subject, "fine"))["pid"] != before
        assert "GPU" in log.of("engine_died")[0]["reason"]

    played(play, engine(tmp_path))


def test_much_printing_stops_nothing(tmp_path: Path) -> None:
    """A target that prints more than a pipe holds still answers."""

    async def play(subject: Engine, _: Lines) -> None:
        assert (await echo(subject, "chatter"))["text"] == "chatter"

    played(play, engine(tmp_path))


def test_pauses_before_restarts_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as it cannot be loaded again each pause is twice the last, up to the longest; then it serves again."""
    monkeypatch.setattr(engine_module, "LONGEST_PAUSE_S", 0.05)

    async def play(subject: Engine, log: Lines) -> None:
        (tmp_path / "deed").write_text("fail")
        with pytest.raises(EngineDied):
            await echo(subject, "kill")
        await until(lambda: len(log.of("engine_not_restarted")) == 4)
        (tmp_path / "deed").unlink()
        assert await subject.wait_ready(PATIENCE_S)
        pauses = [line["restart_in_s"] for line in log.all if "restart_in_s" in line]
        assert pauses[:5] == [0.01, 0.02, 0.04, 0.05, 0.05]
        assert subject.restarts == 1

    played(play, engine(tmp_path))


@pytest.mark.parametrize(
    ("deed", "error", "message"),
    [
        ("refuse", UserError, "this text is refused"),
        ("unavailable", Unavailable, "this machine has no such thing"),
        ("fail", TargetFailed, "ValueError: the target fails"),
        ("leave", EngineDied, r"did not start: exit code 7; it said: odd: no more"),
        ("hang", EngineDied, r"did not start: no sign of life for 0.5 s"),
    ],
)
def test_a_start_that_fails_says_why(tmp_path: Path, deed: str, error: type[Exception], message: str) -> None:
    """A target that cannot be loaded fails the start with its reason, and leaves no process behind."""
    (tmp_path / "deed").write_text(deed)

    async def whole() -> None:
        subject, _ = engine(tmp_path, start_s=0.5 if deed == "hang" else PATIENCE_S)
        await warm(tmp_path)
        before = workers()
        with pytest.raises(error, match=message):
            await subject.start()
        assert subject.state == "stopped"
        assert workers() == before
        await subject.close()

    asyncio.run(whole())


async def warm(folder: Path) -> None:
    """The fork server has imported what it imports: that is no engine's time."""
    (folder / "warm").mkdir()
    subject, _ = engine(folder / "warm")
    await subject.start()
    await subject.close()


def workers() -> set[int]:
    """Processes below this one, the fork server and multiprocessing's tracker not among them."""
    below = psutil.Process().children(recursive=True)
    return {each.pid for each in below if each.ppid() != os.getpid()}


def test_a_model_for_another_task_is_refused(tmp_path: Path) -> None:
    """A folder that holds another kind of model fails the start with the kinds that the task takes."""
    folder = str(ROOT / "fixtures/zoo/ner")
    subject = Engine(ServedTask("sentiment", NAME, PLAIN, folder), settings(tmp_path), log=Lines())
    with pytest.raises(UserError, match=r"is a DistilBertForTokenClassification; sentiment needs"):
        asyncio.run(subject.start())


def test_closing_leaves_nothing_behind(tmp_path: Path) -> None:
    """After `close` neither the process nor a helper that its target started is alive, and calls are refused."""
    pids: list[int] = []

    async def play(subject: Engine, _: Lines) -> None:
        answer = await echo(subject, "helper")
        pids.extend((answer["pid"], int(answer["text"])))
        assert not any(map(gone, pids))
        await subject.close()
        assert subject.state == "stopped"
        with pytest.raises(EngineBusyStarting, match="stopped"):
            await echo(subject, "too late")
        await until(lambda: all(map(gone, pids)))

    played(play, engine(tmp_path))


def test_closing_ends_what_is_running(tmp_path: Path) -> None:
    """A call that has not come back when the engine is closed hears that the process ended."""

    async def play(subject: Engine, _: Lines) -> None:
        call = asyncio.create_task(echo(subject, "hang"))
        await asyncio.sleep(0)  # it has been sent
        await subject.close()
        with pytest.raises(EngineDied):
            await call

    played(play, engine(tmp_path))


def test_closing_between_death_and_restart_leaves_nothing_open(tmp_path: Path) -> None:
    """An engine that is closed while it restarts has closed every socket when `close` returns."""

    async def play(subject: Engine, _: Lines) -> None:
        before = psutil.Process().num_fds()
        assert subject.pid is not None
        os.kill(subject.pid, signal.SIGKILL)
        await until(lambda: subject.state == "restarting")
        await subject.close()
        assert psutil.Process().num_fds() < before

    played(play, engine(tmp_path))


def test_signals_to_the_whole_group_are_not_for_the_engine(tmp_path: Path) -> None:
    """SIGTERM and SIGINT do not end an engine: it is for the server to end it, when its work is done."""

    async def play(subject: Engine, _: Lines) -> None:
        assert subject.pid is not None
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(subject.pid, number)
            assert (await echo(subject, "fine"))["pid"] == subject.pid
        assert subject.restarts == 0

    played(play, engine(tmp_path))


ORPHAN = """
import asyncio, os, sys
from pathlib import Path
from suites.meta.test_server_engine import engine
async def main():
    subject, _ = engine(Path(sys.argv[1]))
    await subject.start()
    print(subject.pid, (await subject.run([{"text": "helper"}]))[0]["text"], flush=True)
    if sys.argv[2] == "left":
        return
    if sys.argv[2] == "busy":
        asyncio.create_task(subject.run([{"text": "hang"}]))
        await asyncio.sleep(0)
    await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.mark.parametrize("state", ["idle", "busy", "left"])
def test_an_engine_dies_with_its_server(tmp_path: Path, state: str) -> None:
    """When the server is killed, or leaves without a word, an engine ends with its helpers, even a busy one."""
    command = [sys.executable, "-c", ORPHAN, str(tmp_path), state]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        pids = [int(word) for word in server.stdout.readline().split()]
        assert len(pids) == 2
        if state != "left":
            server.kill()
    asyncio.run(asyncio.wait_for(until(lambda: all(map(gone, pids))), PATIENCE_S))


async def taken(subject: Engine, prompt: str, most: int) -> list[Any]:
    """What a stream gives, closed after so many items."""
    found: list[Any] = []
    async with aclosing(subject.stream({"prompt": prompt})) as stream:
        async for item in stream:
            found.append(item)
            if len(found) == most:
                break
    return found


async def count(subject: Engine) -> int:
    """How many words the target has ever written."""
    (answer,) = await subject.run([{"prompt": "count"}])
    return int(answer["text"])


def test_a_stream_gives_pieces_and_then_the_answer(tmp_path: Path) -> None:
    """Pieces come in order, and joined they are the text of the answer that comes last."""

    async def play(subject: Engine, _: Lines) -> None:
        *pieces, answer = await taken(subject, "a b c d", 100)
        assert pieces == ["a ", "b ", "c ", "d "]
        assert answer["text"] == "".join(pieces)

    played(play, engine(tmp_path, "generation"))


def test_a_stream_left_early_stops_the_target(tmp_path: Path) -> None:
    """A stream that is closed ends in the process within a few tokens, and the same process serves the next call."""

    async def play(subject: Engine, _: Lines) -> None:
        before = subject.pid
        base = await count(subject)
        assert await taken(subject, "endless", 3) == ["endless "] * 3
        said = await count(subject) - base
        assert 3 <= said < 100
        assert subject.pid == before

    played(play, engine(tmp_path, "generation"))


def test_a_call_that_is_cancelled_stops_the_generator(tmp_path: Path) -> None:
    """When the caller of `run` is cancelled, the target stops at its next token, and the next call is served."""

    async def play(subject: Engine, _: Lines) -> None:
        call: asyncio.Task[Any] = asyncio.create_task(_run(subject, "endless"))
        await asyncio.sleep(0)  # it has been sent
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await count(subject) >= 0
        assert subject.restarts == 0

    played(play, engine(tmp_path, "generation"))


async def _run(subject: Engine, prompt: str) -> Any:
    return await subject.run([{"prompt": prompt}])


def test_a_target_that_does_not_stream_says_so(tmp_path: Path) -> None:
    """Streaming from a target that cannot is refused with what to do, and it still answers whole."""

    async def play(subject: Engine, _: Lines) -> None:
        assert not subject.facts.streams
        with pytest.raises(TargetRefused, match="odd does not stream generation: ask without streaming"):
            await taken(subject, "a b", 100)
        (answer,) = await subject.run([{"prompt": "a b"}])
        assert answer["text"] == "a b "

    played(play, engine(tmp_path, "generation", SILENT))


def test_a_death_ends_a_stream(tmp_path: Path) -> None:
    """A stream whose process dies ends with EngineDied, not silently."""

    async def play(subject: Engine, _: Lines) -> None:
        async def read() -> None:
            async with aclosing(subject.stream({"prompt": "endless"})) as stream:
                async for _ in stream:
                    os.kill(subject.pid or 0, signal.SIGKILL)

        with pytest.raises(EngineDied):
            await read()
        assert await subject.wait_ready(PATIENCE_S)

    played(play, engine(tmp_path, "generation"))


def test_a_stream_and_batches_take_turns(tmp_path: Path) -> None:
    """Streams and batches that are asked for at once are all answered, each with its own text."""

    async def play(subject: Engine, _: Lines) -> None:
        calls: list[Coroutine[Any, Any, Any]] = [taken(subject, f"s{number} x", 9) for number in range(4)]
        calls += [_run(subject, f"r{number} x") for number in range(4)]
        found = await asyncio.gather(*calls)
        assert [items[-1]["text"] for items in found] == [f"{kind}{number} x " for kind in "sr" for number in range(4)]

    played(play, engine(tmp_path, "generation"))


def test_an_encoder_answers_as_its_runner(tmp_path: Path) -> None:
    """The embedded sentiment model says through an engine what its runner says in this process."""
    pytest.importorskip("optimum.onnxruntime")
    served = ServedTask("sentiment", "onnxruntime", "fp32")
    told = Settings(tasks={"sentiment": served}, artifacts=tmp_path)
    requests = [{"text": text} for text in ("I love it.", "It broke after a day, awful.", "Fine, as said.")]

    async def play(subject: Engine, _: Lines) -> None:
        found = await subject.run(requests)
        assert subject.last_timing.tokenize_s is not None
        assert 0 < subject.last_timing.tokenize_s < subject.last_timing.run_s
        assert subject.facts.evidence is not None
        assert not subject.facts.evidence.mismatches
        backend, technique, task = backends["onnxruntime"], optimizations["fp32"], tasks["sentiment"]
        files = model_files.of_folder("sentiment", "embedded", told.models / "sentiment", "path")
        artifact = backend.build(files, task, technique, here(), tmp_path)
        with backend.load(files, artifact, task, technique, replace(here(), threads=1)) as runner:
            assert found == runner.run(requests)

    played(play, (Engine(served, told, log=Lines()), Lines()))


def test_a_process_that_ends_at_once_is_told(tmp_path: Path) -> None:
    """A process that cannot even begin, for it is to import what is not there, fails the start with its last words."""
    told = replace(settings(tmp_path), targets=("suites.meta.odd_engine", "no_such_module_of_mine"))
    subject = Engine(ServedTask("sentiment", NAME, PLAIN), told, log=Lines())
    with pytest.raises(EngineDied, match=r"did not start: exit code 1; it said: .*no_such_module_of_mine"):
        asyncio.run(subject.start())
