"""What is read from a machine: cores, memory and control groups, names, and commands that fail."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fixtures import devices
from suites.meta import trees
from suites.meta.trees import Tree, grow
from targets import machine
from targets.api import UserError


def smt(count: int) -> Tree:
    """A processor of `count` cores with two threads each, numbered as Linux does: first threads first."""
    return trees.cpus([{"physical id": "0", "core id": str(index % count)} for index in range(2 * count)], 8000)


V2 = {"proc/self/cgroup": "0::/app.slice/job\n"}
V1 = {"proc/self/cgroup": "4:memory:/job/m\n2:cpu,cpuacct:/job\n1:name=systemd:/\n"}
V1_QUOTA_OF_MEMORY_GROUP = {"sys/fs/cgroup/cpu/job/m/cpu.cfs_quota_us": "100000"}
V1_QUOTA = {
    "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "300000",
    "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000",
}


@pytest.mark.parametrize(
    ("machine_files", "cores"),
    [
        pytest.param([smt(4)], 4, id="smt-threads-count-once"),
        pytest.param([smt(4), {"proc/self/status": "Name:\tx\nCpus_allowed_list:\t0-1,4\n"}], 2, id="affinity"),
        pytest.param([smt(4), {"proc/self/status": "Cpus_allowed_list:\t0-127\n"}], 4, id="affinity-names-absent-cpus"),
        pytest.param([trees.X86, {"sys/fs/cgroup/cpu.max": "max 100000\n"}], 4, id="no-quota"),
        pytest.param([trees.X86, {"sys/fs/cgroup/cpu.max": "250000 100000\n"}], 2, id="quota-in-a-container"),
        pytest.param([trees.X86, {"sys/fs/cgroup/cpu.max": "50000 100000\n"}], 1, id="never-below-one"),
        pytest.param([trees.X86, {"sys/fs/cgroup/cpu.max": "900000 100000\n"}], 4, id="quota-above-the-machine"),
        pytest.param([trees.X86, V2, {"sys/fs/cgroup/app.slice/job/cpu.max": "200000 100000"}], 2, id="own-group"),
        pytest.param([trees.X86, V2, {"sys/fs/cgroup/app.slice/cpu.max": "100000 100000"}], 1, id="group-above"),
        pytest.param([trees.X86, V2, {"sys/fs/cgroup/other/cpu.max": "100000 100000"}], 4, id="group-of-another"),
        pytest.param(
            [trees.X86, V1, V1_QUOTA],
            3,
            id="version-1",
        ),
        pytest.param([trees.X86, V1, V1_QUOTA_OF_MEMORY_GROUP], 4, id="version-1-group-of-another-controller"),
        pytest.param([trees.X86, V1, {"sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "-1"}], 4, id="version-1-no-quota"),
    ],
)
def test_cores_are_those_this_process_may_use(machine_files: list[Tree], cores: int, tmp_path: Path) -> None:
    """Cores are online, allowed, physical, and within the quota of every control group above the process."""
    assert machine.cores(grow(tmp_path, *machine_files)) == cores


@pytest.mark.parametrize(
    ("machine_files", "share"),
    [
        pytest.param([smt(4)], 1, id="all-of-it"),
        pytest.param([smt(4), {"proc/self/status": "Cpus_allowed_list:\t0-1\n"}], 0.25, id="affinity"),
        pytest.param([trees.X86, {"sys/fs/cgroup/cpu.max": "max 100000\n"}], 1, id="no-quota"),
        pytest.param([smt(4), {"sys/fs/cgroup/cpu.max": "200000 100000\n"}], 0.25, id="quota"),
    ],
)
def test_the_share_of_the_machine_that_is_ours(machine_files: list[Tree], share: float, tmp_path: Path) -> None:
    """A container, or a process bound to some processors, knows that others are none of its business."""
    assert machine.affinity_share(grow(tmp_path, *machine_files)) == share


@pytest.mark.parametrize(
    ("limits", "memory_mb"),
    [
        pytest.param({"sys/fs/cgroup/memory.max": "max\n"}, 16000, id="no-limit"),
        pytest.param({"sys/fs/cgroup/memory.max": f"{4 * 2**30}\n"}, 4096, id="container"),
        pytest.param({"sys/fs/cgroup/memory.max": f"{2**60}\n"}, 16000, id="limit-above-the-machine"),
        pytest.param({**V2, "sys/fs/cgroup/app.slice/memory.max": f"{2**31}"}, 2048, id="group-above"),
        pytest.param({**V1, "sys/fs/cgroup/memory/job/memory.limit_in_bytes": f"{2**30}"}, 1024, id="version-1"),
        pytest.param({**V1, "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712"}, 16000, id="none-v1"),
    ],
)
def test_memory_is_what_this_process_may_use(limits: Tree, memory_mb: int, tmp_path: Path) -> None:
    """The smallest limit of machine and control groups is the memory, and the budget follows it."""
    device = devices.detect(grow(tmp_path, trees.X86, limits))
    assert (device.memory_mb, device.memory_budget_mb) == (memory_mb, memory_mb * 3 // 4)


def test_a_tree_without_memory_is_an_error(tmp_path: Path) -> None:
    """A recorded tree that lacks MemTotal is refused by the file's name; this machine's memory never stands in."""
    with pytest.raises(UserError, match="proc/meminfo: no MemTotal"):
        devices.detect(tmp_path)


def test_an_unnamed_arm_cpu_is_called_by_its_part(tmp_path: Path) -> None:
    """Without any name the part number stands, rather than a guess."""
    tree = trees.cpu(2, 4000, **{"CPU implementer": "0x41", "CPU part": "0xd08"})
    assert machine.cpu_model(grow(tmp_path, tree)) == "ARM CPU (implementer 0x41, part 0xd08)"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("surely-no-such-program",), "surely-no-such-program is not installed"),
        ((sys.executable, "-c", "import sys; sys.exit('no board')"), "ended with status 1: no board"),
        ((sys.executable, "-c", "import time; time.sleep(30)"), "did not answer within 0.2 s"),
    ],
)
def test_a_command_that_fails_says_why(words: tuple[str, ...], reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool that is missing, fails or hangs gives no output and its reason."""
    if "0.2 s" in reason:
        monkeypatch.setattr(machine, "PATIENCE_S", 0.2)
    output, why = machine.command(Path("/"), *words)
    assert output == ""
    assert reason in why
