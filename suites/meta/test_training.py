"""The training recipe: a tiny run of each head from end to end, its targets, its tokenizer, and its refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from targets.api import Example, UserError
from targets.encoding import as_encoder
from targets.registry import tasks
from targets.training.heads import HEADS, IGNORED, head_of
from targets.training.recipe import collate, train
from targets.training.settings import Settings
from targets.training.wordpiece import build

ROOT = Path(__file__).parents[2]
TINY = Settings(
    steps=60, batch=16, learning_rate=3e-3, hidden=64, layers=1, heads=2, feed_forward=64, max_length=48, vocabulary=200
)

SENTIMENT = "text\tlabel\n" + "".join(
    f"{word} {thing}\t{label}\n"
    for thing in ("lamp", "chair", "film", "soup", "bike", "book")
    for word, label in (("lovely", "praise"), ("awful", "blame"), ("late", "question"))
)
NER = "".join(
    f"{name} B-DRUG\nx I-DRUG\nhelps O\nin O\n{city} B-SITE\n. O\n\n"
    for name in ("Abax", "Bolin")
    for city in ("Oslo", "Rome")
)
CONTEXT = "The box is red . " * 20 + "The key is under the mat ."
QA = json.dumps(
    {
        "data": [
            {
                "paragraphs": [
                    {
                        "context": CONTEXT,
                        "qas": [
                            {
                                "id": "a",
                                "question": "Where is the key?",
                                "answers": [{"text": "under the mat", "answer_start": CONTEXT.index("under")}],
                            },
                            {
                                "id": "b",
                                "question": "What colour is the box?",
                                "answers": [{"text": "red", "answer_start": 11}],
                            },
                        ],
                    }
                ]
            }
        ]
    }
)
FILES = {"sentiment": ("train.tsv", SENTIMENT), "ner": ("train.conll", NER), "qa": ("train.json", QA)}


@pytest.fixture
def data(tmp_path: Path) -> Callable[[str], Path]:
    def write(task: str) -> Path:
        name, text = FILES[task]
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize("task", sorted(FILES))
def test_trains_and_scores_what_it_saved(task: str, data: Callable[[str], Path], tmp_path: Path) -> None:
    """A run on any labels leaves fp16 safetensors that load, and a record whose scores a fresh load repeats."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from safetensors import safe_open

    from targets.training.scoring import predict, scores

    path, out = data(task), tmp_path / "model"
    record = train(task, path, path, out, TINY)
    with safe_open(out / "model.safetensors", "np") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {np.dtype("float16")}  # noqa: SIM118
    made = as_encoder(tasks[task])
    model = getattr(transformers, f"AutoModelFor{made.head}").from_pretrained(out, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    assert tokenizer.model_max_length == model.config.max_position_embeddings == 48
    examples = made.read(path)
    assert scores(made, examples, predict(made, model, tokenizer, examples)) == record["scores"]
    assert json.loads((out / "training.json").read_text()) == record
    if task == "sentiment":
        assert model.config.id2label == {0: "blame", 1: "praise", 2: "question"}
        assert record["scores"]["all"]["accuracy"] > 0.9, "eighteen texts with one telling word each should be learned"
    if task == "ner":
        assert set(model.config.label2id) == {"O", "B-DRUG", "I-DRUG", "B-SITE", "I-SITE"}


def test_command_line(data: Callable[[str], Path], tmp_path: Path) -> None:
    """The command prints progress and scores; a misspelt task is one sentence with the name that was meant."""
    pytest.importorskip("torch")
    path = data("sentiment")
    command = [
        sys.executable,
        "-m",
        "targets.training",
        "--data",
        str(path),
        "--eval",
        str(path),
        "--out",
        str(tmp_path / "m"),
    ]
    sizes = {"steps": 3, "hidden": 16, "layers": 1, "heads": 2, "feed-forward": 16, "vocabulary": 200, "batch": 8}
    done = subprocess.run(
        [*command, "--task", "sentiment", *(f"--{name}={value}" for name, value in sizes.items())],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "step 3/3" in done.stderr
    assert "accuracy" in done.stdout
    refused = subprocess.run([*command, "--task", "sentimnet"], cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode == 1
    assert refused.stderr.strip().startswith("error: unknown task 'sentimnet'. Did you mean 'sentiment'?")
    assert len(refused.stderr.strip().splitlines()) == 1


BAD = {
    "missing": ("sentiment", None, "no such file"),
    "empty": ("sentiment", "", "train.tsv"),
    "header only": ("sentiment", "text\tlabel\n", "train.tsv"),
    "one label": ("sentiment", "text\tlabel\nfine\tgood\nnice\tgood\n", "one label only (good)"),
    "no entity": ("ner", "a O\nb O\n", "no entity"),
    "not json": ("qa", "{", "train.json"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_data_is_one_sentence(name: str, tmp_path: Path) -> None:
    """Data that nothing can be learned from is refused before any training, with the file's name."""
    task, text, message = BAD[name]
    path = tmp_path / FILES[task][0]
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        train(task, path, path, tmp_path / "out", TINY)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_label_that_was_never_taught(data: Callable[[str], Path], tmp_path: Path) -> None:
    """A label that only the held-out data has is an error that names it and what the training data has."""
    held_out = tmp_path / "dev.tsv"
    held_out.write_text("text\tlabel\nlamp\tpraise\nsoup\tneutral\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"label neutral does not occur .*blame, praise, question"):
        train("sentiment", data("sentiment"), held_out, tmp_path / "out", TINY)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Settings(hidden=100, heads=3), "--hidden 100"),
        (Settings(device="cudo"), "--device cudo"),
        (Settings(vocabulary=100), "--vocabulary 100"),
        (Settings(max_length=4), "--max-length 4"),
    ],
)
def test_impossible_settings(settings: Settings, message: str, data: Callable[[str], Path], tmp_path: Path) -> None:
    """A size that cannot work is refused with the option's name before any training."""
    pytest.importorskip("torch")
    with pytest.raises(UserError, match=message):
        train("sentiment", data("sentiment"), data("sentiment"), tmp_path / "out", settings)


def test_out_that_cannot_be_written(data: Callable[[str], Path], tmp_path: Path) -> None:
    """An output path below a file is refused before the time is spent."""
    path = data("sentiment")
    with pytest.raises(UserError, match=r"--out .* cannot be written"):
        train("sentiment", path, path, path / "model", TINY)


def test_tokenizer_is_reproducible_and_knows_every_letter() -> None:
    """One text gives one vocabulary in any process, and words never seen fall apart into known pieces."""
    pytest.importorskip("transformers")
    texts = ["the quick fox", "the slow ox", "a box of thick socks"] * 5
    code = (
        "from targets.training.wordpiece import build\n"
        f"print(sorted(build({texts!r}, 300, True, 64).get_vocab().items(), key=lambda item: item[1]))"
    )
    elsewhere = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    tokenizer = build(texts, 300, True, 64)
    here = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    assert elsewhere.stdout == f"{here}\n"
    strange = "Zyxwvut QJK-9876543210 (don't) [x] {y} #1 @home ~$%^&*_+=|\\<>?/:;\"!`"
    assert tokenizer.unk_token_id not in tokenizer(strange)["input_ids"]


def test_word_targets_reach_the_right_tokens() -> None:
    """A word that the tokenizer splits at punctuation keeps one entity: B at its start, I after it, pieces ignored."""
    pytest.importorskip("transformers")
    task, head = as_encoder(tasks["ner"]), HEADS["TokenClassification"]
    words, tags = ["O'Brien", "met", "Anna"], ["B-PER", "O", "B-PER"]
    example = Example("x", {"text": " ".join(words)}, {"words": words, "tags": tags})
    tokenizer = build([str(example.request["text"])] * 3, 400, False, 32)
    encoded = task.encode(tokenizer, [example.request])
    row = encoded.rows[0]
    taught = head.targets(example, row, ["O", "B-PER", "I-PER"])["tags"]
    by_text = [
        (example.request["text"][start:end], int(tag))
        for (start, end), tag in zip(row.offsets, taught, strict=True)
        if tag != IGNORED
    ]
    assert [tag for _, tag in by_text] == [1, 2, 2, 0, 1]
    outputs = np.zeros((1, len(taught), 3))
    outputs[0, np.arange(len(taught)), np.where(taught == IGNORED, 0, taught)] = 9
    answer = task.decode([outputs], encoded, [example.request], {0: "O", 1: "B-PER", 2: "I-PER"})[0]
    assert [entity["text"] for entity in answer["entities"]] == ["O'Brien", "Anna"]


def test_span_targets_over_windows() -> None:
    """Each window of a long context either holds the whole answer at its place, or is taught that it holds none."""
    pytest.importorskip("transformers")
    task, head = as_encoder(tasks["qa"]), HEADS["QuestionAnswering"]
    example = Example(
        "x",
        {"question": "Where is the key?", "context": CONTEXT},
        {"answers": ["under the mat"], "starts": [CONTEXT.index("under")]},
    )
    encoded = task.encode(build([CONTEXT, "Where is the key?"] * 2, 300, True, 48), [example.request])
    assert len(encoded.rows) > 2
    quotes = []
    for row in encoded.rows:
        first, last = head.targets(example, row, [])["span"]
        if first != IGNORED:
            quotes.append(CONTEXT[row.offsets[first][0] : row.offsets[last][1]])
    assert quotes
    assert len(quotes) < len(encoded.rows)
    assert set(quotes) == {"under the mat"}


def test_padding_teaches_nothing() -> None:
    """Rows are padded with attention 0 and ignored tags, so that a batch's loss is that of its rows."""
    pytest.importorskip("torch")
    rows = [{"input_ids": np.arange(n), "attention_mask": np.ones(n, int), "tags": np.zeros(n, int)} for n in (2, 4)]
    batch = collate(rows)
    assert batch["attention_mask"].sum(1).tolist() == [2, 4]
    assert batch["tags"][0].tolist() == [0, 0, IGNORED, IGNORED]


def test_every_task_has_a_recipe_or_a_sentence() -> None:
    """The three encoder tasks can be trained; a head without a recipe is refused by name."""
    assert {task: head_of(tasks[task]) for task in FILES}
    odd = type("Odd", (), {"name": "odd", "head": "CausalLM"})()
    with pytest.raises(UserError, match="task 'odd' cannot be trained: no recipe for CausalLM"):
        head_of(odd)
