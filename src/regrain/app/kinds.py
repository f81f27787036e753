"""Savings by kind of file, from the file lists of published packages."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from regrain.errors import RegrainError
from regrain.ledger.recounting import carried_bytes
from regrain.model.entry import Kind
from regrain.model.kinds import kind_of_file
from regrain.store.packages import FileLevelPackage, published

if TYPE_CHECKING:
    from regrain.ledger import Ledger
    from regrain.store.root import StoreRoot

FILES_MAX = 200_000
"""File lists are read until they named so many files: two seconds."""

PACKAGES_MAX = 2000
"""Nor are more read than these: each may have to be fetched from a slow disk."""


@dataclass(slots=True)
class KindOfFile:
    """Figures of one kind.

    Attributes:
        name: In words.
        files: Paths.
        size: Their bytes, each path counted.
        before: Bytes on disk these take in legacy directories: whole blocks, each inode once.
        contents: Distinct contents; one that files of several kinds have counts for the first.
        after: Bytes on disk of the objects that hold these.
    """

    name: str
    files: int = 0
    size: int = 0
    before: int = 0
    contents: int = 0
    after: int = 0


@dataclass(slots=True)
class Kinds:
    """All kinds, the one that saves most first.

    Attributes:
        rows: Them.
        packages: Packages that were looked at.
        published: Published packages; more than that where the store is large.
        unreadable: Packages whose file list could not be read.
    """

    rows: list[KindOfFile] = field(default_factory=list)
    packages: int = 0
    published: int = 0
    unreadable: int = 0


def survey_kinds(root: StoreRoot, ledger: Ledger, files_max: int = FILES_MAX) -> Kinds:
    """Read file lists: all, or where that is too much some, chosen at random.

    What a content is shared with outside the chosen packages is not known; so the larger the
    store, the more its true savings exceed what is found.
    """
    names = published(root.packages)
    Random(root.store_id).shuffle(names)  # noqa: S311 -- a sample, no secret
    found = Kinds(published=len(names))
    kinds: dict[str, KindOfFile] = {}
    owner: dict[bytes, KindOfFile] = {}
    block = os.fstatvfs(root.fd).f_frsize
    files = 0
    for name in names:
        if files >= files_max or found.packages == PACKAGES_MAX:
            break
        try:
            files += _look(root, name, block, kinds, owner)
        except (OSError, RegrainError):  # verify says what is wrong with it
            found.unreadable += 1
            continue
        found.packages += 1
    for digest, size in carried_bytes(ledger, list(owner)).items():
        owner[digest].after += size
    found.rows = sorted(kinds.values(), key=lambda row: (row.after - row.before, row.name))
    return found


def _look(
    root: StoreRoot,
    package: str,
    block: int,
    kinds: dict[str, KindOfFile],
    owner: dict[bytes, KindOfFile],
) -> int:
    """Add the files of a package, or nothing if its list is damaged; return how many it has."""
    entries = [
        entry
        for entry in FileLevelPackage(root.packages, root.objects, package).entries()
        if entry.kind is Kind.FILE
    ]
    for entry in entries:
        name = kind_of_file(entry.path, entry.mode)
        row = kinds.setdefault(name, KindOfFile(name))
        row.files += 1
        row.size += entry.size
        if entry.hardlink is None:
            row.before += -(-entry.size // block) * block
        if entry.size:
            digest = bytes.fromhex(entry.digest)
            if digest not in owner:
                owner[digest] = row
                row.contents += 1
    return len(entries)
