"""What lies in ``quarantine/``, and its way out of the store, which somebody has to ask for."""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING, NamedTuple

from regrain import disk
from regrain.errors import reason
from regrain.maintain.doctor_disk import count_tree
from regrain.model import layout
from regrain.model.digest import is_package_hash
from regrain.model.layout import FILE_LIST, MANIFEST, parse_carrier

if TYPE_CHECKING:
    from regrain.ledger import Ledger
    from regrain.store.root import StoreRoot

EVENT = "quarantine_emptied"
_NAME = re.compile(r"\A(.+)\.[0-9]+\Z", re.DOTALL)
_LEDGER = re.compile(rf"\A{re.escape(layout.LEDGER)}\.[0-9]+(-wal|-shm|-journal)?\Z")
_PUBLISHED = frozenset({FILE_LIST, MANIFEST})


class Thing(NamedTuple):
    """Something that was moved aside.

    Attributes:
        name: In ``quarantine/``.
        what: ``object``, ``published``, ``legacy``, ``ledger`` or ``other``, by its name and kind.
        of: The object or package it was; empty where that is not known.
        size: Its bytes on disk.
        since: When it was moved there, in Unix seconds.
    """

    name: str
    what: str
    of: str
    size: int
    since: int


def things(root: StoreRoot) -> list[Thing]:
    """Return what lies there, by name."""
    found = []
    with disk.Closing(disk.open_directory(layout.QUARANTINE, root.fd)) as place:
        for raw, kind in disk.list_directory(place):
            with contextlib.suppress(FileNotFoundError):  # moved away meanwhile
                found.append(_thing(place, raw, kind))
    return sorted(found)


def _thing(place: int, raw: bytes, kind: str) -> Thing:
    status = os.stat(raw, dir_fd=place, follow_symlinks=False)
    size, parts = disk.allocated(status), set[str]()
    if kind is disk.DIRECTORY:
        with disk.Closing(disk.open_directory(raw, place)) as inside:
            parts = set(os.listdir(inside))
            size += count_tree(inside)[1]
    name = os.fsdecode(raw)
    return Thing(name, *_nature(name, kind, parts), size, int(status.st_ctime))


def _nature(name: str, kind: str, parts: set[str]) -> tuple[str, str]:
    if _LEDGER.match(name):
        return "ledger", ""
    match = _NAME.match(name)
    of = match[1] if match else ""
    if kind is disk.DIRECTORY and is_package_hash(of):
        is_published = all(part in _PUBLISHED or part.startswith("sbom.") for part in parts)
        return ("published" if is_published else "legacy"), of
    parsed = parse_carrier(of)
    return ("other", "") if parsed is None else ("object", parsed[0])


class Emptied(NamedTuple):
    """What became of it.

    Attributes:
        gone: What was removed.
        kept: What could not be, with the reason.
    """

    gone: list[Thing]
    kept: list[tuple[Thing, str]]


def empty(root: StoreRoot, ledger: Ledger) -> Emptied:
    """Remove all that lies there now. The caller holds the run lock."""
    done = Emptied([], [])
    with disk.Closing(disk.open_directory(layout.QUARANTINE, root.fd)) as place:
        for thing in things(root):
            try:
                disk.remove_tree(os.fsencode(thing.name), place)
            except FileNotFoundError:
                continue
            except OSError as error:
                done.kept.append((thing, reason(error)))
            else:
                done.gone.append(thing)
        disk.fsync(place)
    if done.gone:
        size = sum(thing.size for thing in done.gone)
        ledger.remember(EVENT, detail=f"{len(done.gone)} things, {size} bytes")
    return done
