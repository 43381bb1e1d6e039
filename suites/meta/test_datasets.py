"""Datasets: what is drawn from them is the same every time, and in the proportions of the whole."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures import datasets
from fixtures.datasets import Dataset, embedded, from_file, length_mix, sample
from targets.api import Example, Unavailable, UserError
from targets.registry import tasks


def dataset(labels: list[str]) -> Dataset:
    examples = tuple(Example(str(i), {"text": "x" * (i + 1)}, label) for i, label in enumerate(labels))
    return Dataset("mine", examples, "here", "0")


def counts(found: Dataset) -> Counter[Any]:
    return Counter(example.gold for example in found.examples)


label_lists = st.lists(st.sampled_from("aaab"), min_size=1, max_size=60) | st.lists(
    st.sampled_from("abcdef"), min_size=1
)


@given(labels=label_lists, n=st.integers(1, 70), seed=st.integers(0, 3))
def test_sample_is_a_proportional_part_in_order(labels: list[str], n: int, seed: int) -> None:
    """A sample is a part of the data in its order, of the size asked for, each label within one of its exact share."""
    whole = dataset(labels)
    found = sample(whole, n, seed)
    positions = [whole.examples.index(example) for example in found.examples]
    assert positions == sorted(set(positions))
    assert len(positions) == min(n, len(labels))
    groups = counts(whole)
    if n >= len(groups):
        assert set(counts(found)) == set(groups)
    for label, size in groups.items():
        share = len(positions) * size / len(labels)
        assert counts(found)[label] - share < 1
        assert share - counts(found)[label] < max(1, len(groups) - 1)


@pytest.mark.parametrize(("n", "expected"), [(10, {"a": 9, "b": 1}), (20, {"a": 18, "b": 2}), (2, {"a": 1, "b": 1})])
def test_sample_keeps_the_shares(n: int, expected: dict[str, int]) -> None:
    """Nine tenths of one label stay nine tenths, and a rare label does not vanish."""
    assert counts(sample(dataset(["a"] * 90 + ["b"] * 10), n, seed=0)) == expected


def test_sample_depends_on_the_seed_alone() -> None:
    """The same seed draws the same examples, another seed draws others, and the digest tells them apart."""
    whole = dataset(["a", "b"] * 50)
    first, again, other = (sample(whole, 20, seed) for seed in (1, 1, 2))
    assert first == again
    assert first.examples != other.examples
    assert len({whole.digest, first.digest, other.digest}) == 3


def test_sample_of_everything_is_the_dataset() -> None:
    """As many examples as there are, or more, is the whole of them."""
    whole = dataset(["a"] * 3)
    assert sample(whole, 3, 0) is whole
    assert sample(whole, 99, 0) is whole


def test_sample_of_nothing_is_refused() -> None:
    """No example is no sample."""
    with pytest.raises(ValueError, match="at least 1"):
        sample(dataset(["a"]), 0, 0)


def test_sample_is_stratified_by_slices_where_gold_is_no_label() -> None:
    """Where gold is a structure, the slices keep their shares."""
    slices = [("easy",)] * 30 + [("hard",)] * 10
    examples = tuple(Example(str(i), {"text": "x"}, {"tags": []}, names) for i, names in enumerate(slices))
    found = sample(Dataset("mine", examples, "here", "0"), 8, 0)
    assert Counter(example.slices for example in found.examples) == {("easy",): 6, ("hard",): 2}


def test_sample_keeps_given_strata() -> None:
    """Strata that a dataset brings come before its labels, and stay with their examples when a sample is sampled."""
    whole = Dataset("mine", dataset(["a"] * 40).examples, "here", "0", ("one",) * 20 + ("two",) * 20)
    found = sample(sample(whole, 20, 0), 10, 0)
    assert Counter(found.strata) == {"one": 5, "two": 5}
    assert all(
        (int(example.id) < 20) == (name == "one") for example, name in zip(found.examples, found.strata, strict=True)
    )


@given(size=st.integers(1, 80), n=st.integers(1, 40))
def test_length_mix_covers_the_lengths_evenly(size: int, n: int) -> None:
    """A mix has n requests, its ranks of length are a step of size / n apart, and it is the same every time."""
    whole = dataset(["a"] * size)
    mix = length_mix(whole, n)
    ranks = sorted(len(request["text"]) for request in mix)
    assert len(ranks) == n
    assert all(abs(rank - (i + 0.5) * size / n) <= 1 for i, rank in enumerate(ranks))
    assert mix == length_mix(whole, n)


def test_length_mix_orders_chats_by_all_their_turns() -> None:
    """A chat is as long as all that is said in it: one turn of 200 letters is longer than three of one."""
    chats = {"three short": ["x"] * 3, "two long": ["x" * 1000] * 2, "one": ["x" * 200]}
    examples = tuple(
        Example(name, {"messages": [{"role": "user", "content": text} for text in texts]}, "")
        for name, texts in chats.items()
    )
    assert length_mix(Dataset("mine", examples, "here", "0"), 1) == [examples[2].request]


@pytest.mark.parametrize("task", ["summarization", "translation", "generation", "chat"])
def test_texts_are_sampled_by_their_slices(task: str) -> None:
    """Of texts, each of which is a gold answer of its own, a sample is not the first ones but a share of each slice."""
    whole = embedded(task)
    found = sample(whole, len(whole.examples) // 2, 0)
    assert found.examples != whole.examples[: len(found.examples)]
    for names, size in Counter(example.slices for example in whole.examples).items():
        share = sum(example.slices == names for example in found.examples)
        assert abs(share - size / 2) <= 1.5
    assert from_file(task, next((datasets.DATA / task).glob("test.*"))).strata == whole.strata


def test_length_mix_is_not_in_order_of_length() -> None:
    """The order is shuffled, so that neighbouring laps are not of neighbouring lengths."""
    lengths = [len(request["text"]) for request in length_mix(dataset(["a"] * 64), 32)]
    assert lengths != sorted(lengths)
    assert lengths != sorted(lengths, reverse=True)


@pytest.mark.parametrize("task", ["sentiment", "ner", "qa"])
def test_embedded_data_is_what_is_promised(task: str) -> None:
    """Every task ships at least 300 examples with unique ids, at least 60 of them natural, in slices with names."""
    found = embedded(task)
    assert len(found.examples) >= 300
    assert len({example.id for example in found.examples}) == len(found.examples)
    assert sum("natural" in example.slices for example in found.examples) >= 60
    assert all(example.slices for example in found.examples)


@pytest.mark.parametrize("task", ["summarization", "translation", "generation", "chat"])
def test_embedded_texts_are_what_is_promised(task: str) -> None:
    """Every generator ships at least 100 examples with unique ids and a gold text, in slices with names."""
    found = embedded(task)
    assert len(found.examples) >= 100
    assert len({example.id for example in found.examples}) == len(found.examples)
    assert all(example.slices and example.gold for example in found.examples)


def test_embedded_labels_are_balanced() -> None:
    """Neither sentiment prevails in the embedded data: a constant answer would be half right."""
    shares = counts(embedded("sentiment"))
    assert set(shares) == {"negative", "positive"}
    assert max(shares.values()) <= 0.55 * sum(shares.values())


def test_missing_embedded_data_is_named(tmp_path: Path) -> None:
    """A checkout without test data says so, and how to go on."""
    with pytest.raises(UserError, match=r"ner: 0 files test\.\*, should be 1; .*--data ner=FILE"):
        embedded("ner", tmp_path)


def test_own_data_is_read_by_its_task(tmp_path: Path) -> None:
    """One's own file is read by the task's reader, and its digest follows its content."""
    path = tmp_path / "reviews.tsv"
    path.write_text("good\tpos\nbad\tneg\n", encoding="utf-8")
    first = from_file("sentiment", path)
    path.write_text("good\tpos\nbad!\tneg\n", encoding="utf-8")
    assert (first.name, first.source, len(first.examples)) == ("reviews", str(path), 2)
    assert from_file("sentiment", path).digest != first.digest


ROWS: dict[str, list[dict[str, Any]]] = {
    "imdb": [{"text": "dull", "label": 0}, {"text": "fine", "label": 1}],
    "sst2": [{"sentence": "dull", "label": 0, "idx": 0}, {"sentence": "fine", "label": 1, "idx": 1}],
    "squad": [
        {
            "id": "5",
            "title": "Leeds",
            "context": "Anna lives in Leeds.",
            "question": " Where?",
            "answers": {"text": ["Leeds"], "answer_start": [14]},
        }
    ],
    "conll2003": [{"id": "0", "tokens": ["Anna", "slept"], "ner_tags": [1, 0]}],
}
ROWS["cnn_dailymail"] = [{"id": "a1", "article": "Anna slept. ", "highlights": "Anna slept .\nAll day ."}]
ROWS["wmt14_en_de"] = [{"translation": {"de": "Anna schläft.", "en": "Anna sleeps. "}}]
NAMES = {"imdb": ["neg", "pos"], "sst2": ["negative", "positive"], "conll2003": ["O", "B-PER", "I-PER"]}


class Table(list[dict[str, Any]]):
    """The part of `datasets.Dataset` that is used."""

    features: dict[str, Any]

    @classmethod
    def from_parquet(cls, path: str, **_options: bool) -> Table:
        name = Path(path).name
        table = cls(ROWS[name])
        feature = SimpleNamespace(names=NAMES.get(name))
        table.features = {"label": feature, "ner_tags": SimpleNamespace(feature=feature)}
        return table


@pytest.mark.parametrize(
    ("name", "task", "gold", "strata"),
    [
        ("imdb", "sentiment", ["neg", "pos"], ("neg", "pos")),
        ("sst2", "sentiment", ["negative", "positive"], ("negative", "positive")),
        ("squad", "qa", [{"answers": ["Leeds"], "starts": [14]}], ("Leeds",)),
        ("conll2003", "ner", [{"words": ["Anna", "slept"], "tags": ["B-PER", "O"]}], ("PER",)),
        ("cnn_dailymail", "summarization", [["Anna slept .\nAll day ."]], ("",)),
        ("wmt14_en_de", "translation", [["Anna schläft."]], ("",)),
    ],
)
def test_public_data_becomes_the_tasks_own(
    monkeypatch: pytest.MonkeyPatch, name: str, task: str, gold: list[Any], strata: tuple[str, ...]
) -> None:
    """Rows of a public dataset become requests and gold of its task; integers become the dataset's names for them."""
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(Dataset=Table))
    monkeypatch.setattr(datasets, "data_file", lambda *_, **__: Path(name))
    found = datasets.hub(name)
    assert [example.gold for example in found.examples] == gold
    assert found.strata == strata
    for example in found.examples:
        assert set(example.request) == set(tasks[task].ask("any"))
        assert all(text == text.strip() for text in example.request.values())


def test_public_data_is_pinned() -> None:
    """Every public dataset is one parquet file at a full commit."""
    for public in datasets.HUB.values():
        assert len(public.revision) == 40
        assert set(public.revision) <= set("0123456789abcdef")
        assert public.file.endswith(".parquet")


def test_public_data_without_the_library_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the library a public dataset is unavailable, with the command that installs it."""
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(Unavailable, match=r"datasets, which is not installed: pip install 'edge-nlp-suite\[hub\]'"):
        datasets.hub("imdb")


def test_unknown_public_data_is_named() -> None:
    """A wrong name gets the nearest right one."""
    with pytest.raises(UserError, match=r"unknown dataset 'imbd'\. Did you mean 'imdb'\?"):
        datasets.hub("imbd")
