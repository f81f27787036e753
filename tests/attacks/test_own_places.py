"""Things put in the place of the store's own, and things that are larger than they ought to be."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from tests.command import Regrain
from tests.compare import differences, snapshot
from tests.conftest import remove
from tests.system.calling import call, judge
from tests.trees import LIVE, Tree, describe

NAME = "5e" * 32
AT_ONCE = {"REGRAIN_MIGRATION__SETTLE": "0"}
GROWTH_MAX = 200 << 20


@pytest.fixture
def regrain(store_path: Path) -> Regrain:
    with Tree(store_path / NAME, Random(1)) as tree:
        describe(tree, "plain", "1.0")
        tree.file(LIVE + b"/bin/run", b"run\n", 0o755)
    made = Regrain(store_path, AT_ONCE)
    made("init")
    return made


def test_a_log_is_not_led_out(regrain: Regrain, store_path: Path, workplace: Path) -> None:
    """As root would write into a directory of its choice for who owns the store."""
    (workplace / "outside").mkdir()
    before = snapshot(workplace / "outside")
    logs = store_path / "migration" / "logs"
    logs.rmdir()
    logs.symlink_to(workplace / "outside")
    judge(call(store_path, ["migrate"], env=AT_ONCE), 1)
    assert differences(before, snapshot(workplace / "outside"), identity=True) == []


def link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def fifo(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 42)


def deep(path: Path) -> None:
    path.write_bytes(b'{"a":' * 100_000)


INSTEAD: tuple[Callable[[Path], None], ...] = (link, fifo, endless, huge, deep, Path.mkdir)


@pytest.mark.parametrize("name", ["control.json", "state.json", "store.toml"])
def test_something_else_in_its_place(regrain: Regrain, store_path: Path, name: str) -> None:
    """Refused in a sentence, or passed over where it is only a snapshot; nothing hangs."""
    path = store_path / ("" if name == "store.toml" else "migration") / name
    for instead in INSTEAD:
        remove(path)
        instead(path)
        for words in (["status"], ["pause"], ["list"]):
            said = call(store_path, words, env=AT_ONCE)
            assert "Traceback" not in said.stderr, (instead, said)
            assert "unforeseen" not in said.stderr, (instead, said)
            assert said.code in {0, 1, 2, 6, 7}, (instead, said)
            assert b"root:" not in said.stdout, (instead, said)


def test_a_manifest_as_large_as_one_likes(regrain: Regrain, store_path: Path) -> None:
    """It is a file like others, and names nothing."""
    name = "6f" * 32
    with Tree(store_path / name, Random(1)) as tree:
        tree.file(b"manifest.toml", b"")
    os.truncate(store_path / name / "manifest.toml", 63 << 20)
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    for words in (["init"], ["list"], ["show", name], ["migrate"], ["list"], ["show", name]):
        judge(call(store_path, words, env=AT_ONCE), 0)
    grown = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss - before
    assert grown < GROWTH_MAX >> 10
    judge(
        call(store_path, ["add", str(store_path / name), "--hash", "7a" * 32]), 1, "manifest.toml"
    )
