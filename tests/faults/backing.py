"""Backups made and restored inside this process, so that every step of them can fail or be cut."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from regrain.app import backing_up, backups, restoring
from regrain.app.store import PackageStore
from regrain.migrate import replica_objects
from regrain.migrate.replica_objects import Route
from regrain.settings import Settings
from tests.compare import differences
from tests.faults.inline import Flag, Here
from tests.faults.small import Scene
from tests.reader import check_store, package_tree


class _Inline(Here):
    """One worker, in this process; its descriptors are closed with it."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the worker."""
        replica_objects._copier = None


@contextmanager
def inline_copies() -> Iterator[None]:
    """Have packages copied inside this process."""
    original = replica_objects.make_executor

    def make_executor(jobs: int, route: Route) -> tuple[Executor, Any]:
        stop = Flag()
        replica_objects._start(route, stop)
        return _Inline(), stop

    replica_objects.make_executor = make_executor
    try:
        yield
    finally:
        replica_objects.make_executor = original


def create(store: Path, destination: Path) -> backups.Backup:
    """Make a backup."""
    with inline_copies():
        root = PackageStore.open(store).root
        return backing_up.create_backup(root, Settings(), str(destination))


def restore(store: Path, destination: Path) -> backups.Restored:
    """Restore a store."""
    with inline_copies():
        return restoring.restore_backup(str(store), Settings(), str(destination), everything=True)


def faults_in(place: Path, scene: Scene, *, all_there: bool) -> list[str]:
    """What is wrong with the packages of a store or backup, by the tests' own reading."""
    if not (place / "store.toml").exists():
        return ["there is nothing"] if all_there else []
    store = check_store(place, orphans=True)
    swept = ("temp/", "quarantine/", "missing at the top")
    said = [line for line in store.problems if not line.startswith(swept)]
    for name in store.packages:
        said += [f"{name}: {d}" for d in differences(scene.before[name], package_tree(store, name))]
    if all_there:
        said += [f"{name}: not there" for name in scene.before if name not in store.packages]
    return said
