"""Holds a real store against the plain model: what is read, what lies there, what is recorded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from regrain.app.store import Package, PackageStore
from regrain.errors import RegrainError, UnknownPackageError
from tests.compare import Snapshot, differences, snapshot
from tests.conftest import remove
from tests.faults.judge import ledger_problems, package_differences
from tests.model.plain import Known, Plain, same
from tests.model.trees import is_special
from tests.reader import check_store, package_tree
from tests.stores import read_ledger, statuses

TOLERATED = re.compile(
    r"quarantine/ is not empty: \['state\.sqlite|temp/ is not empty: \['\.store\.toml[^,]*$"
)
"""What a rebuilding puts aside is no damage; what dies while it replaces the phase leaves a file
that the next run removes, not the next writer."""


def reading_problems(store: PackageStore, wanted: dict[str, list[Snapshot | None]]) -> list[str]:
    """How what a reader gets differs; of a package it may be one of several trees, or none."""
    said = []
    found = {str(package.hash) for package in store.packages()}
    for name, trees in wanted.items():
        if (None not in trees and name not in found) or (not any(trees) and name in found):
            said.append(f"packages() and {name}: {name in found}")
        problems = [_as(store, name, tree) for tree in trees]
        if all(problems):
            said += [f"{name}: {line}" for lines in problems for line in lines[:4]]
    said += [f"not known: {name}" for name in sorted(found - wanted.keys())]
    return said


def _as(store: PackageStore, name: str, tree: Snapshot | None) -> list[str]:
    """How a package differs from one tree."""
    try:
        package = store.get_package(name)
    except UnknownPackageError as error:
        return [] if tree is None else [str(error)]
    if tree is None:
        return ["it can be read"]
    return read_as(package, tree)


def read_as(package: Package, tree: Snapshot) -> list[str]:
    """How what is read of a package differs from a tree."""
    try:
        found = [*package_differences(package, tree)]
    except RegrainError as error:
        return [] if is_special(tree) else [repr(error), str(error)]
    except (OSError, KeyError) as error:
        return [repr(error)]
    return ["a special file was read"] if is_special(tree) else found


def held_problems(package: Package, trees: list[Snapshot | None]) -> list[str]:
    """How a package that somebody holds differs from all that it was since it was opened.

    What replaced it may come into view in the midst of reading, but only once.
    """
    if len(trees) == 1 and trees[0] is not None:
        return [f"held {package.hash}: {line}" for line in read_as(package, trees[0])]
    for _ in range(2):
        said: list[str] = []
        for tree in trees:
            found = read_as(package, tree) if tree is not None else _is_gone(package)
            if not found:
                return []
            said += found
    return [f"held {package.hash}: {line}" for line in said]


def _is_gone(package: Package) -> list[str]:
    """Its list, which is all there, may still be held; its files cannot be read."""
    try:
        package.read("manifest.toml")
    except UnknownPackageError:
        return []
    return ["it is there"]


def checkout_problems(package: Package, tree: Snapshot, place: Path) -> list[str]:
    """How an exact checkout differs, link groups included."""
    if is_special(tree):
        return []
    package.checkout(place)
    try:
        return differences(tree, snapshot(place))
    finally:
        remove(place)


def disk_problems(path: Path, model: Plain) -> list[str]:
    """How what lies on disk differs from the model, and from what a sound store is."""
    legacy = [name for name, one in model.known.items() if one.legacy is not None]
    store = check_store(path, legacy=legacy, orphans=True)
    said = [p for p in store.problems if not TOLERATED.match(p)]
    if store.phase != model.phase:
        said.append(f"the phase is {store.phase}, not {model.phase}")
    published = {n: one.published for n, one in model.known.items() if one.published is not None}
    said += [f"published: {name}" for name in store.packages.keys() ^ published.keys()]
    for name, tree in published.items():
        if name in store.packages:
            found = differences(tree, package_tree(store, name))
            said += [f"published {name}: {line}" for line in found]
    for name in legacy:
        found = differences(model.known[name].legacy or {}, snapshot(path / name))
        said += [f"legacy {name}: {line}" for line in found]
    return said


def recorded_problems(path: Path, model: Plain) -> Iterator[str]:
    """How the ledger differs from the model, and from the disk."""
    there = statuses(path)
    for name in sorted(there.keys() | model.statuses().keys()):
        now, wanted = there.get(name, ""), model.statuses().get(name, "")
        if now != wanted:
            yield f"{name} is '{now}', not '{wanted}'"
    flags = flags_of(path)
    for name, one in model.known.items():
        wanted_flags = (one.excluded, one.concern, one.gone)
        if flags.get(name, (False, False, False)) != wanted_flags:
            yield f"{name} has {flags.get(name)}, not {wanted_flags}"
    yield from (f"intent: {row}" for row in read_ledger(path, "SELECT * FROM intents"))
    yield from ledger_problems(path)


def flags_of(path: Path) -> dict[str, tuple[bool, bool, bool]]:
    """Return of each package whether it is excluded, in doubt, and known to lack a directory."""
    concerns = {name for (name,) in read_ledger(path, "SELECT package_hash FROM integrity")}
    query = "SELECT package_hash, excluded, cleaned_at FROM store_migration"
    rows = {name: (bool(out), at is not None) for name, out, at in read_ledger(path, query)}
    return {
        name: (rows.get(name, (False, False))[0], name in concerns, rows.get(name, (0, False))[1])
        for name in rows.keys() | concerns
    }


def settled(path: Path, before: Plain, after: Plain) -> tuple[Plain, list[str]]:
    """Read a model off a store in which a command died, and say what it can not have become.

    Every tree must be the one before the command or the one after it.
    """
    names = before.known.keys() | after.known.keys()
    store = check_store(path, orphans=True)
    found, said = Plain(store.phase), []
    flags, rows = flags_of(path), statuses(path)
    for name in names:
        old, new = before.known.get(name, Known()), after.known.get(name, Known())
        legacy = snapshot(path / name) if (path / name).is_dir() else None
        published = package_tree(store, name) if name in store.packages else None
        choices = {"legacy": (legacy, old.legacy, new.legacy)}
        choices["published"] = (published, old.published, new.published)
        for layout, (now, *trees) in choices.items():
            if not any(same(tree, now) for tree in trees):
                said.append(f"{layout} {name} is neither what it was nor what it was to be")
        one = Known(legacy, published, rows.get(name, ""), *flags.get(name, (False, False, False)))
        if one != Known():
            found.known[name] = one
    return found, said
