"""The manifests of Kubernetes: they parse, fit each other, and name what there is."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from regrain.cli import main

ROOT = Path(__file__).parents[2]
PLACE = ROOT / "contrib" / "kubernetes"
FINAL = {2, 3, 4, 5}
"""Exit codes after which the same command, given again, would end the same way."""


def documents() -> Iterator[dict[str, Any]]:
    for path in sorted(PLACE.glob("*.yaml")):
        yield from yaml.safe_load_all(path.read_text())


def pods() -> dict[str, dict[str, Any]]:
    return {
        document["metadata"]["name"]: document["spec"]["template"]["spec"]
        for document in documents()
        if "template" in document["spec"]
    }


def test_all_pods_are_there() -> None:
    assert set(pods()) == {"regrain-scheduler", "regrain-worker", "regrain-migrate"}


def test_all_are_of_one_image_and_one_user() -> None:
    assert {c["image"] for pod in pods().values() for c in pod["containers"]} == {"regrain"}
    users = [pod["securityContext"] for pod in pods().values()]
    assert users[1:] == users[:-1]
    assert all("fsGroup" not in user for user in users), "it changes the groups of all files"


def test_who_works_on_the_store_sees_it_at_one_path() -> None:
    mounted = {
        name: (pod["volumes"], pod["containers"][0]["volumeMounts"])
        for name, pod in pods().items()
        if "volumes" in pod
    }
    assert mounted.pop("regrain-worker") == mounted.pop("regrain-migrate")
    assert not mounted


def test_a_migration_that_was_killed_is_started_again() -> None:
    (job,) = [document for document in documents() if document["kind"] == "Job"]
    (rule,) = job["spec"]["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    assert set(rule["onExitCodes"]["values"]) == FINAL
    pod = job["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # what podFailurePolicy asks for
    assert rule["onExitCodes"]["containerName"] == pod["containers"][0]["name"]


def test_the_scheduler_is_called_what_the_others_call_it() -> None:
    (service,) = [document for document in documents() if document["kind"] == "Service"]
    address = f"tcp://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    found = pods()
    assert address in found["regrain-worker"]["containers"][0]["command"]
    assert f"dask:{address}" in found["regrain-migrate"]["containers"][0]["args"]
    assert "8786" in found["regrain-scheduler"]["containers"][0]["command"]


@pytest.mark.parametrize("option", ["--executor"])
def test_the_command_knows_its_options(option: str) -> None:
    assert option in CliRunner().invoke(main, ["migrate", "--help"]).output


def test_the_image_installs_extras_that_there_are() -> None:
    (extras,) = re.findall(r"\[([a-z,]+)\]\"", (PLACE / "Dockerfile").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
