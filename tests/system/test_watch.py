"""`status --watch`: a view that goes on, through runs, until it is interrupted."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from tests.awkward import add_ordinary
from tests.command import Regrain

SECONDS_MAX = 30
PACKAGES = 5


@pytest.fixture
def regrain(store_path: Path, seed: int) -> Regrain:
    for number in range(PACKAGES):
        add_ordinary(store_path, f"p{number}", "1", seed)
    found = Regrain(store_path, {"REGRAIN_MIGRATION__SETTLE": "0"})
    found("init")
    return found


@contextmanager
def watching(regrain: Regrain, *options: str, out: int | None = None) -> Iterator[Any]:
    # As from a terminal: what is started in the background ignores the signal.
    command = [
        "env",
        "--default-signal=INT",
        sys.executable,
        "-m",
        "regrain",
        "--store",
        str(regrain.store),
        "status",
        "--watch",
    ]
    with subprocess.Popen(
        [*command, *options], stdout=out or subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def end(process: subprocess.Popen[bytes]) -> str:
    """Interrupt it, and return what it said at last."""
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=SECONDS_MAX)
    assert process.returncode == 130, said
    return said.decode()


def documents(lines: IO[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        document = json.loads(line)
        assert (document["schema"], document["message_type"]) == (1, "status")
        yield document


@pytest.mark.timeout(60)
def test_documents_through_runs(regrain: Regrain) -> None:
    with watching(regrain, "--json") as process:
        told = documents(process.stdout)
        first = next(told)
        assert (first["migrated_packages"], first["phase"]) == (0, "dual")
        assert first.keys() == regrain("status", "--json").document.keys()
        regrain("migrate", "--limit", "2")
        assert next(d for d in told if not d["running"])["migrated_packages"] in (0, 2)
        regrain("migrate")
        last = next(d for d in told if d["migrated_packages"] == PACKAGES and not d["running"])
        assert last["next_command"] == regrain("status", "--json").document["next_command"]
        regrain("cutover", "--no-backup")
        assert next(d for d in told if d["phase"] == "file_level")
        assert "interrupted" in end(process)


@pytest.mark.timeout(60)
def test_a_line_where_something_changed(regrain: Regrain) -> None:
    with watching(regrain) as process:
        first = process.stdout.readline().decode()
        assert first.startswith(f"dual; 0 of {PACKAGES} packages; 0 B of ")
        regrain("pause")
        paused = process.stdout.readline().decode()
        assert "; paused; " in paused
        regrain("resume")
        regrain("migrate")
        for line in process.stdout:
            if f"; {PACKAGES} of {PACKAGES} packages; " in line.decode():
                break
        assert "Traceback" not in end(process)


@pytest.mark.timeout(60)
def test_it_is_drawn_on_a_terminal(regrain: Regrain) -> None:
    ours, theirs = pty.openpty()
    try:
        with watching(regrain, out=theirs) as process:
            seen = b""
            while seen.count(b"Ctrl-C ends this view") < 2:  # drawn anew although nothing changed
                seen += os.read(ours, 1 << 16)
            assert b"phase" in seen
            assert f"0 of {PACKAGES} migrated".encode() in seen
            assert b"\x1b[" in seen  # in place
            end(process)
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize("option", ["--failed", "--check", "--space"])
def test_it_goes_with_no_other_option(regrain: Regrain, option: str) -> None:
    assert "--watch goes with no other" in regrain("status", "--watch", option, code=2).stderr


def test_no_store(tmp_path: Path) -> None:
    Regrain(tmp_path)("status", "--watch", code=10)


@pytest.mark.timeout(60)
def test_a_store_that_goes_away(regrain: Regrain) -> None:
    with watching(regrain, "--json") as process:
        next(documents(process.stdout))
        (regrain.store / "store.toml").rename(regrain.store / "temp" / "store.toml")
        _, said = process.communicate(timeout=SECONDS_MAX)
        assert process.returncode == 10, said
        assert b"Traceback" not in said
