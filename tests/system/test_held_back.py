"""What holds a run back for a while: the kernel's I/O pressure, readers that become slow."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from regrain.model.events import READ_NOISE_SECONDS
from tests import awkward
from tests.command import Regrain
from tests.stores import statuses

pytestmark = pytest.mark.root
SECONDS_MAX = 60.0
SLOWED_SECONDS_MAX = 300.0


def until(condition: Callable[[], Any]) -> Any:
    """Ask until something is so."""
    due = time.monotonic() + SECONDS_MAX
    while not (found := condition()):
        assert time.monotonic() < due, "it never came to it"
        time.sleep(0.05)
    return found


def test_reading_is_held_to_its_rate(store_path: Path, seed: int) -> None:
    size = 5 << 20
    awkward.add_large(store_path, seed, size)
    regrain = Regrain(store_path, {"REGRAIN_MIGRATION__MAX_READ": "2"})
    regrain("init")
    begin = time.monotonic()
    regrain("migrate")
    assert 0.7 * size / (2 << 20) < time.monotonic() - begin


def test_files_are_held_to_their_rate(store_path: Path, seed: int) -> None:
    """As it is configured, then as it is told; the reason is shown all the time."""
    awkward.make_plain_store(store_path, seed, 1, 60)
    regrain = Regrain(store_path, {"REGRAIN_MIGRATION__MAX_FILES": "1"})
    regrain("init")
    begin = time.monotonic()
    with regrain.running("migrate", "--jobs", "1") as run:

        def slowed() -> Any:
            document = regrain("status", "--json").document
            return document if document["throttled"] else None

        document = until(slowed)
        assert document["throttle_reason"] == "no more than 1 files/s are read (max_files)"
        assert document["in_progress_packages"] == 1
        regrain("set", "max-files=20")
        assert run.wait(SECONDS_MAX) == 0
    assert 60 / 20 * 0.7 < time.monotonic() - begin < 60
    assert set(statuses(store_path).values()) == {"completed"}


def test_a_pause_between_batches_is_a_reason(store_path: Path, seed: int) -> None:
    awkward.make_plain_store(store_path, seed, 2, 2)
    regrain = Regrain(store_path, {"REGRAIN_MIGRATION__PAUSE_MS": "1500"})
    regrain("init")
    with regrain.running("migrate", "--batch", "1") as run:
        reason = until(lambda: regrain("status", "--json").document["throttle_reason"])
        assert reason == "1.5 s between batches (pause_ms)"
        assert run.wait(SECONDS_MAX) == 0


@pytest.fixture
def pressure(workplace: Path) -> Path:
    file = workplace / "pressure"
    file.touch()
    return file


@pytest.fixture
def pressed(store_path: Path, pressure: Path) -> Regrain:
    """The command in a mount namespace where a file of the test lies over the kernel's."""
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare")
    script = 'mount --bind "$0" /proc/pressure/io && exec "$@"'
    return Regrain(
        store_path,
        {"REGRAIN_MIGRATION__IO_PRESSURE_MAX": "20", "REGRAIN_MIGRATION__SETTLE": "0"},
        ["unshare", "--mount", "sh", "-c", script, str(pressure)],
    )


def write(pressure: Path, percent: float) -> None:
    pressure.write_text(f"some avg10={percent:.2f} avg60=0.00 avg300=0.00 total=1\n")


def test_io_pressure_slows_and_holds_a_run(
    pressed: Regrain, store_path: Path, pressure: Path, seed: int
) -> None:
    """Under pressure one worker goes on; when it cannot be read any more, none."""
    awkward.make_plain_store(store_path, seed, 6, 10)
    regrain = Regrain(store_path)
    regrain("init")
    write(pressure, 55.5)
    # A file a second: whoever may work is still at the first package when this test looks.
    regrain("set", "max-files=1")
    with pressed.running("migrate", "--jobs", "2", "--batch", "1") as run:

        def told(words: str) -> Callable[[], Any]:
            def look() -> Any:
                document = regrain("status", "--json").document
                return document if words in (document["throttle_reason"] or "") else None

            return look

        document = until(told("I/O pressure"))
        assert document["throttle_reason"] == "I/O pressure 55.5 %, over 20 % (io_pressure_max)"
        assert re.search(r"^waiting +I/O pressure 55\.5 %", regrain("status").text, re.MULTILINE)
        until(lambda: "in_progress" in statuses(store_path).values())
        pressure.write_text("nothing of the kind")
        assert "io_pressure_max = 0" in until(told("cannot be read"))["throttle_reason"]
        regrain("set", "max-files=0")
        until(lambda: "in_progress" not in statuses(store_path).values())
        assert "pending" in statuses(store_path).values(), "something was begun while it was held"
        write(pressure, 1)
        assert run.wait(SECONDS_MAX) == 0
    assert set(statuses(store_path).values()) == {"completed"}
    assert not regrain("status", "--json").document["throttled"]


def test_pressure_that_cannot_be_read_is_refused(
    pressed: Regrain, store_path: Path, pressure: Path, seed: int
) -> None:
    awkward.make_plain_store(store_path, seed, 1, 2)
    Regrain(store_path)("init")
    pressure.write_text("nothing of the kind")
    for arguments in (["migrate"], ["migrate", "-n"]):
        said = pressed(*arguments, code=5)
        assert "/proc/pressure/io" in said.stderr
        assert "io_pressure_max = 0" in said.stderr
    assert set(statuses(store_path).values()) == {"pending"}
    Regrain(store_path)("migrate")


@pytest.mark.slow
def test_readers_that_become_slow_end_a_run(store_path: Path, seed: int) -> None:
    """Every file the process of the run opens takes longer, from some moment on.

    On a loaded machine reads took long before the run, too, and a probe that waits long reads
    seldom: so the delay is by what they took, and the run, left alone, outlasts the test.
    """
    if shutil.which("strace") is None:
        pytest.skip("needs strace, to make system calls slow")
    awkward.make_plain_store(store_path, seed, 40, 10)
    limits = {"LATENCY_SLOWDOWN_MAX": "2", "PAUSE_MS": "10000"}
    regrain = Regrain(
        store_path, {f"REGRAIN_MIGRATION__{key}": value for key, value in limits.items()}
    )
    regrain("init")
    state = store_path / "migration" / "state.json"

    def measured() -> Any:
        found = json.loads(state.read_bytes()) if state.exists() else {}
        return (found.get("foreground") or {}).get("seconds")

    with regrain.running("migrate", "--jobs", "1", "--batch", "1") as run:
        until(measured)
        document = regrain("status", "--json").document
        assert document["foreground_baseline_seconds"] > 0
        assert document["foreground_slowdown"] > 0
        assert "readers  " in regrain("status").text
        # A read opens two files at the least: the package, and the file in it.
        enough = document["foreground_baseline_seconds"] + READ_NOISE_SECONDS
        inject = f"inject=openat:delay_enter={max(700, round(enough * 1e6))}"
        command = ["strace", "-f", "-o", "/dev/null", "-p", str(run.pid), "-e", inject]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as slowing:
            try:
                assert run.wait(SLOWED_SECONDS_MAX) == 5
            finally:
                slowing.send_signal(signal.SIGINT)
    assert "in_progress" not in statuses(store_path).values()
    assert "pending" in statuses(store_path).values()
    assert "slowdown: a small read takes" in regrain("status", "--json").document["last_trigger"]
