"""Bad input to every verb: one clear sentence, the right exit code, nothing changed."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from regrain.cli import VERBS as REGISTERED
from regrain.model.phase import Phase
from regrain.store.root import StoreRoot, write_store_file
from tests.conftest import remove
from tests.system.calling import call, judge, state
from tests.verbs import PACKAGE, SHORT, STORELESS, UNKNOWN, VERBS, Model, make_model

ALL = list(VERBS)
BEFORE_INIT = {"plan", "init", "rehearse"}
NAMED = [verb for verb, row in VERBS.items() if row.named is not None]
LEDGER = {verb for verb, row in VERBS.items() if row.ledger}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    place = tmp_path_factory.mktemp("bad-input")
    yield make_model(place)
    remove(place)


@pytest.fixture
def copied(model: Model, store_path: Path) -> Model:
    return model.copied(store_path)


def test_every_verb_has_a_row() -> None:
    assert VERBS.keys() | STORELESS == REGISTERED.keys()


def each_way(verb: str) -> list[list[str]]:
    """For people and, where the verb can, for programs."""
    return [[], ["--json"]] if VERBS[verb].json else [[]]


def refused(
    model: Model,
    verb: str,
    code: int,
    *named: str,
    env: dict[str, str] | None = None,
    options: tuple[str, ...] = (),
) -> None:
    """The verb is refused in every way it can be asked, and nothing changes."""
    out = model.path.parent / "out"
    before = state(model.path) if model.path.is_dir() else {}
    for more in each_way(verb):
        words = [*model.words(verb, out), *more]
        judge(call(model.path, words, env=env, options=options), code, *named)
    assert not out.exists(), verb
    assert before == (state(model.path) if model.path.is_dir() else {}), verb


def examined(model: Model, code: int, words: str, **options: dict[str, str]) -> None:
    """``doctor`` is for sick stores: it finds what others refuse."""
    before = state(model.path)
    said = call(model.path, ["doctor", "-n"], **options)  # type: ignore[arg-type]
    assert (said.code, said.stderr) == (code, ""), said
    assert words in said.stdout.decode(), said
    assert state(model.path) == before


# no store


@pytest.mark.parametrize("verb", ALL)
def test_no_directory(model: Model, workplace: Path, verb: str) -> None:
    refused(
        Model(workplace / "none", model.new, model.object, model.pushed),
        verb,
        10,
        "none",
        "--store",
    )


@pytest.mark.parametrize("verb", ALL)
def test_a_file_in_its_place(model: Model, workplace: Path, verb: str) -> None:
    (workplace / "file").write_text("no directory")
    refused(
        Model(workplace / "file", model.new, model.object, model.pushed),
        verb,
        10,
        "file",
        "--store",
    )
    assert (workplace / "file").read_text() == "no directory"


@pytest.mark.parametrize("verb", [verb for verb in ALL if verb not in BEFORE_INIT])
def test_a_directory_that_is_no_store(model: Model, workplace: Path, verb: str) -> None:
    (workplace / "other" / "photos").mkdir(parents=True)
    refused(
        Model(workplace / "other", model.new, model.object, model.pushed), verb, 10, "other", "init"
    )


@pytest.mark.parametrize("verb", ALL)
@pytest.mark.parametrize("store", [None, ""], ids=["unnamed", "empty"])
def test_no_store_is_named(model: Model, verb: str, store: str | None) -> None:
    """An empty name is a variable that was not set: no other store is taken instead."""
    env = {} if store is None else {"REGRAIN_STORE__PATH": str(model.path)}
    words = model.words(verb, model.path.parent / "out")
    before = state(model.path)
    for more in each_way(verb):
        judge(call(store, [*words, *more], env=env), 2, "--store")
    assert state(model.path) == before


STORE_FILES = {
    "empty": "",
    "garbage": "\x00\xff no TOML [[[",
    "format 2": 'format = 2\nhash = "blake3"\nstore_id = "x"\nphase = "dual"\n',
    "another hash": 'format = 1\nhash = "sha256"\nstore_id = "x"\nphase = "dual"\n',
    "an unknown phase": 'format = 1\nhash = "blake3"\nstore_id = "x"\nphase = "triple"\n',
}


@pytest.mark.parametrize("content", STORE_FILES.values(), ids=STORE_FILES)
def test_a_store_file_that_is_none(copied: Model, content: str) -> None:
    (copied.path / "store.toml").write_text(content, encoding="latin-1")
    for verb in ALL:
        if verb != "doctor":
            refused(copied, verb, 2, str(copied.path))
    examined(copied, 1, "cannot be opened")


def test_a_store_file_that_is_gone(copied: Model) -> None:
    (copied.path / "store.toml").unlink()
    for verb in ALL:
        if verb not in BEFORE_INIT | {"doctor"}:
            refused(copied, verb, 10, str(copied.path), "init")
    examined(copied, 4, "store.toml")


# hashes


@pytest.mark.parametrize("verb", NAMED)
def test_hashes(model: Model, verb: str) -> None:
    place = VERBS[verb].named or 0
    before = state(model.path)
    for name, code, said in (
        (UNKNOWN, 1, UNKNOWN),
        ("0123456789", 1, "0123456789"),
        ("abababab", 2, "begins the hash of 2 packages"),
        ("abababa", 2, "abababa"),
        ("nonsense", 2, "nonsense"),
        ("", 2, "''"),
        ("../" + "a" * 61, 2, "../"),
        (PACKAGE.upper(), 2, "AB"),
        ("a\nb", 2, "a\\x0ab"),
        (b"\xff\xfe", 2, "\\xff"),
    ):
        words: list[str | bytes] = [*model.words(verb, model.path.parent / "out")]
        words[1 + place : 2 + place] = [name]
        for more in each_way(verb):
            judge(call(model.path, [*words, *more]), code, said)
    assert state(model.path) == before
    assert not (model.path.parent / "out").exists()


def test_objects(model: Model) -> None:
    for name, code in ((UNKNOWN, 1), (SHORT, 2), ("x", 2), (b"\xff\n", 2)):
        for more in ([], ["--json"]):
            judge(call(model.path, ["owners", name, *more]), code)


# packages


def test_a_broken_manifest_keeps_nobody_from_the_package(copied: Model, workplace: Path) -> None:
    name = "77" * 32
    shutil.copytree(model_package(copied), copied.path / name)
    (copied.path / name / "manifest.toml").write_bytes(b"[package\n\xff")
    for words in (["init"], ["list"], ["show", name], ["migrate"], ["cat", name, "manifest.toml"]):
        judge(call(copied.path, words), 0)
    judge(call(copied.path, ["checkout", name, str(workplace / "out")]), 0)
    assert (workplace / "out" / "manifest.toml").read_bytes() == b"[package\n\xff"


def test_a_name_in_a_manifest_does_not_reach_the_terminal_raw(copied: Model) -> None:
    name = "77" * 32
    shutil.copytree(model_package(copied), copied.path / name)
    manifest = '[package]\nname = "\\u001b[2Jx\\n"\nversion = "\\u009b1m"\n'
    (copied.path / name / "manifest.toml").write_text(manifest)
    for words in (["list"], ["show", name], ["init"], ["-v", "migrate"]):
        said = call(copied.path, words)
        assert said.code == 0, said
        text = said.stdout.decode() + said.stderr
        assert "\x1b" not in text, said
        assert "\x9b" not in text, said


def model_package(model: Model) -> Path:
    return model.path / ("12" * 32)


MANIFESTS = {"no TOML": b"[package\n", "nameless": b"[package]\n", "not UTF-8": b"\xff", "": None}


@pytest.mark.parametrize("content", MANIFESTS.values(), ids=MANIFESTS)
def test_a_package_without_a_manifest_is_not_added(
    copied: Model, workplace: Path, content: bytes | None
) -> None:
    (workplace / "bad").mkdir()
    if content is not None:
        (workplace / "bad" / "manifest.toml").write_bytes(content)
    new = Model(copied.path, workplace / "bad", copied.object, copied.pushed)
    refused(new, "add", 1, "manifest.toml")


@pytest.mark.parametrize("what", ["nothing", "a fifo", "no archive"])
def test_what_is_no_package_is_not_added(copied: Model, workplace: Path, what: str) -> None:
    path = workplace / "odd\n\udcff"
    if what == "a fifo":
        os.mkfifo(path)
    elif what == "no archive":
        path.write_bytes(b"just words\n" * 100)
    new = Model(copied.path, path, copied.object, copied.pushed)
    refused(new, "add", 1)


# configuration


@pytest.mark.parametrize("verb", ALL)
def test_configurations(model: Model, workplace: Path, verb: str) -> None:
    config = workplace / "regrain.toml"
    for content, named in (
        ("[store]\nnosuch = 1\n", "nosuch"),
        ("[store]\nsync = 'sometimes'\n", "sync"),
        ('[store]\npath = "a\\u0000b"\n', "path"),
        ("[store\n", str(config)),
        (None, str(config)),
    ):
        if content is None:
            config.unlink()
            config.mkdir()  # unreadable for everybody, root too
        else:
            config.write_text(content)
        check_configuration(model, verb, named, ("--config", str(config)), {})
        check_configuration(model, verb, named, (), {"REGRAIN_CONFIG": str(config)})
    check_configuration(model, verb, "none.toml", ("--config", "/none.toml"), {})
    check_configuration(model, verb, "configuration", ("--config", ""), {})
    for name in ("REGRAIN_STORE__NOSUCH", "REGRAIN_X__Y"):
        check_configuration(model, verb, name, (), {name: "1"})


def check_configuration(
    model: Model, verb: str, named: str, options: tuple[str, ...], env: dict[str, str]
) -> None:
    if verb != "doctor":
        refused(model, verb, 2, named, options=options, env=env)
        return
    said = call(model.path, ["doctor", "-n"], options=options, env=env)
    assert (said.code, said.stderr) == (1, ""), said
    assert "configuration cannot be used" in said.stdout.decode(), said
    assert named in said.stdout.decode(), said


# the ledger


def stranger(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE photos (id INTEGER PRIMARY KEY)")


def newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def go_to(path: Path, phase: Phase) -> None:
    root = StoreRoot(str(path))
    write_store_file(root.fd, root.store_id, phase)


LEDGERS: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "no database": lambda path: path.write_bytes(b"no database at all\n" * 500),
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "of another program": stranger,
    "of a newer version": newer,
    "a directory": folder,
}


@pytest.mark.parametrize("damage", LEDGERS.values(), ids=LEDGERS)
def test_ledgers(copied: Model, damage: Callable[[Path], object]) -> None:
    damage(copied.path / "state.sqlite")
    for verb in ALL:
        go_to(copied.path, Phase.FILE_LEVEL if verb == "cleanup" else Phase.DUAL)
        if verb in LEDGER and verb != "doctor":
            refused(copied, verb, 4, "state.sqlite")
        elif verb != "doctor":
            judge(call(copied.path, copied.words(verb, copied.path.parent / "checked-out")), 0)
    said = call(copied.path, ["verify", "--level", "deep", "--json"])
    assert (said.code, said.stderr) == (4, ""), said
    examined(copied, 4, "rebuild-ledger")
    for words in (["init", "-n"], ["migrate", "-n"], ["exclude", PACKAGE, "-n"], ["gc"]):
        judge(call(copied.path, words), 4, "state.sqlite")
