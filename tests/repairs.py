"""Small stores that are damaged and repaired inside this process, and what they must be then."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from regrain.app.repairing import Order, Repaired
from regrain.app.repairing import repair as repair_store
from regrain.app.verification import Verdict
from regrain.app.verification import verify as verify_store
from regrain.maintain.audit import Level
from regrain.settings import Migration, Settings, Store
from regrain.store.root import StoreRoot
from tests.compare import Snapshot, differences, snapshot
from tests.faults.small import Scene
from tests.faults.undoing import inline_audit, reading_problems
from tests.reader import check_store
from tests.stores import read_ledger
from tests.trees import LIVE

INSIDE = os.fsdecode(LIVE)
OTHER_USER = 12_345
SETTINGS = Settings(
    Store(migration_parallel_files=1, ingest="copy"),
    Migration(settle=0.0, free_bytes_min=0, free_inodes_min=0),
)

Damage = Callable[[Path], None]


def repair(scene: Scene, level: str = "full", *texts: str, **named: object) -> Repaired:
    """Repair a store, in this process."""
    order = Order(list(texts), Level(level), **named)  # type: ignore[arg-type]
    with inline_audit():
        return repair_store(StoreRoot(os.fspath(scene.path)), SETTINGS, order)


def verify(scene: Scene, level: str = "deep") -> Verdict:
    """Verify a store, in this process."""
    with inline_audit():
        return verify_store(
            StoreRoot(os.fspath(scene.path)),
            SETTINGS,
            [],
            level=Level(level),
            subset=None,
            on_result=lambda _: None,
            stopping=lambda: False,
        )


def told(done: Repaired) -> list[tuple[str, str]]:
    """What was damaged, and what became of it."""
    return [(one.subject.value, one.outcome.value) for one in done.report.repairs]


# what is damaged


def turn_over(file: Path) -> None:
    """Other bytes, nothing else moves."""
    status = file.stat()
    file.chmod(0o600)
    content = file.read_bytes()
    with file.open("r+b") as stream:
        stream.write(bytes(255 - byte for byte in content))
    file.chmod(status.st_mode & 0o7777)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def cut(file: Path) -> None:
    """Too short, and its time moved."""
    os.truncate(file, file.stat().st_size - 1)


def open_up(file: Path) -> None:
    """Everybody may write to it."""
    file.chmod(0o666)


def close_down(file: Path) -> None:
    """A mode that a carrier may have, but not this one."""
    file.chmod(0o400)


def give_away(file: Path) -> None:
    """It belongs to somebody else."""
    os.chown(file, OTHER_USER, OTHER_USER)


def lose(file: Path) -> None:
    """It is gone."""
    file.unlink()


def become_link(file: Path) -> None:
    """A way out of the store has its name."""
    file.unlink()
    file.symlink_to("/etc/passwd")


def become_directory(file: Path) -> None:
    """A directory has its name."""
    file.unlink()
    file.mkdir()
    (file / "inside").write_bytes(b"something")


def become_fifo(file: Path) -> None:
    """What would keep a reader waiting has its name."""
    file.unlink()
    os.mkfifo(file)


BYTES: list[Damage] = [turn_over, cut]
METADATA: list[Damage] = [open_up, close_down, give_away]
GONE: list[Damage] = [lose, become_link, become_directory, become_fifo]


# what it is about


def digest_of(scene: Scene, package: str, path: str) -> str:
    """The object of a file."""
    return scene.before[scene.named(package).hash][os.fsencode(path)].digest


def carrier(scene: Scene, digest: str, ending: str = "") -> Path:
    """Where a carrier lies."""
    return scene.path / "objects" / digest[:2] / f"{digest}{ending}"


def object_of_one(scene: Scene) -> tuple[str, str, str]:
    """Package, path and object of a file that only one package has."""
    path = f"{INSIDE}/bin/linkable"
    return scene.named("linkable").hash, path, digest_of(scene, "linkable", path)


def quarantined(scene: Scene) -> list[Path]:
    """What lies in quarantine."""
    return sorted((scene.path / "quarantine").iterdir())


# what must be true at last


def assert_whole(scene: Scene) -> None:
    """Sound in the eyes of a stranger, and of the program; every package is what it was."""
    said = problems(scene)
    assert not said, said
    again = repair(scene, "deep")
    assert not again.report.repairs, again


def problems(scene: Scene) -> list[str]:
    """What is wrong with a store; what lies in quarantine is not."""
    legacy = [name for name in scene.packages if (scene.path / name).exists()]
    store = check_store(scene.path, legacy=legacy)
    said = [line for line in store.problems if not line.startswith("quarantine/")]
    found = verify(scene)
    said += [f"verify: {one}" for one in (*found.audit.damages, *found.audit.changes)]
    books = found.books
    if books is None or books.disagree or books.touched or books.resized or books.leftovers:
        said.append(f"ledger: {books}")
    said += [f"concern: {row}" for row in read_ledger(scene.path, "SELECT * FROM integrity")]
    said += reading_problems(scene)
    said += [f"temp: {path}" for path in (scene.path / "temp").iterdir()]
    for name in legacy:
        said += [f"{name}: {line}" for line in changes(scene.before[name], scene.path / name)]
    return said


def changes(before: Snapshot, place: Path) -> list[str]:
    """How a tree differs from what it was."""
    return differences(before, snapshot(place), holes=True)
