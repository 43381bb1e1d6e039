from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.journal import RunLock
from suites.meta.runs import ROOT, data, limits, model

Make = Callable[[Path], list[str]]
"""Makes what is bad in a folder, and gives the options that ask for it."""


def options(*words: str) -> Make:
    return lambda _: list(words)


def data_file(name: str, content: str) -> Make:
    def make(folder: Path) -> list[str]:
        (folder / name).write_text(content)
        task = {".conll": "ner", ".json": "qa"}.get(Path(name).suffix, "sentiment")
        return [f"--model={task}={folder / 'tiny'}", f"--data={task}={folder / name}"]

    return make


def model_folder(change: Callable[[Path], object]) -> Make:
    def make(folder: Path) -> list[str]:
        broken = model(folder / "broken")
        change(broken)
        return [f"--model=sentiment={broken}"]

    return make


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def truncated(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-2])


def gguf(content: bytes) -> Make:
    def make(folder: Path) -> list[str]:
        (folder / "cut.gguf").write_bytes(content)
        return ["--task=generation", f"--gguf={folder / 'cut.gguf'}"]

    return make


def thresholds(body: str) -> Make:
    return lambda folder: [f"--thresholds={limits(folder / 'bad.yaml', body)}"]


def locked(folder: Path) -> list[str]:
    (folder / "build").mkdir()
    holders.append(RunLock(folder / "build"))
    return ["--backend=fake", "--targets=suites.meta.fake", f"--model=sentiment={folder / 'tiny'}"]


holders: list[RunLock] = []
LINE = '    - {cases: "sentiment/*/*/*", source: measured, %s}\n'

BAD: dict[str, tuple[Make, str]] = {
    "unknown task": (options("--task=sentimant"), r"unknown task 'sentimant'\. Did you mean 'sentiment'"),
    "unknown backend": (options("--backend=onnxruntim"), r"unknown backend .* Did you mean 'onnxruntime'"),
    "unknown optimization": (options("--optimization=int9"), r"unknown optimization .* Did you mean 'int8'"),
    "unknown device": (options("--device=jetson-orin-nona"), r"unknown device .* Did you mean 'jetson-orin-nano'"),
    "unknown model source": (options("--models=embeded"), r"--models embeded: should be embedded, architecture, hub"),
    "unknown model": (options("--model=sentiment=./no/such/folder"), r"no such folder.*Hugging Face Hub"),
    "unknown task of a model": (options("--model=sentimant=x"), r"unknown task 'sentimant'"),
    "model without a task": (options("--model=somewhere"), r"should be --model TASK=DIR_OR_HUB_ID"),
    "two models for a task": (options("--model=ner=a", "--model=ner=b"), r"--model ner is given twice"),
    "undeclared combination": (
        options("--backend=onnxruntime", "--optimization=torchscript"),
        r"torchscript is not declared for onnxruntime; it applies to huggingface",
    ),
    "optimization of another device": (
        options("--optimization=fp32,segfault", "--backend=huggingface", "--targets=suites.meta.fake"),
        r"segfault is not declared for huggingface; it applies to absent, fake",
    ),
    "missing extra": (
        options("--backend=absent", "--targets=suites.meta.fake"),
        r"absent needs a_module_that_nobody_has, which is not installed: pip install '\.\[absent\]'",
    ),
    "missing plugin": (options("--targets=suites.meta.nowhere"), r"--targets suites\.meta\.nowhere: no such module"),
    "missing data": (options("--data=sentiment=nowhere.tsv"), r"nowhere\.tsv does not exist"),
    "a folder as data": (options("--data=sentiment=suites"), r"suites is a folder; a file is needed"),
    "missing thresholds": (options("--thresholds=nowhere.yaml"), r"nowhere\.yaml does not exist"),
    "data of no selected task": (
        lambda folder: ["--task=ner", f"--data=sentiment={data(folder / 'good.tsv')}"],
        r"given for sentiment, but no case of sentiment is selected",
    ),
    "empty data": (data_file("empty.tsv", ""), r"empty\.tsv: (the file is empty|no example)"),
    "only a header": (data_file("head.tsv", "text\tlabel\n"), r"head\.tsv: no example below the header"),
    "too many columns": (data_file("wide.tsv", "good\tpositive\nbad\tnegative\tx\n"), r"wide\.tsv:2: 3 columns"),
    "broken jsonl": (data_file("x.jsonl", '{"text": "a", "label": "positive"}\n{"text":\n'), r"x\.jsonl:2: "),
    "broken conll": (data_file("x.conll", "Ann B-PER\nlives O\nthere\n"), r"x\.conll:3: 1 column"),
    "broken squad": (data_file("x.json", '{"data": [\n{"paragraphs": \n'), r"x\.json:\d+: "),
    "label mismatch": (
        data_file("joy.tsv", "good\tjoyful\nbad\tangry\n"),
        r"labels do not match: the data has angry, joyful; the model has negative, positive",
    ),
    "no example asked for": (options("--samples=0"), r"--samples 0: at least 1"),
    "no time to measure": (options("--budget=0"), r"--budget 0: should be a number of seconds above 0, such as 10"),
    "time without end": (options("--budget=inf"), r"--budget inf: should be a number of seconds above 0"),
    "time that is no number": (options("--budget=nan"), r"--budget nan: should be a number of seconds above 0"),
    "no time to answer": (options("--call-timeout=0"), r"--call-timeout 0: must be above 0"),
    "model without weights": (model_folder(lambda at: (at / "model.safetensors").unlink()), r"broken: no weights"),
    "model without tokenizer": (model_folder(lambda at: (at / "tokenizer.json").unlink()), r"broken: no tokenizer"),
    "model without config": (model_folder(lambda at: (at / "config.json").unlink()), r"broken: no config\.json"),
    "truncated weights": (model_folder(truncated), r"truncated weights: .*model\.safetensors has \d+ bytes"),
    "pickled weights": (model_folder(pickled), r"pickle format refused: pytorch_model\.bin .* --trust-pickle"),
    "threshold of an unknown metric": (thresholds(LINE % "latency_m: {p95_max: 5}"), r"bad\.yaml:4: .*'latency_ms'"),
    "threshold of an unknown statistic": (thresholds(LINE % "latency_ms: {p96_max: 5}"), r"bad\.yaml:4: .*p96"),
    "threshold that is no number": (thresholds(LINE % "latency_ms: {p95_max: fast}"), r"bad\.yaml:4: .*fast"),
    "threshold without a source": (
        thresholds('    - {cases: "*/*/*/*", accuracy: {min: 1}}\n'),
        r"bad\.yaml:4: .*source",
    ),
    "pattern that matches nothing": (
        thresholds('    - {cases: "sentiment/*/*/fp31", source: measured, accuracy: {min: 1}}\n'),
        r"bad\.yaml:4: .*sentiment/\*/\*/fp31",
    ),
    "no token asked for": (options("--max-tokens=0"), r"--max-tokens 0: should be 1 or more"),
    "no context asked for": (options("--context=3"), r"--context 3: should be 16 or more"),
    "a url without a scheme": (options("--ollama-url=localhost:11434"), r"should begin with http:// or https://"),
    "a served model without a server": (options("--openai-model=x"), r"--openai-model is given without --openai-url"),
    "a server that is not there": (
        options("--openai-url=http://127.0.0.1:9/v1"),
        r"http://127\.0\.0\.1:9.*(refused|no server|cannot be reached)",
    ),
    "missing GGUF": (options("--task=generation", "--gguf=nowhere.gguf"), r"nowhere\.gguf.*no such file"),
    "no GGUF": (options("--task=generation", "--gguf=README.md"), r"README\.md.*not a GGUF"),
    "truncated GGUF": (gguf(b"GGUF\x03\x00\x00\x00"), r"truncated GGUF: .*cut\.gguf has 8 bytes"),
    "empty prompt": (options("--task=generation", "--prompt= "), r"prompt.*empty"),
    "missing prompts": (options("--task=generation", "--prompts=nowhere.txt"), r"nowhere\.txt.*(no such|not exist)"),
    "build folder that cannot be": (options("--build=/dev/null/build"), r"/dev/null/build cannot be written"),
    "disk without room": (options("--targets=suites.meta.full_disk"), r"has 1 MB free and a run needs 200"),
    "a folder in use": (locked, r"another run \(process \d+\) is using .*build; wait for it"),
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, Path]]:
    """Exit code, output and folder of a run on each bad input."""
    jobs, folders = [], {}
    for name, (make, _) in BAD.items():
        folder = folders[name] = tmp_path_factory.mktemp("bad")
        model(folder / "tiny")
        jobs.append([str(folder / "log"), [f"--build={folder / 'build'}", *make(folder)]])
        (folder / "build" / "allure-results").mkdir(parents=True, exist_ok=True)
        (folder / "build" / "allure-results" / "earlier").touch()
    done = subprocess.run(
        [sys.executable, "-m", "suites.meta.batch"],
        cwd=ROOT,
        input=json.dumps(jobs),
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    for holder in holders:
        holder.release()
    codes = json.loads(done.stdout)
    return {
        name: (code, (folder / "log").read_text(), folder)
        for code, (name, folder) in zip(codes, folders.items(), strict=True)
    }


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_sentence(outcomes: dict[str, tuple[int, str, Path]], name: str) -> None:
    """Bad input ends the run at once with a code that is not 0 and one line that says what is wrong; no traceback."""
    code, output, _ = outcomes[name]
    lines = [line for line in output.splitlines() if line.strip()]
    assert code == pytest.ExitCode.USAGE_ERROR, output
    assert len(lines) == 1, output
    assert lines[0].startswith("ERROR: ")
    assert re.search(BAD[name][1], lines[0]), lines[0]


@pytest.mark.parametrize("name", BAD)
def test_bad_input_destroys_nothing(outcomes: dict[str, tuple[int, str, Path]], name: str) -> None:
    """A refused run leaves the results of an earlier one as they were."""
    folder = outcomes[name][2] / "build"
    assert (folder / "allure-results" / "earlier").exists()
    assert not (folder / "results.json").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes into read-only folders")
def test_a_read_only_build_folder(tmp_path: Path) -> None:
    """A build folder without the right to write is refused in one sentence."""
    tmp_path.chmod(0o500)
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--build={tmp_path / 'build'}"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode != 0
    assert "cannot be written (Permission denied)" in done.stderr
