"""What ONNX Runtime really runs: providers, where nodes are placed, and which operators are in the files."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from targets.api import Evidence
from targets.optimization import Optimization

SIZE = 4
"""The length given to every dimension that a graph leaves open."""
TYPES = {"tensor(int64)": "int64", "tensor(int32)": "int32", "tensor(float)": "float32", "tensor(float16)": "float16"}
"""ONNX Runtime's names of input types to numpy's."""


def evidence(
    sessions: Sequence[Any], provider: str, options: Any, optimization: Optimization, details: Mapping[str, Any]
) -> Evidence:
    """Every session's first provider, where the nodes of profiled runs were placed, and each file's operators."""
    paths = [Path(session._model_path) for session in sessions]
    operators = {path.name: operator_counts(path) for path in paths}
    placed = sum((placement(session, path, options) for session, path in zip(sessions, paths, strict=True)), Counter())
    proofs = {name: optimization.onnx_proof(counts) for name, counts in operators.items()}
    wanted = {fact: want for proof in proofs.values() for fact, (want, _) in proof.items()}
    return Evidence(
        requested={"provider": provider, "most nodes on": provider, **wanted},
        actual={
            "provider": "+".join(dict.fromkeys(session.get_providers()[0] for session in sessions)),
            "most nodes on": placed.most_common(1)[0][0] if placed else "nothing was profiled",
            **{fact: agreed({name: proof[fact] for name, proof in proofs.items()}) for fact in wanted},
        },
        details={
            **details,
            "nodes": dict(placed),
            "operators": {name: dict(counts) for name, counts in operators.items()},
        },
    )


def agreed(found: Mapping[str, tuple[str, str]]) -> str:
    """What was found, if it is so in every file as wanted; else what differs, by file."""
    wrong = {name: got for name, (want, got) in found.items() if got != want}
    if not wrong:
        return next(want for want, _ in found.values())
    return ", ".join(f"{got} in {name}" for name, got in wrong.items())


def operator_counts(path: Path) -> Counter[str]:
    """Operators of a file by type, those inside branches too."""
    import onnx

    graphs, found = [onnx.load(path, load_external_data=False).graph], Counter[str]()
    while graphs:
        for node in graphs.pop().node:
            found[node.op_type] += 1
            graphs += [part.g for part in node.attribute if part.type == onnx.AttributeProto.GRAPH]
    return found


def placement(session: Any, path: Path, options: Any) -> Counter[str]:
    """Executed nodes by execution provider, from ONNX Runtime's own profile of one run on another session."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        profiled = onnxruntime.SessionOptions()
        profiled.intra_op_num_threads = options.intra_op_num_threads
        profiled.graph_optimization_level = options.graph_optimization_level
        profiled.enable_profiling = True
        profiled.profile_file_prefix = str(Path(folder) / "profile")
        other = onnxruntime.InferenceSession(path, profiled, providers=session.get_providers())
        other.run(None, {node.name: filled(node.shape, node.type) for node in other.get_inputs()})
        events = json.loads(Path(other.end_profiling()).read_text())
    return Counter(
        event["args"]["provider"] for event in events if event.get("cat") == "Node" and event["args"].get("provider")
    )


def filled(shape: Sequence[int | str], kind: str) -> NDArray[Any]:
    """Ones for an input; open dimensions are symbols or sums of them, each symbol of the same length."""
    sizes = [size if isinstance(size, int) else SIZE * (1 + str(size).count("+")) for size in shape]
    return np.ones(sizes, dtype=TYPES[kind])
