"""What commands tell on standard error: to people, to programs, and to who wants it quiet."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.awkward import add_ordinary
from tests.command import Regrain, Result
from tests.system.calling import call

AUTO = {"REGRAIN_LOG_FORMAT": "auto"}
UNKNOWN = "00" * 32
SECONDS_MAX = 60


@pytest.fixture
def regrain(store_path: Path, seed: int) -> Regrain:
    for number in range(3):
        add_ordinary(store_path, f"p{number}", "1", seed)
    found = Regrain(store_path, {"REGRAIN_MIGRATION__SETTLE": "0"})
    found("init")
    return found


def events(said: Result) -> list[dict[str, Any]]:
    """What was told to a program: every line is an object with its event's name."""
    found = [json.loads(line) for line in said.stderr.splitlines()]
    for line in found:
        assert list(line)[:4] == ["level", "message", "event", "at"], line
        assert line["level"] in {"info", "warning", "error"}, line
    return found


def break_one(regrain: Regrain) -> str:
    """Make a package that fails."""
    (name,) = (path.name for path in regrain.store.glob("[0-9a-f]*/") if _is_of(path, "p1"))
    os.mkfifo(regrain.store / name / "opt" / "fifo")
    return name


def _is_of(path: Path, name: str) -> bool:
    manifest = path / "manifest.toml"
    return manifest.exists() and f'"{name}"' in manifest.read_text()


def test_off_a_terminal_it_is_json(regrain: Regrain) -> None:
    name = break_one(regrain)
    found = events(regrain("-v", "migrate", code=3, env=AUTO))
    kinds = [line["event"] for line in found]
    assert kinds.count("PackageCompleted") == 2
    assert kinds.count("PackageFailed") == 1
    assert "BatchCommitted" in kinds
    (failed,) = (line for line in found if line["event"] == "PackageFailed")
    assert (failed["level"], failed["package_hash"]) == ("warning", name)
    assert failed["error"] in failed["message"]
    (done, _) = (line for line in found if line["event"] == "PackageCompleted")
    assert done["files"] > 0
    assert done["level"] == "info"


def test_what_fails_is_an_event_with_its_parts(regrain: Regrain) -> None:
    (error,) = events(regrain("show", UNKNOWN, code=1, env=AUTO))
    assert (error["event"], error["level"], error["exit_code"]) == ("Error", "error", 1)
    assert error["message"].startswith("regrain: no such package")
    assert error["package"] == UNKNOWN
    assert error["advice"]
    (usage,) = events(regrain("show", "--nonsense", code=2, env=AUTO))
    assert (usage["event"], usage["exit_code"]) == ("Error", 2)
    said = call(regrain.store, ["list", "nonsense"], options=["-vv", "--log-format", "json"])
    (traced,) = map(json.loads, said.stderr.splitlines())
    assert traced["traceback"].startswith("Traceback")


def test_paths_that_are_no_unicode(regrain: Regrain) -> None:
    (error,) = events(regrain("add", b"/no/such\xff", code=1, env=AUTO))[-1:]
    assert "such" in error["message"]


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_option_wins_over_the_variable(regrain: Regrain, form: str) -> None:
    other = {"REGRAIN_LOG_FORMAT": {"text": "json", "json": "text"}[form]}
    said = regrain("--log-format", form, "show", UNKNOWN, code=1, env=other)
    assert said.stderr.startswith("{") == (form == "json")


def test_a_variable_that_makes_no_sense(regrain: Regrain) -> None:
    said = regrain("status", code=2, env={"REGRAIN_LOG_FORMAT": "loud"})
    assert "'loud'" in said.stderr


def test_quiet_tells_what_went_wrong_only(regrain: Regrain) -> None:
    name = break_one(regrain)
    assert "contradict" in regrain("-q", "-v", "status", code=2).stderr
    told = regrain("-q", "migrate", code=3)
    (line,) = told.stderr.splitlines()
    assert line.startswith(f"failed: package {name}")
    assert "migrated" in told.text  # what was asked for is printed
    assert regrain("-q", "exclude", name).stderr == ""
    assert regrain("-q", "migrate").stderr == ""
    (error,) = regrain("--quiet", "show", UNKNOWN, code=1).stderr.splitlines()
    assert error.startswith("regrain: no such package")


def test_on_a_terminal_it_is_text(regrain: Regrain) -> None:
    ours, theirs = pty.openpty()
    environment = regrain.clean_environment(AUTO)
    with subprocess.Popen(
        regrain.command("show", UNKNOWN), env=environment, stderr=theirs, stdout=theirs
    ) as process:
        assert process.wait(SECONDS_MAX) == 1
    os.close(theirs)
    assert os.read(ours, 1 << 16).startswith(b"regrain: no such package")
    os.close(ours)


def test_how_large_logs_become_is_a_setting(regrain: Regrain, seed: int) -> None:
    for number in range(3, 25):
        add_ordinary(regrain.store, f"p{number}", "1", seed)
    logs = regrain.store / "migration" / "logs"
    small = {"REGRAIN_MIGRATION__LOG_FILE_BYTES": "4096"}
    regrain("migrate", "--limit", "14", env=small)
    packed = [path.name for path in logs.iterdir() if path.name.endswith(".jsonl.zst")]
    assert packed
    few = {
        "REGRAIN_MIGRATION__LOG_FILE_BYTES": "4096",
        "REGRAIN_MIGRATION__LOG_TOTAL_BYTES": "4096",
    }
    (logs / "2026-01-01.jsonl").write_bytes(b"\n" * 8192)
    regrain("migrate", env=few)
    assert not (logs / "2026-01-01.jsonl").exists()
    assert sum(path.stat().st_size for path in logs.iterdir()) < 3 * 4096
