"""The steps back, and the steps that take a layout away, inside this process."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from regrain.app import rollback as rolling
from regrain.app import undoing
from regrain.app.store import PackageStore
from regrain.app.verification import verify
from regrain.errors import RegrainError
from regrain.ledger import open_ledger
from regrain.maintain import audit
from regrain.maintain.audit import Level
from regrain.model.phase import Phase
from regrain.settings import Settings
from regrain.store.root import StoreRoot, write_store_file
from tests.compare import differences, snapshot
from tests.conftest import remove
from tests.faults.inline import Here, Way, inline_workers, migrate
from tests.faults.judge import ledger_problems, package_differences
from tests.faults.small import Scene
from tests.stores import read_ledger, statuses

WAY = Way(batch=10)


class _Auditor(Here):
    """Does in this process what a worker of an audit does."""

    def __init__(self, _: int, start: Callable[..., None], *arguments: Any) -> None:
        start(*arguments)


@contextmanager
def inline_audit() -> Iterator[None]:
    """Have every audit of this process work inline."""
    module: Any = audit
    original = module.spawn_executor
    module.spawn_executor = _Auditor
    try:
        yield
    finally:
        module.spawn_executor = original
        module._inspector = None


def overseen(scene: Scene) -> list[str]:
    """Do what the operator of a disk that is well again does; say what is wrong then.

    What could not be read is in doubt until a verification finds it whole, and packages that
    failed are tried again when that is asked for.
    """
    with closing(open_ledger(str(scene.path))) as ledger:
        ledger.retry_failed()
        doubts = ledger.concerns()
    if not doubts:
        return []
    root = PackageStore.open(scene.path).root
    with inline_audit():
        found = verify(
            root,
            Settings(),
            [],
            level=Level.DEEP,
            subset=None,
            on_result=lambda _: None,
            stopping=lambda: False,
        )
    return [f"verify: {damage}" for damage in found.audit.damages]


def root_of(store: Path) -> StoreRoot:
    return StoreRoot(os.fspath(store))


def cutover(store: Path) -> None:
    """Only the switch, without its gate."""
    root = root_of(store)
    write_store_file(root.fd, root.store_id, Phase.FILE_LEVEL)


def cleanup(store: Path) -> None:
    done = undoing.cleanup(root_of(store))
    assert not done.kept, done


def rollback(store: Path) -> None:
    with inline_audit():
        rolling.raise_failures(rolling.rollback(root_of(store), _settings()))


def roll_one_back(store: Path, name: str = "") -> None:
    undoing.rollback_packages(root_of(store), [name])


def purge(store: Path) -> None:
    undoing.purge(root_of(store))


def forward(store: Path) -> None:
    with inline_audit():
        migrate(store, WAY)


def in_place(store: Path) -> None:
    """Migrate, each legacy directory going at once."""
    import msgspec

    settings = _settings()
    gone = msgspec.structs.replace(settings.store, keep_old_packages=False)
    settings = msgspec.structs.replace(settings, store=gone)
    with inline_workers(), inline_audit():
        opened = PackageStore.open(store, settings)
        done = opened.migration().run(jobs=1, delete_legacy=True, no_backup=True)
    assert not done.kept, done


def _settings() -> Any:
    import msgspec

    settings = WAY.settings()
    limits = msgspec.structs.replace(settings.migration, free_bytes_min=0, free_inodes_min=0)
    return msgspec.structs.replace(settings, migration=limits)


def opened(store: Path) -> PackageStore:
    return PackageStore.open(store)


BEFORE = {
    "cleanup": ("cutover",),
    "rollback": ("cutover", "cleanup"),
    "purge": ("rollback",),
    "forward": ("rollback",),
    "roll_one_back": (),
    "in_place": ("rollback", "purge"),
}


def run(step: str, scene: Scene) -> None:
    options = {"name": scene.named("grouped").hash} if step == "roll_one_back" else {}
    globals()[step](scene.path, **options)


def reading_problems(scene: Scene) -> list[str]:
    """How what a reader is given differs from what the packages were."""
    store, said = opened(scene.path), []
    for name, tree in scene.before.items():
        try:
            found = package_differences(store.get_package(name), tree)
            said += [f"{name}: {line}" for line in found]
        except (RegrainError, OSError) as error:
            said.append(f"{name}: {error!r}")
    return said


def state_problems(step: str, scene: Scene) -> list[str]:
    """What is wrong once the step was given again."""
    path = scene.path
    phase = root_of(path).phase()
    legacy = {name: (path / name).is_dir() for name in scene.packages}
    said = [
        f"{folder}: {list((path / folder).iterdir())}"
        for folder in ("temp", "trash")
        if any((path / folder).iterdir())
    ]
    said += [f"intent: {row}" for row in read_ledger(path, "SELECT * FROM intents")]
    said += [f"concern: {row}" for row in read_ledger(path, "SELECT * FROM integrity")]
    wanted = {
        "cleanup": (Phase.CLEAN, {"completed"}),
        "rollback": (Phase.ROLLED_BACK, {"rolled_back"}),
        "purge": (Phase.ROLLED_BACK, {"pending"}),
        "forward": (Phase.DUAL, {"completed"}),
        "roll_one_back": (Phase.DUAL, {"completed", "rolled_back"}),
        "in_place": (Phase.DUAL, {"completed"}),
    }[step]
    if (phase, set(statuses(path).values())) != wanted:
        said.append(f"{phase}, {statuses(path)}")
    if step in {"cleanup", "in_place"}:
        said += [f"{name}: there" for name, is_there in legacy.items() if is_there]
        uncleaned = "SELECT package_hash FROM store_migration WHERE cleaned_at IS NULL"
        said += [f"not recorded: {row}" for row in read_ledger(path, uncleaned)]
        freed = "SELECT package_hash FROM store_migration WHERE freed_bytes IS NULL"
        said += [f"not measured: {row}" for row in read_ledger(path, freed)]
    else:
        for name, tree in scene.before.items():
            found = differences(tree, snapshot(path / name), holes=True)
            said += [f"{name}: {line}" for line in found]
        gone = "SELECT package_hash FROM store_migration WHERE cleaned_at IS NOT NULL"
        said += [f"recorded as gone: {row}" for row in read_ledger(path, gone)]
    if step == "purge":
        said += [f"left: {p}" for p in (path / "objects").glob("*/*")]
        said += [f"left: {p}" for p in (path / "packages").iterdir()]
    return said + ledger_problems(path)


def fresh(scene: Scene) -> Scene:
    made = scene.path.with_name("scene")
    remove(made)
    subprocess.run(["cp", "-a", "--", scene.path, made], check=True)
    packages = {
        name: type(p)(p.hash, made / name, p.name, p.version, p.what)
        for name, p in scene.packages.items()
    }
    return Scene(made, packages, scene.before)
