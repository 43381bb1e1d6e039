"""Recorded logs of NVIDIA's tegrastats (`tegrastats --logfile FILE`), as the channels of targets/probe.py.

Formats of JetPack 4 to 7: the Jetson Linux Developer Guide's "tegrastats Utility". In what differs from sysfs:
`memory_available_mb` is total less used, which leaves out what the kernel could reclaim; `cpu_load` (0 to 1, the mean
of the online cores over one interval) stands in for the counter cpu_busy_s; seconds are whole, whatever the interval.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from targets.api import UserError
from targets.probe import Reading
from targets.sensors.tegra import board_power

Row = tuple[float | None, Reading]
"""Seconds since the epoch, taking the board's local time for UTC (only differences count), or None; and the values."""

OFF_C = -256.0
"""What tegrastats prints for the zone of a unit that is powered off."""
NAME = r"[A-Za-z]\w*"
NUMBER = r"-?\d+(?:\.\d+)?"
STAMP = re.compile(r"(\d\d-\d\d-\d{4} \d\d:\d\d:\d\d) ")
TOKEN = re.compile(
    rf"""(?:
      RAM\ (?P<used>\d+)/(?P<total>\d+)MB\s*(?:\(lfb\ \d+x\d+[kM]B\))?
    | SWAP\ (?P<swap>\d+)/\d+MB\s*(?:\(cached\ \d+MB\))?
    | IRAM\ \d+/\d+kB\s*\(lfb\ \d+kB\)
    | MTS\ fg\ \d+%\ bg\ \d+%
    | CPU\ \[(?P<cores>[^\]]*)\](?:@(?P<clock>\d+))?
    | GR3D_FREQ\ +(?:(?P<load>\d+)%)?(?:@(?:\[(?P<parts>[^\]]*)\]|(?P<gpu>\d+)))?
    | EMC_FREQ\ +(?:\d+%)?(?:@(?P<emc>\d+))?
    | (?P<zone>{NAME})@(?P<celsius>{NUMBER})C(?:/{NUMBER}C)*
    | (?P<rail>{NAME})\ +(?P<mw>-?\d+)(?:mW(?:/-?\d+mW)*|/-?\d+)
    | (?!V(?:DD|IN)){NAME}\ +(?:off|\d+%?(?:@\d+|@\[[^\]]*\])?|@\d+|@\[[^\]]*\])
    | (?P<unknown>\S+(?=\s))
    )(?:\s+|$)""",
    re.VERBOSE,
)
"""One statement. What is unknown is passed over, but not as the last word of a line, which may be half of one."""


@dataclass(frozen=True)
class Log:
    """The rows of a log, and how many lines at its end were cut (0 or 1)."""

    rows: list[Row]
    cut: int


def read(path: Path) -> Log:
    """A recorded log. A last line that the end of the recording cut is left out and counted.

    Raises UserError with file and line where another line is cut, or is none of tegrastats'.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; a log is written by tegrastats --logfile FILE") from None
    ended = not lines or lines[-1].endswith("\n")
    rows = list(parse(lines if ended else lines[:-1], str(path)))
    if not ended and (last := parse_line(lines[-1])) and (not rows or last[1].keys() >= rows[-1][1].keys()):
        return Log([*rows, last], 0)
    if not rows:
        raise UserError(f"{path}: no whole line in it; a log is written by tegrastats --logfile FILE")
    return Log(rows, 0 if ended else 1)


def parse(lines: Iterable[str], source: str = "tegrastats") -> Iterator[Row]:
    """One row a line; blank lines are passed over. Raises UserError with `source` and the line's number."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        row = parse_line(line)
        if row is None:
            raise UserError(
                f"{source}:{number}: not a whole line of tegrastats (one begins with RAM 2467/7471MB, perhaps after "
                f"a date), but {line.strip()[:60]!r}; delete the line"
            )
        yield row


def parse_line(line: str) -> Row | None:
    """The row of one line, or None where the line is cut or is another program's."""
    line = line.strip()
    stamp = STAMP.match(line)
    position = stamp.end() if stamp else 0
    if not line.startswith("RAM ", position) or " RAM " in line[position:]:
        return None  # the second: two lines ran into one, as where a board lost power
    reading: Reading = {}
    rails: Reading = {}
    while position < len(line):
        token = TOKEN.match(line, position)
        if token is None:
            return None
        position = token.end()
        _take({key: text for key, text in token.groupdict().items() if text is not None}, reading, rails)
    if "memory_available_mb" not in reading:
        return None
    reading.update(board_power(rails))
    try:
        return _seconds(stamp[1]) if stamp else None, reading
    except ValueError:
        return None


def _seconds(stamp: str) -> float:
    """Raises ValueError for what is no date."""
    return datetime.strptime(stamp, "%m-%d-%Y %H:%M:%S").replace(tzinfo=timezone.utc).timestamp()


def _take(found: dict[str, str], reading: Reading, rails: Reading) -> None:
    """Put what a statement says into the reading, or into the rails in watts."""
    if "used" in found:
        reading["memory_available_mb"] = float(int(found["total"]) - int(found["used"]))
    elif "swap" in found:
        reading["swap_used_mb"] = float(found["swap"])
    elif "cores" in found:
        reading.update(_cores(found["cores"], found.get("clock")))
    elif "emc" in found:
        reading["emc_mhz"] = float(found["emc"])
    elif "zone" in found and float(found["celsius"]) > OFF_C:
        reading[f"temperature_c.{found['zone'].lower()}"] = float(found["celsius"])
    elif "rail" in found and found["rail"] != "NC":
        rails[found["rail"]] = int(found["mw"]) / 1000
    if "load" in found:
        reading["gpu_load"] = int(found["load"]) / 100
    clocks = [float(text) for text in re.findall(r"\d+", found.get("parts") or found.get("gpu") or "")]
    if clocks:
        reading["gpu_mhz"] = max(clocks)  # a GPC that is gated says 0 or off


def _cores(text: str, clock: str | None) -> Reading:
    """Mean load and clock of the cores that are not off: `[9%@729,off]`, or before JetPack 4 `[9%,off]@729`."""
    cores = re.findall(r"(\d+)%(?:@(\d+))?", text)
    if not cores:
        return {}
    reading = {"cpu_load": sum(int(load) for load, _ in cores) / len(cores) / 100}
    clocks = [int(mhz or clock or 0) for _, mhz in cores]
    return reading | ({"cpu_mhz": sum(clocks) / len(clocks)} if all(clocks) else {})
