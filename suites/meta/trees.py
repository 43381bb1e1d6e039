"""Machines as trees of files, to detect devices far from them.

Every tree is synthesised from documented formats: proc(5), the kernel's documentation of control groups, NVIDIA's
Jetson Linux developer guide and the kernel's Tegra device trees. None was recorded on a board; no serial is real.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

Tree = Mapping[str, str]
"""Contents by path below the root; `commands/NAME` holds what a command prints."""

A78AE = {"CPU implementer": "0x41", "CPU part": "0xd42", "Features": "fp asimd aes fphp asimdhp asimddp"}


def grow(root: Path, *trees: Tree) -> Path:
    """Write the trees below `root`, later over earlier, and return it."""
    for path, content in {path: content for tree in trees for path, content in tree.items()}.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
    return root


def cpu(count: int, memory_mb: int, **every: str) -> Tree:
    """A machine of `count` logical processors, each with the same fields in /proc/cpuinfo."""
    return cpus([every] * count, memory_mb)


def cpus(fields: list[Mapping[str, str]], memory_mb: int) -> Tree:
    """A machine with one logical processor for each mapping of fields."""
    blocks = (
        "".join(f"{key}\t: {value}\n" for key, value in {"processor": str(index), **each}.items())
        for index, each in enumerate(fields)
    )
    return {
        "proc/cpuinfo": "\n".join(blocks) + "\n",
        "proc/meminfo": f"MemTotal: {memory_mb * 1024:>15} kB\nMemFree: 1 kB\n",
    }


def device_tree(model: str, *compatible: str, serial: str = "1420000000001") -> Tree:
    """What firmware tells the kernel of a board: each property ends with NUL."""
    return {
        "proc/device-tree/model": f"{model}\0",
        "proc/device-tree/compatible": "".join(f"{entry}\0" for entry in compatible),
        "proc/device-tree/serial-number": f"{serial}\0",
    }


def l4t(major: int, revision: str) -> Tree:
    """The release file of Jetson Linux."""
    line = (
        f"# R{major} (release), REVISION: {revision}, GCID: 1, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 2025\n"
    )
    return {"etc/nv_tegra_release": line}


def nvpmodel(mode: str) -> Tree:
    """The answer of `nvpmodel -q`: the mode's name, then its number."""
    return {"commands/nvpmodel": f"NV Power Mode: {mode}\n0\n"}


def nvidia_smi(*rows: str) -> Tree:
    """The answer of nvidia-smi to name, memory.total, driver_version, compute_cap."""
    return {"commands/nvidia-smi": "".join(f"{row}\n" for row in rows)}


def nvidia_driver(model: str, version: str, node: bool = True) -> Tree:
    """What NVIDIA's kernel module shows in /proc, with the GPU's device node unless it was given to nobody."""
    line = f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {version}  Sun Sep  1 00:00:00 UTC 2024\n"
    tree = {
        "proc/driver/nvidia/version": line,
        "proc/driver/nvidia/gpus/0000:01:00.0/information": f"Model: \t\t {model}\nIRQ:   \t\t 100\n",
    }
    return tree | ({"dev/nvidia0": ""} if node else {})


ORIN_NANO: Tree = {
    **cpu(6, 7620, **A78AE),
    **device_tree(
        "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
        *("nvidia,p3768-0000+p3767-0005-super", "nvidia,p3767-0005", "nvidia,tegra234"),
    ),
    **l4t(36, "4.3"),
    **nvpmodel("MAXN_SUPER"),
}
ORIN_NX: Tree = {
    **cpu(8, 15656, **A78AE),
    **device_tree("NVIDIA Orin NX Developer Kit", "nvidia,p3767-0000", "nvidia,tegra234"),
    **l4t(35, "4.1"),
    **nvpmodel("25W"),
}
AGX_ORIN: Tree = {
    **cpu(12, 62840, **A78AE),
    **device_tree("NVIDIA Jetson AGX Orin Developer Kit", "nvidia,p3737-0000+p3701-0005", "nvidia,tegra234"),
    **l4t(36, "3.0"),
    **nvpmodel("MODE_30W"),
}
THOR: Tree = {
    **cpu(14, 125772, **A78AE),
    **device_tree("NVIDIA Jetson AGX Thor Developer Kit", "nvidia,p3971-0089+p3834-0008", "nvidia,tegra264"),
    **l4t(38, "2.0"),
    **nvpmodel("120W"),
}
XAVIER: Tree = {
    **cpu(6, 6846, **A78AE),
    **device_tree("NVIDIA Jetson Xavier NX Developer Kit", "nvidia,p3449-0000+p3668-0000", "nvidia,tegra194"),
    **l4t(35, "4.1"),
    **nvpmodel("MODE_15W_6CORE"),
}
NANO: Tree = {
    **cpu(4, 3956, **{"CPU implementer": "0x41", "CPU part": "0xd07", "Features": "fp asimd aes"}),
    **device_tree("NVIDIA Jetson Nano Developer Kit", "nvidia,p3450-0000", "nvidia,jetson-nano", "nvidia,tegra210"),
    **l4t(32, "7.1"),
    **nvpmodel("MAXN"),
}
X86: Tree = cpu(4, 16000, **{"model name": "A Desktop CPU @ 3.00GHz", "flags": "fpu sse2 avx avx2 f16c"})
RASPBERRY_PI: Tree = {
    **cpu(4, 8062, **{"CPU implementer": "0x41", "CPU part": "0xd0b", "Features": "fp asimd fphp asimdhp asimddp"}),
    **device_tree("Raspberry Pi 5 Model B Rev 1.0", "raspberrypi,5-model-b", "brcm,bcm2712"),
}
RTX: Tree = {
    **X86,
    **nvidia_driver("NVIDIA GeForce RTX 3060", "535.183.01"),
    **nvidia_smi("NVIDIA GeForce RTX 3060, 12288 MiB, 535.183.01, 8.6"),
}
