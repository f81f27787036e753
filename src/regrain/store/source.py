"""What every layout of a package can do, and path resolution inside a package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from regrain.errors import UnknownPackageError
from regrain.model.entry import Entry, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regrain.model.manifest import Manifest
    from regrain.model.phase import Layout
    from regrain.store.objects import Stored

_SYMLINKS_MAX = 40


class MovedError(FileNotFoundError):
    """A package is no longer where it was opened: it moved to the other layout, or was removed."""


class PackageSource(Protocol):
    """A package in one of the layouts, pinned as long as this value is held."""

    hash: str
    layout: Layout

    def lookup(self, path: bytes) -> Entry | None:
        """Return the entry at ``path``, symbolic links not followed; None without one."""
        ...

    def entries(self) -> Iterator[Entry]:
        """Yield all entries, root first, in the order of raw path bytes, with digests."""
        ...

    def tree(self) -> Iterator[Entry]:
        """Yield all entries as ``entries`` does; digests may be left empty."""
        ...

    def open_content(self, entry: Entry) -> int:
        """Open the bytes of a file's entry; the caller closes the descriptor."""
        ...

    def open_stored(self, entry: Entry) -> Stored:
        """Open what holds the bytes of a file's entry, compressed perhaps; likewise."""
        ...

    def manifest(self) -> Manifest:
        """Return the package's own manifest."""
        ...


def resolve(source: PackageSource, path: bytes) -> Entry:
    """Return the file or directory that ``path`` means, following links in the package.

    Raises:
        UnknownPackageError: Nothing there, or a link leads out of the package.
    """
    entry = source.lookup(path)
    if entry is not None and entry.kind is not Kind.SYMLINK:
        return entry
    return _walk_links(source, path)


def _walk_links(source: PackageSource, path: bytes) -> Entry:
    done: list[bytes] = []
    todo = list(reversed(path.split(b"/")))
    links = 0
    while todo:
        name = todo.pop()
        if name in (b"", b"."):
            continue
        if name == b"..":
            if not done:
                raise _not_there(source, path, "a symbolic link leads out of the package")
            done.pop()
            continue
        entry = source.lookup(b"/".join([*done, name]))
        if entry is None:
            raise _not_there(source, path, "the package has no such path")
        if entry.kind is Kind.SYMLINK:
            links += 1
            if entry.target.startswith(b"/") or links > _SYMLINKS_MAX:
                raise _not_there(source, path, "a symbolic link leads out of the package")
            todo += reversed(entry.target.split(b"/"))
        else:
            done.append(name)
    found = source.lookup(b"/".join(done))
    if found is None:
        raise _not_there(source, path, "the package has no such path")
    return found


def _not_there(source: PackageSource, path: bytes, why: str) -> UnknownPackageError:
    return UnknownPackageError(
        "no such file",
        path=path,
        package=source.hash,
        why=why,
        advice=f"'regrain files {source.hash}' lists what it has.",
    )
