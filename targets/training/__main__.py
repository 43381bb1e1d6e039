"""The command line of the recipe."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from targets.api import UserError
from targets.generation import as_generator
from targets.registry import tasks
from targets.training.generators import Part, train_generator
from targets.training.recipe import train
from targets.training.settings import Settings

Scores: TypeAlias = Mapping[Path, Mapping[str, Mapping[str, float]]]
"""By held-out file, slice and name of the score."""


def parser() -> argparse.ArgumentParser:
    """The options; each says what it does and what it is by default."""
    result = argparse.ArgumentParser(
        prog="python -m targets.training",
        description="Train a small transformer for a task on one's own data, from scratch.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    usual, default = argparse.SUPPRESS, Settings()
    add = result.add_argument
    add(
        "--task",
        action="append",
        required=True,
        help="the task; give --task, --data, --eval again for a generator of several tasks",
    )
    add("--data", type=Path, action="append", required=True, metavar="FILE", help="training data in the task's format")
    add(
        "--eval",
        type=Path,
        action="append",
        required=True,
        metavar="FILE",
        help="held-out data that the saved model is scored on",
    )
    add("--out", type=Path, required=True, metavar="DIR", help="where the model goes")
    add("--steps", type=positive, default=usual, help="batches to train on (default: the head's usual number)")
    add("--batch", type=positive, default=default.batch, help="rows in a batch")
    add("--learning-rate", type=float, default=usual, help="at its peak (default: the head's usual rate)")
    add(
        "--lowercase",
        action=argparse.BooleanOptionalAction,
        default=usual,
        help="fold case (default: the head's habit)",
    )
    add("--hidden", type=positive, default=default.hidden, help="width; a multiple of --heads")
    add("--layers", type=positive, default=default.layers, help="transformer layers")
    add("--heads", type=positive, default=default.heads, help="attention heads")
    add("--feed-forward", type=positive, default=default.feed_forward, help="width between the layers")
    add("--max-length", type=positive, default=default.max_length, help="tokens the model reads at most")
    add("--vocabulary", type=positive, default=default.vocabulary, help="word pieces at most")
    add("--seed", type=int, default=default.seed, help="of weights, order and masking")
    add("--threads", type=positive, default=default.threads, help="CPU threads")
    add("--device", default=default.device, help="cpu, or cuda")
    return result


def positive(text: str) -> int:
    """A whole number above 0."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not above 0")
    return value


def run(names: Sequence[str], data: Sequence[Path], held_out: Sequence[Path], out: Path, settings: Settings) -> Scores:
    """Train; returns the scores on each held-out file.

    Raises:
        UserError: see `train` and `train_generator`; or options that do not belong together.
    """
    if not len(names) == len(data) == len(held_out):
        counts = f"{len(names)} --task, {len(data)} --data and {len(held_out)} --eval"
        raise UserError(f"{counts} were given; each task needs one of each, in the same order")
    chosen = [tasks[name] for name in names]
    if all(task.family != "encoder" for task in chosen):
        parts = [Part(as_generator(task), *files) for task, *files in zip(chosen, data, held_out, strict=True)]
        record = train_generator(parts, out, settings)
        return {part.held_out: record["tasks"][part.task.name]["scores"] for part in parts}
    if len(chosen) > 1:
        raise UserError(f"--task {', '.join(names)}: an encoder answers one task; train a model for each")
    return {held_out[0]: train(names[0], data[0], held_out[0], out, settings)["scores"]}


def main() -> int:
    """Train, and print the scores of what was saved."""
    options = vars(parser().parse_args())
    names, data, held_out, out = (options.pop(name) for name in ("task", "data", "eval", "out"))
    for path, found in run(names, data, held_out, out, Settings(**options)).items():
        print(f"{out}: scores on {path}:")
        for name, values in found.items():
            print(f"  {name:14}", "  ".join(f"{score} {value:g}" for score, value in values.items()))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"error: {error}")
