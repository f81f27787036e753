"""What must hold after every fault, whatever it was; each finding is a line of text."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from blake3 import blake3

from regrain.app.store import Package, PackageStore
from regrain.errors import HaltedError, NoSpaceError, RegrainError
from regrain.migrate.orders import Summary
from regrain.model.phase import Layout
from tests import compare
from tests.compare import Snapshot, differences
from tests.faults.inline import Way, migrate
from tests.faults.small import Scene
from tests.reader import Store, check_store, object_bytes_problem, object_size
from tests.stores import legacy_changes, new_layout_differences, read_ledger, statuses

TRANSIENT = ("temp/ is not empty", "quarantine/ is not empty")
"""What the store may hold between a fault and the next run."""


def outcome_of(scene: Scene, way: Way) -> tuple[str, BaseException | Summary]:
    """Run a migration; tell how it ended in a letter of the fault matrix, or a word.

    ``F`` one package failed, ``P`` no space, ``H`` halted, ``E`` another error of ours,
    ``ok`` all migrated, ``raw`` an error that is not ours.
    """
    try:
        done = migrate(scene.path, way)
    except NoSpaceError as error:
        return "P", error
    except HaltedError as error:
        return "H", error
    except RegrainError as error:
        return "E", error
    except Exception as error:  # noqa: BLE001 -- finding such is what this is for
        return "raw", error
    if done.failed == 0:
        return "ok", done
    return ("F" if done.failed == 1 else "many failed"), done


def after_fault(scene: Scene, *, quarantine: bool = False) -> list[str]:
    """What is wrong with a store right after a fault: nothing may be."""
    return [
        *legacy_changes(scene.before, scene.packages),
        *_disk_problems(scene, quarantine=quarantine),
        *reading_problems(scene),
    ]


def _disk_problems(scene: Scene, *, quarantine: bool) -> list[str]:
    store = check_store(scene.path, legacy=scene.packages, orphans=True)
    tolerated = TRANSIENT if quarantine else TRANSIENT[:1]
    problems = [p for p in store.problems if not p.startswith(tolerated)]
    return problems + new_layout_differences(store, scene.before, store.packages)


def reading_problems(scene: Scene, names: Iterable[str] | None = None) -> list[str]:
    """How what a reader is given differs from what the legacy tree was: bytes, metadata."""
    store = PackageStore.open(scene.path)
    said = []
    for name in scene.packages if names is None else names:
        try:
            package = store.get_package(name)
            expected = (scene.path / "packages" / name).is_dir()
            if (package.layout is Layout.FILE_LEVEL) != expected:
                said.append(f"{name}: read from {package.layout}")
            said += [f"{name}: {line}" for line in package_differences(package, scene.before[name])]
        except (RegrainError, OSError) as error:
            said.append(f"{name}: {error!r}")
    return said


def package_differences(package: Package, before: Snapshot) -> Iterator[str]:
    """How what a reader is given of one package differs from what its legacy tree was."""
    found: Snapshot = {}
    groups: dict[bytes, bytes] = {}
    for entry in package.files():
        if entry.hardlink is not None:
            groups[entry.path] = groups[entry.hardlink] = entry.hardlink
        xattrs = {os.fsdecode(name): value for name, value in (entry.xattrs or {}).items()}
        found[entry.path] = compare.Entry(
            entry.path,
            entry.kind.value,
            entry.mode,
            entry.uid,
            entry.gid,
            entry.mtime_ns,
            entry.size,
            entry.digest,
            entry.target,
            xattrs=tuple(sorted(xattrs.items())),
        )
        if entry.kind.value == "file":
            content = package.read(entry.path)
            if len(content) != before[entry.path].size:
                yield f"{entry.path!r}: {len(content)} bytes were read"
    grouped = {path: replace(entry, group=groups.get(path)) for path, entry in found.items()}
    yield from differences(before, grouped)


def recovery_problems(scene: Scene, way: Way, *, orphans_gone: bool = False) -> list[str]:
    """Run once more without faults: everything must be done, and everything must agree."""
    try:
        done = migrate(scene.path, way, retry_failed=True)
    except Exception as error:  # noqa: BLE001 -- it must not raise, whatever it is
        return [f"the next run: {error!r}"]
    said = [] if done.failed == 0 else [f"the next run: {done}"]
    return said + complete_problems(scene)


def complete_problems(scene: Scene) -> list[str]:
    """What is missing from a store in which every package is migrated and recorded."""
    store = check_store(scene.path, legacy=scene.packages, orphans=True)
    said = [p for p in store.problems if not p.startswith("quarantine/")]
    said += legacy_changes(scene.before, scene.packages)
    said += new_layout_differences(store, scene.before, store.packages)
    said += reading_problems(scene)
    said += [f"not published: {name}" for name in scene.packages.keys() - store.packages.keys()]
    said += [f"{n}: {s}" for n, s in statuses(scene.path).items() if s != "completed"]
    return said + _book_problems(scene.path, store)


def ledger_problems(path: Path) -> list[str]:
    """Where the ledger and the disk part: rows re-hash, orphans are counted from some time."""
    return _book_problems(path, check_store(path, orphans=True))


def _book_problems(path: Path, store: Store) -> list[str]:
    said = []
    for digest, size in read_ledger(path, "SELECT lower(hex(digest)), size FROM objects"):
        carriers = store.carriers.get(digest, [])
        said += [problem for c in carriers if (problem := object_bytes_problem(c))]
        if {object_size(c) for c in carriers} != {size}:
            said.append(f"object {digest} of {size} bytes has carriers {carriers}")
    unowned = (
        "SELECT lower(hex(digest)), unreferenced_since FROM objects"
        " WHERE id NOT IN (SELECT object_id FROM object_owners)"
    )
    said += [f"orphan {d}: no time" for d, since in read_ledger(path, unowned) if since is None]
    owned = (
        "SELECT lower(hex(digest)) FROM objects WHERE unreferenced_since IS NOT NULL"
        " AND id IN (SELECT object_id FROM object_owners)"
    )
    said += [f"owned object {d}: unreferenced" for (d,) in read_ledger(path, owned)]
    carriers_ = (
        "SELECT lower(hex(digest)), mode, is_bare, is_compressed, allocated_bytes"
        " FROM carriers JOIN objects ON id = object_id"
    )
    rows = {
        (digest, mode, bool(bare), bool(compressed), allocated)
        for digest, mode, bare, compressed, allocated in read_ledger(path, carriers_)
    }
    there = {
        (
            digest,
            stat.S_IMODE(carrier.status.st_mode),
            carrier.path.name == digest,
            carrier.compressed,
            carrier.status.st_blocks * 512,
        )
        for digest, carriers in store.carriers.items()
        for carrier in carriers
    }
    said += [f"carrier {carrier}: no row" for carrier in sorted(there - rows)]
    said += [f"carrier {carrier}: not there" for carrier in sorted(rows - there)]
    return [*said, *_package_problems(path, store)]


def _package_problems(path: Path, store: Store) -> Iterator[str]:
    lists = dict(read_ledger(path, "SELECT package_hash, list_hash FROM packages"))
    completed = {name for name, status in statuses(path).items() if status == "completed"}
    for name in (lists.keys() | completed) - store.packages.keys():
        yield f"{name}: recorded, but not published"
    owners = "SELECT package_hash, lower(hex(digest)) FROM packages"
    owners += (
        " JOIN object_owners ON package_id = packages.id JOIN objects ON objects.id = object_id"
    )
    recorded: dict[str, set[str]] = {name: set() for name in store.packages}
    for name, digest in read_ledger(path, owners):
        recorded.setdefault(name, set()).add(digest)
    for name, entries in store.packages.items():
        held = {e["hash"] for e in entries if e["type"] == "file" and e["size"]}
        if recorded[name] != held:
            yield f"{name}: owners {sorted(recorded[name] ^ held)} differ"
        raw = (path / "packages" / name / "files.json").read_bytes()
        if lists.get(name) != blake3(raw).hexdigest():
            yield f"{name}: not the recorded list"
