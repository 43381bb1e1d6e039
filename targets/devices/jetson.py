"""NVIDIA Jetson boards, by the device tree and the release file of Jetson Linux (L4T)."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from targets import machine
from targets.api import Found
from targets.registry import devices
from targets.sensors import clocks

PROFILES = (
    (re.compile(r"Orin Nano|p3767-000[345]\b", re.IGNORECASE), "jetson-orin-nano"),
    (re.compile(r"Orin NX|p3767-000[01]\b", re.IGNORECASE), "jetson-orin-nx"),
    (re.compile(r"AGX Orin|p3701-", re.IGNORECASE), "jetson-agx-orin"),
    (re.compile(r"\bThor\b|p3834-", re.IGNORECASE), "jetson-thor"),
)
"""Profiles by the board's name or, on carrier boards of other makers, by NVIDIA's module number in `compatible`."""

BFLOAT16_CHIPS = frozenset({"tegra234", "tegra264"})
"""Orin (Ampere, compute capability 8.7) and Thor (Blackwell); Xavier (7.2) and older have no bfloat16 arithmetic."""

CHIP_BY_SOC_ID = {"24": "tegra186", "25": "tegra194", "33": "tegra210", "35": "tegra234", "38": "tegra264"}
"""Linux numbers Tegra chips in /sys/devices/soc0/soc_id (include/soc/tegra/fuse.h, there in hexadecimal)."""


class Jetson:
    """A Jetson module: processor and GPU share one memory."""

    name = "jetson"
    rank = 10

    def detect(self, root: Path) -> Found | None:
        """The board by its device tree, by /etc/nv_tegra_release, or both: containers often lack the first."""
        compatible = self._compatible(root)
        release = machine.text(root / "etc/nv_tegra_release")
        model = machine.text(root / "proc/device-tree/model") or machine.text(root / "sys/devices/soc0/machine")
        chip = self._chip(root, compatible)
        if not (chip or release or (model and "jetson" in model.lower())):
            return None
        power_mode, reason = self._power_mode(root)
        facts = {
            "soc": chip,
            "compatible": " ".join(compatible),
            "l4t": l4t(release or ""),
            "jetpack": self._jetpack(root),
            "serial_sha256": self._serial_hash(root),
            "cpu": machine.cpu_model(root),
            "power_mode": reason,
            "clocks": clocks.policy(root) or "",
        }
        return Found(
            kind=self.name,
            profile=profile(model or "", compatible),
            model=model or f"Jetson of unknown model ({chip or 'no device tree'})",
            memory_mb=machine.memory_mb(root),
            cores=machine.cores(root),
            native=frozenset({"float32", "float16", "int8"} | ({"bfloat16"} if chip in BFLOAT16_CHIPS else set())),
            power_mode=power_mode,
            facts={key: value for key, value in facts.items() if value},
        )

    def _compatible(self, root: Path) -> list[str]:
        """The device tree's list of what the board is, most specific first; empty where it is hidden."""
        return [entry for entry in (machine.text(root / "proc/device-tree/compatible") or "").split("\0") if entry]

    def _chip(self, root: Path, compatible: list[str]) -> str:
        """The chip's name, such as tegra234, or nothing."""
        named = [entry.removeprefix("nvidia,") for entry in compatible if entry.startswith("nvidia,tegra")]
        return named[-1] if named else CHIP_BY_SOC_ID.get(machine.text(root / "sys/devices/soc0/soc_id") or "", "")

    def _power_mode(self, root: Path) -> tuple[str | None, str]:
        """The mode's name as `nvpmodel -q` prints it, or None and why; ids are left out, for they differ by board."""
        answer, reason = machine.command(root, "nvpmodel", "-q")
        found = re.search(r"NV Power Mode:[ \t]*(\S.*)", answer)
        if found:
            return found[1].strip(), ""
        return None, f"not readable: {reason or f'nvpmodel -q answered {answer[:80]!r}'}"

    def _serial_hash(self, root: Path) -> str:
        """Tells boards apart without telling which: the first 12 hexadecimal digits of the serial number's SHA-256."""
        serial = machine.text(root / "proc/device-tree/serial-number")
        return hashlib.sha256(serial.encode()).hexdigest()[:12] if serial else ""

    def _jetpack(self, root: Path) -> str:
        """The version of the installed package nvidia-jetpack; nothing in containers, which do not have it."""
        status = machine.text(root / "var/lib/dpkg/status") or ""
        entry = status.partition("Package: nvidia-jetpack\n")[2].partition("\n\n")[0]
        version = re.search(r"^Version: (\S+)", entry, re.MULTILINE)
        return version[1] if version else ""


def profile(model: str, compatible: list[str]) -> str:
    """The profile's name; the board's name counts before its module number."""
    for text in (model, " ".join(compatible)):
        for pattern, name in PROFILES:
            if pattern.search(text):
                return name
    return "jetson-other"


def l4t(release: str) -> str:
    """Jetson Linux version, "36.4.3" from "# R36 (release), REVISION: 4.3, ..."; nothing where it reads otherwise."""
    found = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", release)
    return f"{found[1]}.{found[2]}" if found else ""


devices.register(Jetson.name)(Jetson())
