"""For `--targets=suites.meta.jetson_stand_in`: this machine is the tree below EDGE_ROOT (see suites/meta/trees.py).

`install` makes such a tree, and a program `nvpmodel` that behaves as the documentation and users' logs say. Nothing of
it was recorded on a board.
"""

from __future__ import annotations

import os
from pathlib import Path

from fixtures import devices
from fixtures.power import mode as power_mode
from fixtures.telemetry import sampler
from suites.meta import trees
from targets.api import Device

MODES = {"15W": 0, "25W": 1, "MAXN_SUPER": 2, "7W": 3}
GATED = "7W"
"""The mode that needs a reboot."""
CONFIGURATION = "# FORMAT:\n# < POWER_MODEL ID=9 NAME=COMMENT >\n< PARAM TYPE=FILE NAME=CPU_ONLINE >\n" + "".join(
    f"< POWER_MODEL ID={number} NAME={name} >\nCPU_ONLINE CORE_0 1\n" for name, number in MODES.items()
)
PROGRAM = """\
#!/bin/sh
state={root}/commands/nvpmodel
echo "$@" >> {root}/asked
case "$1" in
-q) cat "$state" ;;
-m)
    case "$2" in
{modes}
    *) echo "NVPM ERROR: invalid power mode $2"; exit 255 ;;
    esac
    if [ -e {root}/refuses ]; then echo "NVPM ERROR: failed to set power mode!"; exit 255; fi
    if [ "$2" = {gated} ]; then
        echo "NVPM WARN: Reboot required for changing to this power mode: $2"
        echo "NVPM WARN: DO YOU WANT TO REBOOT NOW? enter YES/yes to confirm:"
        read answer
        case "$answer" in YES|yes) touch {root}/rebooted ;; esac
        echo "NVPM ERROR: optMask is 1, no request for power mode"
        exit 255
    fi
    if [ -e {root}/ignores ]; then exit 0; fi
    printf 'NV Power Mode: %s\\n%s\\n' "$name" "$2" > "$state" ;;
esac
"""


def install(root: Path, mode: str = "MAXN_SUPER") -> dict[str, str]:
    """An Orin Nano in that mode below `root`; the environment in which it is this machine."""
    state = {"commands/nvpmodel": f"NV Power Mode: {mode}\n{MODES[mode]}\n", "etc/nvpmodel.conf": CONFIGURATION}
    trees.grow(root, trees.ORIN_NANO, state)
    program = root / "bin" / "nvpmodel"
    program.parent.mkdir()
    names = "\n".join(f"    {number}) name={name} ;;" for name, number in MODES.items())
    program.write_text(PROGRAM.format(root=root, modes=names, gated=MODES[GATED]))
    program.chmod(0o755)
    return environment(root)


def environment(root: Path) -> dict[str, str]:
    """What makes a process believe that the tree is its machine."""
    return {"EDGE_ROOT": str(root), "PATH": f"{root / 'bin'}:{os.environ['PATH']}"}


def current(root: Path) -> str:
    """The mode the board is in."""
    return (root / "commands" / "nvpmodel").read_text().split()[3]


if "EDGE_ROOT" in os.environ:
    power_mode.ROOT = sampler.ROOT = Path(os.environ["EDGE_ROOT"])
    detect = devices.detect

    def stand_in(root: Path = power_mode.ROOT) -> Device:
        """The device of the tree."""
        return detect(root)

    devices.detect = stand_in
