"""The command line of the recipe."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from targets.api import UserError
from targets.training.recipe import train
from targets.training.settings import Settings


def parser() -> argparse.ArgumentParser:
    """The options; each says what it does and what it is by default."""
    result = argparse.ArgumentParser(
        prog="python -m targets.training",
        description="Train a small transformer for a task on one's own data, from scratch.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    usual, default = argparse.SUPPRESS, Settings()
    add = result.add_argument
    add("--task", required=True, help="sentiment, ner or qa")
    add("--data", type=Path, required=True, metavar="FILE", help="training data in the task's format")
    add("--eval", type=Path, required=True, metavar="FILE", help="held-out data that the saved model is scored on")
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


def main() -> int:
    """Train, and print the scores of what was saved."""
    options = vars(parser().parse_args())
    task, data, held_out, out = (options.pop(name) for name in ("task", "data", "eval", "out"))
    record = train(task, data, held_out, out, Settings(**options))
    print(f"{out}: {record['parameters']:,} parameters, trained in {record['seconds']:.0f} s; scores on {held_out}:")
    for name, values in record["scores"].items():
        print(f"  {name:14}", "  ".join(f"{score} {value:g}" for score, value in values.items()))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"error: {error}")
