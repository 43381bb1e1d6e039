"""The training of generators: a tiny run of each kind from end to end, what is taught, and the refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fixtures.corpus import RECIPES, split
from targets.api import Example, UserError
from targets.generation import as_generator
from targets.registry import tasks
from targets.training.bytelevel import END, SPECIAL, build
from targets.training.generator_heads import HEADS, Lesson, head_of
from targets.training.generators import Part, train_generator
from targets.training.heads import IGNORED
from targets.training.settings import Settings

ROOT = Path(__file__).parents[2]
TINY = Settings(steps=4, batch=4, hidden=32, layers=1, heads=2, feed_forward=32, max_length=256, vocabulary=400)
DIALOGUE = Example(
    "x",
    {
        "messages": [
            {"role": "user", "content": "My name is Ann."},
            {"role": "assistant", "content": "Hello Ann."},
            {"role": "user", "content": "Who am I?"},
        ]
    },
    "You are Ann.",
)


def parts(folder: Path, *names: str) -> list[Part]:
    """Tasks with a few examples of their corpora."""
    found = []
    for name in names:
        recipe = RECIPES[name]
        path = folder / f"{name}.{recipe.suffix}"
        recipe.write(path, split(recipe, "dev", dict.fromkeys(recipe.dev, 3), 0, set()))
        found.append(Part(as_generator(tasks[name]), path, path))
    return found


@pytest.mark.parametrize("names", [("summarization", "translation"), ("generation", "chat")])
def test_trains_and_scores_what_it_saved(names: tuple[str, str], tmp_path: Path) -> None:
    """One model of two tasks is saved in fp16, and a fresh load repeats the scores of its record."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    from safetensors import safe_open

    from targets.training.generator_scoring import answers_of
    from targets.training.scoring import scores

    out = tmp_path / "model"
    given = parts(tmp_path, *names)
    record = train_generator(given, out, TINY)
    with safe_open(out / "model.safetensors", "np") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {np.dtype("float16")}  # noqa: SIM118
    assert json.loads((out / "training.json").read_text()) == record
    assert list(record["tasks"]) == list(names)
    kind = getattr(transformers, f"AutoModelFor{given[0].task.head}")
    model = kind.from_pretrained(out, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    for part in given:
        examples = part.task.read(part.held_out)
        again = scores(part.task, examples, answers_of(part.task, model, tokenizer, examples))
        assert again == record["tasks"][part.task.name]["scores"]


def tokenizer_for(*texts: str, reads_first: bool = False) -> Any:
    pytest.importorskip("transformers")
    return build([*texts, "user assistant system"] * 3, 600, 128, reads_first)


def test_chat_teaches_every_reply_and_nothing_else() -> None:
    """Of a rendered chat exactly the assistant's replies are learned, each with its end token."""
    lesson = Lesson(as_generator(tasks["chat"]), DIALOGUE)
    tokenizer = tokenizer_for(*lesson.texts)
    row = HEADS["CausalLM"].row(lesson, tokenizer)
    taught = [int(token) for token in row["labels"] if token != IGNORED]
    assert tokenizer.decode(taught) == f"Hello Ann.{END}You are Ann.{END}"
    kept = row["labels"] != IGNORED
    assert (row["labels"][kept] == row["input_ids"][kept]).all()
    whole = [*DIALOGUE.request["messages"], {"role": "assistant", "content": DIALOGUE.gold}]
    assert tokenizer.decode(row["input_ids"]) == tokenizer.apply_chat_template(whole, tokenize=False)


def test_text_is_taught_whole_and_ends() -> None:
    """Of a text every token is learned, prompt and continuation joined by a space, and then the end token."""
    lesson = Lesson(as_generator(tasks["generation"]), Example("x", {"prompt": "Once upon"}, "a time."))
    tokenizer = tokenizer_for("Once upon a time.")
    row = HEADS["CausalLM"].row(lesson, tokenizer)
    assert tokenizer.decode(row["labels"]) == f"Once upon a time.{END}"
    assert (row["labels"] == row["input_ids"]).all()


def test_seq2seq_reads_the_prefix_and_writes_the_first_reference() -> None:
    """A T5 reads the task's prefix and the text, and learns the first reference, both with the end token."""
    lesson = Lesson(as_generator(tasks["translation"]), Example("x", {"text": "A dog."}, ["Ein Hund.", "Der Hund."]))
    tokenizer = tokenizer_for("translate English to German: A dog.", "Ein Hund.", reads_first=True)
    row = HEADS["Seq2SeqLM"].row(lesson, tokenizer)
    assert tokenizer.decode(row["input_ids"]) == f"translate English to German: A dog.{END}"
    assert tokenizer.decode(row["labels"]) == f"Ein Hund.{END}"


def test_tokenizer_is_reproducible_and_loses_nothing() -> None:
    """One text gives one vocabulary in any process; special ids come first; any text comes back letter by letter."""
    pytest.importorskip("transformers")
    texts = ["the quick fox", "the slow ox", "a box of thick socks"] * 5
    code = (
        "from targets.training.bytelevel import build\n"
        f"print(sorted(build({texts!r}, 400, 64, False).get_vocab().items(), key=lambda item: item[1]))"
    )
    elsewhere = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    tokenizer = build(texts, 400, 64, False)
    here = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    assert elsewhere.stdout == f"{here}\n"
    assert [name for name, _ in here[: len(SPECIAL)]] == list(SPECIAL)
    for text in ("Zyxw 水 🤖\n\t ü", "the socks", "<|pad"):
        assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_rare_characters_stay_bytes() -> None:
    """A frequent word becomes one token; a character seen once in thousands of words stays several."""
    tokenizer = tokenizer_for("water " * 20_000 + "水")
    assert len(tokenizer(" water").input_ids) == 1
    assert len(tokenizer("水").input_ids) == 3


def test_one_model_is_of_one_kind() -> None:
    """Tasks of different kinds in one model, and a head without a recipe, are refused by name."""
    both = [as_generator(tasks[name]) for name in ("translation", "chat")]
    with pytest.raises(UserError, match="translation is Seq2SeqLM, chat is CausalLM"):
        head_of(both)
    odd = type("Odd", (), {"name": "odd", "head": "MaskedLM"})()
    with pytest.raises(UserError, match="task 'odd' cannot be trained: no recipe for MaskedLM"):
        head_of([odd])


def test_length_that_answers_do_not_fit_in(tmp_path: Path) -> None:
    """A context too short for the held-out prompts with an answer is refused before the training, not after it."""
    pytest.importorskip("transformers")
    with pytest.raises(
        UserError, match=r"--max-length 32: a prompt of --eval .* and an answer of 48 tokens do not fit"
    ):
        train_generator(parts(tmp_path, "generation"), tmp_path / "model", replace(TINY, max_length=32))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--task=chat", "--data=x", "--eval=x", "--task=generation"], "2 --task, 1 --data and 1 --eval were given"),
        (["--task=qa", "--data=x", "--eval=x", "--task=ner", "--data=x", "--eval=x"], "an encoder answers one task"),
        (["--task=chat", "--data=missing.jsonl", "--eval=x"], "--data missing.jsonl: no such file"),
        (["--task=chatt", "--data=x", "--eval=x"], "unknown task 'chatt'. Did you mean 'chat'?"),
    ],
)
def test_command_refuses(options: list[str], sentence: str, tmp_path: Path) -> None:
    """Options that do not belong together are refused in one sentence before anything is trained."""
    command = [sys.executable, "-m", "targets.training", *options, "--out", str(tmp_path / "m")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert sentence in done.stderr.splitlines()[-1]
    assert not (tmp_path / "m").exists()
