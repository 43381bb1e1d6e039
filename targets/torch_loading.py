"""Loading a PyTorch model from a folder in Hugging Face layout, and what can be read off a loaded one."""

from __future__ import annotations

import gc
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from targets.api import Device, Evidence, ModelFiles, Task, Unavailable
from targets.optimization import Optimization


class Loader:
    """Loads a model as often as it is asked to. `place`: the torch device type it was last asked to load to."""

    def __init__(self, model: ModelFiles, folder: Path, task: Task, device: Device) -> None:
        self._model = model
        self._folder = folder
        self._head = task.head
        self._device = device
        self.place = ""

    @property
    def parameters(self) -> int:
        """How many numbers the weights are, by the headers of their safetensors files; 0 for pickled ones."""
        from safetensors import safe_open

        total = 0
        for path in self._folder.glob("*.safetensors"):
            with safe_open(path, framework="numpy") as file:
                total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
        return total

    def __call__(self, place: str, dtype: str, **options: Any) -> Any:
        """The model in evaluation mode; with `device_map` among the options it goes where that says.

        Raises:
            Unavailable: torch cannot use the device's GPU.
        """
        import torch
        import transformers

        self.place = place
        if place == "cuda" and not torch.cuda.is_available():
            raise Unavailable(
                f"{self._device.name} has a GPU, but torch {torch.__version__} cannot use it: "
                "install a CUDA build of torch"
            )
        loaded = getattr(transformers, f"AutoModelFor{self._head}").from_pretrained(
            self._folder,
            use_safetensors=not self._model.trust_pickle,
            local_files_only=True,
            dtype=getattr(torch, dtype),
            **options,
        )
        return loaded.eval() if "device_map" in options else loaded.eval().to(torch.device(place))


def evidence(module: Any, place: str, optimization: Optimization, details: Mapping[str, Any]) -> Evidence:
    """The device of every parameter, and what the optimization can show for itself."""
    devices = {parameter.device.type for parameter in module.parameters()} or {place}
    proof = optimization.torch_proof(module)
    return Evidence(
        requested={"device": place, **{fact: wanted for fact, (wanted, _) in proof.items()}},
        actual={"device": "+".join(sorted(devices)), **{fact: found for fact, (_, found) in proof.items()}},
        details={"module": type(module).__name__, **details, **optimization.torch_details(module)},
    )


def release(optimization: Optimization) -> None:
    """Collect what the runner held; hand cached GPU memory back."""
    import torch

    optimization.release_torch()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
