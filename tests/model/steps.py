"""Every command inside this process, by the facades that the command line uses.

Each takes a store, or the path of one, and returns the exit code that the command ends with.
What dies in the middle is called in a process of its own (``tests.faults.crash_driver``).
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec

from regrain.app import care, keeping, lifecycle, rollback, undoing
from regrain.app.repairing import Order, repair
from regrain.app.store import PackageStore
from regrain.app.verification import verify as verify_store
from regrain.errors import RegrainError
from regrain.maintain.audit import Level
from regrain.settings import Migration, Settings, Store
from tests.conftest import remove as remove_tree
from tests.faults.inline import inline_workers
from tests.faults.undoing import inline_audit

SETTINGS = Settings(
    Store(migration_parallel_files=1, migration_batch_size=2),
    Migration(settle=0.0, free_bytes_min=0, free_inodes_min=0, on_trigger="continue"),
)
P = ParamSpec("P")
_TIMINGS_MAX = 10


def _step(
    body: Callable[Concatenate[PackageStore, P], int],
) -> Callable[Concatenate[PackageStore | Path, P], int]:
    """Let a step be given a path, and return what its errors stand for."""

    @wraps(body)
    def step(store: PackageStore | Path, /, *arguments: P.args, **named: P.kwargs) -> int:
        opened = PackageStore.open(store, SETTINGS) if isinstance(store, Path) else store
        with inline_workers(), inline_audit():
            try:
                return body(opened, *arguments, **named)
            except RegrainError as error:
                return error.exit_code

    return step


@_step
def add(store: PackageStore, path: str, package_hash: str | None) -> int:
    """Add a directory or an archive."""
    store.add_package(path, package_hash)
    return 0


@_step
def remove(store: PackageStore, name: str) -> int:
    """Remove a package."""
    store.remove_package(name)
    return 0


@_step
def exclude(store: PackageStore, name: str) -> int:
    """Set a package aside."""
    keeping.exclude(store.root, name)
    return 0


@_step
def include(store: PackageStore, name: str) -> int:
    """Take a package back in."""
    keeping.exclude(store.root, name, undo=True)
    return 0


@_step
def migrate(
    store: PackageStore,
    *,
    limit: int | None = None,
    retry_failed: bool = False,
    rescan: bool = False,
    accept: str | None = None,
) -> int:
    """Migrate what is pending."""
    done = store.migration().run(
        jobs=1, limit=limit, retry_failed=retry_failed, rescan=rescan, accept=accept
    )
    return 3 if done.failed else 0


@_step
def cutover(store: PackageStore) -> int:
    """Ask the gate, and switch; again where only the clock was against it, on a busy machine."""
    for _ in range(_TIMINGS_MAX):
        done = lifecycle.cutover(store.root, SETTINGS, no_backup=True)
        if [failure.check for failure in done.failures] != ["comparison"]:
            break
    return 5 if done.failures else 0


@_step
def cleanup(store: PackageStore, limit: int | None = None) -> int:
    """Remove legacy directories."""
    return 3 if undoing.cleanup(store.root, limit=limit).kept else 0


@_step
def roll_back(store: PackageStore) -> int:
    """Go back to the legacy layout."""
    rollback.raise_failures(rollback.rollback(store.root, SETTINGS))
    return 0


@_step
def roll_one_back(store: PackageStore, name: str) -> int:
    """Read one package from its legacy directory again."""
    undoing.rollback_packages(store.root, [name])
    return 0


@_step
def purge(store: PackageStore) -> int:
    """Drop what is published of a store that was rolled back."""
    undoing.purge(store.root)
    return 0


@_step
def collect(store: PackageStore) -> int:
    """Delete what nobody holds."""
    store.collect(0)
    return 0


@_step
def verify(store: PackageStore, level: str = "deep") -> int:
    """Verify the whole store."""
    found = verify_store(
        store.root,
        SETTINGS,
        [],
        level=Level(level),
        subset=None,
        on_result=lambda _: None,
        stopping=lambda: False,
    )
    assert not found.is_damaged, found
    assert found.books is None or not found.books.disagree, found
    return 3 if found.audit.changes else 0


@_step
def mend(store: PackageStore, what: str, number: int) -> int:
    """Damage something that is published, in inodes that nobody shares, and repair it."""
    path = Path(store.path)
    folder = path.with_name(f"{path.name}.backup")
    folder.mkdir()
    for part in ("objects", "packages"):
        subprocess.run(["cp", "-a", "--", path / part, folder / part], check=True)
    _hurt(path, what, number)
    order = Order(level=Level.DEEP, places=(os.fspath(folder),))
    done = repair(store.root, SETTINGS, order)
    remove_tree(folder)
    for aside in (path / "quarantine").iterdir():
        if not aside.name.startswith("state.sqlite"):
            remove_tree(aside)
    assert not done.is_damaged, done
    assert done.last.books is None or not done.last.books.disagree, done
    return 3 if done.last.audit.changes else 0


def _hurt(path: Path, what: str, number: int) -> None:
    """Damage one carrier or file list, whichever the number says."""
    pattern = {"list": "packages/*/files.json", "package": "packages/*"}.get(what, "objects/*/*")
    there = sorted(path.glob(pattern))
    if not there:
        return
    chosen = there[number % len(there)]
    if what in {"carrier lost", "package"}:
        remove_tree(chosen)
    else:
        mode, content = chosen.stat().st_mode, chosen.read_bytes()
        chosen.unlink()
        chosen.write_bytes(content if what == "mode" else bytes(255 - byte for byte in content))
        chosen.chmod(0o666 if what == "mode" else mode)


@_step
def rebuild(store: PackageStore) -> int:
    """Make the ledger anew."""
    assert not care.rebuild_ledger(store.path).problems
    return 0
