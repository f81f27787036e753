"""A malicious ``packages/<hash>/files.json``: it leads nowhere, and costs little."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from regrain.model.phase import Phase
from regrain.store.root import StoreRoot, write_store_file
from tests.attacks import naive
from tests.attacks.lists import hostile
from tests.compare import differences, snapshot
from tests.conftest import remove
from tests.system.calling import Said, call
from tests.verbs import PACKAGE, Model, make_model

QUICK: list[list[str]] = [
    ["files", PACKAGE],
    ["checkout", PACKAGE, "{out}"],
    ["verify", PACKAGE, "--level", "deep"],
]
WORDS: list[list[str]] = [
    ["list"],
    ["show", PACKAGE],
    *QUICK,
    ["cat", PACKAGE, "manifest.toml"],
    ["checkout", PACKAGE, "{out}", "--mode", "shared"],
    ["doctor"],
    ["migrate", "--jobs", "1"],
    ["gc", "--execute", "--grace", "0"],
    ["repack", "--compress", "all", "--execute"],
    ["doctor", "--rebuild-ledger"],
    ["rollback"],
    ["verify", "--repair"],
    ["remove", PACKAGE, "--execute"],
]
NAMES = sorted(hostile("0" * 64, 9))
SAMPLE = 3
GROWTH_MAX = 400 << 20


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    place = tmp_path_factory.mktemp("lists")
    yield make_model(place)
    remove(place)


@pytest.fixture
def victim(workplace: Path) -> Path:
    path = workplace / "victim"
    (path / "sub").mkdir(parents=True)
    (path / "sub" / "kept").write_text("as it was\n")
    (path / "manifest.toml").write_text('[package]\nname = "secret"\n')
    return path


def legacy_free(model: Model, place: Path) -> Model:
    """A copy in which the published package is all there is: nothing else can serve."""
    copied = model.copied(place)
    remove(copied.path / PACKAGE)
    root = StoreRoot(str(copied.path))
    write_store_file(root.fd, root.store_id, Phase.FILE_LEVEL)
    return copied


def tried(model: Model, words: list[str], out: Path) -> Said:
    said = call(model.path, [word.format(out=out) for word in words])
    assert "Traceback" not in said.stderr, said
    assert "unforeseen" not in said.stderr + said.stdout.decode(errors="replace"), said
    assert "the system refused" not in said.stderr, said
    assert said.code in {0, 1, 3, 4, 5, 6, 7}, said
    assert b"secret" not in said.stdout, said
    remove(out)
    return said


def all_refuse(model: Model, victim: Path, content: bytes, calls: list[list[str]]) -> None:
    before = snapshot(victim)
    place = model.path / "packages" / PACKAGE / "files.json"
    place.write_bytes(content)
    for words in calls:
        tried(model, words, victim.parent / "out")
        assert differences(before, snapshot(victim), identity=True) == [], words
        assert sorted(path.name for path in victim.parent.iterdir()) == ["store", "victim"], words
        assert not Path("/tmp/evil").exists()


def test_a_program_that_joins_paths_writes_anywhere(victim: Path) -> None:
    out = victim.parent / "out"
    out.mkdir()
    naive.write_entry(out, b"../victim/sub/kept", b"evil")
    assert (victim / "sub" / "kept").read_bytes() == b"evil"
    (out / "out").symlink_to("../victim")
    naive.write_entry(out, b"out/evil", b"evil")
    assert (victim / "evil").exists()


def test_lists_that_lead_out(model: Model, workplace: Path, victim: Path, seed: int) -> None:
    lists = hostile(model.object, 9)
    chosen = Random(seed).sample(NAMES, SAMPLE)
    for name in ["below a link", "path ../victim/sub/kept", "huge time", *chosen]:
        all_refuse(legacy_free(model, workplace / "store"), victim, lists[name], QUICK)
        remove(workplace / "store")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_each_list(model: Model, workplace: Path, victim: Path, name: str) -> None:
    content = hostile(model.object, 9)[name]
    all_refuse(legacy_free(model, workplace / "store"), victim, content, WORDS)


def fifo(path: Path) -> None:
    os.mkfifo(path)


def to_the_victim(path: Path) -> None:
    path.symlink_to(path.parents[3] / "victim" / "sub" / "kept")


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 42)


INSTEAD: dict[str, Callable[[Path], None]] = {
    "a FIFO": fifo,
    "a directory": Path.mkdir,
    "a link": to_the_victim,
    "an endless device": endless,
    "terabytes of nothing": huge,
}


@pytest.mark.parametrize("instead", INSTEAD.values(), ids=INSTEAD)
def test_something_else_in_its_place(
    model: Model, workplace: Path, victim: Path, instead: Callable[[Path], None]
) -> None:
    """Nothing hangs, and memory does not grow with what a file claims to be."""
    copied = legacy_free(model, workplace / "store")
    place = copied.path / "packages" / PACKAGE / "files.json"
    place.unlink()
    instead(place)
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    for words in [["show", PACKAGE], *QUICK]:
        assert tried(copied, words, workplace / "out").code == 4
    grown = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss - before
    assert grown < GROWTH_MAX >> 10
