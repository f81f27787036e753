"""Stores on their way: what they were, and whether they still are it."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import servers
from tests.command import Regrain, Result
from tests.compare import Snapshot, differences, snapshot
from tests.reader import Store, check_store, package_tree
from tests.trees import LegacyPackage

Packages = Mapping[str, LegacyPackage]
Recorded = Mapping[str, Snapshot]


@dataclass(frozen=True, slots=True)
class Migrated:
    """A store that was brought from legacy to the end of ``migrate``."""

    regrain: Regrain
    packages: Packages
    before: Recorded
    plan: Result
    init: Result
    migrate: Result

    @property
    def path(self) -> Path:
        """Where the store is."""
        return self.regrain.store

    def named(self, what: str) -> LegacyPackage:
        """The one package of this subject."""
        (only,) = [package for package in self.packages.values() if package.what == what]
        return only

    def files(self) -> list[tuple[str, bytes]]:
        """Every regular file: package hash and path."""
        return [
            (name, path)
            for name, tree in self.before.items()
            for path, entry in tree.items()
            if entry.kind == "file"
        ]


def migrate_all(regrain: Regrain, packages: Packages) -> Migrated:
    """Plan, init and migrate, recording the legacy trees first."""
    before = record(packages)
    plan = regrain("plan", "--json")
    init = regrain("init", "--json")
    migrate = regrain("migrate", "--json")
    return Migrated(regrain, packages, before, plan, init, migrate)


def put_copy(template: Path, place: Path) -> None:
    """Put a copy of a store, its hard links among it, in the place of what is there."""
    subprocess.run(["rm", "-rf", "--", place], check=True)
    subprocess.run(["cp", "-a", "--", template, place], check=True)


def record(packages: Packages) -> dict[str, Snapshot]:
    """Record the legacy trees as they are."""
    return {name: snapshot(package.path) for name, package in packages.items()}


def legacy_changes(before: Recorded, packages: Packages) -> list[str]:
    """What changed in the legacy trees, inode numbers included; links and ctime may."""
    return [
        f"{packages[name].what} {name}: {line}"
        for name, tree in before.items()
        for line in differences(tree, snapshot(packages[name].path), identity=True)
    ]


def new_layout_differences(store: Store, before: Recorded, names: Iterable[str]) -> list[str]:
    """How the file lists differ from the legacy trees that were recorded."""
    return [
        f"{name}: {line}"
        for name in names
        for line in differences(before[name], package_tree(store, name))
    ]


def assert_sound(path: Path, packages: Packages, before: Recorded, **options: Any) -> Store:
    """The store is as the contract draws it, and every published package equals its source."""
    store = check_store(path, legacy=packages, **options)
    assert store.problems == []
    assert legacy_changes(before, packages) == []
    assert new_layout_differences(store, before, store.packages) == []
    return store


def assert_complete(path: Path, packages: Packages, before: Recorded, **options: Any) -> Store:
    """Sound, and every package is published."""
    store = assert_sound(path, packages, before, **options)
    assert store.packages.keys() == packages.keys()
    assert set(statuses(path).values()) == {"completed"}
    return store


def checkout_differences(regrain: Regrain, name: str, before: Snapshot, place: Path) -> list[str]:
    """How an exact checkout differs from what the legacy tree was, holes included."""
    regrain("checkout", name, place, "--mode", "exact")
    return differences(before, snapshot(place), holes=True)


def read_ledger(path: Path, query: str, *values: object) -> list[tuple[Any, ...]]:
    """Ask the ledger as a script may: from another process than regrain's, read-only."""
    if (path / "migration" / "ledger.toml").exists():
        return servers.ask(path, query, *values)
    with (
        _where_sqlite_may_write(path) as place,
        closing(sqlite3.connect(f"file:{place}/state.sqlite?mode=ro", uri=True)) as connection,
    ):
        return connection.execute(query, values).fetchall()


@contextmanager
def _where_sqlite_may_write(path: Path) -> Iterator[Path]:
    """The directory of a ledger; of one on a read-only file system a copy.

    Whoever reads a log of SQLite makes a file beside it, for all who do.
    """
    if not os.statvfs(path).f_flag & os.ST_RDONLY:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        for name in path.glob("state.sqlite*"):
            shutil.copy(name, folder)
        yield Path(folder)


def statuses(path: Path) -> dict[str, str]:
    """The status of every package in the ledger."""
    return dict(read_ledger(path, "SELECT package_hash, status FROM store_migration"))


def object_inodes(path: Path) -> set[tuple[int, int]]:
    """The inodes below ``objects/``."""
    found = (p.lstat() for p in (path / "objects").glob("*/*"))
    return {(status.st_dev, status.st_ino) for status in found}


def is_linked(path: Path, file: Path) -> bool:
    """Whether a legacy file's inode is an object, too."""
    status = file.lstat()
    return (status.st_dev, status.st_ino) in object_inodes(path)


def numbers(value: Any) -> list[float]:
    """Every number of a JSON document, whatever its key."""
    if isinstance(value, dict):
        return [n for item in value.values() for n in numbers(item)]
    if isinstance(value, list):
        return [n for item in value for n in numbers(item)]
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []


def text_of(result: Result) -> str:
    """All that a command said, as one text; JSON strings unescaped."""
    try:
        documents = result.documents
    except ValueError:
        return result.text + result.stderr
    return "\n".join(json.dumps(d, ensure_ascii=False) for d in documents) + result.stderr


def assert_unchanged(path: Path, before: Snapshot, *, but_the_top: bool = False) -> None:
    """Nothing at all was written, root directory included.

    Where the ledger was read, SQLite kept its locks beside it for that time, which moves the
    times of the top directory.
    """
    after = snapshot(path)
    for tree in (before, after) if but_the_top else ():
        tree.pop(b"", None)
    assert differences(before, after, identity=True) == []
