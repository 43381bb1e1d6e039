from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from suites.meta.test_architecture import at_import
from suites.meta.tools import says

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
INSTRUCTIONS = re.findall(r"^([A-Z]+) (.*?)$", re.sub(r"\\\n\s*", " ", DOCKERFILE), re.M)
"""Name and arguments of each, continued lines joined."""
STAGES = DOCKERFILE.split("\nFROM ")[1:]
RUN_STAGE = STAGES[-1]
SOURCES = [
    source
    for name, arguments in INSTRUCTIONS
    if name == "COPY" and "--from" not in arguments
    for source in arguments.split()[:-1]
]


def argument(name: str, text: str = DOCKERFILE) -> str:
    """What the last instruction of a name says."""
    return str(re.findall(rf"^{name} (.*)$", re.sub(r"\\\n\s*", " ", text), re.M)[-1])


def test_hadolint_finds_nothing() -> None:
    """The Dockerfile keeps the rules of hadolint; what is allowed nevertheless says why."""
    says("hadolint", DEPLOY / "Dockerfile")
    ignored = [at for at, line in enumerate(DOCKERFILE.splitlines()) if "hadolint ignore" in line]
    assert all(DOCKERFILE.splitlines()[at - 1].startswith("# ") for at in ignored)


@pytest.mark.parametrize("file", sorted(DEPLOY.glob("*.sh")), ids=lambda file: file.name)
def test_shellcheck_finds_nothing(file: Path) -> None:
    """The scripts are clean, for any POSIX shell."""
    assert file.read_text().startswith("#!/bin/sh\n")
    says("shellcheck", file)


def test_old_builders_do() -> None:
    """No heredoc, no link, no mount, no syntax line: builders from before BuildKit build it too."""
    for word in ("<<", "--link", "--mount", "# syntax=", "COPY --chmod"):
        assert word not in DOCKERFILE, word


def test_it_has_two_stages_on_any_base() -> None:
    """Both stages stand on the image that the user names, and what compiles stays in the first one."""
    assert [stage.splitlines()[0] for stage in STAGES] == ["${BASE_IMAGE} AS build", "${BASE_IMAGE}"]
    assert "ARG BASE_IMAGE=" in DOCKERFILE.split("FROM")[0]
    assert "install.sh" not in RUN_STAGE
    assert "build-essential" not in RUN_STAGE


def test_it_starts_the_module() -> None:
    """The entry point is the program that the README starts, run by the environment that was built."""
    python, *rest = json.loads(argument("ENTRYPOINT"))
    assert rest == ["-m", "targets.server"]
    assert importlib.util.find_spec("targets.server.__main__") is not None
    assert f"COPY --from=build {Path(python).parents[1]} " in RUN_STAGE
    assert json.loads(argument("HEALTHCHECK").partition("CMD ")[2])[0] == python


def test_it_is_nobody_and_writes_nowhere() -> None:
    """It runs as a number that is not root's, which Kubernetes can check, and writes to its volume and /tmp alone."""
    user, group = argument("USER").split(":")
    assert min(int(user), int(group)) > 0
    assert f"--uid {user} " in RUN_STAGE
    (volume,) = json.loads(argument("VOLUME"))
    assert f"EDGE_NLP_ARTIFACTS={volume}/" in DOCKERFILE
    assert "PYTHONDONTWRITEBYTECODE=1" in DOCKERFILE


def test_the_health_check_is_python() -> None:
    """The check needs no program that a slim image lacks, and asks the path that needs no key."""
    code = json.loads(argument("HEALTHCHECK").partition("CMD ")[2])[2]
    ast.parse(code)
    assert "'/health'" in code
    from targets.server.api_key import OPEN

    assert "/health" in OPEN


def test_the_context_holds_what_is_copied() -> None:
    """What the Dockerfile copies is there, and let through by .dockerignore; nothing else is."""
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert allowed == {source.rstrip("/") for source in SOURCES}
    assert all((ROOT / source).exists() for source in SOURCES)


def printed(extras: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(DEPLOY / "requirements.py"), extras]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def test_the_image_has_what_the_server_imports() -> None:
    """Each library that `targets` imports when it is imported comes with the requirements, or with one of them."""
    names = {re.split(r"[^\w.-]", line)[0] for line in printed("server-redis").stdout.splitlines()}
    reached: set[str] = set()
    while names:
        name = names.pop().lower().replace("_", "-")
        if name in reached:
            continue
        reached.add(name)
        try:
            needed = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        names |= {re.split(r"[^\w.-]", each)[0] for each in needed if "extra ==" not in each}
    bodies = [ast.parse(file.read_text()).body for file in (ROOT / "targets").rglob("*.py")]
    modules = {name.partition(".")[0] for body in bodies for name in at_import(body)}
    owners = importlib.metadata.packages_distributions()
    for module in modules - set(sys.stdlib_module_names) - {"targets", "__future__"}:
        came = {owner.lower().replace("_", "-") for owner in owners.get(module, [module])}
        assert came & reached, (
            f"{module} would be missing from the image: name what brings it in deploy/requirements.py"
        )


def test_the_image_has_nothing_of_the_suite() -> None:
    """What only the tests need is not installed, and the version ranges are the project's own."""
    lines = printed("onnxruntime,llama,server-redis").stdout.splitlines()
    assert not [line for line in lines if re.match("pytest|allure|matplotlib|scipy|hypothesis|edge-nlp-suite", line)]
    assert {"fastapi", "onnxruntime", "torch", "llama-cpp-python", "numpy"} <= {
        re.split(r"[\[>=<]", line)[0] for line in lines
    }
    assert len(lines) == len(set(lines))


def test_an_unknown_extra_is_named() -> None:
    """A wrong extra ends the build with the known ones."""
    result = printed("server,tensorflow")
    assert result.returncode == 1
    assert result.stderr.startswith("EXTRAS: there is no extra 'tensorflow'; known: ")
