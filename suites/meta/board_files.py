"""The sensor files of a Jetson board in a given state, by path: synthesised, as suites/meta/board_trees.py says."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from suites.meta.trees import Tree

Files = dict[str, str | None]
"""Contents by path below the root; None stands for a directory in the file's place: the sensor sleeps (EISDIR)."""
ASLEEP = -256.0
"""The value of a zone whose unit is off, as tegrastats prints it."""


@dataclass(frozen=True)
class Model:
    """How one kind of board lays its sensors out. `rails` are shares of `power_w`, which Thor's ina238 tells whole."""

    tree: Tree
    devfreq: str
    load: str
    gpu_mhz: float
    cpu_mhz: float
    policies: Mapping[int, str]
    zones: tuple[str, ...]
    alerts: tuple[str, ...]
    rails: Mapping[str, float]
    ina238: bool = False
    suffix: str = "-thermal"


def files(model: Model, state: Mapping[str, float]) -> Files:
    """Every sensor file of a board in a state; None stands for a directory: the sensor sleeps."""
    tree: Files = {**proc(state, model), **power(model, state["power_w"])}
    devfreq = f"sys/class/devfreq/{model.devfreq}"
    for name, channel in (("cur_freq", "gpu_mhz"), ("min_freq", "gpu_min_mhz"), ("max_freq", "gpu_max_mhz")):
        tree[f"{devfreq}/{name}"] = f"{state[channel] * 1e6:.0f}\n"
    if model.load:
        tree[model.load] = f"{state['gpu_load'] * 1000:.0f}\n"
    for number, cores in model.policies.items():
        policy = f"sys/devices/system/cpu/cpufreq/policy{number}"
        tree[f"{policy}/affected_cpus"] = f"{cores}\n"
        for name, channel in (("cur", "cpu_mhz"), ("min", "cpu_min_mhz"), ("max", "cpu_max_mhz")):
            tree[f"{policy}/scaling_{name}_freq"] = f"{state[channel] * 1000:.0f}\n"
    emc = "sys/class/devfreq/bwmgr/cur_freq" if model.ina238 else "sys/kernel/debug/bpmp/debug/clk/emc/rate"
    tree[emc] = f"{state['emc_mhz'] * 1e6:.0f}\n"
    tree["sys/kernel/nvpmodel_clk_cap/emc"] = f"{state['emc_max_mhz'] * 1e6:.0f}\n"
    tree |= {"sys/class/hwmon/hwmon0/name": "pwmfan\n", "sys/class/hwmon/hwmon0/pwm1": f"{state['fan_pwm']:.0f}\n"}
    for number in (1, 2, 3):
        counter = f"sys/devices/platform/soctherm-oc-event/hwmon/hwmon4/oc{number}_event_cnt"
        tree[counter] = f"{state[f'oc_events.oc{number}']:.0f}\n"
    return tree | thermal(model, state)


def thermal(model: Model, state: Mapping[str, float]) -> Files:
    """Zones, of which those that sleep are directories, and cooling devices, the fan among them."""
    tree: Files = {}
    for number, zone in enumerate(model.zones):
        celsius = state[f"temperature_c.{zone}"]
        tree[f"sys/class/thermal/thermal_zone{number}/type"] = f"{zone}{model.suffix}\n"
        tree[f"sys/class/thermal/thermal_zone{number}/temp"] = None if celsius == ASLEEP else f"{celsius * 1000:.0f}\n"
    types = {f"{alert}-throttle-alert": f"throttle.{alert}" for alert in model.alerts}
    for number, (kind, channel) in enumerate({**types, "hot-surface-alert": "throttle.hot-surface"}.items()):
        tree[f"sys/class/thermal/cooling_device{number}/type"] = f"{kind}\n"
        tree[f"sys/class/thermal/cooling_device{number}/cur_state"] = f"{state[channel]:.0f}\n"
    fan = f"sys/class/thermal/cooling_device{len(types) + 1}"
    return tree | {f"{fan}/type": "pwm-fan\n", f"{fan}/cur_state": "2\n"}


def power(model: Model, watts: float) -> Files:
    """An ina3221 with three rails in mV and mA, and on Thor the carrier board's ina238 in uW."""
    chip = "sys/class/hwmon/hwmon1"
    tree: Files = {f"{chip}/name": "ina3221\n"}
    for number, (rail, share) in enumerate(model.rails.items(), start=1):
        tree[f"{chip}/in{number}_label"] = f"{rail}\n"
        tree[f"{chip}/in{number}_input"] = "5000\n"
        tree[f"{chip}/curr{number}_input"] = f"{watts * share / 5 * 1000:.0f}\n"
    if model.ina238:
        chip = "sys/class/hwmon/hwmon2"
        tree |= {f"{chip}/name": "ina238\n", f"{chip}/power1_input": f"{watts * 1e6:.0f}\n"}
    return tree


def proc(state: Mapping[str, float], model: Model) -> Files:
    """The tables of /proc that a probe reads, and nvmap's list of clients."""
    page_kb = os.sysconf("SC_PAGE_SIZE") // 1024
    tick = os.sysconf("SC_CLK_TCK")
    total = next(line for line in model.tree["proc/meminfo"].splitlines() if line.startswith("MemTotal"))
    kb = {
        "MemAvailable": state["memory_available_mb"],
        "SwapTotal": state["swap_total_mb"],
        "SwapFree": state["swap_total_mb"] - state["swap_used_mb"],
    }
    ticks = f"{state['cpu_busy_s'] * tick:.0f} 0 0 90000 50 0 0 {state['cpu_steal_s'] * tick:.0f} 0 0"
    nvmap = f"{state['nvmap_mb'] * 1024:.0f}K"
    tree: Files = {
        "proc/meminfo": "\n".join([total, *(f"{key}: {mb * 1024:>12.0f} kB" for key, mb in kb.items())]) + "\n",
        "proc/stat": f"cpu  {ticks}\ncpu0 {ticks}\nintr 5 1 2\nctxt {state['context_switches']:.0f}\nbtime 1\n",
        "proc/vmstat": f"nr_free_pages 9\npgpgin 1\npswpin {state['swap_in_mb'] * 1024 / page_kb:.0f}\npswpout 3\n",
        "sys/kernel/debug/nvmap/iovmm/clients": (
            f"CLIENT                        PROCESS      PID        SIZE\nuser   python3  77  {nvmap}\ntotal  {nvmap}\n"
        ),
    }
    for resource in ("cpu", "memory", "io"):
        some = f"some avg10=0.00 avg60=0.00 avg300=0.00 total={state[f'pressure_{resource}_s'] * 1e6:.0f}"
        tree[f"proc/pressure/{resource}"] = f"{some}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
    return tree
