"""ONNX files of a model, exported by Optimum, and what each of them is."""

from __future__ import annotations

import shutil
import sys
import warnings
from pathlib import Path

from targets.api import Device, ModelFiles, Task
from targets.optimization import Optimization

EXPORT_TASKS = {
    "SequenceClassification": "text-classification",
    "TokenClassification": "token-classification",
    "QuestionAnswering": "question-answering",
    "Seq2SeqLM": "text2text-generation-with-past",
    "CausalLM": "text-generation-with-past",
}
"""Optimum's names of what Transformers calls a head; "with past": the graphs take and give a KV cache."""


def export(model: ModelFiles, task: Task, folder: Path) -> None:
    """Export in FP32, with tokenizer and configuration beside it.

    An encoder or causal model is one file; an encoder-decoder three: the encoder, the decoder's first step, and its
    later steps, which read the cache. They are not merged, because quantizers and fusions do not enter a merged graph.
    """
    from optimum.exporters.onnx import main_export

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warns of each Python branch it takes, and of torch's newer exporter
        main_export(
            str(model.path),
            folder,
            task=EXPORT_TASKS[task.head],
            do_validation=False,
            no_post_process=True,
            local_files_only=True,
            device="cpu",
        )


def convert(optimization: Optimization, plain: Path, folder: Path, device: Device) -> None:
    """The converted graphs, with everything else of the plain export."""
    shutil.copytree(plain, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.onnx*", "manifest.json"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        find_tools()
        optimization.convert_onnx(plain, folder, device)


def find_tools() -> None:
    """Let ONNX Runtime's tools find each other: they import one another by bare names.

    For that their package puts its folder on `sys.path`; but multiprocessing sets the path of a fork anew, so that a
    process whose fork server has imported the package lacks it.
    """
    import onnxruntime.transformers as tools

    folder = str(Path(tools.__file__ or "").parent)
    if folder not in sys.path:
        sys.path.append(folder)
