from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.devices import planned
from suites.meta.runs import ROOT
from suites.meta.test_transformers_generator import fresh


def test_threads_of_a_session_that_is_done_rest(tmp_path: Path) -> None:
    """Once a model of several sessions has answered none of its threads works on, on cores that the next one needs."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("optimum.onnxruntime")
    device = replace(planned("cpu"), threads=2)
    runner = fresh(ROOT / "fixtures/zoo/t5", "onnxruntime", "fp32", "summarization", device, tmp_path)
    try:
        runner.run([{"text": "The town council met on Monday to talk about the new bridge.", "max_tokens": 8}])
        began = time.process_time()
        time.sleep(0.1)
        assert time.process_time() - began < 0.01
    finally:
        runner.close()
