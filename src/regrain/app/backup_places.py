"""The two directories of a backup: apart, of one store, made if they are not there yet."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from regrain import disk
from regrain.app.initialising import making, own_ledger
from regrain.errors import (
    HaltedError,
    LedgerLostError,
    NoSpaceError,
    NotAStoreError,
    RefusedError,
    UsageError,
    reason,
    shown,
)
from regrain.ledger import open_ledger
from regrain.model import layout
from regrain.model.phase import Phase
from regrain.store import root as store_root
from regrain.store.root import StoreRoot

if TYPE_CHECKING:
    from collections.abc import Iterator

_NOT_OURS = frozenset({"lost+found"})
"""What a fresh file system has at its top."""


def check_apart(store: str, place: str) -> None:
    """Refuse a backup inside its store, or a store inside its backup.

    Raises:
        UsageError: They are not apart.
    """
    here, there = os.path.realpath(store), os.path.realpath(place)
    if os.path.commonpath((here, there)) in (here, there):
        raise UsageError(
            "a store and its backup must not lie in each other",
            path=place,
            why=f"the store is '{store}'",
            advice="Name a directory elsewhere, best on another disk.",
        )


def open_backup(path: str) -> StoreRoot:
    """Open a backup.

    Raises:
        NotAStoreError: There is none.
        UsageError: It is a store, but no backup.
    """
    advice = "Name a directory that 'regrain backup create' was given."
    try:
        root = StoreRoot(path)
    except NotAStoreError as error:
        why = error.why or error.what
        raise NotAStoreError("no backup there", path=path, why=why, advice=advice) from error
    if not root.backup_of:
        raise UsageError(
            "a store, but no backup",
            path=path,
            why="its store.toml does not say of which store it is a copy",
            advice=advice,
        )
    return root


def check_same(backup: StoreRoot, store_id: str) -> None:
    """Refuse the backup of another store.

    Raises:
        RefusedError: It is that.
    """
    check_of(backup.backup_of, store_id, backup.path)


def check_of(backup_of: str, store_id: str, place: str) -> None:
    """Refuse the backup of another store, wherever it lies.

    Raises:
        RefusedError: It is that.
    """
    if backup_of != store_id:
        raise RefusedError(
            "the backup of another store",
            path=place,
            why=f"it is of the store {backup_of}, this one is {store_id}",
            advice="Name the backup of this store, or another place.",
        )


def owner_of(root: StoreRoot) -> tuple[int, int, int]:
    """Return user, group and mode of a store's top directory."""
    status = os.fstat(root.fd)
    return status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)


def make_store(path: str, owner: tuple[int, int, int], store_id: str, backup_of: str) -> StoreRoot:
    """Make an empty store, at the file level, of an absent or empty directory.

    Args:
        path: The directory.
        owner: User, group and mode of the store it is made after.
        store_id: Its id.
        backup_of: Of which store it is a backup; empty for none.

    Raises:
        NoSpaceError: There is no room.
        RegrainError: The directory cannot be made.
    """
    with making(path):
        if not os.path.lexists(path):
            os.mkdir(path, 0o700)
        with disk.Closing(store_root.open_top(path)) as fd:
            uid, gid, mode = owner
            if os.geteuid() == 0:
                os.fchown(fd, uid, gid)
            os.fchmod(fd, mode & 0o755 | 0o700)
            store_root.prepare(fd)
            open_ledger(path, create=True).close()
            own_ledger(fd)
            store_root.write_store_file(fd, store_id, Phase.CLEAN, backup_of=backup_of)
        parent = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY | os.O_DIRECTORY)
        with disk.Closing(parent) as above:
            disk.fsync(above)
    return StoreRoot(path)


def is_to_be_made(place: str) -> bool:
    """Tell whether a store is still to be made of a directory.

    It is absent or empty, or somebody was killed while making one there.

    Raises:
        UsageError: It holds something else, is no directory, or cannot be looked into.
    """
    try:
        names = set(os.listdir(place)) - _NOT_OURS
    except FileNotFoundError:
        return True
    except OSError as error:
        raise UsageError(
            "no directory for a backup", path=place, why=reason(error), advice="Name another."
        ) from error
    if layout.STORE_FILE in names:
        return False
    if names <= layout.OWN_NAMES:
        return True
    raise UsageError(
        "neither empty nor a backup",
        path=place,
        why=f"'{shown(min(names - layout.OWN_NAMES))}' is there",
        advice="Name an absent or empty directory, or a backup of this store.",
    )


def check_room(target: StoreRoot, size: int, inodes: int) -> None:
    """Refuse what cannot fit.

    Raises:
        RefusedError: It does not; the message has the figures.
    """
    space = os.fstatvfs(target.fd)
    free = space.f_bavail * space.f_frsize
    if size > free or (space.f_files and inodes > space.f_favail):
        raise RefusedError(
            "too little space for the backup",
            path=target.path,
            why=f"it takes {size} bytes and {inodes} inodes at the most; "
            f"{free} bytes and {space.f_favail} inodes are free",
            advice="Free some, or name a directory on a larger disk.",
        )


@contextlib.contextmanager
def told_as_copying() -> Iterator[None]:
    """Say of a disk that is full or failed what to do; what copies speaks of migrating."""
    try:
        yield
    except NoSpaceError as error:
        error.advice = "Free space or inodes there, then run the command again; it goes on."
        raise
    except LedgerLostError:
        raise
    except HaltedError as error:
        error.advice = "Check that disk, then run the command again; it goes on."
        raise
