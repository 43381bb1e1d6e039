"""Power modes of a Jetson: what `nvpmodel` knows, and how it is asked to change.

Formats and behaviour as documented in NVIDIA's Jetson Linux developer guide (Supported Modes and Power Efficiency) and
shown by users' logs: modes stand in /etc/nvpmodel.conf as `< POWER_MODEL ID=2 NAME=MODE_30W >`, `-q` tells the name and
then the number, `-m ID` sets a mode at once, needs root, and lasts over power cycles. A mode that gates other parts of
the GPU needs a reboot: nvpmodel then asks on standard input whether to do it now, and changes nothing unless it reads
YES. Numbers differ by board and release, so modes go by name here.
"""

from __future__ import annotations

import difflib
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from targets import machine
from targets.api import UserError

PROGRAM = "nvpmodel"
CONFIGURATION = "etc/nvpmodel.conf"
PATIENCE_S = 60.0
"""Switching brings processor cores on and off line, which takes seconds."""
MODE = re.compile(r"^<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", re.MULTILINE)


@dataclass(frozen=True)
class Mode:
    """A power mode of this board."""

    name: str
    number: int

    @property
    def command(self) -> str:
        """What sets it by hand."""
        return f"sudo {PROGRAM} -m {self.number}"


class RebootNeeded(UserError):
    """The mode needs a reboot, which is the user's to begin."""


def modes(root: Path = Path("/")) -> dict[str, Mode]:
    """The board's modes by name.

    Raises:
        UserError: there is no configuration, or no mode in it.
    """
    place = root / CONFIGURATION
    content = machine.text(place)
    if content is None:
        raise UserError(f"{place} cannot be read, so this board's power modes are not known; is nvpmodel installed?")
    found = {name: Mode(name, int(number)) for number, name in MODE.findall(content)}
    if not found:
        raise UserError(f"{place} names no power mode; a line such as '< POWER_MODEL ID=0 NAME=15W >' was expected")
    return found


def mode(name: str, root: Path = Path("/")) -> Mode:
    """The mode of that name, in upper or lower case. Raises UserError that names the known ones."""
    known = modes(root)
    by_case = {each.casefold(): each for each in known}
    if name.casefold() in by_case:
        return known[by_case[name.casefold()]]
    near = difflib.get_close_matches(name.casefold(), by_case, 1, cutoff=0.5)
    hint = f"; did you mean {by_case[near[0]]}?" if near else ""
    raise UserError(f"--power-mode {name}: this board has {', '.join(known)}{hint}")


def current() -> Mode:
    """The mode the board is in. Raises UserError where nvpmodel does not tell."""
    code, said = asked("-q")
    found = re.search(r"NV Power Mode:[ \t]*(\S+)\s+(\d+)", said)
    if found is None:
        raise UserError(f"{PROGRAM} -q ended with status {code} and told no power mode: {last(said)}")
    return Mode(found[1], int(found[2]))


def change(wanted: Mode) -> None:
    """Set a mode and check that it is set.

    Raises:
        RebootNeeded: the mode needs a reboot; nothing has changed.
        UserError: not root, or nvpmodel failed, or says another mode afterwards.
    """
    if current().name == wanted.name:
        return
    permitted(wanted)
    code, said = asked("-m", str(wanted.number), answer="NO\n")
    if re.search(r"\breboot", said, re.IGNORECASE):
        raise RebootNeeded(
            f"power mode {wanted.name} needs a reboot, which is left to you: type {wanted.command}, answer YES, and "
            "after the reboot give the same command with --resume"
        )
    if code:
        raise UserError(f"{PROGRAM} -m {wanted.number} ({wanted.name}) ended with status {code}: {last(said)}")
    if (found := current()).name != wanted.name:
        raise UserError(f"{PROGRAM} -m {wanted.number} was to set {wanted.name}, but the board is in {found.name}")


def permitted(wanted: Mode) -> None:
    """Raise UserError, with what to type, where this process may not set a mode."""
    if os.geteuid() != 0:
        raise UserError(f"power mode {wanted.name} can be set by root only: type {wanted.command}, then run again")


def asked(*words: str, answer: str = "") -> tuple[int, str]:
    """(exit status, everything it printed) of nvpmodel. Raises UserError where it cannot be run."""
    try:
        done = subprocess.run(
            (PROGRAM, *words),
            input=answer,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=PATIENCE_S,
            check=False,
        )
    except FileNotFoundError:
        raise UserError(f"{PROGRAM} is not on PATH: it comes with Jetson Linux, in /usr/sbin") from None
    except OSError as error:
        raise UserError(f"{PROGRAM} cannot be run: {error.strerror}") from error
    except subprocess.TimeoutExpired:
        raise UserError(f"{PROGRAM} {' '.join(words)} did not end within {PATIENCE_S:g} s") from None
    return done.returncode, done.stdout


def last(said: str) -> str:
    """The last line of what a program said."""
    return (said.strip().splitlines() or ["it said nothing"])[-1]
