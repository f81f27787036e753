"""What makes a URL the backup of a store: a key that says of which one."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Annotated

import msgspec

from regrain.errors import NotAStoreError
from regrain.remote import keys
from regrain.remote.lists import FORMAT, check_form, read_form
from regrain.remote.place import damaged

if TYPE_CHECKING:
    from regrain.remote.place import Remote
    from regrain.store.root import StoreRoot

_ID_MAX = (1 << 32) - 2

_Id = Annotated[int, msgspec.Meta(ge=0, le=_ID_MAX)]


class Marker(msgspec.Struct, frozen=True, kw_only=True):
    """Of which store a URL is the backup, and whose that store is.

    Attributes:
        format: Of the backup.
        backup_of: The store's id.
        uid: Owner of the store's top directory.
        gid: Likewise.
        mode: Likewise, four octal digits.
    """

    format: int
    # It goes into a store.toml: nothing but what ids are made of.
    backup_of: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
    uid: _Id
    gid: _Id
    mode: Annotated[str, msgspec.Meta(pattern=r"^0[0-7]{3}$")]

    @property
    def owner(self) -> tuple[int, int, int]:
        """User, group and mode of the store's top directory."""
        return self.uid, self.gid, int(self.mode, 8)


def read_marker(remote: Remote) -> Marker:
    """Read of which store a URL is the backup.

    Raises:
        NotAStoreError: Of none.
        CorruptionError: It cannot be told.
        UnknownFormatError: A newer version made the backup.
    """
    try:
        check_form(remote)
        found = _read(remote)
    except NotAStoreError as error:
        raise _no_backup(remote, error.why) from error
    if found is None:
        raise _no_backup(remote, f"there is no '{keys.BACKUP_KEY}'")
    return found


def write_marker(remote: Remote, root: StoreRoot) -> Marker:
    """Make a URL the backup of a store, unless it is a backup already; return of which it is."""
    found = _read(remote)
    if found is not None:
        return found
    status = os.fstat(root.fd)
    marker = Marker(
        format=FORMAT,
        backup_of=root.store_id,
        uid=status.st_uid,
        gid=status.st_gid,
        mode=f"{stat.S_IMODE(status.st_mode) & 0o777:04o}",
    )
    remote.put_new(keys.BACKUP_KEY, msgspec.json.encode(marker) + b"\n")
    return _read(remote) or marker  # another host's, if that was faster


def _read(remote: Remote) -> Marker | None:
    form = read_form(remote, keys.BACKUP_KEY, "a backup of format {!r} lies there")
    if form is None:
        return None
    try:
        return msgspec.convert(form, Marker)
    except msgspec.ValidationError as error:
        raise damaged(remote.url, keys.BACKUP_KEY, str(error)) from error


def _no_backup(remote: Remote, why: str) -> NotAStoreError:
    return NotAStoreError(
        "no backup there",
        path=remote.url,
        why=why,
        advice="Name a URL that 'regrain backup create' was given.",
    )
