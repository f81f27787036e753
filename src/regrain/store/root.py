"""The top directory of a store, and ``store.toml`` with the phase."""

from __future__ import annotations

import contextlib
import os
import stat
import tomllib
import uuid
from typing import NamedTuple

import msgspec

from regrain import disk
from regrain.errors import NotAStoreError, RegrainError, UnknownFormatError, reason
from regrain.model import layout
from regrain.model.digest import is_package_hash
from regrain.model.phase import Phase

_MAY_ENTER = "Run as the store's owner, or as a user who may read it."


class _StoreFile(msgspec.Struct, frozen=True):
    format: int
    hash: str
    store_id: str
    phase: Phase
    backup_of: str = ""


class Owner(NamedTuple):
    """Who owns a store, and so its carriers."""

    uid: int
    gid: int


def read_store_file(fd: int, path: str) -> _StoreFile:
    """Read ``store.toml`` of the store whose top directory is open as ``fd``.

    Raises:
        NotAStoreError: There is none.
        UnknownFormatError: It is broken, or of a format this version does not know.
    """
    try:
        raw = disk.read_all(layout.STORE_FILE, fd, bytes_max=1 << 16)
    except FileNotFoundError:
        raise NotAStoreError(
            "not an initialised store",
            path=path,
            why=f"it has no {layout.STORE_FILE}",
            advice="Run 'regrain init' to make a store of the directory.",
        ) from None
    except OSError as error:
        raise _unreadable(error, path) from error
    try:
        table = tomllib.loads(raw.decode())
        found = table.get("format")
        if found != layout.FORMAT or table.get("hash") != "blake3":
            raise UnknownFormatError(
                f"a store of format {found!r} with hash {table.get('hash')!r}",
                path=path,
                why=f"this version knows format {layout.FORMAT} with 'blake3'",
                advice="Use the version of regrain that made it, or a newer one.",
            )
        return msgspec.convert(table, _StoreFile)
    except (ValueError, RecursionError, msgspec.ValidationError) as error:
        raise UnknownFormatError(
            "store.toml cannot be understood",
            path=path,
            why=str(error),
            advice="Restore it from a backup; the packages themselves are not concerned.",
        ) from error


def _unreadable(error: OSError, path: str) -> RegrainError:
    return RegrainError("cannot read store.toml", path=path, why=reason(error), advice=_MAY_ENTER)


class StoreRoot:
    """An open store: descriptors of its directories, its owner, its phase.

    Safe to share between threads; every descriptor stays what it is.
    """

    def __init__(self, path: str) -> None:
        """Open the store at ``path``.

        Raises:
            NotAStoreError: There is no directory, or it was not initialised.
        """
        self.path = path
        self._top = disk.Held(open_top(path))
        self.fd = self._top.fd
        try:
            status = os.fstat(self.fd)
        except OSError as error:
            raise RegrainError(
                "cannot open the store", path=path, why=reason(error), advice=_MAY_ENTER
            ) from error
        self.owner = Owner(status.st_uid, status.st_gid)
        self.device = status.st_dev
        self._stamp, self._file = self._load()
        self._objects = disk.Held(self._open_own(layout.OBJECTS))
        self._packages = disk.Held(self._open_own(layout.PACKAGES))
        self.objects = self._objects.fd
        self.packages = self._packages.fd

    def __reduce__(self) -> tuple[object, ...]:
        """Be opened anew in another process: descriptors mean nothing there."""
        return (type(self), (self.path,))

    def _open_own(self, name: str) -> int:
        try:
            return disk.open_directory(name, self.fd)
        except FileNotFoundError as error:
            raise NotAStoreError(
                "a store that lacks a directory of its own",
                path=self.path,
                why=f"'{name}' is missing",
                advice="Run 'regrain init' again: it completes what is missing.",
            ) from error
        except OSError as error:
            raise RegrainError(
                "cannot open the store", path=name, why=reason(error), advice=_MAY_ENTER
            ) from error

    @property
    def store_id(self) -> str:
        """What tells this store from every other."""
        return self._file.store_id

    @property
    def backup_of(self) -> str:
        """The id of the store that this is a backup of; empty for a store in its own right."""
        return self._file.backup_of

    def phase(self) -> Phase:
        """Return the phase as it is now; one ``stat`` unless it changed."""
        if self._stamp_now() != self._stamp:
            # The file first: who sees the new stamp must not find the old phase beside it.
            stamp, self._file = self._load()
            self._stamp = stamp
        return self._file.phase

    def _load(self) -> tuple[tuple[int, int, int] | None, _StoreFile]:
        stamp = self._stamp_now()
        return stamp, read_store_file(self.fd, self.path)

    def _stamp_now(self) -> tuple[int, int, int] | None:
        """Return what tells one ``store.toml`` from the next; None where there is none."""
        try:
            status = os.stat(layout.STORE_FILE, dir_fd=self.fd)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unreadable(error, self.path) from error
        return status.st_ino, status.st_mtime_ns, status.st_ctime_ns


def open_top(path: str) -> int:
    """Open a directory that may or may not be a store yet.

    Raises:
        NotAStoreError: There is no directory.
        RegrainError: It may not be opened.
    """
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotAStoreError(
            "no store there",
            path=path,
            why=reason(error),
            advice="Name the store's directory with --store.",
        ) from error
    except OSError as error:
        raise RegrainError(
            "cannot open the store", path=path, why=reason(error), advice=_MAY_ENTER
        ) from error


def prepare(fd: int) -> None:
    """Make a store's directories and locks below the top directory ``fd``.

    Safe to repeat after a crash; what makes it a store is ``store.toml``, written later.
    """
    visible = stat.S_IMODE(os.fstat(fd).st_mode) & 0o755 | 0o700
    for name in layout.DIRECTORIES:
        mode = 0o700 if name in layout.PRIVATE_DIRECTORIES else visible
        _make_own(name, fd, mode)
    with disk.Closing(disk.open_directory(layout.OBJECTS, fd)) as objects:
        for shard in layout.SHARDS:
            _make_own(shard, objects, visible)
        disk.fsync(objects)
    with disk.Closing(disk.open_directory(layout.MIGRATION, fd)) as migration:
        _make_own("logs", migration, visible)
        for name in layout.LOCKS:
            with contextlib.suppress(FileExistsError):
                os.close(disk.create(name.rpartition("/")[2], migration, 0o600))
                _give_to_owner(name.rpartition("/")[2], migration)
        disk.fsync(migration)
    disk.fsync(fd)


def _make_own(name: str, at: int, mode: int) -> None:
    with contextlib.suppress(FileExistsError):
        disk.make_directory(name, at, mode)
        _give_to_owner(name, at)


def new_id() -> str:
    """Return an id no other store has."""
    return str(uuid.uuid4())


def _give_to_owner(name: str, at: int) -> None:
    """Give a new name to the owner of the directory it is in (a store's files are its owner's)."""
    owner, found = os.fstat(at), os.stat(name, dir_fd=at, follow_symlinks=False)
    if (found.st_uid, found.st_gid) != (owner.st_uid, owner.st_gid):
        os.chown(name, owner.st_uid, owner.st_gid, dir_fd=at, follow_symlinks=False)


def write_store_file(fd: int, store_id: str, phase: Phase, *, backup_of: str = "") -> None:
    """Replace ``store.toml``: the one commit point of a change of phase.

    Args:
        fd: The open top directory.
        store_id: The store's own id.
        phase: Where reads go.
        backup_of: Of a backup, the id of its store.
    """
    content, mode = _as_file(fd, store_id, phase, backup_of)
    with disk.Closing(disk.open_directory(layout.TEMP, fd)) as temp:
        disk.write_atomic(layout.STORE_FILE, content, fd, mode, via=temp)


def first_store_file(fd: int) -> bool:
    """Make a store of a prepared directory; False where somebody else just did.

    Nobody's ``store.toml`` is replaced: by its id others know the store already.
    """
    content, mode = _as_file(fd, new_id(), Phase.DUAL, "")
    with disk.Closing(disk.open_directory(layout.TEMP, fd)) as temp:
        try:
            disk.write_new(layout.STORE_FILE, content, fd, mode, via=temp)
        except FileExistsError:
            return False
    return True


def _as_file(fd: int, store_id: str, phase: Phase, backup_of: str) -> tuple[bytes, int]:
    """Return what ``store.toml`` is to hold, and its mode."""
    text = (
        f'format = {layout.FORMAT}\nhash = "blake3"\n'
        f'store_id = "{store_id}"\nphase = "{phase.value}"\n'
    )
    if backup_of:
        text += f'backup_of = "{backup_of}"\n'
    return text.encode(), stat.S_IMODE(os.fstat(fd).st_mode) & 0o444 | 0o200


def legacy_names(fd: int) -> tuple[list[str], list[str]]:
    """Return the package hashes with a legacy directory, and the foreign names beside them."""
    packages, foreign = [], []
    with disk.Closing(disk.reopen(fd)) as own:
        found = disk.list_directory(own)
    for raw, kind in found:
        name = os.fsdecode(raw)
        if kind is disk.DIRECTORY and is_package_hash(name):
            packages.append(name)
        elif name not in layout.OWN_NAMES:
            foreign.append(name)
    return sorted(packages), sorted(foreign)
