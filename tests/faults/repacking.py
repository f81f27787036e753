"""Changes of representation inside this process, and what must be true after a fault in one."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import msgspec

from regrain.app import repacking
from regrain.app.store import PackageStore
from regrain.maintain import represent
from regrain.maintain.repack import Choice
from tests.compare import Snapshot, snapshot
from tests.conftest import remove
from tests.faults.inline import Way
from tests.faults.judge import ledger_problems, reading_problems
from tests.faults.small import Scene
from tests.packed import compressed_of
from tests.reader import check_store
from tests.stores import legacy_changes, read_ledger, record

BEFORE: dict[str, tuple[str, ...]] = {"compress": (), "expand": ("compress",)}
"""What must have been done before each step."""

OBJECTS = 6
"""Of the store that change; two at a time."""


def compress(store: Path) -> None:
    _repack(store, Choice.ALL)


def cool(store: Path) -> None:
    _repack(store, Choice.COLD)


def expand(store: Path) -> None:
    _repack(store, Choice.NONE)


def compress_wrongly(store: Path) -> None:
    """As ``compress``, but the old carriers go before the new ones have their names."""
    original: Any = represent.Represent._place

    def place(self: Any, change: Any, made: Any) -> bool:
        (store / "objects" / change.old.name[:2] / change.old.name).unlink()
        return bool(original(self, change, made))

    represent.Represent._place = place  # type: ignore[method-assign]
    compress(store)


def _repack(store: Path, choice: Choice) -> None:
    module: Any = represent
    usual, module.BATCH_OBJECTS = module.BATCH_OBJECTS, 2
    settings = Way().settings()
    limits = msgspec.structs.replace(settings.migration, free_bytes_min=0)
    settings = msgspec.structs.replace(settings, migration=limits)
    try:
        done = repacking.repack(PackageStore.open(store).root, settings, choice)
    finally:
        module.BATCH_OBJECTS = usual
    assert not done.damaged, done


def run(step: str, scene: Scene) -> None:
    globals()[step](scene.path)


def fresh(before: Scene) -> Scene:
    """A copy in the place where steps are tried."""
    made = before.path.with_name("scene")
    remove(made)
    subprocess.run(["cp", "-a", "--", before.path, made], check=True)
    packages = {
        name: type(p)(p.hash, made / name, p.name, p.version, p.what)
        for name, p in before.packages.items()
    }
    return Scene(made, packages, record(packages))


def any_time_problems(scene: Scene) -> list[str]:
    """What is wrong right after a fault: of packages and of what is on disk, nothing may be."""
    found = check_store(scene.path, legacy=scene.packages, orphans=True).problems
    return [
        *(problem for problem in found if not problem.startswith("temp/ is not empty")),
        *legacy_changes(scene.before, scene.packages),
        *reading_problems(scene),
    ]


def state_problems(step: str, scene: Scene) -> list[str]:
    """What is wrong once the step was given again."""
    said = [
        *check_store(scene.path, legacy=scene.packages).problems,
        *ledger_problems(scene.path),
        *reading_problems(scene),
        *legacy_changes(scene.before, scene.packages),
    ]
    compressed = len(compressed_of(scene.path))
    if compressed != (OBJECTS if step == "compress" else 0):
        said.append(f"{compressed} objects are compressed")
    return said


def carriers(scene: Scene) -> Snapshot:
    """All carriers, the directories left out."""
    found = snapshot(scene.path / "objects")
    return {path: entry for path, entry in found.items() if entry.kind == "file"}


def rows(scene: Scene) -> list[tuple[Any, ...]]:
    """What the ledger has of carriers and of what they save."""
    carriers_ = "SELECT * FROM carriers ORDER BY 1, 2, 3"
    saved = "SELECT package_hash, space_saved, added_bytes FROM store_migration ORDER BY 1"
    return [*read_ledger(scene.path, carriers_), *read_ledger(scene.path, saved)]
