from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import pytest

from targets.api import UserError
from targets.registry import tasks
from targets.server import menu, options
from targets.server.settings import Batching, Limits, ServedTask, Settings, parse

SAMPLES = {
    "N": ("1024", 1024),
    "X": ("1.5", 1.5),
    "true|false": ("true", True),
    "STORE": ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
    "DIR": ("some/folder", Path("some/folder")),
    "NAME": ("a-name", "a-name"),
    "NAME,...": ("one,two", ("one", "two")),
    "TEXT": ("some text", "some text"),
    "WORD": ("debug", "debug"),
}
"""By the place-holder of a reader: text that it takes, and the value."""


def sample(option: options.Option, folder: Path) -> tuple[str, Any]:
    """Text for an option, and the value that it stands for."""
    if option.read.metavar == "FILE":
        (folder / "key").write_text("secret")
        return str(folder / "key"), folder / "key"
    return SAMPLES[option.read.metavar]


def test_without_a_word_every_task_is_served_with_its_embedded_model() -> None:
    """The defaults serve all seven tasks, on this machine only, without a key or an origin let in."""
    found = parse([], {})
    assert sorted(found.tasks) == sorted(tasks)
    assert {served.model for served in found.tasks.values()} == {"embedded"}
    assert (found.host, found.port, found.api_key_file, found.cors_origins) == ("127.0.0.1", 8000, None, ())
    assert (found.batching, found.limits) == (Batching(), Limits())


def test_settings_are_inert(tmp_path: Path) -> None:
    """Reading settings makes no folder and no file, and what is read cannot be changed."""
    found = parse(["--artifacts", str(tmp_path / "made")], {})
    assert not list(tmp_path.iterdir())
    with pytest.raises(FrozenInstanceError):
        found.port = 1  # type: ignore[misc]


@pytest.mark.parametrize("option", options.table().values(), ids=lambda option: option.name)
def test_an_option_has_three_spellings(option: options.Option, tmp_path: Path) -> None:
    """On the command line, in the environment and in a file an option means the same."""
    raw, value = sample(option, tmp_path)
    file = tmp_path / "server.yaml"
    file.write_text(f"{option.name}: {raw}\n")
    assert options.read([f"--{option.name}", raw], {}) == {option.field: value}
    assert options.read([], {option.variable: raw}) == {option.field: value}
    assert options.read(["--config", str(file)], {}) == {option.field: value}
    assert options.read([], {"EDGE_NLP_CONFIG": str(file)}) == {option.field: value}


def test_every_setting_has_an_option() -> None:
    """No field can be set in code only: each one of the settings has its option, and each option its use."""
    settable = {each.name for kind in (Settings, Batching, Limits) for each in fields(kind)}
    general = {option.field for option in options.GENERAL}
    assert settable - {"batching", "limits"} == general - {"backend", "optimization"}


def test_the_nearer_word_counts(tmp_path: Path) -> None:
    """The command line wins over the environment, that over the file, that over the defaults, each value by itself."""
    file = tmp_path / "server.yaml"
    file.write_text("port: 1\nmax-queue: 1\nmax-texts: 1\ncache: off\n")
    environ = {"EDGE_NLP_PORT": "2", "EDGE_NLP_MAX_QUEUE": "2", "PATH": "/bin"}
    found = parse(["--config", str(file), "--port", "3"], environ)
    assert (found.port, found.batching.max_queue, found.limits.max_texts, found.cache) == (3, 2, 1, "off")
    assert found.limits.deadline_s == Limits().deadline_s


def test_a_file_may_gather_what_belongs_to_a_task(tmp_path: Path) -> None:
    """A mapping below the name of a task holds that task's options, a list stands for names, underscores for dashes."""
    file = tmp_path / "server.yaml"
    file.write_text(
        "tasks: [sentiment, qa]\nqa: {backend: huggingface, optimization: int8}\nmax_wait_ms: 0.5\n"
        "enable-monitoring: true\ncors-origins: ['http://a.example', 'http://b.example']\n"
    )
    found = parse(["--config", str(file)], {})
    assert sorted(found.tasks) == ["qa", "sentiment"]
    assert found.tasks["qa"] == ServedTask("qa", "huggingface", "int8", "embedded")
    assert (found.batching.max_wait_ms, found.enable_monitoring) == (0.5, True)
    assert found.cors_origins == ("http://a.example", "http://b.example")


@pytest.mark.parametrize(
    ("argv", "environ", "sentence"),
    [
        (["--port", "99999"], {}, "--port '99999': should be a whole number from 0 to 65535"),
        (["--port", "x"], {}, "--port 'x': should be a whole number from 0 to 65535"),
        (["--threads", "0"], {}, "--threads '0': should be a whole number, 1 or more"),
        (["--deadline-s", "nan"], {}, "--deadline-s 'nan': should be a number, 0.001 or more"),
        (["--shutdown-s", "-1"], {}, "--shutdown-s '-1': should be a number, 0 or more"),
        (["--host", "a b"], {}, "--host 'a b': should be a name without spaces and commas"),
        (["--cache", "disk"], {}, "--cache 'disk': should be memory, off, or the address of a Redis"),
        (["--api-key-file", "none"], {}, "--api-key-file 'none': should be a file that exists"),
        (["--log-level", "loud"], {}, "--log-level 'loud': should be one of debug, info, warning, error"),
        (["--tasks", "qa,qa"], {}, "--tasks 'qa,qa': should be one or more names separated by commas, each once"),
        (["--prot", "1"], {}, "unrecognized arguments: --prot 1; see --help"),
        (["--max-q", "1"], {}, "unrecognized arguments: --max-q 1; see --help"),
        (["--config", "none.yaml"], {}, "none.yaml: no such file"),
        ([], {"EDGE_NLP_PORT": "tcp://10.0.0.1:80"}, "EDGE_NLP_PORT 'tcp://10.0.0.1:80': should be a whole number"),
        ([], {"EDGE_NLP_PROT": "1"}, "unknown environment variable EDGE_NLP_PROT. Did you mean 'EDGE_NLP_PORT'?"),
        ([], {"EDGE_NLP_ENABLE_MONITORING": "maybe"}, "EDGE_NLP_ENABLE_MONITORING 'maybe': should be true or false"),
        (["--tasks", "sentiment,q"], {}, "unknown task 'q'. Did you mean 'qa'?"),
        (["--backend", "onxruntime"], {}, "unknown backend 'onxruntime'. Did you mean 'onnxruntime'?"),
        (["--optimization", "int9"], {}, "unknown optimization 'int9'. Did you mean 'int8'?"),
        (["--targets", "no.such"], {}, "--targets no.such: no such module"),
        (["--sentiment-model", "none"], {}, "--sentiment-model none: no such folder or .gguf file; give one, or embed"),
        (["--tasks", "qa", "--ner-backend", "huggingface"], {}, "--ner-... is given, but --tasks leaves ner out"),
        (["--backend", "llama-cpp-python"], {}, "llama-cpp-python does not serve ner from a model in the format safe"),
        (["--qa-backend", "huggingface", "--qa-optimization", "q4_0"], {}, "huggingface with q4_0 does not serve qa"),
    ],
)
def test_bad_input_is_told_in_one_sentence(argv: list[str], environ: Mapping[str, str], sentence: str) -> None:
    """What is wrong, where it stands and what was allowed are said in one line."""
    with pytest.raises(UserError) as caught:
        parse(argv, environ)
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("prot: 1", "unknown option 'prot'. Did you mean 'port'?"),
        ("port: {a: 1}", "port is {'a': '1'}; text, a number, true, false or a list of texts was expected"),
        ("port: [1, 2]", "port '1,2': should be a whole number from 0 to 65535"),
        ("port:", "port '': should be a whole number from 0 to 65535"),
        ("port: true", "port 'true': should be a whole number from 0 to 65535"),
        ("sentiment: {modell: x}", "unknown option 'sentiment-modell'. Did you mean 'sentiment-model'?"),
        ("- port", "should hold options, a line each, such as `port: 8000`"),
        ("port: [", "not valid YAML: "),
        ("config: other.yaml", "unknown option 'config'."),
    ],
)
def test_a_bad_file_is_told_with_its_name(content: str, sentence: str, tmp_path: Path) -> None:
    """A file that cannot be taken is named, with the key and what was allowed."""
    file = tmp_path / "server.yaml"
    file.write_text(content)
    with pytest.raises(UserError) as caught:
        parse(["--config", str(file)], {})
    assert str(caught.value).startswith(f"{file}: {sentence}")
    assert "\n" not in str(caught.value)


def test_the_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` ends with status 0 and shows each option once, with what it does."""
    with pytest.raises(SystemExit) as caught:
        parse(["--help"], {})
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    for option in options.table().values():
        assert len(re.findall(rf"^  --{option.name}[ \n]", printed, re.MULTILINE)) == 1, option.name


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The backends that are installed, as far as the choice of targets can see."""
    names = {"huggingface", "onnxruntime", "llama-cpp-python"}
    monkeypatch.setattr(menu, "missing", lambda name: None if name in names else f"{name} is not installed")
    return names


def chosen(**given: Any) -> dict[str, tuple[str, str]]:
    """Backend and optimization by task."""
    return {task: choice[1:3] for task, choice in menu.choose(given).items()}


def test_the_fastest_that_is_installed_serves(installed: set[str]) -> None:
    """Encoders and T5 go to ONNX Runtime, generators to llama.cpp, and to PyTorch what they are not there for."""
    assert chosen(tasks=("qa", "translation", "chat")) == {
        "qa": ("onnxruntime", "fp32"),
        "translation": ("onnxruntime", "fp32"),
        "chat": ("llama-cpp-python", "q8_0"),
    }
    installed -= {"onnxruntime", "llama-cpp-python"}
    assert set(chosen(tasks=("qa", "translation", "chat")).values()) == {("huggingface", "fp32")}


def test_an_optimization_chooses_a_backend_that_has_it(installed: set[str]) -> None:
    """Where only a technique is asked for, the fastest backend that has it serves; where both are, they are taken."""
    assert chosen(tasks=("chat", "qa"), optimization="int8") == {
        "chat": ("onnxruntime", "int8"),
        "qa": ("onnxruntime", "int8"),
    }
    assert chosen(tasks=("qa",), optimization="torchscript") == {"qa": ("huggingface", "torchscript")}
    assert chosen(tasks=("qa",), backend="huggingface", optimization="int8") == {"qa": ("huggingface", "int8")}


def test_what_is_said_of_one_task_counts_there(installed: set[str]) -> None:
    """Options of a task win over those of all tasks."""
    given = {"backend": "huggingface", "qa_backend": "onnxruntime", "qa_optimization": "int8"}
    assert chosen(tasks=("qa", "ner"), **given) == {"qa": ("onnxruntime", "int8"), "ner": ("huggingface", "fp32")}


def test_a_gguf_file_is_served_as_it_is(installed: set[str], tmp_path: Path) -> None:
    """A .gguf file goes to an engine that reads it, with nothing changed; an encoder's task refuses it."""
    file = tmp_path / "own.gguf"
    file.write_bytes(b"GGUF")
    assert chosen(tasks=("chat",), chat_model=str(file)) == {"chat": ("llama-cpp-python", "as-is")}
    with pytest.raises(UserError, match="nothing here serves qa from a model in the format gguf; these do: none"):
        menu.choose({"tasks": ("qa",), "qa_model": str(file)})


def test_what_is_not_installed_is_still_named(installed: set[str]) -> None:
    """With nothing installed the first choice stays, so that the start can say how to get it."""
    installed.clear()
    assert chosen(tasks=("sentiment", "chat")) == {
        "sentiment": ("onnxruntime", "fp32"),
        "chat": ("llama-cpp-python", "q8_0"),
    }
