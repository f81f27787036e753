"""Wrong options and arguments, and names of any bytes: exit 2, or the work is done."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import remove
from tests.system.calling import Said, call, judge, state
from tests.verbs import PACKAGE, SHORT, UNKNOWN, VERBS, Model, make_model

ALL = list(VERBS)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    place = tmp_path_factory.mktemp("bad-arguments")
    yield make_model(place)
    remove(place)


@pytest.fixture
def copied(model: Model, store_path: Path) -> Model:
    return model.copied(store_path)


def each_way(verb: str) -> list[list[str]]:
    """For people and, where the verb can, for programs."""
    return [[], ["--json"]] if VERBS[verb].json else [[]]


def needs_words(verb: str) -> bool:
    """Whether the verb alone is too little; a group of verbs then shows its help."""
    words = VERBS[verb].words
    return bool(words) and words[0][0] != "-" and verb not in {"rollback", "backup"}


@pytest.mark.parametrize("verb", ALL)
def test_wrong_options(model: Model, verb: str) -> None:
    words = model.words(verb, model.path.parent / "out")
    before = state(model.path)
    for more in each_way(verb):
        judge(call(model.path, [*words, "--no-such-option", *more]), 2, "--no-such-option")
        judge(call(model.path, [*words, b"--\xff\n", *more]), 2)
        if verb not in {"verify", "add", "push", "pull"}:  # which take any number
            judge(call(model.path, [*words, "one-too-many", *more]), 2, "one-too-many")
        if needs_words(verb):
            judge(call(model.path, [verb, *more]), 2, f"regrain {verb} --help")
    assert state(model.path) == before


WRONG: tuple[tuple[str | bytes, ...], ...] = (
    ("no-such-verb",),
    (b"\xff\n",),
    ("migrate", "--jobs", "0"),
    ("migrate", "--jobs", "none"),
    ("migrate", "--batch", "0"),
    ("migrate", "--batch", "1000000"),
    ("migrate", "--limit", "-1"),
    ("migrate", "--max-read", "-1"),
    ("migrate", "--max-read", "nan"),
    ("verify", "--level", "thorough"),
    ("verify", "--read-data-subset", "3/2"),
    ("verify", "--read-data-subset", b"\xff/2"),
    ("checkout", PACKAGE, "/nowhere/out", "--mode", "loose"),
    ("remove", PACKAGE, "--execute", "-n"),
    ("gc", "--execute", "-n"),
    ("gc", "--grace", "soon"),
    ("gc", "--grace", "-1"),
    ("gc", "--grace", "nan"),
    ("gc", "--max-size", "much"),
    ("gc", "--max-size", "9" * 400),
    ("add", "/a", "/b", "--hash", PACKAGE),
    ("add", "/a", "--hash", "ABC"),
    ("cutover", "--wait", "-1"),
    ("cutover", "--wait", "nan"),
    ("cleanup", "--execute", "-n"),
    ("cleanup", "--older-than", "soon"),
    ("cleanup", "--older-than", ""),
    ("cleanup", "--limit", "-1"),
    ("rollback", "--execute"),
    ("rollback", PACKAGE, "--purge"),
    ("rollback", "--purge", "--execute", "-n"),
    ("backup", "burn"),
    ("backup", "mark", ""),
    ("backup", "mark", " \n"),
    ("why", PACKAGE, PACKAGE),
)


@pytest.mark.parametrize("words", WRONG, ids=repr)
def test_wrong_arguments(model: Model, words: tuple[str | bytes, ...]) -> None:
    before = state(model.path)
    for more in ([], ["--json"]):
        judge(call(model.path, [*words, *more]), 2)
    assert state(model.path) == before


def test_a_command_that_says_nothing_is_helped(model: Model) -> None:
    judge(call(model.path, []), 2, "regrain --help")
    said = call(None, [])
    assert said.code == 2
    assert said.stderr.startswith("Usage: regrain ")
    assert "checkout" in said.stderr
    said = call(model.path, ["backup"])
    assert (said.code, said.stderr.startswith("Usage: regrain backup ")) == (2, True)


@pytest.mark.parametrize("raw", [b"new\nline", b"\xff\xfe", b"\x1b[2J", b"--", b" "], ids=repr)
def test_names_of_any_bytes(copied: Model, workplace: Path, raw: bytes) -> None:
    place = os.fsencode(workplace) + b"/" + raw
    os.rename(copied.path, place)
    shutil.copytree(copied.new, os.fsdecode(place + b".new"))
    for words in (
        ["init"],
        ["plan"],
        ["status"],
        ["doctor"],
        ["add", place + b".new"],
        ["checkout", PACKAGE, place + b".out"],
        ["checkout", SHORT, place + b".sub", "--subtree", "opt"],
    ):
        said = call(place, [*words, "--json"])
        assert (said.code, said.stderr) == (0, ""), said
        said.stdout.decode()
        assert said.stdout.count(b"\n") == 1, said
    cases: list[list[str | bytes]] = [
        ["cat", PACKAGE, raw],
        ["add", raw],
        ["checkout", PACKAGE, place],
    ]
    for arguments in cases:
        for more in [[], ["--json"]] if arguments[0] != "cat" and raw != b"--" else [[]]:
            said = call(place, [*arguments, *more])
            judge(said, said.code)
            assert said.code in {1, 2}, said


def test_a_destination_that_is_not_empty(model: Model, workplace: Path) -> None:
    (workplace / "out").mkdir()
    (workplace / "out" / "mine").write_text("mine")
    before = state(workplace)
    for more in ([], ["--json"], ["-n"], ["--mode", "shared"], ["--subtree", "opt"]):
        judge(call(model.path, ["checkout", PACKAGE, str(workplace / "out"), *more]), 2, "out")
    (workplace / "file").write_text("x")
    judge(call(model.path, ["checkout", PACKAGE, str(workplace / "file")]), 2, "file")
    judge(call(model.path, ["checkout", PACKAGE, str(model.path / "inside")]), 2)
    assert state(workplace).keys() == before.keys() | {b"file"}
    assert (workplace / "out" / "mine").read_text() == "mine"


def test_tracebacks_are_for_those_who_ask(model: Model) -> None:
    for option, wanted in ((["-v"], 0), (["-vv"], 1), (["-v", "-v"], 1), (["-vvv"], 1)):
        for words, code in ((["show", UNKNOWN], 1), (["list", "--nonsense"], 2)):
            said = call(model.path, words, options=option)
            assert said.code == code, said
            assert said.stderr.startswith("Traceback") == bool(wanted), said
            assert said.stderr.splitlines()[-1].startswith("regrain: "), said


def test_remarks_as_json(model: Model) -> None:
    said: Said = call(model.path, ["show", UNKNOWN], options=["--log-format", "json"])
    assert said.stderr.startswith('{"level":"error","message":"regrain: no such package'), said
