"""The moments of the crash table, and what must hold after each."""

from __future__ import annotations

import signal

from regrain.app.store import PackageStore
from regrain.model.events import Recovered
from regrain.model.phase import Layout
from tests.compare import Snapshot, differences, snapshot
from tests.conftest import remove
from tests.faults.crash_driver import Ended, Moment
from tests.faults.faulty import Call, Faults, injected
from tests.faults.inline import Told, Way, migrate
from tests.faults.judge import complete_problems
from tests.faults.small import SLICE_ENTRIES, Scene, copy_of
from tests.stores import read_ledger

ONE_BATCH = Way(batch=10, slice_entries=SLICE_ENTRIES)
COPIED = Way(batch=10, ingest="copy", sync="fsync")
WAYS = {"linked": ONE_BATCH, "copied": COPIED}
KILLED = Ended(signal.SIGKILL, 0)
PUBLISHER = "regrain.migrate.publish:Publisher"
OBJECTS_OF_A_PACKAGE = "regrain.migrate.pool:_publish_objects"
LEDGER = "regrain.ledger.queries:Ledger"
DISK = "regrain.disk"
NAMING = f"{DISK}:link {DISK}:rename_noreplace"
"""How an object gets its name: a legacy inode a further one, a staged copy its last."""

BEFORE_OBJECTS = {
    "claimed": Moment(f"{LEDGER}.claim", "after"),
    "staging, no file yet": Moment(f"{DISK}:open_file", "before", 1, "legacy"),
    "staging": Moment(f"{DISK}:create", "after", 4),
    "hashing": Moment(f"{DISK}:read_xattrs", "after", 20),
    "verifying": Moment("regrain.migrate.seal:verify_unchanged", "before", 2),
    "verified": Moment("regrain.migrate.seal:verify_unchanged", "after", 4),
    "syncing": Moment(f"{PUBLISHER}.flush", "before"),
    "synced": Moment(f"{PUBLISHER}.flush", "after"),
    "publishing objects": Moment(OBJECTS_OF_A_PACKAGE, "before"),
    "naming the first object": Moment(NAMING, "before", 1, "objects"),
}
OBJECTS = {
    "first object": Moment(NAMING, "after", 1, "objects"),
    "tenth object": Moment(NAMING, "after", 10, "objects"),
    "objects of a package": Moment(OBJECTS_OF_A_PACKAGE, "after", 1),
    "objects of all": Moment(OBJECTS_OF_A_PACKAGE, "after", 4),
    "flushing objects": Moment(f"{PUBLISHER}.flush_objects", "before"),
    "objects flushed": Moment(f"{PUBLISHER}.flush_objects", "after"),
    "publishing packages": Moment(f"{PUBLISHER}.publish_packages", "before"),
    "first package": Moment(f"{DISK}:rename_noreplace", "before", 1, "packages"),
}
PACKAGES = {
    "packages renamed": Moment(f"{DISK}:rename_noreplace", "after", 4, "packages"),
    "flushing packages": Moment(f"{DISK}:fsync", "before", 1, "packages"),
    "packages flushed": Moment(f"{PUBLISHER}.publish_packages", "after"),
    "recording": Moment(f"{LEDGER}.record", "before"),
}
RECORDED = {
    "recorded": Moment(f"{LEDGER}.record", "after"),
    "cleaning up": Moment("regrain.store.locks:RunDirectory.__exit__", "before"),
    "cleaned up": Moment("regrain.store.locks:RunDirectory.__exit__", "after"),
}


def layouts(scene: Scene) -> dict[str, Layout]:
    store = PackageStore.open(scene.path)
    return {name: store.get_package(name).layout for name in scene.packages}


def recover(scene: Scene, way: Way) -> list[Recovered]:
    """Recover and do nothing else."""
    told = Told()
    migrate(scene.path, way, limit=0, on_event=told.events.append)
    return told.of(Recovered)


def tree(scene: Scene) -> Snapshot:
    """Everything in a store but the ledger, logs, locks and the snapshot for people."""
    return {
        path: entry
        for path, entry in snapshot(scene.path).items()
        if path and not path.startswith((b"state.sqlite", b"migration"))
    }


def rows(scene: Scene) -> dict[str, list[tuple[object, ...]]]:
    """Everything in the ledger but its history."""
    tables = ("store_refs", "store_migration", "objects", "carriers", "object_owners", "packages")
    return {t: sorted(read_ledger(scene.path, f"SELECT * FROM {t}"), key=repr) for t in tables}


def assert_converges(scene: Scene, way: Way) -> None:
    """The next run completes everything; recovery, and one more run, change nothing then."""
    assert migrate(scene.path, way).failed == 0
    assert complete_problems(scene) == []
    before, recorded = tree(scene), rows(scene)
    assert recover(scene, way) == []
    assert migrate(scene.path, way).completed == 0
    assert differences(before, tree(scene), identity=True) == []
    assert rows(scene) == recorded


def orphans(scene: Scene) -> dict[str, int | None]:
    """The recorded objects that no package holds, and since when."""
    query = "SELECT lower(hex(digest)), unreferenced_since FROM objects"
    query += " WHERE id NOT IN (SELECT object_id FROM object_owners)"
    return dict(read_ledger(scene.path, query))


def on_disk(scene: Scene) -> set[str]:
    """The digests in ``objects/``."""
    return {path.name.partition(".")[0] for path in (scene.path / "objects").glob("*/*")}


def survey(template: Scene, way: Way, *, system: bool = False) -> list[Call]:
    """Every step of a run in which nothing fails: of ``regrain.disk``, or of ``os``."""
    scene = copy_of(template, template.path.with_name("survey"))
    try:
        with injected(Faults(scene.path), system=system) as faults:
            assert migrate(scene.path, way).failed == 0
        return faults.calls
    finally:
        remove(scene.path)
