from __future__ import annotations

from pathlib import Path

import pytest

from targets.api import UserError
from targets.sensors import tegrastats

NANO_6 = (
    "11-21-2026 10:11:12 RAM 2467/7471MB (lfb 2x4MB) SWAP 12/3735MB (cached 0MB) CPU [40%@1728,20%@1728,0%@729,off,off,"
    "off] EMC_FREQ 35%@3199 GR3D_FREQ 97%@[1020] NVDEC off NVJPG off VIC off OFA off APE 200 cpu@48.6C soc2@46.8C "
    "gpu@49C tj@49.125C VDD_IN 5200mW/5100mW VDD_CPU_GPU_CV 1480mW/1400mW VDD_SOC 1400mW/1400mW\n"
)
"""The shapes are published ones of each JetPack; the values are ours."""
AGX_5 = (
    "RAM 1205/30623MB (lfb 6429x4MB) SWAP 0/15311MB (cached 0MB) CPU [10%@729,30%@729] EMC_FREQ 0%@204 "
    "GR3D_FREQ 50%@114 GR3D2_FREQ 50%@114 NVJPG1 729 VIC_FREQ 729 APE 233 CV0@-256C CPU@43.5C Tdiode@32.5C GPU@-256C "
    "VDD_GPU_SOC 4000mW/4000mW VDD_CPU_CV 800mW/800mW VIN_SYS_5V0 3200mW/3200mW NC 0mW/0mW VDDQ_VDD2_1V8AO 700mW/700mW "
    "NC 0mW/0mW\n"
)
AGX_6 = "RAM 2448/62840MB (lfb 2x4MB) CPU [0%@2201] EMC_FREQ 1%@2133 GR3D_FREQ 0%@[0,305] NVENC      off APE   174\n"
THOR_7 = (
    "11-21-2026 10:11:13 RAM 8353/125749MB (lfb 31x4MB) CPU [90%@2601,off] EMC_FREQ @4266 GR3D_FREQ @[1574,1574,1574] "
    "NVENC0_FREQ @1691 VIC off cpu@58.25C/61.75C tj@66.625C/66.625C VDD_GPU -392mW/8660mW/37939mW "
    "VDD_CPU_SOC_MSS 30059mW/12281mW/30059mW VIN_SYS_5V0 15486mW/7424mW/15486mW VIN 124486mW/36487mW/124486mW\n"
)
TX2_4 = (
    "RAM 2020/7852MB (lfb 1164x4MB) IRAM 0/252kB(lfb 252kB) CPU [10%,30%,off]@345 EMC_FREQ 7%@1600 GR3D_FREQ 3% "
    "MTS fg 0% bg 0% PLL@42.5C VDD_IN 3140/3208\n"
)


def row(line: str) -> tegrastats.Row:
    (found,) = tegrastats.parse([line])
    return found


def test_a_line_of_an_orin_nano() -> None:
    """JetPack 6 on a Nano: the date, VDD_IN as the board's power, loads as shares, and clocks of the cores that run."""
    seconds, reading = row(NANO_6)
    assert seconds == pytest.approx(1795255872)  # date -u -d "2026-11-21 10:11:12" +%s
    assert reading == {
        "memory_available_mb": 5004.0,
        "swap_used_mb": 12.0,
        "cpu_load": pytest.approx(0.2),
        "cpu_mhz": pytest.approx((1728 + 1728 + 729) / 3),
        "emc_mhz": 3199.0,
        "gpu_load": 0.97,
        "gpu_mhz": 1020.0,
        "temperature_c.cpu": 48.6,
        "temperature_c.soc2": 46.8,
        "temperature_c.gpu": 49.0,
        "temperature_c.tj": 49.125,
        "power_w": 5.2,
        "power_w.VDD_CPU_GPU_CV": 1.48,
        "power_w.VDD_SOC": 1.4,
    }


def test_a_line_of_an_agx_orin() -> None:
    """JetPack 5 on an AGX: the module's three inputs add up, -256 is no temperature, NC is no rail."""
    seconds, reading = row(AGX_5)
    assert seconds is None
    assert reading["power_w"] == pytest.approx(8.0)
    assert reading["power_w.VDDQ_VDD2_1V8AO"] == 0.7
    assert (reading["gpu_mhz"], reading["gpu_load"]) == (114.0, 0.5)
    assert {name for name in reading if name.startswith("temperature_c.")} == {
        "temperature_c.cpu",
        "temperature_c.tdiode",
    }
    assert "power_w.NC" not in reading


def test_the_clock_of_several_gpu_clusters() -> None:
    """Where each cluster of the GPU has its clock, the fastest counts: one that is gated says 0 or off."""
    assert row(AGX_6)[1]["gpu_mhz"] == 305.0
    assert row(AGX_6.replace("[0,305]", "[off,612]"))[1]["gpu_mhz"] == 612.0


def test_a_line_of_thor() -> None:
    """JetPack 7 on Thor: VIN is the whole board, a maximum follows each mean, and no load is told, so none is given."""
    _, reading = row(THOR_7)
    assert reading["power_w"] == 124.486
    assert reading["power_w.VDD_GPU"] == -0.392
    assert "power_w.VIN" not in reading
    assert (reading["gpu_mhz"], reading["emc_mhz"]) == (1574.0, 4266.0)
    assert (reading["temperature_c.cpu"], reading["temperature_c.tj"]) == (58.25, 66.625)
    assert "gpu_load" not in reading


def test_a_line_of_old() -> None:
    """JetPack 4: one clock for all cores, rails without a unit, no GPU clock."""
    _, reading = row(TX2_4)
    assert (reading["cpu_mhz"], reading["power_w"]) == (345.0, 3.14)
    assert reading["cpu_load"] == pytest.approx(0.2)
    assert reading["gpu_load"] == 0.03
    assert "gpu_mhz" not in reading


def test_what_is_unknown_is_passed_over() -> None:
    """A statement of a later JetPack costs nothing of the rest of its line."""
    known = row(THOR_7)[1]
    assert row(THOR_7.replace("VIC off", "VIC off NEW_UNIT <7> ODD=1"))[1] == known


@pytest.mark.parametrize(
    "line",
    [
        "Sat Nov 21 10:11:12 2026 up 3 days",
        "tegrastats: command not found",
        NANO_6[: NANO_6.index("@729") + 3],
        NANO_6[: NANO_6.index("tj@49.") + 6],
        NANO_6[: NANO_6.index("VDD_IN") + 6],
        NANO_6[: NANO_6.index("VDD_SOC 1400mW") + 9],
        NANO_6[:80] + NANO_6,
        NANO_6.replace("11-21", "21-11"),
    ],
    ids=["foreign", "error", "in-cores", "in-temperature", "after-label", "in-power", "two-in-one", "no-date"],
)
def test_a_line_that_is_none(line: str, tmp_path: Path) -> None:
    """A foreign or cut line among others is refused with file and line: a part of a line would pass for a reading."""
    log = tmp_path / "tegrastats.log"
    log.write_text(NANO_6 + line.rstrip("\n") + "\n" + NANO_6)
    with pytest.raises(UserError, match=r"tegrastats\.log:2: not a whole line of tegrastats"):
        tegrastats.read(log)


@pytest.mark.parametrize("end", range(len(NANO_6) - 60, len(NANO_6) - 1))
def test_the_cut_last_line_is_counted(end: int, tmp_path: Path) -> None:
    """Where the recording was stopped within a line, that line is left out, said, and nothing else is lost."""
    log = tmp_path / "tegrastats.log"
    log.write_text(NANO_6 * 2 + NANO_6[:end])
    found = tegrastats.read(log)
    whole = NANO_6[:end].endswith("VDD_SOC 1400mW") or "VDD_SOC 1400mW/" in NANO_6[:end]
    assert len(found.rows) + found.cut == 3
    assert found.rows[-1] == row(NANO_6)
    assert found.cut == 1 or whole


def test_a_last_line_without_its_end_may_be_whole(tmp_path: Path) -> None:
    """An editor that drops the last newline drops no reading."""
    log = tmp_path / "tegrastats.log"
    log.write_text((NANO_6 * 3).rstrip("\n"))
    assert (len(tegrastats.read(log).rows), tegrastats.read(log).cut) == (3, 0)


def test_logs_without_a_line(tmp_path: Path) -> None:
    """No file, an empty one, and one that was cut within its first line are told by name."""
    log = tmp_path / "tegrastats.log"
    with pytest.raises(UserError, match="No such file"):
        tegrastats.read(log)
    for content in ("", "\n\n", "RAM 24"):
        log.write_text(content)
        with pytest.raises(UserError, match=r"tegrastats\.log: no whole line"):
            tegrastats.read(log)
