"""TAB, in real shells: commands, options, and packages of the store."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import click
import pytest

from regrain.cli import main
from tests.command import Regrain
from tests.trees import LegacyPackage

SECONDS_MAX = 30.0
SHELLS = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
}
BEFORE = {
    "bash": "bind 'set enable-bracketed-paste off'",
    "zsh": "unsetopt zle_bracketed_paste; autoload -Uz compinit; compinit -u -D",
}
KILL_LINE = b"\x15"
Packages = Mapping[str, LegacyPackage]


@pytest.fixture
def environment(workplace: Path) -> dict[str, str]:
    """A terminal's environment, with ``regrain`` on the path and none of its settings."""
    folder = workplace / "bin"
    folder.mkdir()
    command = folder / "regrain"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m regrain "$@"\n')
    command.chmod(0o755)
    clean = {k: v for k, v in os.environ.items() if not k.startswith("REGRAIN_")}
    return {
        **clean,
        "PATH": f"{folder}{os.pathsep}{clean['PATH']}",
        "HOME": str(workplace),
        "TERM": "dumb",
        "LC_ALL": "C.UTF-8",
    }


def script(shell: str, workplace: Path, environment: Mapping[str, str]) -> Path:
    """The completion of a shell, made as the docs say."""
    path = workplace / f"completion.{shell}"
    done = subprocess.run(
        ["regrain"],
        env={**environment, "_REGRAIN_COMPLETE": f"{shell}_source"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    path.write_text(done.stdout)
    return path


class Terminal:
    """A shell at a terminal: what is typed, and what it answers."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def type(self, keys: bytes, expected: bytes) -> None:
        """Type; wait until the answer shows what is expected."""
        os.write(self._fd, keys)
        seen = b""
        until = time.monotonic() + SECONDS_MAX
        while expected not in seen:
            left = until - time.monotonic()
            assert left > 0, f"typed {keys!r}, waited for {expected!r}, saw {seen!r}"
            if select.select([self._fd], [], [], left)[0]:
                seen += os.read(self._fd, 4096)


@contextmanager
def terminal(shell: str, environment: Mapping[str, str]) -> Iterator[Terminal]:
    main, other = pty.openpty()
    termios.tcsetwinsize(other, (40, 400))  # wide, so that no line is broken
    with subprocess.Popen(
        SHELLS[shell],
        stdin=other,
        stdout=other,
        stderr=other,
        env=environment,
        start_new_session=True,
    ) as process:
        os.close(other)
        try:
            yield Terminal(main)
        finally:
            process.kill()
            os.close(main)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_at_a_terminal_completes(
    shell: str,
    workplace: Path,
    environment: dict[str, str],
    regrain: Regrain,
    plain_store: Packages,
) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    regrain("init")
    chosen = min(plain_store)
    begun = f"regrain --store {regrain.store} "
    source = script(shell, workplace, environment)
    with terminal(shell, environment) as tty:
        # The shell prints what it is told to in one piece; what was typed is in two.
        tty.type(f"{BEFORE[shell]}; . {source}; echo rea''dy\n".encode(), b"ready")
        tty.type(f"{begun}cuto\t".encode(), b"cutover")
        tty.type(KILL_LINE + f"{begun}migrate --retry-\t".encode(), b"--retry-failed")
        tty.type(KILL_LINE + f"{begun}why {chosen[:8]}\t".encode(), chosen.encode())
        tty.type(KILL_LINE + f"{begun}verify {chosen[:8]}\t".encode(), chosen.encode())


def test_fish_completes(
    workplace: Path, environment: dict[str, str], regrain: Regrain, plain_store: Packages
) -> None:
    if shutil.which("fish") is None:
        pytest.skip("needs fish")
    regrain("init")
    source = script("fish", workplace, environment)
    begun = f"regrain --store {regrain.store} "
    chosen = min(plain_store)

    def offered(line: str) -> list[str]:
        done = subprocess.run(
            ["fish", "--no-config", "-c", f"source {source}; complete -C '{begun}{line}'"],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=SECONDS_MAX,
        )
        assert done.stderr == ""
        return [each.partition("\t")[0] for each in done.stdout.splitlines()]

    assert offered("cuto") == ["cutover"]
    assert offered("migrate --retry-") == ["--retry-failed"]
    assert offered(f"show {chosen[:8]}") == [chosen]
    # fish puts digits in the order of the numbers they write
    assert sorted(offered("show ")) == sorted(plain_store)
    assert "jobs=" in offered("set ")


def asked(regrain: Regrain, *words: str, env: Mapping[str, str] | None = None) -> str:
    """What zsh is offered for the last word, which is unfinished."""
    given = {
        "_REGRAIN_COMPLETE": "zsh_complete",
        "COMP_WORDS": " ".join(["regrain", *words]),
        "COMP_CWORD": str(len(words)),
        **(env or {}),
    }
    result = regrain(env=given)
    assert result.stderr == ""
    return result.text


def test_packages_are_offered_with_their_names(regrain: Regrain, plain_store: Packages) -> None:
    regrain("init")
    regrain("migrate")
    store = f"--store {regrain.store}"
    for name, package in plain_store.items():
        expected = f"plain\n{name}\n{package.name} {package.version}\n"
        assert asked(regrain, *store.split(), "remove", name[:8]) == expected
    assert asked(regrain, *store.split(), "remove", "zz") == "\n"
    # The configuration may name the store, too.
    env = {"REGRAIN_STORE__PATH": str(regrain.store)}
    assert asked(regrain, "files", "", env=env).count("plain\n") == len(plain_store)


def test_wherever_a_hash_is_taken_packages_are_offered(
    regrain: Regrain, plain_store: Packages
) -> None:
    regrain("init")
    chosen = min(plain_store)
    context = click.Context(main)
    taken = {
        (verb, parameter.opts[0])
        for verb in main.list_commands(context)
        if (command := main.get_command(context, verb)) is not None
        for parameter in command.params
        if "HASH" in (parameter.metavar or "").strip("[]. ")
    }
    assert len(taken) >= 10
    for verb, name in taken:
        before = [name] if name.startswith("-") else []
        words = ("--store", str(regrain.store), verb, *before, chosen[:8])
        assert asked(regrain, *words).split("\n")[1] == chosen, verb


def test_a_name_cannot_speak_to_the_terminal(regrain: Regrain, plain_store: Packages) -> None:
    chosen = min(plain_store)
    (plain_store[chosen].path / "manifest.toml").write_text(
        '[package]\nname = "jq\\u001b[2J\\nplain\\ninjected"\nversion = "1"\n'
    )
    regrain("init")
    offered = asked(regrain, "--store", str(regrain.store), "why", chosen[:8])
    assert "\x1b" not in offered
    assert offered.count("\n") == 3


@pytest.mark.parametrize("there", ["nothing", "a file", "a broken store"])
def test_where_there_is_no_store_nothing_is_said(regrain: Regrain, there: str) -> None:
    if there == "a file":
        regrain.store.write_text("")
    elif there == "a broken store":
        regrain.store.mkdir()
        (regrain.store / "store.toml").write_text("format = ")
    assert asked(regrain, "--store", str(regrain.store), "why", "12") == "\n"
