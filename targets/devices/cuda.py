"""A machine with an NVIDIA GPU on a card of its own (a Jetson's GPU shares the board's memory: jetson.py)."""

from __future__ import annotations

from pathlib import Path

from targets import machine
from targets.api import Found
from targets.registry import devices

QUERY = ("nvidia-smi", "--query-gpu=name,memory.total,driver_version,compute_cap", "--format=csv,noheader")


class Cuda:
    """NVIDIA GPUs under their own driver. Where there are several, the first is the device, as it is CUDA's default."""

    name = "cuda"
    rank = 20

    def detect(self, root: Path) -> Found | None:
        """The GPU by nvidia-smi, or by /proc/driver/nvidia where nvidia-smi is missing but a GPU's node exists.

        A driver without a node is a container that was given no GPU: not this kind.
        """
        rows, reason = self._query(root)
        if not rows and not (self._model(root) and any((root / "dev").glob("nvidia[0-9]*"))):
            return None
        name, memory, driver, capability = rows[0] if rows else ("", "", "", "")
        facts = {
            "power_mode": "none: only Jetson boards have named power modes",
            "driver": driver or self._driver(root),
            "compute_capability": capability or f"not readable: {reason}",
            "host_memory_mb": str(machine.memory_mb(root)),
            "cpu": machine.cpu_model(root),
            "gpus": str(max(len(rows), len(self._information(root)))),
        }
        gpu_mb = memory_mb(memory)
        if gpu_mb is None:
            facts["gpu_memory"] = f"not readable ({reason or memory}); the host's memory stands in"
        return Found(
            kind=self.name,
            profile="cuda",
            model=name or self._model(root),
            memory_mb=machine.memory_mb(root) if gpu_mb is None else gpu_mb,
            cores=machine.cores(root),
            native=native(capability),
            facts={key: value for key, value in facts.items() if value},
        )

    def _query(self, root: Path) -> tuple[list[list[str]], str]:
        """One row a GPU (name, memory, driver, compute capability), and why there are none."""
        answer, reason = machine.command(root, *QUERY)
        rows = [[cell.strip() for cell in line.split(",")] for line in answer.splitlines()]
        return [row for row in rows if len(row) == 4], reason or f"nvidia-smi answered {answer[:80]!r}"

    def _information(self, root: Path) -> list[Path]:
        return sorted(root.glob("proc/driver/nvidia/gpus/*/information"))

    def _model(self, root: Path) -> str:
        """The first GPU's name by the driver, or nothing."""
        for path in self._information(root)[:1]:
            for line in (machine.text(path) or "").splitlines():
                key, _, value = line.partition(":")
                if key.strip() == "Model":
                    return value.strip()
        return ""

    def _driver(self, root: Path) -> str:
        """The kernel module's version, from a line such as `NVRM version: ... Kernel Module  535.183.01  ...`."""
        words = (machine.text(root / "proc/driver/nvidia/version") or "").split()
        return next((word for word in words if word[0].isdigit() and "." in word), "")


def memory_mb(cell: str) -> int | None:
    """MB in a cell such as "12288 MiB"; None for "[N/A]", which GPUs without memory of their own answer."""
    number, _, unit = cell.partition(" ")
    return int(number) if number.isdigit() and unit == "MiB" else None


def native(capability: str) -> frozenset[str]:
    """Number formats by compute capability ("8.6"), from the CUDA programming guide's table of features.

    Half arithmetic from 5.3, four-way int8 dot products from 6.1, bfloat16 from 8.0; float32 only where unknown.
    """
    formats = {"float32"}
    major, dot, minor = capability.partition(".")
    if dot and major.isdigit() and minor.isdigit():
        version = int(major), int(minor)
        formats |= {
            name for name, since in (("float16", (5, 3)), ("int8", (6, 1)), ("bfloat16", (8, 0))) if version >= since
        }
    return frozenset(formats)


devices.register(Cuda.name)(Cuda())
