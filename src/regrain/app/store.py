"""The facades: a store to read from, its packages, and its migration."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from blake3 import blake3

from regrain.app.database import use_database
from regrain.errors import CorruptionError, PackageError, UnknownPackageError, UsageError
from regrain.model.digest import PackageHash
from regrain.model.entry import Entry, Kind, normalise_path
from regrain.settings import Settings
from regrain.store import dual
from regrain.store.checkout import WHOLE, checkout, find_part
from regrain.store.destination import look
from regrain.store.root import StoreRoot
from regrain.store.share import Share
from regrain.store.source import resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from regrain.app.migration import Migration
    from regrain.maintain.collect import Collection
    from regrain.maintain.remove import Removal
    from regrain.migrate.add import Added
    from regrain.model.manifest import Manifest
    from regrain.model.phase import Layout, Phase
    from regrain.store.source import PackageSource

_T = TypeVar("_T")
_Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]


class Package:
    """A package of a store, wherever it lies at the moment.

    Safe to use from several threads. If the package moves to the other layout under a
    reader, the reader looks again once and finds it there.
    """

    def __init__(self, root: StoreRoot, package_hash: PackageHash) -> None:
        self._root = root
        self._hash = package_hash
        self._found: PackageSource | None = None

    @property
    def _source(self) -> PackageSource:
        """Where it is read from, found when first wanted."""
        if self._found is None:
            self._found = dual.open_package(self._root, self._hash)
        return self._found

    @property
    def hash(self) -> PackageHash:
        """The package's name."""
        return self._hash

    @property
    def layout(self) -> Layout:
        """Where it is read from: ``file_level`` or ``legacy``."""
        return self._source.layout

    @property
    def manifest(self) -> dict[str, Any]:
        """Its own ``manifest.toml``, parsed; empty where it has none that can be read."""
        return self._manifest().table

    def _manifest(self) -> Manifest:
        return self._again(self._read_manifest)

    def _read_manifest(self) -> Manifest:
        return self._source.manifest()

    @property
    def name(self) -> str:
        """The name in its manifest, empty where it has none."""
        return self._manifest().name

    @property
    def version(self) -> str:
        """The version in its manifest, empty where it has none."""
        return self._manifest().version

    def files(self) -> Iterator[Entry]:
        """Yield every entry of its tree, the root first, in the order of raw path bytes.

        In the legacy layout digests are computed on the way, which reads every file.

        Raises:
            CorruptionError: The file list is damaged.
        """
        return self._again(lambda: iter(list(self._source.entries())))

    def read(self, path: str | bytes) -> bytes:
        """Return the bytes of a file; symbolic links are followed inside the package.

        Raises:
            UnknownPackageError: The package has no such file.
            CorruptionError: The bytes are not the ones that were stored.
        """
        return self._again(lambda: self._read(normalise_path(path)))

    def _read(self, path: bytes) -> bytes:
        with self._open(path) as stream:
            return stream.read()

    def open(self, path: str | bytes) -> BinaryIO:
        """Open a file for reading. Its content is compared with its digest at the end.

        Raises:
            UnknownPackageError: The package has no such file.
            CorruptionError: Here, or from the read that reaches the end.
        """
        return self._again(lambda: self._open(normalise_path(path)))

    def _open(self, path: bytes) -> BinaryIO:
        entry = resolve(self._source, path)
        if entry.kind is not Kind.FILE:
            raise UnknownPackageError(
                "not a file",
                path=path,
                package=self.hash,
                why=f"it is a {entry.kind.value}",
                advice=f"'regrain files {self.hash}' lists what is in it.",
            )
        raw = _CheckedFile(self._source.open_content(entry), entry, self.hash)
        return io.BufferedReader(raw, buffer_size=128 << 10)

    def checkout(
        self,
        destination: str | os.PathLike[str],
        mode: str = "exact",
        subtree: str | bytes | None = None,
        on_entry: Callable[[Entry], None] | None = None,
        *,
        dry_run: bool = False,
    ) -> int:
        """Recreate the package's tree in a directory that is absent or empty.

        Whatever is handed out was compared with its digest, but for a package that is still
        in the legacy layout, which has none. If the package moves or proves damaged under
        way, what was made is removed and it starts over, from where it then is served.

        Args:
            destination: Where: a directory that is made, in one that exists, or is there and
                empty. It must not be a symbolic link, and not be in the store.
            mode: ``exact``: every bit of metadata, nothing linked into the store.
                ``shared``: hard links of the store's own files where mode and owner match
                and nothing else is special, with the times these have, copies otherwise.
                What is written to a link goes to the store and to all who share it, so
                treat it as read-only. Nothing is linked out of the legacy layout, nor to
                another file system.
            subtree: Only the directory at this path in the package, whose content and
                metadata become the destination's, or only the file at it, which appears
                under its own name in a destination that stays what it is. Symbolic links
                are not followed.
            on_entry: Called for every entry that is done.
            dry_run: Look whether all that is named is there and usable; make nothing.

        Returns:
            The number of entries made, the top one included.

        Raises:
            UsageError: The destination is in the way, the mode unknown, or the subtree no
                path inside a package.
            UnknownPackageError: The package has no directory and no file there.
            CorruptionError: The package is damaged, and nothing else can serve.
            NoSpaceError: The destination's file system is full.
            RegrainError: Something cannot be restored there.
        """
        if mode not in ("exact", "shared"):
            raise UsageError(f"unknown checkout mode '{mode}'", advice="Use 'exact' or 'shared'.")
        path = os.fsdecode(destination)

        def attempt() -> int:
            source = self._source
            part = WHOLE if subtree is None else find_part(source, subtree)
            if dry_run:
                look(path, avoid=self._root.fd)
                return sum(1 for _ in part.of(source))
            share = Share(self._root, source) if mode == "shared" else None
            return checkout(
                source, path, part=part, share=share, avoid=self._root.fd, on_entry=on_entry
            )

        return self._again(attempt)

    def _again(self, call: Callable[[], _T]) -> _T:
        """Call; if the package moved away under us, find it once more and call again.

        If it is damaged, and its legacy directory is still there, that serves.
        """
        try:
            return call()
        except (FileNotFoundError, CorruptionError, PackageError):
            self._found = dual.open_package(self._root, self.hash)
        try:
            return call()
        except CorruptionError:
            legacy = dual.open_legacy(self._root, self.hash)
            if legacy is None or self._source.layout is legacy.layout:
                raise
            self._found = legacy
        return call()

    def __reduce__(self) -> tuple[object, ...]:
        """Be found anew in another process: its descriptors mean nothing there."""
        return (type(self), (self._root, self._hash))

    def __repr__(self) -> str:
        """Return a short description."""
        return f"<Package {self.hash} ({self.layout.value})>"


class _CheckedFile(io.RawIOBase):
    """A file's bytes; who reads to the end from the start learns whether they are right."""

    def __init__(self, fd: int, entry: Entry, package: str) -> None:
        super().__init__()
        self._fd = fd
        self._entry = entry
        self._package = package
        self._hasher = blake3() if entry.digest else None
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        position = os.lseek(self._fd, offset, whence)
        if position != self._position:
            self._hasher = None
        self._position = position
        return position

    def tell(self) -> int:
        return self._position

    def fileno(self) -> int:
        return self._fd

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = os.readv(self._fd, [buffer])
        self._position += count
        if self._hasher is not None:
            self._hasher.update(buffer[:count])
            if not count or self._position == self._entry.size:
                self._check(self._hasher.hexdigest())
                self._hasher = None
        return count

    def _check(self, digest: str) -> None:
        if digest != self._entry.digest or self._position != self._entry.size:
            raise CorruptionError(
                "an object does not hold the bytes of its name",
                path=self._entry.path,
                package=self._package,
                why=f"object {self._entry.digest} hashes to {digest}",
                advice="Run 'regrain verify' to find what else is damaged.",
            )

    def close(self) -> None:
        if not self.closed:
            os.close(self._fd)
        super().close()


class PackageStore:
    """A store, open for reading; its database stays closed.

    Example:
        >>> store = PackageStore.open("/opt/pm/store")
        >>> for package in store.packages():
        ...     print(package.name, len(package.read("manifest.toml")))
    """

    def __init__(self, root: StoreRoot, settings: Settings) -> None:
        self._root = root
        self._settings = settings

    @classmethod
    def open(cls, path: _Path, settings: Settings | None = None) -> PackageStore:
        """Open the store at ``path``, whatever its phase.

        It stays the same store wherever the process goes. In a process to which the store, or
        a package, is sent, it is opened anew.

        Raises:
            NotAStoreError: There is no store, or it was not initialised.
            UnknownFormatError: It is of a format this version does not know.
        """
        text = os.fsdecode(path)
        place, chosen = os.path.join(os.getcwd(), text) if text else text, settings or Settings()
        use_database(place, chosen)
        return cls(StoreRoot(place), chosen)

    @property
    def root(self) -> StoreRoot:
        """The store's directories, for the rooms below."""
        return self._root

    @property
    def path(self) -> str:
        """Where it is."""
        return self._root.path

    @property
    def phase(self) -> Phase:
        """The phase as it is now."""
        return self._root.phase()

    def packages(self) -> Iterator[Package]:
        """Yield all packages, by hash; each is looked into only when it is asked."""
        for package_hash in dual.package_hashes(self._root):
            yield Package(self._root, package_hash)

    def has_package(self, package_hash: str) -> bool:
        """Tell whether the store has the package.

        Raises:
            MalformedHashError: ``package_hash`` is no package hash.
        """
        return dual.has_package(self._root, PackageHash(package_hash))

    def get_package(self, package_hash: str) -> Package:
        """Return a package.

        Raises:
            MalformedHashError: ``package_hash`` is no package hash.
            UnknownPackageError: The store has no such package.
        """
        package = Package(self._root, PackageHash(package_hash))
        _ = package.layout  # look now whether it is there
        return package

    def find(self, text: str) -> PackageHash:
        """Return the one package whose hash is, or begins with, ``text`` (8 digits or more)."""
        return dual.find_hash(self._root, text)

    def add_package(self, path: _Path, package_hash: str | None = None) -> Added:
        """Add a package; this loads the database layer.

        Args:
            path: An archive (tar, plain or compressed with zstd), or a directory.
            package_hash: Its name; by default the BLAKE3 of the archive's bytes, or the
                directory's tree hash.

        Returns:
            What became of it: its hash, whether it was there already, sizes in bytes.

        Raises:
            ArchiveError: The archive is broken, or asks for what is refused.
            PackageError: It cannot be brought in, or a package of that name holds another tree.
            MalformedHashError: ``package_hash`` is no package hash.
        """
        from regrain.app.keeping import add_package

        return add_package(self._root, self._settings, os.fspath(path), package_hash)

    def remove_package(self, package_hash: str) -> Removal:
        """Remove a package at once; what it alone held is left to ``collect``.

        Returns:
            What that freed, and what collecting will, in bytes on disk.

        Raises:
            UnknownPackageError: The store has no such package.
        """
        from regrain.app.keeping import remove_package

        return remove_package(self._root, PackageHash(package_hash))

    def collect(self, grace_seconds: float = 24 * 3600) -> Collection:
        """Delete objects that no package has held for so long.

        Returns:
            What was deleted, in objects and bytes on disk.

        Raises:
            LockedError: Writers did not pause in time.
            RefusedError: What packages hold cannot be told.
        """
        from regrain.app.keeping import collect

        return collect(self._root, grace=grace_seconds)

    def migration(self) -> Migration:
        """Return the store's migration; this loads the database layer."""
        from regrain.app.migration import Migration

        return Migration(self._root, self._settings)
