"""File lists for the tests: rendered from entries, or from JSON that may be wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from regrain.model import file_list
from regrain.model.entry import Entry
from regrain.store.packages import FileLevelPackage
from tests import reader

PACKAGE = "0123456789abcdef" * 4
ROOT = {"path": "", "type": "directory", "mode": "0755", "uid": 0, "gid": 0, "mtime_ns": 0}
DIGEST = "ab" * 32


def render(tree: Iterable[Entry], package_hash: str = PACKAGE) -> bytes:
    """The file list of a tree, in the form that is fixed."""
    listed = list(tree)
    lines = b",\n".join(file_list.entry_line(entry) for entry in listed)
    head = file_list.header(package_hash, file_list.tree_hash(listed))
    return head + lines + b"\n" + file_list.FOOTER


def file_json(path: str, **fields: Any) -> dict[str, Any]:
    """A file's entry as JSON has it."""
    return {**ROOT, "path": path, "type": "file", "hash": DIGEST, "size": 5, **fields}


def directory_json(path: str, **fields: Any) -> dict[str, Any]:
    """A directory's."""
    return {**ROOT, "path": path, **fields}


def symlink_json(path: str, target: str = "there", **fields: Any) -> dict[str, Any]:
    """A symbolic link's."""
    return {**ROOT, "path": path, "type": "symlink", "mode": "0777", "target": target, **fields}


def render_json(entries: list[dict[str, Any]], package_hash: str = PACKAGE) -> bytes:
    """A file list of any entries whose ``tree_hash`` fits them: only its rule is broken."""
    lines = b",\n".join(json.dumps(entry).encode() for entry in entries)
    head = file_list.header(package_hash, reader.tree_hash(entries))
    return head + lines + b"\n" + file_list.FOOTER


def parsed(raw: bytes, package_hash: str = PACKAGE) -> list[Entry]:
    """All entries of a file list."""
    return list(file_list.parse(raw.splitlines(keepends=True), package_hash))


@contextmanager
def opened(folder: Path, raw: bytes, package_hash: str = PACKAGE) -> Iterator[FileLevelPackage]:
    """A published package with this file list, over an empty ``objects/``."""
    place = folder / "packages" / package_hash
    place.mkdir(parents=True, exist_ok=True)
    (folder / "objects").mkdir(exist_ok=True)
    (place / "files.json").write_bytes(raw)
    packages = os.open(folder / "packages", os.O_RDONLY)
    objects = os.open(folder / "objects", os.O_RDONLY)
    try:
        yield FileLevelPackage(packages, objects, package_hash)
    finally:
        os.close(packages)
        os.close(objects)
