from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest

from suites.meta.engine_kit import PATIENCE_S, Lines, echo, engine, played
from suites.meta.odd_engine import NAME
from targets import model_files
from targets.registry import backends, optimizations, tasks
from targets.server.engine.engine import (
    Engine,
    EngineBusyStarting,
    EngineDied,
    TargetFailed,
    TargetRefused,
    UpstreamFailed,
)
from targets.server.engine.orders import here
from targets.server.settings import ServedTask, Settings

pytestmark = pytest.mark.usefixtures("short_pauses")


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
    ("deed", "error", "message"),
    [
        ("refuse", TargetRefused, "this text is refused; ask for something else"),
        ("fail", TargetFailed, "the target fails"),
        ("object", TargetFailed, "not JSON serializable"),
        ("nan", TargetFailed, "not JSON compliant"),
        ("trouble", UpstreamFailed, "did not answer within"),
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


def test_much_printing_stops_nothing(tmp_path: Path) -> None:
    """A target that prints more than a pipe holds still answers."""

    async def play(subject: Engine, _: Lines) -> None:
        assert (await echo(subject, "chatter"))["text"] == "chatter"

    played(play, engine(tmp_path))


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
