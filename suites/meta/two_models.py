"""For `--targets=suites.meta.two_models`: beside the model that `--model` names, its copies in the same folder.

Set MODELS_TRACE=FILE to have `MODEL WORKER-PID` appended to it whenever a host is told to load.
"""

from __future__ import annotations

import os
from pathlib import Path

from fixtures import models, session
from fixtures.models import Model
from fixtures.options import Options
from fixtures.provision import Target

chosen_models = session.chosen_models
start = Target._load


def with_copies(options: Options) -> dict[str, dict[str, Model]]:
    """All model folders beside the one that was named."""
    found = chosen_models(options)
    for task, path in options.own_models.items():
        beside = sorted(folder for folder in Path(path).parent.iterdir() if (folder / "config.json").is_file())
        own = [models.custom(task, str(folder)) for folder in beside]
        found[task] = {model.name: model for model in own}
    return found


def traced(self: Target) -> object:
    """Load, and say which process asked for it."""
    if file := os.environ.get("MODELS_TRACE"):
        with Path(file).open("a") as opened:
            opened.write(f"{self.case.model} {os.getpid()}\n")
    return start(self)


session.chosen_models = with_copies
Target._load = traced  # type: ignore[method-assign, assignment]
