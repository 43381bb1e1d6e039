"""Devices: what is found on synthesised machines, what the profiles allow, and what a mistake in them says."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fixtures import devices
from suites.meta import trees
from suites.meta.trees import Tree, grow
from targets.api import UserError
from targets.devices import cpu, cuda, jetson
from targets.devices.apple_silicon import AppleSilicon

BOARDS = [
    pytest.param(trees.ORIN_NANO, "jetson-orin-nano", 6144, 4, 6, "MAXN_SUPER", "36.4.3", True, id="orin-nano"),
    pytest.param(trees.ORIN_NX, "jetson-orin-nx", 14336, 8, 8, "25W", "35.4.1", True, id="orin-nx"),
    pytest.param(trees.AGX_ORIN, "jetson-agx-orin", 54985, 16, 12, "MODE_30W", "36.3.0", True, id="agx-orin"),
    pytest.param(trees.THOR, "jetson-thor", 110050, 32, 14, "120W", "38.2.0", True, id="thor"),
    pytest.param(trees.XAVIER, "jetson-other", 4096, 2, 6, "MODE_15W_6CORE", "35.4.1", False, id="xavier"),
    pytest.param(trees.NANO, "jetson-other", 2967, 2, 4, "MAXN", "32.7.1", False, id="nano"),
]


@pytest.mark.parametrize(("tree", "name", "budget", "batch", "cores", "mode", "l4t", "bfloat16"), BOARDS)
def test_each_jetson_gets_its_profile(
    tree: Tree, name: str, budget: int, batch: int, cores: int, mode: str, l4t: str, bfloat16: bool, tmp_path: Path
) -> None:
    """A Jetson is known by its device tree, and its budget, batch, cores, power mode and formats are that board's."""
    device = devices.detect(grow(tmp_path, tree))
    assert (device.name, device.kind, device.torch_device) == (name, "jetson", "cuda")
    assert (device.memory_budget_mb, device.max_batch, device.cores) == (budget, batch, cores)
    assert (device.power_mode, device.facts["l4t"]) == (mode, l4t)
    assert device.native == {"float32", "float16", "int8"} | ({"bfloat16"} if bfloat16 else set())
    assert device.model == tree["proc/device-tree/model"].rstrip("\0")
    assert "power_mode" not in device.facts


def test_a_jetson_with_nvidia_smi_is_a_jetson(tmp_path: Path) -> None:
    """Newer Jetson Linux brings nvidia-smi; the board is still a Jetson, with its shared memory."""
    device = devices.detect(grow(tmp_path, trees.ORIN_NANO, trees.nvidia_smi("Orin (nvgpu), [N/A], 540.4.0, 8.7")))
    assert (device.name, device.memory_mb) == ("jetson-orin-nano", 7620)


def test_a_serial_number_is_kept_as_a_hash_only(tmp_path: Path) -> None:
    """Boards can be told apart in results, and the serial number itself stands nowhere in them."""
    serial = "1421123012345"
    tree = trees.device_tree("NVIDIA Jetson Orin NX", "nvidia,tegra234", serial=serial)
    device = devices.detect(grow(tmp_path, trees.ORIN_NX, tree))
    assert device.facts["serial_sha256"] == hashlib.sha256(serial.encode()).hexdigest()[:12]
    assert serial not in str(device.as_json())


def test_a_container_without_a_device_tree_is_still_a_jetson(tmp_path: Path) -> None:
    """The release file alone makes a Jetson; what only the device tree tells is absent and claims no bfloat16."""
    device = devices.detect(grow(tmp_path, trees.cpu(6, 7620), trees.l4t(36, "4.3")))
    assert (device.kind, device.name, device.facts["l4t"]) == ("jetson", "jetson-other", "36.4.3")
    assert "bfloat16" not in device.native
    assert not {"soc", "serial_sha256", "compatible"} & set(device.facts)


def test_a_container_with_the_soc_files_knows_its_board(tmp_path: Path) -> None:
    """Where the device tree is hidden, the kernel's own name and number of the chip stand in."""
    soc = {"sys/devices/soc0/machine": "NVIDIA Jetson Orin Nano Developer Kit\n", "sys/devices/soc0/soc_id": "35\n"}
    device = devices.detect(grow(tmp_path, trees.cpu(6, 7620), trees.l4t(36, "4.3"), soc))
    assert (device.name, device.facts["soc"]) == ("jetson-orin-nano", "tegra234")
    assert "bfloat16" in device.native


def test_a_device_tree_without_a_release_file_is_a_jetson(tmp_path: Path) -> None:
    """The device tree alone makes a Jetson; the release of Jetson Linux is then absent, not invented."""
    tree = trees.device_tree("NVIDIA Jetson AGX Orin", "nvidia,p3701-0000", "nvidia,tegra234")
    device = devices.detect(grow(tmp_path, trees.cpu(8, 30000), tree))
    assert device.name == "jetson-agx-orin"
    assert "l4t" not in device.facts


def test_a_power_mode_that_cannot_be_read_is_absent_with_its_reason(tmp_path: Path) -> None:
    """Without nvpmodel, or with an answer of another shape, the mode is None and the header says why."""
    bare = {path: text for path, text in trees.ORIN_NANO.items() if path != "commands/nvpmodel"}
    device = devices.detect(grow(tmp_path / "bare", bare))
    assert device.power_mode is None
    assert any("not readable: nvpmodel is not recorded" in line for line in devices.describe(device))
    odd = devices.detect(grow(tmp_path / "odd", trees.ORIN_NANO, {"commands/nvpmodel": "NVPM ERROR: no permission"}))
    assert odd.power_mode is None
    assert "NVPM ERROR: no permission" in odd.facts["power_mode"]


def test_the_jetpack_version_is_read_from_the_package_that_carries_it(tmp_path: Path) -> None:
    """JetPack's version is its own package's, not that of the next entry."""
    status = "Package: aaa\nVersion: 9\n\nPackage: nvidia-jetpack\nStatus: installed\nVersion: 6.2+b77\n\nPackage: z\n"
    device = devices.detect(grow(tmp_path, trees.ORIN_NANO, {"var/lib/dpkg/status": status}))
    assert device.facts["jetpack"] == "6.2+b77"
    assert devices.versions(device)["jetpack"] == "6.2+b77"


@pytest.mark.parametrize(
    ("model", "module", "name"),
    [
        ("NVIDIA Jetson Orin Nano 4GB", "", "jetson-orin-nano"),
        ("A carrier board", "nvidia,p3767-0003", "jetson-orin-nano"),
        ("A carrier board", "nvidia,p3767-0001", "jetson-orin-nx"),
        ("A carrier board", "nvidia,p3701-0004", "jetson-agx-orin"),
        ("A carrier board", "nvidia,p3834-0008", "jetson-thor"),
        ("NVIDIA Jetson Orin NX", "nvidia,p3767-0003", "jetson-orin-nx"),
        ("NVIDIA Jetson TX2", "nvidia,p3310-1000", "jetson-other"),
        ("", "", "jetson-other"),
    ],
)
def test_a_profile_follows_the_name_then_the_module(model: str, module: str, name: str) -> None:
    """The board's name decides; on a carrier board of another maker NVIDIA's module number does."""
    assert jetson.profile(model, [module]) == name


def test_a_board_with_less_memory_than_the_budget_gets_the_fraction(tmp_path: Path) -> None:
    """A budget larger than the machine's memory is never handed out."""
    device = devices.detect(grow(tmp_path, trees.ORIN_NANO, trees.cpu(6, 3600)))
    assert (device.name, device.memory_budget_mb) == ("jetson-orin-nano", 2700)


def test_a_gpu_is_read_from_nvidia_smi(tmp_path: Path) -> None:
    """With a discrete GPU the memory that matters is the GPU's, and the host's is a fact beside it."""
    device = devices.detect(grow(tmp_path, trees.RTX))
    assert (device.name, device.model, device.torch_device) == ("cuda", "NVIDIA GeForce RTX 3060", "cuda")
    assert (device.memory_mb, device.memory_budget_mb) == (12288, 11059)
    assert device.native == {"float32", "float16", "bfloat16", "int8"}
    assert (device.facts["driver"], device.facts["host_memory_mb"]) == ("535.183.01", "16000")
    assert "gpu_memory" not in device.facts


def test_the_first_of_several_gpus_is_the_device(tmp_path: Path) -> None:
    """Two GPUs are one device, named after the first, and the count is told."""
    smi = trees.nvidia_smi("Tesla T4, 15360 MiB, 550.54.15, 7.5", "NVIDIA A100, 40960 MiB, 550.54.15, 8.0")
    device = devices.detect(grow(tmp_path, trees.X86, smi))
    assert (device.model, device.facts["gpus"]) == ("Tesla T4", "2")
    assert device.native == {"float32", "float16", "int8"}


def test_a_gpu_without_nvidia_smi_is_found_by_its_driver(tmp_path: Path) -> None:
    """Where only the driver speaks, the model is known, and memory and formats claim no more than can be read."""
    device = devices.detect(grow(tmp_path, trees.X86, trees.nvidia_driver("NVIDIA L4", "550.54.15")))
    assert (device.kind, device.model, device.facts["driver"]) == ("cuda", "NVIDIA L4", "550.54.15")
    assert device.native == {"float32"}
    assert "not readable" in device.facts["compute_capability"]
    assert "the host's memory stands in" in device.facts["gpu_memory"]


def test_a_gpu_that_shares_the_hosts_memory_has_no_memory_of_its_own(tmp_path: Path) -> None:
    """nvidia-smi answers [N/A] for memory on such chips: the host's memory stands in, and a fact says so."""
    device = devices.detect(grow(tmp_path, trees.X86, trees.nvidia_smi("NVIDIA GB10, [N/A], 580.95.05, 12.1")))
    assert device.memory_mb == 16000
    assert "[N/A]" in device.facts["gpu_memory"]


@pytest.mark.parametrize(
    "tree",
    [
        pytest.param(trees.nvidia_driver("NVIDIA L4", "550.54.15", node=False), id="container-without-gpu"),
        pytest.param(trees.nvidia_smi("No devices were found"), id="no-devices"),
        pytest.param(trees.nvidia_smi(""), id="empty-answer"),
    ],
)
def test_a_driver_without_a_gpu_is_a_cpu(tree: Tree, tmp_path: Path) -> None:
    """A driver that shows no GPU to this process does not make a CUDA machine."""
    assert devices.detect(grow(tmp_path, trees.X86, tree)).name == "cpu"


@pytest.mark.parametrize(
    ("capability", "formats"),
    [
        ("5.2", {"float32"}),
        ("5.3", {"float32", "float16"}),
        ("6.1", {"float32", "float16", "int8"}),
        ("7.5", {"float32", "float16", "int8"}),
        ("8.0", {"float32", "float16", "int8", "bfloat16"}),
        ("12.0", {"float32", "float16", "int8", "bfloat16"}),
        ("[N/A]", {"float32"}),
        ("", {"float32"}),
    ],
)
def test_gpu_formats_follow_the_compute_capability(capability: str, formats: set[str]) -> None:
    """A format counts as native from the compute capability that brought it; unknown means float32 alone."""
    assert cuda.native(capability) == formats


@pytest.mark.parametrize(
    ("flags", "formats"),
    [
        ("avx2 f16c", {"float32", "int8"}),
        ("avx512f avx512_bf16", {"float32", "int8", "bfloat16"}),
        ("avx512_fp16", {"float32", "int8", "float16"}),
        ("amx_bf16 amx_fp16 amx_int8", {"float32", "int8", "bfloat16", "float16"}),
        ("asimd fphp asimdhp", {"float32", "int8", "float16"}),
        ("asimd fphp", {"float32", "int8"}),
        ("asimd fphp asimdhp bf16", {"float32", "int8", "float16", "bfloat16"}),
    ],
)
def test_cpu_formats_follow_the_kernels_flags(flags: str, formats: set[str]) -> None:
    """A format is native only where the processor has arithmetic for it; converting (f16c) does not count."""
    assert cpu.native(frozenset(flags.split())) == formats


def test_a_bfloat16_cpu_is_found(tmp_path: Path) -> None:
    """The flags of /proc/cpuinfo reach the device."""
    tree = trees.cpu(2, 8000, **{"model name": "A Server CPU", "flags": "avx512f avx512_bf16"})
    device = devices.detect(grow(tmp_path, tree))
    assert (device.name, device.model) == ("cpu", "A Server CPU")
    assert device.native == {"float32", "int8", "bfloat16"}


def test_an_arm_board_that_is_no_jetson_is_a_cpu(tmp_path: Path) -> None:
    """A device tree alone makes no Jetson; the board's name is the model, for ARM's cpuinfo has none."""
    device = devices.detect(grow(tmp_path, trees.RASPBERRY_PI))
    assert (device.name, device.model, device.cores) == ("cpu", "Raspberry Pi 5 Model B Rev 1.0", 4)
    assert device.native == {"float32", "int8", "float16"}


def test_apple_silicon_is_asked_by_sysctl(tmp_path: Path) -> None:
    """On macOS with arm64 the processor, memory and cores come from sysctl."""
    device = devices.detect(grow(tmp_path, {"commands/sysctl": "Apple M2\n17179869184\n8\n"}))
    assert (device.name, device.model, device.memory_mb, device.cores) == ("apple-silicon", "Apple M2", 16384, 8)
    assert (device.torch_device, "mps" in device.supports, "quantization" in device.supports) == ("mps", True, False)


@pytest.mark.parametrize(("system", "processor"), [("Linux", "arm64"), ("Darwin", "x86_64")])
def test_other_machines_are_not_apple_silicon(system: str, processor: str) -> None:
    """Neither arm64 without macOS nor an Intel Mac is Apple silicon."""
    assert AppleSilicon(system=lambda: system, processor=lambda: processor).detect(Path("/")) is None


def test_a_mac_whose_sysctl_fails_says_so(tmp_path: Path) -> None:
    """A Mac that tells nothing is an error that names what was asked, not another kind of machine."""
    with pytest.raises(UserError, match=r"hw\.memsize.* answered 'Apple M2'"):
        devices.detect(grow(tmp_path, trees.X86, {"commands/sysctl": "Apple M2\n"}))


@pytest.mark.parametrize("name", sorted(devices.profiles()))
@pytest.mark.parametrize("count", [1, 2, 3, 64])
def test_threads_never_exceed_the_machine(name: str, count: int, tmp_path: Path) -> None:
    """No engine is told to use more threads than there are cores, nor more than its profile says."""
    found = cpu.Cpu().detect(grow(tmp_path, trees.cpu(count, 8000)))
    device = devices.join(found, devices.profile(name))
    asked = devices.profile(name).backends["llama_cpp"]["n_threads"]
    assert device.threads == count
    assert device.backends["llama_cpp"]["n_threads"] == min(count, asked)


@pytest.mark.parametrize("name", sorted(devices.profiles()))
def test_a_plan_of_another_device_says_that_it_is_one(name: str, tmp_path: Path) -> None:
    """A device that is not this machine is planned from its profile alone, and its header says so."""
    device = devices.planned(name, grow(tmp_path, trees.X86))
    profile = devices.profile(name)
    assert (device.name, device.kind, device.max_batch) == (name, profile.kind, profile.max_batch)
    assert device.detected == (name == "cpu")
    assert ("not this machine" in device.model) == (name != "cpu")
    assert ("a plan" in devices.describe(device)[0]) == (name != "cpu")
    if not device.detected:
        assert device.native == profile.plan.native
        assert device.memory_budget_mb == profile.budget_mb(profile.plan.memory_mb)


def test_a_machine_asked_for_by_name_is_the_machine(tmp_path: Path) -> None:
    """--device with the detected name changes nothing, and the processor of a GPU machine can be asked for."""
    root = grow(tmp_path, trees.RTX)
    assert devices.planned("cuda", root) == devices.detect(root)
    processor = devices.planned("cpu", root)
    assert (processor.detected, processor.memory_mb, processor.torch_device) == (True, 16000, "cpu")


def test_a_jetson_is_not_another_jetson(tmp_path: Path) -> None:
    """Asking for the AGX on a Nano gives a plan of the AGX, not the Nano with another name."""
    device = devices.planned("jetson-agx-orin", grow(tmp_path, trees.ORIN_NANO))
    assert (device.detected, device.power_mode, "serial_sha256" in device.facts) == (False, None, False)


def test_an_unknown_device_is_refused_with_a_hint() -> None:
    """A misspelt device is answered with the nearest one and with all there are."""
    with pytest.raises(
        UserError, match=r"unknown device 'jetson-nano'\. Did you mean 'jetson-orin-nano'\? Known: apple"
    ):
        devices.planned("jetson-nano")


def test_this_machine_is_a_device() -> None:
    """The machine that runs this is found, with cores that exist and a budget within its memory."""
    device = devices.detect()
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    assert device.detected
    assert 1 <= device.cores <= allowed
    assert 0 < device.memory_budget_mb < device.memory_mb
    assert len(devices.describe(device)) == 5
    assert "float32" in device.native
    assert devices.planned(device.name).name == device.name


def test_detecting_is_quick_where_no_tool_has_to_be_asked(tmp_path: Path) -> None:
    """Detecting a CPU takes less than 50 ms (the best of five, for the machine may be busy)."""
    root = grow(tmp_path, trees.X86)
    devices.detect(root)
    laps = []
    for _ in range(5):
        start = time.perf_counter()
        devices.detect(root)
        laps.append(time.perf_counter() - start)
    assert min(laps) < 0.05


def test_no_framework_is_imported() -> None:
    """Detection, profiles and versions import no framework, so that collecting stays quick."""
    code = (
        "import sys; from fixtures import devices; devices.versions(devices.detect())\n"
        "print([name for name in ('torch', 'transformers', 'onnxruntime', 'pytest') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_versions_are_those_installed_and_leave_out_the_rest(tmp_path: Path) -> None:
    """Versions name what is installed; a planned device adds none, and outside of a checkout there is no revision."""
    found = devices.versions(devices.planned("jetson-thor", grow(tmp_path, trees.X86)))
    assert found["pytest"] == pytest.__version__
    assert found["python"].split(".")[0] == "3"
    assert all(found.values())
    assert "l4t" not in found
    assert devices.git_revision(tmp_path) is None


def test_a_revision_tells_whether_files_differ(tmp_path: Path) -> None:
    """The revision is the commit, marked dirty as soon as a tracked file differs from it."""

    def git(*words: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
        return subprocess.run(("git", "-C", tmp_path, *who, *words), capture_output=True, text=True, check=True).stdout

    git("init", "-q")
    (tmp_path / "file").write_text("a")
    git("add", "file")
    git("commit", "-q", "--no-verify", "-m", "a")
    git("tag", "v1")
    head = git("rev-parse", "HEAD").strip()
    assert devices.git_revision(tmp_path) == head
    (tmp_path / "file").write_text("b")
    assert devices.git_revision(tmp_path) == f"{head}-dirty"
