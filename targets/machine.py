"""What every kind of device reads from a machine: files below a root, commands, processor, memory, control groups.

A root of `/` is this machine. Any other root is a recorded tree, where the output of a command is the file
`commands/NAME`, so that a board can be studied (and tested) far from it.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import psutil

from targets.api import UserError

MB = 2**20
PATIENCE_S = 5.0
"""How long a command such as nvidia-smi may take; on a healthy machine it answers well within a second."""


def is_live(root: Path) -> bool:
    """Whether `root` is this machine rather than a recorded tree."""
    return root == Path("/")


def text(path: Path) -> str | None:
    """A small file's text without its trailing NUL and white space, or None where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").rstrip("\0 \t\r\n")
    except OSError:
        return None


def command(root: Path, *words: str) -> tuple[str, str]:
    """(standard output, "") of a command, or ("", why there is none)."""
    name = words[0]
    if not is_live(root):
        recorded = text(root / "commands" / name)
        return (recorded, "") if recorded is not None else ("", f"{name} is not recorded in {root}")
    try:
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=PATIENCE_S, check=False)
    except FileNotFoundError:
        return "", f"{name} is not installed"
    except OSError as error:
        return "", f"{name} cannot be run: {error.strerror}"
    except subprocess.TimeoutExpired:
        return "", f"{name} did not answer within {PATIENCE_S:g} s"
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        return "", f"{name} ended with status {done.returncode}: {said}"
    return done.stdout.strip(), ""


def processors(root: Path) -> list[dict[str, str]]:
    """The blocks of /proc/cpuinfo, one for each logical processor that is online; empty where there is no such file.

    A block that describes the whole machine (the last one on some ARM kernels) is merged into each.
    """
    blocks = [
        {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in block.splitlines())}
        for block in (text(root / "proc/cpuinfo") or "").split("\n\n")
    ]
    whole = {key: value for block in blocks if "processor" not in block for key, value in block.items()}
    return [whole | block for block in blocks if "processor" in block]


def cores(root: Path) -> int:
    """Cores that this process may use: online, in its affinity, physical, within its control groups' CPU quota.

    Threads of one core (SMT) count once, as PyTorch counts them. A quota of 1.5 CPUs counts as one, because a second
    thread would be throttled half of the time.
    """
    online = processors(root)
    allowed = _affinity(root)
    usable = [block for block in online if allowed is None or int(block["processor"]) in allowed]
    if usable:
        count = len({(block.get("physical id"), block.get("core id", block["processor"])) for block in usable})
    else:
        count = (psutil.cpu_count(logical=False) or os.cpu_count() or 1) if is_live(root) else 1
    return max(1, min([count, *(int(quota) for quota in _cpu_quotas(root))]))


def affinity_share(root: Path) -> float:
    """Share of the machine's processors that this process may use: below 1 in a container or under taskset."""
    online = processors(root)
    allowed = _affinity(root)
    usable = [block for block in online if allowed is None or int(block["processor"]) in allowed]
    if not online or not usable:
        return 1.0
    return min([len(usable), *_cpu_quotas(root)]) / len(online)


def memory_mb(root: Path) -> int:
    """Memory in MB that this process may use: the machine's, or less where a control group says so.

    Raises UserError where the machine's memory cannot be read.
    """
    limits = [value // MB for value in _memory_limits(root)]
    return min([total_memory_mb(root), *limits])


def total_memory_mb(root: Path) -> int:
    """The machine's memory in MB (MemTotal: what the kernel manages, less than what is soldered on)."""
    for line in (text(root / "proc/meminfo") or "").splitlines():
        key, _, value = line.partition(":")
        if key == "MemTotal":
            return int(value.split()[0]) // 1024
    if is_live(root):
        return int(psutil.virtual_memory().total) // MB
    raise UserError(f"{root / 'proc/meminfo'}: no MemTotal line; a recorded tree needs one, as 'MemTotal: 8000 kB'")


def cpu_model(root: Path) -> str:
    """The processor's name; on ARM, whose kernels give none, the board's or the core's part number."""
    block = next(iter(processors(root)), {})
    named = block.get("model name") or block.get("Model") or text(root / "proc/device-tree/model")
    if named:
        return named
    if "CPU part" in block:
        return f"ARM CPU (implementer {block.get('CPU implementer', 'unknown')}, part {block['CPU part']})"
    return (platform.processor() or platform.machine()) if is_live(root) else "unnamed CPU"


def cpu_flags(root: Path) -> frozenset[str]:
    """Instruction set extensions, as the kernel names them: `flags` on x86, `Features` on ARM."""
    block = next(iter(processors(root)), {})
    return frozenset((block.get("flags") or block.get("Features") or "").split())


def _affinity(root: Path) -> frozenset[int] | None:
    """Logical processors that this process may be scheduled on (it may name some that are offline), None if unknown."""
    for line in (text(root / "proc/self/status") or "").splitlines():
        if line.startswith("Cpus_allowed_list:"):
            ranges = (part.partition("-") for part in line.partition(":")[2].strip().split(","))
            return frozenset(cpu for first, _, last in ranges for cpu in range(int(first), int(last or first) + 1))
    return None


def _control_groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of the control groups that this process is in, from the innermost up: v2, and v1 of `controller`."""
    for line in (text(root / "proc/self/cgroup") or "0::/").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        base = root / "sys/fs/cgroup" / (controller if controllers else "")
        # A process moved out of its namespace's root sees a path with "..": the part below the root is what is mounted.
        inner = PurePosixPath(*(part for part in PurePosixPath(path).parts if part not in ("/", "..")))
        yield base / inner
        yield from (base / above for above in inner.parents if above != inner)


def _cpu_quotas(root: Path) -> Iterator[float]:
    """CPUs granted by each control group that sets a quota (cpu.max in v2, cpu.cfs_* in v1)."""
    for folder in _control_groups(root, "cpu"):
        quota, _, period = (text(folder / "cpu.max") or "max 1").partition(" ")
        if quota == "max":
            quota = text(folder / "cpu.cfs_quota_us") or "-1"
            period = text(folder / "cpu.cfs_period_us") or "100000"
        if int(quota) > 0:
            yield int(quota) / int(period)


def _memory_limits(root: Path) -> Iterator[int]:
    """Bytes granted by each control group that sets a limit; v1 writes "no limit" as a number near 2**63."""
    for folder in _control_groups(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = text(folder / name)
            if limit and limit != "max":
                yield int(limit)
