"""The corpora of our own writing: reproducible, balanced, and never in two splits at once."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from random import Random

import pytest

from fixtures.corpus import RECIPES, make, natural, shipped, split
from fixtures.corpus.grammar import Grammar, polish, rules
from targets.api import Example
from targets.registry import tasks

SLICES = {
    "sentiment": {"plain", "negation", "contrast", "long_context", "natural"},
    "ner": {"known_names", "unseen_names", "long_context", "natural"},
    "qa": {"plain", "long_context", "natural"},
    "summarization": {"short", "long", "natural"},
    "translation": {"plain", "question", "long", "natural"},
    "generation": {"story", "explanation", "unicode", "natural"},
    "chat": {"memory", "correction", "forgetting", "small_talk", "system", "natural"},
}
LEAST = {"encoder": (300, 60, 60), "seq2seq": (100, 15, 15), "causal": (100, 10, 15)}
"""By family: examples of a test split, of a slice, and written by hand. Generators take longer over each."""
every_task = pytest.mark.parametrize("task", sorted(RECIPES))


@cache
def corpus(task: str) -> dict[str, list[Example]]:
    return make(RECIPES[task])


@cache
def test_data(task: str) -> list[Example]:
    return tasks[task].read(shipped(RECIPES[task]))


test_data.__test__ = False  # type: ignore[attr-defined]


def comparable(example: Example) -> tuple[object, ...]:
    return example.request, example.gold, example.slices


def keys(task: str, examples: list[Example]) -> set[str]:
    return {RECIPES[task].key(example) for example in examples}


@every_task
def test_same_seed_same_examples(task: str) -> None:
    """One seed always gives the same examples, another seed gives others."""
    recipe = RECIPES[task]
    few = {name: min(count, 20) for name, count in recipe.train.items() if name != "lab"}
    first, again, other = (split(recipe, "train", few, seed, set()) for seed in (0, 0, 1))
    assert first == again
    shared = keys(task, first) & keys(task, other)
    assert len(shared) <= len(first) // 20, shared  # short conversations may coincide


@every_task
def test_shipped_data_is_the_test_split(task: str) -> None:
    """The shipped test data is what the grammar makes; after a change, `--ship` renews it."""
    assert [comparable(e) for e in test_data(task)] == [comparable(e) for e in corpus(task)["test"]]


@every_task
def test_size_and_slices(task: str) -> None:
    """Enough test examples a task and a slice, every example in exactly one slice."""
    examples, in_slice, _ = LEAST[tasks[task].family]
    counts = Counter(example.slices for example in test_data(task))
    assert len(test_data(task)) >= examples
    assert {name for name, *rest in counts if not rest} == SLICES[task] == {name for (name,) in counts}
    assert min(counts.values()) >= in_slice, counts


@every_task
def test_no_leak(task: str) -> None:
    """No text, ignoring case and punctuation, is in two of train, dev and test, nor twice in train."""
    splits = corpus(task)
    train, dev, test = (keys(task, splits[name]) for name in ("train", "dev", "test"))
    assert not train & dev
    assert not train & test
    assert not dev & test
    once = [e for e in splits["train"] if "lab" not in e.slices]  # default prompts have many answers
    if task != "qa":  # several questions share a context
        assert len(keys(task, once)) == len(once)


@every_task
def test_natural_is_written_by_hand(task: str) -> None:
    """Natural examples are many, all different, in the slice `natural`, and none of them in the grammar's splits."""
    examples = natural(RECIPES[task])
    assert len({str(example.request) for example in examples}) == len(examples) >= LEAST[tasks[task].family][2]
    assert {example.slices for example in examples} == {("natural",)}
    grammatical = keys(task, [e for split in corpus(task).values() for e in split if e.slices != ("natural",)])
    assert not keys(task, examples) & grammatical


def test_sentiment_is_balanced() -> None:
    """Each slice of the sentiment test data is half positive and half negative."""
    counts = Counter((example.slices, example.gold) for example in test_data("sentiment"))
    for slices in {slices for slices, _ in counts}:
        assert counts[slices, "positive"] == counts[slices, "negative"], slices


def test_entity_types_are_balanced() -> None:
    """PER, LOC and ORG each make between a quarter and a half of the entities of the NER test data."""
    counts = Counter(tag[2:] for e in test_data("ner") for tag in e.gold["tags"] if tag.startswith("B-"))
    assert set(counts) == {"PER", "LOC", "ORG"}
    assert all(0.25 <= count / sum(counts.values()) <= 0.5 for count in counts.values()), counts


def test_long_context_is_long() -> None:
    """Long texts have more than 64 words, so more than 64 tokens; long contexts have more words than 128 positions."""
    for task, field, words in (("sentiment", "text", 64), ("ner", "text", 64), ("qa", "context", 128)):
        long = [e.request[field] for e in test_data(task) if "long_context" in e.slices]
        assert min(len(text.split()) for text in long) > words, task


def test_unseen_names_are_unseen() -> None:
    """No name of the slice `unseen_names` has a word that is part of a name in the training data."""

    def names(examples: list[Example]) -> set[str]:
        return {
            word
            for e in examples
            for word, tag in zip(e.gold["words"], e.gold["tags"], strict=True)
            if tag != "O" and word not in shared
        }

    shared = {
        word
        for key in ("firm_word", "club_word", "institute")
        for word in str(rules("names")[key]).replace(",", " ").split()
    }
    shared |= {"University", "of", "School", "Music"}
    unseen = names([e for e in corpus("ner")["test"] if "unseen_names" in e.slices])
    assert len(unseen) > 100
    assert not unseen & names(corpus("ner")["train"])


def test_answers_stand_where_they_say() -> None:
    """Each gold answer of each split is quoted from its context; the grammar's answers occur there once."""
    for examples in corpus("qa").values():
        for e in examples:
            context = e.request["context"]
            for text, start in zip(e.gold["answers"], e.gold["starts"], strict=True):
                assert context[start : start + len(text)] == text, e.id
            assert "natural" in e.slices or context.count(e.gold["answers"][0]) == 1, e.id


@every_task
def test_no_symbol_is_left(task: str) -> None:
    """Every symbol of a template is replaced, and nothing of the markup stays."""
    for examples in corpus(task).values():
        for example in examples:
            said = [RECIPES[task].text(example), *(example.gold if task in ("summarization", "translation") else ())]
            assert not set("{}~\x02/") & set(" ".join(said)), said


def test_grammar_sides_and_memo() -> None:
    """`{~x}` takes the other side, negation inside negation turns back, and a memo keeps a symbol's value."""
    rules = Grammar(
        {
            "x": {"positive": "good", "negative": "bad"},
            "y": {"positive": ["{~x}"], "negative": ["{~x}"]},
            "n": "a, b, c, d",
        }
    )
    rng = Random(0)
    assert rules.expand(rng, "{x} {~x} {y} {~y}", "positive") == "good bad bad good"
    memo: dict[str, str] = {}
    assert len(set(rules.expand(rng, "{n} {n} {n} {n} {n} {n}", memo=memo).split())) == 1
    assert polish("a old hat. a uniform. an hour") == "An old hat. A uniform. An hour"


def test_command_writes_and_refuses(tmp_path: Path) -> None:
    """`python -m fixtures.corpus` writes three splits a task; a folder that cannot be made is told in one sentence."""
    command = [sys.executable, "-m", "fixtures.corpus", "--out"]
    root = Path(__file__).parents[2]
    done = subprocess.run([*command, str(tmp_path / "out")], cwd=root, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 3 * len(RECIPES)
    assert {path.name for path in (tmp_path / "out" / "ner").iterdir()} == {"train.conll", "dev.conll", "test.conll"}
    assert (tmp_path / "out/ner/test.conll").read_bytes() == shipped(RECIPES["ner"]).read_bytes()
    (tmp_path / "file").write_text("")
    refused = subprocess.run([*command, str(tmp_path / "file")], cwd=root, capture_output=True, text=True)
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: --out ")
    assert len(refused.stderr.splitlines()) == 1
