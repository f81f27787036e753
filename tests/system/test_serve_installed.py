"""``serve`` where the server is not installed: it says so, and prints metrics all the same."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import remove
from tests.verbs import Model, make_model

PROGRAM = """
import sys
for name in ("uvicorn", "starlette", "h11", "prometheus_client", "anyio"):
    sys.modules[name] = None
from regrain.cli import run
sys.exit(run(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    place = tmp_path_factory.mktemp("without")
    yield make_model(place)
    remove(place)


def without_server(path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, "--store", path, "serve", *words],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_server_is_an_extra(model: Model) -> None:
    done = without_server(model.path)
    assert (done.returncode, done.stdout) == (1, ""), done
    assert done.stderr.count("\n") == 1
    assert "regrain[web]" in done.stderr


def test_metrics_need_no_extra(model: Model) -> None:
    done = without_server(model.path, "--once")
    assert (done.returncode, done.stderr) == (0, ""), done
    assert "\nregrain_store_readable 1\n" in done.stdout
