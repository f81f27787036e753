"""A package that is written to while it is brought in fails; nothing of it is published."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from regrain.migrate import seal
from regrain.migrate.publish import Publisher
from tests.conftest import remove
from tests.faults.inline import Way, initialise, migrate
from tests.faults.judge import complete_problems
from tests.faults.small import Scene, quick_place
from tests.reader import check_store
from tests.stores import new_layout_differences, read_ledger, record, statuses
from tests.trees import LegacyPackage, Tree, describe, package_hash

WRITTEN, OTHER = package_hash(1, "written"), package_hash(1, "other")
FILE = "d/file"
SHARED = b"both have this\n"


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with quick_place(tmp_path) as place:
        packages = {}
        for label, name in ((WRITTEN, "written"), (OTHER, "other")):
            with Tree(place / "store" / label, Random(name)) as tree:
                describe(tree, name, "1", sbom=())
                tree.file(b"d/file", name.encode() * 10)
                tree.file(b"shared", SHARED)
                tree.symlink(b"link", b"d/file")
                if name == "other":  # so that the smaller one is taken first
                    tree.file(b"padding", b"x" * 1000)
            packages[label] = LegacyPackage(label, place / "store" / label, name, "1", name)
        initialise(place / "store")
        yield Scene(place / "store", packages, record(packages))
        remove(place / "store")


def quietly(path: Path, content: bytes) -> None:
    """Write in place and set the time back, as a tool may that keeps times."""
    status = path.stat()
    with path.open("r+b") as stream:
        stream.write(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replaced(path: Path) -> None:
    """Put another inode with the same bytes and metadata in its place."""
    status = path.stat()
    new = path.with_name("new")
    new.write_bytes(path.read_bytes())
    new.chmod(status.st_mode & 0o7777)
    os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))
    new.rename(path)


CHANGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "written": (lambda top: (top / FILE).write_bytes(b"other bytes"), FILE),
    "appended": (lambda top: (top / FILE).open("ab").close() or touch(top / FILE), FILE),
    "written, time set back": (lambda top: quietly(top / FILE, b"WRITTEN"), FILE),
    "touched": (lambda top: touch(top / FILE), FILE),
    "chmod": (lambda top: (top / FILE).chmod(0o600), FILE),
    "an attribute": (lambda top: os.setxattr(top / FILE, "user.new", b"1"), FILE),
    "replaced": (lambda top: replaced(top / FILE), FILE),
    "removed": (lambda top: (top / FILE).unlink(), FILE),
    "added": (lambda top: (top / "d/more").touch(), "d"),
    "a directory added": (lambda top: (top / "zzz").mkdir(), ""),
    "a link that leads elsewhere": (lambda top: relink(top / "link"), "link"),
    "a file that became a link": (lambda top: become_link(top / FILE), FILE),
    "the root's mode": (lambda top: top.chmod(0o700), ""),
    "the root's time": (lambda top: os.utime(top, ns=(1, 1)), ""),
}


def touch(path: Path) -> None:
    os.utime(path, ns=(7, 7))


def relink(path: Path) -> None:
    status = path.lstat()
    path.unlink()
    path.symlink_to("d/FILE")
    os.utime(path, ns=(0, status.st_mtime_ns), follow_symlinks=False)
    os.utime(path.parent, ns=(0, 7))


def become_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("../shared")


@pytest.mark.parametrize("ingest", ["auto", "copy"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_between_reading_and_verifying(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, change: str, ingest: str
) -> None:
    original = seal.verify_unchanged
    done = []

    def verify_unchanged(root: int, records: Any) -> None:
        top = scene.path / WRITTEN
        if not done and os.path.samestat(os.fstat(root), top.stat()):
            done.append(change)
            CHANGES[change][0](top)
        original(root, records)

    monkeypatch.setattr(seal, "verify_unchanged", verify_unchanged)
    found = migrate(scene.path, Way(ingest=ingest))
    assert done == [change]
    assert (found.completed, found.failed) == (1, 1)
    assert statuses(scene.path) == {WRITTEN: "failed", OTHER: "completed"}
    query = "SELECT error_path FROM store_migration WHERE package_hash = ?"
    ((path,),) = read_ledger(scene.path, query, WRITTEN)
    assert (path or b"").decode() == CHANGES[change][1]
    store = check_store(scene.path, legacy=scene.packages, orphans=True)
    assert store.problems == []
    assert store.packages.keys() == {OTHER}
    assert new_layout_differences(store, scene.before, [OTHER]) == []
    assert migrate(scene.path, Way(ingest=ingest), retry_failed=True).completed == 1
    after = Scene(scene.path, scene.packages, record(scene.packages))
    assert complete_problems(after) == []


def test_bytes_that_changed_in_the_pool_reach_nobody(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file was staged by a link from one package, the other one relies on it."""
    original = Publisher.flush
    done: list[Path] = []

    def flush(publisher: Publisher) -> None:
        if not done:
            linked = [package.path / "shared" for package in scene.packages.values()]
            (path,) = (path for path in linked if path.stat().st_nlink > 1)
            done.append(path)
            quietly(path, SHARED.upper())
        original(publisher)

    monkeypatch.setattr(Publisher, "flush", flush)
    migrate(scene.path, Way())
    changed = done[0].parent.name
    other = next(name for name in scene.packages if name != changed)
    assert statuses(scene.path)[other] == "completed"
    store = check_store(scene.path, legacy=scene.packages, orphans=True)
    assert store.problems == []
    assert new_layout_differences(store, scene.before, [other]) == []
    migrate(scene.path, Way(), retry_failed=True)
    after = Scene(scene.path, scene.packages, record(scene.packages))
    assert complete_problems(after) == []
