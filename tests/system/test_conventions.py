"""What every verb has in common: help, an example, JSON, dry runs; found by walking them."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from regrain.cli import main, run
from regrain.cli.context import Context
from tests.conftest import remove
from tests.system.calling import call, judge, state
from tests.verbs import PACKAGE, VERBS, Model, make_model

ALL = list(VERBS)
TYPES = {"status", "package", "summary", "exit_error", "owners", "doctor"}
UNTOUCHED = {"init", "rehearse"}
"""What leaves that store as it is: there is nothing new to queue, and copies are rehearsed with."""

COMMON = {"status", "package", "summary", "exit_error"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    place = tmp_path_factory.mktemp("conventions")
    yield make_model(place)
    remove(place)


@pytest.fixture
def copied(model: Model, store_path: Path) -> Model:
    return model.copied(store_path)


def command(verb: str) -> click.Command:
    assert isinstance(main, click.Group)
    found = main.get_command(click.Context(main), verb)
    assert found is not None
    return found


def worker(verb: str) -> click.Command:
    """The command that does a verb's work: of a group, the one its words name."""
    found = command(verb)
    if isinstance(found, click.Group):
        return found.commands[VERBS[verb].words[0]]
    return found


# help


@pytest.mark.parametrize("verb", ALL)
def test_the_examples_are_commands(verb: str) -> None:
    text = command(verb).help or ""
    lines = [line.strip().removeprefix("Example: ") for line in text.splitlines()]
    examples = [line for line in lines if line.startswith("regrain ")]
    assert examples, text
    assert re.search(r"^ *Examples?:", text, re.MULTILINE), text
    for example in examples:
        words = shlex.split(example)[1:]
        with main.make_context("regrain", list(words)) as context:  # global options first
            # A group without options would have read the verb's name already.
            name, found, rest = main.resolve_command(context, after(words))
            assert name == verb, example
            assert isinstance(found, click.Command)
            found.make_context(verb, rest, parent=context)
            assert isinstance(context.obj, Context | None)


def after(words: list[str]) -> list[str]:
    """The words from the verb on."""
    return words[next(n for n, word in enumerate(words) if word in VERBS) :]


@pytest.mark.parametrize("verb", ALL)
def test_help_needs_nothing(workplace: Path, verb: str) -> None:
    (workplace / "broken.toml").write_text("[[[")
    for options in ([], ["--config", str(workplace / "broken.toml")]):
        for words in ([verb, "--help"], [verb, "-h"]):
            said = call(workplace / "none", words, options=options, env={"REGRAIN_STORE__NO": "1"})
            assert (said.code, said.stderr) == (0, ""), said
            assert said.stdout.startswith(b"Usage: regrain " + verb.encode()), said
            assert b"Example" in said.stdout, said


def test_help_of_the_whole(workplace: Path) -> None:
    for words in (["--help"], ["-h"]):
        said = call(workplace / "none", words)
        assert said.code == 0, said
        assert all(verb in said.stdout.decode() for verb in ALL), said
    assert call(None, ["--version"]).stdout.startswith(b"regrain, version ")


# options


@pytest.mark.parametrize("verb", ALL)
def test_options_every_verb_has(verb: str) -> None:
    names = {name for parameter in worker(verb).params for name in parameter.opts}
    row = VERBS[verb]
    assert ("--json" in names) == row.json
    changes = row.changes or row.dry is not None
    mends = verb in {"doctor", "verify"}  # with an option they change something
    assert ({"-n", "--dry-run"} <= names) == changes or mends
    # With --purge or --empty-quarantine they delete, and only then have to be told so.
    purges = verb in {"rollback", "doctor"}
    assert ("--execute" in names) == (row.dry == () and changes) or purges
    assert not any(getattr(p, "prompt", None) for p in worker(verb).params)


@pytest.mark.parametrize("verb", [verb for verb, row in VERBS.items() if row.json])
def test_documents(copied: Model, workplace: Path, verb: str) -> None:
    copied.ready(verb)
    for number, dry in enumerate([True, False] if VERBS[verb].dry is not None else [False]):
        words = copied.words(verb, workplace / f"out{number}", dry=dry)
        said = call(copied.path, [*words, "--json"])
        assert (said.code, said.stderr) == (0, ""), said
        found = [json.loads(line) for line in said.stdout.splitlines()]
        assert found, said
        for document in found:
            assert document["schema"] == 1, said
            assert document["message_type"] in TYPES, said
        # fields are only added, and types never change: these two were there before the rule
        assert {d["message_type"] for d in found} <= COMMON | {verb}, said


@pytest.mark.parametrize("verb", [verb for verb, row in VERBS.items() if row.dry is not None])
def test_dry_runs(model: Model, copied: Model, workplace: Path, verb: str) -> None:
    copied.ready(verb)
    before = state(copied.path)
    words = copied.words(verb, workplace / "out", dry=True)
    for more in ([], ["--json"]):
        said = call(copied.path, [*words, *more])
        assert (said.code, said.stderr) == (0, ""), said
        assert said.stdout, said
        assert state(copied.path) == before, said
        assert not (workplace / "out").exists()
    if VERBS[verb].dry == ():
        judge(call(copied.path, [*words, "--execute", "-n"]), 2, "--execute", "--dry-run")
        judge(call(copied.path, [*words, "-n"]), 0)
        assert state(copied.path) == before
    assert call(copied.path, copied.words(verb, workplace / "out")).code == 0
    assert state(copied.path) != before or (workplace / "out").exists() or verb in UNTOUCHED


def test_where_options_may_stand(model: Model) -> None:
    plain = call(model.path, ["list", "--json"])
    assert plain.code == 0, plain
    assert call(None, ["--store", str(model.path), "list", "--json"]).stdout == plain.stdout
    judge(call(model.path, ["--json", "list"]), 2, "--json")
    judge(call(None, ["list", "--store", str(model.path)]), 2, "--store")


def test_nothing_is_asked_and_nothing_coloured(copied: Model) -> None:
    """On a terminal, with NO_COLOR: a bar, but no colour and no question."""
    for words in (["migrate"], ["remove", PACKAGE], ["gc", "--execute"], ["doctor"]):
        parent, child = pty.openpty()
        with subprocess.Popen(
            [sys.executable, "-m", "regrain", "--store", copied.path, *words],
            env={**os.environ, "NO_COLOR": "1", "TERM": "xterm-256color"},
            stdin=child,
            stdout=child,
            stderr=child,
        ) as process:
            os.close(child)
            said = b"".join(_all_of(parent))
            assert process.wait(60) == 0, said
        os.close(parent)
        assert not re.search(rb"\x1b\[[\d;]*[34]\d[\d;]*m", said), said


def _all_of(fd: int) -> Iterator[bytes]:
    with contextlib.suppress(OSError):  # the other end is closed
        while piece := os.read(fd, 1 << 16):
            yield piece


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["migrate", "--quiet"], "Write 'regrain --quiet migrate'."),
        (["migrate", "-v"], "Write 'regrain -v migrate'."),
        (["remote", "list", "--store", "x"], "Write 'regrain --store … remote list'."),
    ],
)
def test_where_an_option_of_all_commands_belongs(
    words: list[str], advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 2
    assert advice in capsys.readouterr().err
