"""What is easily written and wrong: each attack is first shown to work on one of these."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

import zstandard


def unpack(archive: Path, target: Path) -> None:
    """Write what an archive says to where it says."""
    with tarfile.open(archive) as opened:
        opened.extractall(target, filter="fully_trusted")


def unpack_checked(archive: Path, target: Path) -> None:
    """Ask where a path leads before it is written to; what it asks gives up on long paths."""
    inside = os.path.realpath(target)
    with tarfile.open(archive) as opened:
        for member in opened:
            path = os.path.join(inside, member.name)
            leads_to = os.path.realpath(path)
            if member.issym():
                leads_to = os.path.realpath(os.path.join(os.path.dirname(path), member.linkname))
            if os.path.commonpath([leads_to, inside]) == inside:
                opened.extract(member, target, filter="fully_trusted")


def decompress(data: bytes, bytes_max: int) -> int:
    """Return how much comes out of a frame; a real one would have written all of it."""
    size = 0
    for piece in zstandard.ZstdDecompressor().read_to_iter(data):
        size += len(piece)
        if size > bytes_max:
            break
    return size


def read_tree(root: Path) -> dict[str, bytes]:
    """Read a tree by paths: what was a directory when it was looked at may be a link by now."""
    found = {}
    for folder, _, files in os.walk(root):
        for name in files:
            path = Path(folder, name)
            try:
                if not path.is_symlink():
                    found[str(path)] = path.read_bytes()
            except OSError:
                continue
    return found


def remove_tree(root: Path) -> None:
    """Remove a tree by paths, likewise."""
    for folder, directories, files in os.walk(root, topdown=False):
        for name in (*files, *directories):
            try:
                if os.path.isdir(os.path.join(folder, name)):
                    os.rmdir(os.path.join(folder, name))
                else:
                    os.unlink(os.path.join(folder, name))
            except OSError:
                continue


def store_object(source: Path, objects: Path) -> Path:
    """Copy a file into the store with its mode, as ``cp -p`` does."""
    return Path(shutil.copy2(source, objects / source.name))


def write_object(objects: Path, name: str) -> Path:
    """Make a file with whatever mode the umask leaves."""
    (objects / name).write_bytes(b"content")
    return objects / name


def finish_removals(store: Path) -> None:
    """Carry out the intents of a ledger, whatever they name."""
    with closing(sqlite3.connect(store / "state.sqlite")) as connection:
        for (name,) in connection.execute("SELECT package_hash FROM intents"):
            shutil.rmtree(store / "packages" / name, ignore_errors=True)


def write_entry(target: Path, path: bytes, content: bytes) -> None:
    """Check a package out: join what the file list says to where it goes."""
    with open(os.path.join(os.fsencode(target), path), "wb") as stream:
        stream.write(content)


def queue(database: Path, name: str) -> None:
    """Put a name into a statement as it is."""
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript(f"INSERT INTO packages VALUES ('{name}')")
