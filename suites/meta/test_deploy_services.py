from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("uvicorn", reason="the server: pip install 'edge-nlp-suite[server]'")

from suites.meta.tools import says
from targets.server import options
from targets.server.guards.api_key import OPEN
from targets.server.settings import Settings

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
GPU = yaml.safe_load((DEPLOY / "compose.gpu.yaml").read_text())
OBJECTS = [
    found
    for file in sorted((DEPLOY / "k8s/base").glob("*.yaml"))
    for found in yaml.safe_load_all(file.read_text())
    if found["kind"] != "Kustomization"
]
DEPLOYMENTS = [found for found in OBJECTS if found["kind"] == "Deployment"]


def object_of(kind: str, name: str = "nlp-server") -> dict[str, Any]:
    (found,) = [each for each in OBJECTS if each["kind"] == kind and each["metadata"]["name"] == name]
    return dict(found)


POD = object_of("Deployment")["spec"]["template"]["spec"]
CONTAINER = POD["containers"][0]


@pytest.mark.parametrize("file", ["compose.yaml", "compose.gpu.yaml"])
def test_compose_keeps_its_schema(file: str) -> None:
    """Both files are valid by the Compose specification."""
    says("check-jsonschema", "--builtin-schema", "vendor.compose-spec", DEPLOY / file)


@pytest.mark.parametrize("name", sorted(COMPOSE["services"]))
def test_every_service_is_hardened(name: str) -> None:
    """Each container has a read-only root, no capability, and no way to gain any."""
    service = COMPOSE["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service


def test_only_haproxy_is_reached_from_outside() -> None:
    """Replicas and Redis publish no port, and their network leads nowhere."""
    published = {name for name, service in COMPOSE["services"].items() if "ports" in service}
    assert published == {"haproxy", "grafana"}
    assert all(port.startswith("127.0.0.1:") for port in COMPOSE["services"]["grafana"]["ports"])
    assert COMPOSE["networks"]["inside"] == {"internal": True}
    assert COMPOSE["services"]["server"]["networks"] == COMPOSE["services"]["redis"]["networks"] == ["inside"]


def test_gpus_stand_in_their_own_file() -> None:
    """Without the override nothing asks for a GPU, so that compose.yaml runs anywhere."""
    assert not re.search("nvidia|gpu", (DEPLOY / "compose.yaml").read_text().partition("name: ")[2], re.I)
    assert set(GPU["services"]) == {"server"}
    assert GPU["services"]["server"]["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]


def told() -> Iterator[tuple[str, str, str]]:
    """Where a variable of the server is set, its name and its value."""
    for file, services in (("compose.yaml", COMPOSE), ("compose.gpu.yaml", GPU)):
        for key, value in services["services"]["server"].get("environment", {}).items():
            yield file, key, str(value)
    for variable in CONTAINER["env"]:
        yield "deployment.yaml", variable["name"], str(variable["value"])
    overlay = yaml.safe_load((DEPLOY / "k8s/gpu/deployment.yaml").read_text())
    for variable in overlay["spec"]["template"]["spec"]["containers"][0]["env"]:
        yield "gpu/deployment.yaml", variable["name"], str(variable["value"])
    for key, value in re.findall(r"(EDGE_NLP_\w+)=(\S+)", (DEPLOY / "Dockerfile").read_text()):
        yield "Dockerfile", key, value


@pytest.mark.parametrize(("file", "variable", "value"), [each for each in told() if each[1].startswith("EDGE_NLP_")])
def test_the_server_knows_its_variables(file: str, variable: str, value: str) -> None:
    """Every variable that a file sets is an option of the server, with a value that it reads."""
    known = {option.variable: option for option in options.table().values()}
    assert variable in known, f"{file} sets {variable}"
    if "FILE" not in variable:  # which is there in the container only
        known[variable].read(value)


@pytest.mark.parametrize("file", sorted((DEPLOY / "k8s/base").glob("*.yaml")), ids=lambda file: file.name)
def test_kubernetes_takes_it(file: Path) -> None:
    """Every object keeps the schema of its kind, with no field that does not exist."""
    if file.name == "kustomization.yaml":
        listed = yaml.safe_load(file.read_text())["resources"]
        assert sorted([*listed, file.name]) == sorted(each.name for each in file.parent.glob("*.yaml"))
    else:
        assert "passed" in says("kubernetes-validate", "--strict", file)


def test_everybody_means_the_same_pods() -> None:
    """Service, autoscaler and disruption budget speak of the deployment's own pods."""
    labels = object_of("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert object_of("Deployment")["spec"]["selector"]["matchLabels"] == labels
    assert object_of("Service")["spec"]["selector"] == labels
    assert object_of("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    assert object_of("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"] == "nlp-server"
    assert "replicas" not in object_of("Deployment")["spec"], "that is the autoscaler's to say"


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda each: str(each["metadata"]["name"]))
def test_pods_are_restricted(deployment: Mapping[str, Any]) -> None:
    """Each pod keeps Kubernetes' restricted standard, and reads its root file system only."""
    pod = deployment["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["limits"]


def test_the_user_is_the_image_s() -> None:
    """The pod runs as the user that the image was made for, who owns its volume."""
    user = re.findall(r"^USER (\d+):(\d+)$", (DEPLOY / "Dockerfile").read_text(), re.M)[-1]
    assert (str(POD["securityContext"]["runAsUser"]), str(POD["securityContext"]["fsGroup"])) == user


def test_services_set_no_variables() -> None:
    """Kubernetes' variables for services (NAME_PORT=tcp://...) stay away: the server would take them for its own."""
    assert POD["enableServiceLinks"] is False


def test_probes_ask_what_needs_no_key() -> None:
    """Each probe asks a path that is open, and readiness the one that fails while models load."""
    asked = {kind: CONTAINER[kind]["httpGet"]["path"] for kind in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert set(asked.values()) <= OPEN
    assert asked["readinessProbe"] == "/ready"
    assert asked["livenessProbe"] == "/health", "an engine that restarts must not restart the server"


def test_there_is_time_to_stop() -> None:
    """Orchestrators wait longer for the end than the server does for what it accepted."""
    pause = float(CONTAINER["lifecycle"]["preStop"]["exec"]["command"][1])
    server = {variable["name"]: variable["value"] for variable in CONTAINER["env"]}
    assert POD["terminationGracePeriodSeconds"] > pause + float(server["EDGE_NLP_SHUTDOWN_S"])
    compose = COMPOSE["services"]["server"]
    shutdown = float(compose["environment"]["EDGE_NLP_SHUTDOWN_S"])
    assert float(compose["stop_grace_period"].rstrip("s")) > shutdown


def test_the_autoscaler_goes_by_the_queue() -> None:
    """The metric that scales is the one that the adapter makes of the server's own, at one full batch a pod."""
    (metric,) = object_of("HorizontalPodAutoscaler")["spec"]["metrics"]
    (rule,) = yaml.safe_load((DEPLOY / "k8s/adapter-rules.yaml").read_text())["rules"]["custom"]
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"] == "nlp_queue_depth"
    assert int(metric["pods"]["target"]["averageValue"]) == Settings().batching.max_batch_size


def test_writable_places_are_the_same_everywhere() -> None:
    """Image, Compose and Kubernetes agree on where the server may write."""
    mounts = {mount["mountPath"] for mount in CONTAINER["volumeMounts"] if not mount.get("readOnly")}
    compose = COMPOSE["services"]["server"]
    writable = [each.partition(":") for each in itertools.chain(compose["volumes"], compose["tmpfs"])]
    assert mounts == {target.partition(":")[0] if not head.startswith("/") else head for head, _, target in writable}
    assert '["/var/cache/edge-nlp"]' in (DEPLOY / "Dockerfile").read_text()
