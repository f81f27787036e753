"""The systemd units: systemd takes them, they are hardened, and what they start exists."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from regrain.cli import main

UNITS = Path(__file__).parents[2] / "contrib" / "systemd"
SERVICES = sorted(UNITS.glob("*.service"))
EXPOSURE_MAX = 25
"""Of 100, as `systemd-analyze security` counts."""

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="needs systemd-analyze"
)


def command_of(unit: Path) -> list[str]:
    (line,) = re.findall("^ExecStart=(.+)$", unit.read_text(), re.MULTILINE)
    return shlex.split(line)


def test_there_are_units() -> None:
    assert {unit.name for unit in UNITS.iterdir()} == {
        "regrain-migrate@.service",
        "regrain-serve@.service",
        "regrain-verify@.service",
        "regrain-verify@.timer",
    }


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.stem)
def test_what_a_unit_starts_is_understood(unit: Path) -> None:
    program, *words = command_of(unit)
    assert program == "/usr/bin/regrain"
    context = main.make_context("regrain", list(words))
    assert context.params["path"] == "%f"
    assert isinstance(main, click.Group)
    verb, *rest = [*context._protected_args, *context.args]
    command = main.get_command(context, verb)
    if command is None and verb == "serve":
        pytest.skip("this version has no serve")
    assert command is not None
    command.make_context(verb, list(rest), parent=context)


@needs_systemd
def test_systemd_takes_every_unit(tmp_path: Path) -> None:
    for unit in UNITS.iterdir():  # regrain itself need not be installed where tests run
        text = unit.read_text().replace("/usr/bin/regrain", shutil.which("true") or "/bin/true")
        (tmp_path / unit.name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *sorted(tmp_path.iterdir())],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.stem)
def test_every_service_is_hardened(unit: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", f"--threshold={EXPOSURE_MAX}", unit],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
