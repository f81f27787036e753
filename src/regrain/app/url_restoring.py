"""The way back from a backup at a URL: packages are pulled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regrain.app.backups import RESTORE_COMMAND, RESTORED, Restored
from regrain.app.remote import JOBS, Pulled, each_pulled
from regrain.app.undoing import single_run
from regrain.model.events import PackageCompleted, PackageFailed
from regrain.remote.backups import read_marker
from regrain.remote.lists import fetch_list, listed, scratch
from regrain.remote.place import Remote
from regrain.remote.pulling import Arrival

if TYPE_CHECKING:
    from collections.abc import Callable

    from regrain.model.events import Event
    from regrain.settings import Settings
    from regrain.store.root import StoreRoot


class UrlSource:
    """A backup at a URL.

    Attributes:
        backup_of: The id of its store.
        owner: User, group and mode of that store's top directory.

    Raises:
        NotAStoreError: There is none.
        RemoteError: The service refused, or did not answer.
    """

    def __init__(self, url: str) -> None:
        self._remote = Remote(url)
        marker = read_marker(self._remote)
        self.backup_of = marker.backup_of
        self.owner = marker.owner

    def names(self) -> list[str]:
        """Return the packages it has."""
        return [str(name) for name in listed(self._remote)]

    def foresee(self, root: StoreRoot | None, names: list[str], done: Restored) -> None:
        """Say what would be fetched."""
        seen: set[str] = set()
        for name in names:
            with scratch() as lists:
                if not fetch_list(self._remote, name, lists):
                    continue
                objects = lists if root is None else root.objects
                lacking = Arrival(lists, lists, objects, name).lacking()
            done.copied += 1
            done.objects += len(lacking.keys() - seen)
            done.size += sum(size for one, size in lacking.items() if one not in seen)
            seen |= lacking.keys()

    def copy_back(
        self,
        root: StoreRoot,
        names: list[str],
        settings: Settings,
        done: Restored,
        emit: Callable[[Event], None],
        stopping: Callable[[], bool],
    ) -> None:
        """Pull packages into a store that lacks them."""
        with single_run(root, RESTORE_COMMAND) as ledger:
            for one in each_pulled(
                root, settings, self._remote, names, jobs=JOBS, stopping=stopping
            ):
                if isinstance(one, Pulled):
                    done.copied += not one.already_present
                    done.objects += one.objects
                    done.size += one.fetched_bytes
                    added = one.added
                    if added is not None:
                        name = one.package_hash
                        emit(PackageCompleted(name, "", "", added.files, added.size, 0, 0))
                else:
                    name = one.package or ""
                    done.failed[name] = str(one)
                    emit(PackageFailed(name, "", "", str(one), one.path))
            done.stopped = stopping()
            ledger.remember(RESTORED, detail=f"{done.copied} packages")
