"""The corpora of the generators say what is true: of grammar, of what was told before, of the default prompts."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from random import Random

import pytest

from fixtures.corpus import RECIPES, make, split
from fixtures.corpus.chat import facts
from fixtures.corpus.generation import prompts
from fixtures.corpus.translation import decline
from targets.api import Example
from targets.generation_formats import read_continuations, read_dialogues, read_pairs

FEW = 300
GENERATORS = ("summarization", "translation", "generation", "chat")


@cache
def some(task: str) -> list[Example]:
    """A part of the training split."""
    recipe = RECIPES[task]
    return split(recipe, "train", {name: min(count, FEW) for name, count in recipe.train.items()}, 0, set())


TABLE, LAMP, EGG = ("table", "Tisch", "m"), ("lamp", "Lampe", "f"), ("egg", "Ei", "n")
OLD = ("old", "alt")


@pytest.mark.parametrize(
    ("thing", "role", "article", "adjective", "english", "german"),
    [
        (TABLE, "nom", "the", (), "the table", "der Tisch"),
        (TABLE, "acc", "the", OLD, "the old table", "den alten Tisch"),
        (TABLE, "nom", "a", OLD, "an old table", "ein alter Tisch"),
        (TABLE, "acc", "my", OLD, "my old table", "meinen alten Tisch"),
        (LAMP, "nom", "the", OLD, "the old lamp", "die alte Lampe"),
        (LAMP, "acc", "a", OLD, "an old lamp", "eine alte Lampe"),
        (LAMP, "acc", "my", (), "my lamp", "meine Lampe"),
        (EGG, "nom", "my", OLD, "my old egg", "mein altes Ei"),
        (EGG, "acc", "the", OLD, "the old egg", "das alte Ei"),
        (EGG, "acc", "a", (), "an egg", "ein Ei"),
    ],
)
def test_german_is_declined(
    thing: tuple[str, ...], role: str, article: str, adjective: tuple[str, ...], english: str, german: str
) -> None:
    """Article and adjective take the endings of gender and case, as German grammars table them."""
    made = decline(thing, role, article, adjective)
    assert (made.en, made.de) == (english, german)


def test_translations_are_whole_sentences() -> None:
    """Both sides begin with a capital and end in the mark of their kind."""
    for example in some("translation"):
        english, (german,) = example.request["text"], example.gold
        assert english[0].isupper()
        assert german[0].isupper()
        assert english[-1] == german[-1] == ("?" if "question" in example.slices else ".")
        assert "  " not in english + german


def test_summaries_say_nothing_new() -> None:
    """Every name and number of a summary stands in its text, and the summary is shorter."""
    for example in make(RECIPES["summarization"])["test"]:
        text, (summary,) = example.request["text"], example.gold
        names = re.findall(r"(?<!^)\b(?:[A-Z]\w+|\d+)", summary)
        assert set(names) <= set(re.findall(r"\w+", text)), (names, text)
        assert len(summary) < len(text)


def remembered(example: Example) -> dict[str, str]:
    """What an attentive reader of the user's turns knows at the end, by kind of fact."""
    known: dict[str, str] = {}
    for turn in example.request["messages"]:
        for kind, fact in facts().items():
            for template in (*fact["tell"], *fact["correct"]):
                pattern = re.escape(template).replace(re.escape("{v}"), r"(\w+)")
                if turn["role"] == "user" and (match := re.fullmatch(pattern, turn["content"])):
                    known[kind] = match[1]
            if turn["content"] in fact["forget"]:
                known.pop(kind, None)
    return known


def test_chat_replies_are_what_was_told() -> None:
    """The gold reply names the value told last; what was never told or is to be forgotten is not known."""
    asked = 0
    for example in some("chat"):
        question = example.request["messages"][-1]["content"]
        for kind, fact in facts().items():
            if question in fact["ask"]:
                known = remembered(example)
                expected = (
                    fact["reply"].format(v=known[kind]) if kind in known else f"I do not know your {fact['noun']}."
                )
                assert example.gold == expected, example.request
                asked += 1
    assert asked > FEW


def test_told_values_are_of_one_kind() -> None:
    """No two kinds of facts are told in the same words, so that a reader can tell them apart."""
    told = [template for fact in facts().values() for template in (*fact["tell"], *fact["correct"])]
    assert len(set(told)) == len(told)


def test_default_prompts_are_taught_and_not_tested() -> None:
    """The default prompts are ASCII, all different, answered in both causal corpora, and no test example."""
    lines = prompts()
    assert lines[0] == "Explain the future of AI in education."
    assert len(set(lines)) == len(lines) == 8
    assert all(line.isascii() and line == line.strip() for line in lines)
    taught = {e.request["prompt"] for e in some("generation") if "lab" in e.slices}
    asked = {e.request["messages"][-1]["content"] for e in some("chat") if "lab" in e.slices}
    assert taught == asked == set(lines)
    assert not taught & {e.request["prompt"] for e in make(RECIPES["generation"])["test"]}


def test_causal_texts_hold_characters_of_many_bytes() -> None:
    """Umlauts, kanji and emoji occur in what the causal model is taught to write."""
    for task in ("generation", "chat"):
        written = " ".join(str(example.gold) for example in some(task))
        assert re.search("[äöüß]", written), task
        assert re.search("[\u4e00-\u9fff]", written), task
        assert re.search("[\U0001f300-\U0001faff]", written), task


@pytest.mark.parametrize("task", GENERATORS)
def test_files_read_back(task: str, tmp_path: Path) -> None:
    """What a corpus writes, the task's reader reads: request, gold and slices."""
    readers = {
        "summarization": lambda path: read_pairs(path, ("text",), ("summary", "")),
        "translation": lambda path: read_pairs(path, ("text",), ("translation", "")),
        "generation": read_continuations,
        "chat": read_dialogues,
    }
    recipe = RECIPES[task]
    examples = split(recipe, "dev", dict.fromkeys(recipe.dev, 5), 0, set())
    path = tmp_path / f"x.{recipe.suffix}"
    recipe.write(path, examples)
    found = readers[task](path)
    assert [(e.request, e.gold, e.slices) for e in found] == [(e.request, e.gold, e.slices) for e in examples]
    if recipe.suffix == "jsonl":
        assert all(isinstance(json.loads(line), dict) for line in path.read_text(encoding="utf-8").splitlines())


def test_draws_depend_on_the_seed_only() -> None:
    """The same random state draws the same example, whatever was drawn before."""
    for task in GENERATORS:
        recipe = RECIPES[task]
        name = next(iter(recipe.test))
        first = recipe.draw(Random(5), name, 0)
        recipe.draw(Random(6), name, 1)
        assert recipe.draw(Random(5), name, 0) == first
