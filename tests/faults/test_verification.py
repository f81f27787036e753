"""A package is published only if its tree is still what was read, by a second look at all of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from regrain.migrate.seal import Sealer
from tests.faults.inline import Way, migrate
from tests.faults.small import Scene
from tests.repairs import INSIDE
from tests.stores import statuses

NAME = "grouped"


def add(tree: Path) -> None:
    (tree / INSIDE / "new").touch()


def remove(tree: Path) -> None:
    (tree / INSIDE / "share/second").unlink()


def write(tree: Path) -> None:
    with (tree / INSIDE / "share/shared").open("ab") as stream:
        stream.write(b"more")


def open_up(tree: Path) -> None:
    (tree / INSIDE / "private").chmod(0o755)


def touch(tree: Path) -> None:
    os.utime(tree / INSIDE / "share/first", (1, 1))


@pytest.mark.parametrize("change", [add, remove, write, open_up, touch])
@pytest.mark.parametrize("ingest", ["auto", "copy"])
def test_a_tree_that_changed_since_it_was_read_fails(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None], ingest: str
) -> None:
    """The change comes after the last byte was read and all was staged."""
    known = scene.named(NAME)
    original = Sealer._write_directory

    def changing(sealer: Sealer, package_hash: str, *rest: object) -> tuple[str, int]:
        written = original(sealer, package_hash, *rest)  # type: ignore[arg-type]
        if package_hash == known.hash:
            change(known.path)
        return written

    monkeypatch.setattr(Sealer, "_write_directory", changing)
    done = migrate(scene.path, Way(ingest=ingest))
    assert (done.failed, done.completed) == (1, len(scene.packages) - 1)
    assert statuses(scene.path)[known.hash] == "failed"
    assert not (scene.path / "packages" / known.hash).exists()
