from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("prometheus_client", reason="the server: pip install 'edge-nlp-suite[server]'")

from targets.probe import Sensors
from targets.server.gauges import DeviceCollector, Watched
from targets.server.metrics import Metrics

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana/dashboard.json").read_text())
ALERTS = [rule for group in yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
NAME = re.compile(r"\b(?:nlp|process)_[a-z_]+")
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
CHANNELS = {"power_w", "gpu_load", "temperature_c", "gpu_mhz", "cpu_mhz", "emc_mhz", "cpu_busy_s"}
"""Of targets/probe.py those that the dashboard shows."""


class Sensor:
    """Reads every channel of the dashboard."""

    channels = tuple(sorted(CHANNELS))

    def read(self) -> dict[str, float]:
        return dict.fromkeys(CHANNELS, 1.0)

    def close(self) -> None:
        pass


def exposed() -> set[str]:
    """The names of all samples of a server that serves one task, its device watched."""
    metrics = Metrics()
    metrics.watch(Watched("sentiment", lambda: 0, lambda: True, lambda: 0, lambda: 1))
    metrics.registry.register(DeviceCollector(Sensors([Sensor()])))
    task = metrics.task("sentiment")
    task.answered(200, 0.1)
    task.ran([0.1], 0.1)
    return {sample.name for family in metrics.registry.collect() for sample in family.samples}


def expressions() -> Iterator[tuple[str, str]]:
    """Every query, and where it stands."""
    for panel in PANELS:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for rule in ALERTS:
        yield rule["alert"], rule["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        yield variable["name"], variable["query"]["query"]
    rules = yaml.safe_load((DEPLOY / "k8s/adapter-rules.yaml").read_text())["rules"]["custom"]
    yield "adapter-rules.yaml", rules[0]["seriesQuery"]


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_every_metric_exists(where: str, expression: str) -> None:
    """What a panel, an alert or the autoscaler asks for is exposed by the server under that name."""
    asked = set(NAME.findall(expression))
    assert asked or "up{" in expression, where
    assert not (missing := asked - exposed()), f"{where} asks for {', '.join(missing)}"
    assert expression.count("(") == expression.count(")")
    assert expression.count("{") == expression.count("}")


def test_every_metric_is_shown() -> None:
    """Each metric of the server stands on the dashboard in one form at least."""
    shown = " ".join(expression for _, expression in expressions())
    of_server = {
        re.sub("_(bucket|sum|count|created|total)$", "", name) for name in exposed() if name.startswith("nlp_")
    }
    assert not {name for name in of_server if name not in shown}


def test_panels_do_not_overlap() -> None:
    """Every panel has its own place in Grafana's 24 columns, and its own number."""
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        for cell in ((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])):
            assert cell not in taken, f"{panel['title']} lies on {taken.get(cell)}"
            taken[cell] = panel["title"]
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(numbers) == len(set(numbers))


def test_the_dashboard_finds_its_data_source() -> None:
    """Panels name the data source by the uid that Grafana is given."""
    (source,) = yaml.safe_load((DEPLOY / "grafana/provisioning.yaml").read_text())["datasources"]
    assert {panel["datasource"]["uid"] for panel in PANELS} == {source["uid"]}


def test_prometheus_asks_every_replica_with_its_key() -> None:
    """Prometheus finds the replicas by the name of their service, at the server's port, and shows the key."""
    told: dict[str, Any] = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    nlp = next(job for job in told["scrape_configs"] if job["job_name"] == "nlp")
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    (found,) = nlp["dns_sd_configs"]
    assert (found["names"], str(found["port"])) == (["server"], compose["server"]["expose"][0])
    assert nlp["authorization"]["credentials_file"] == compose["server"]["environment"]["EDGE_NLP_API_KEY_FILE"]
    assert told["rule_files"] == ["alerts.yml"]
    assert all({"alert", "expr", "labels", "annotations"} <= set(rule) for rule in ALERTS)
