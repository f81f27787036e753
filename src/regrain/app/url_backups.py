"""A backup at a URL: a push of all packages, beside a key that says of which store they are.

It stands for the store only once every byte of it was fetched and hashed: what a service says
that it keeps is not proven by having sent it there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from regrain.app.backup_places import check_of
from regrain.app.backups import COMMAND, Backup, Checked
from regrain.app.logs import limits_of
from regrain.app.remote import JOBS, each_pushed
from regrain.app.remote_care import look
from regrain.app.undoing import ignore, single_run
from regrain.app.verification import Verdict
from regrain.errors import CorruptionError, RegrainError, RemoteError
from regrain.maintain.audit import Audit, Damage
from regrain.migrate.backed_up import (
    BACKUP_CREATED,
    BACKUP_DAMAGED,
    covers,
    detail_of,
    last_backup_at,
    why_missing,
)
from regrain.migrate.journal import Journal
from regrain.model import layout
from regrain.model.events import PackageCompleted, PackageFailed
from regrain.remote import keys
from regrain.remote.backups import read_marker, write_marker
from regrain.remote.crew import side_by_side
from regrain.remote.keys import digest_of
from regrain.remote.lease import Lease
from regrain.remote.lists import (
    fetch_list,
    frame_bytes_max,
    listed,
    scratch,
    write_form,
)
from regrain.remote.place import Remote
from regrain.remote.pushing import Pushed, Pusher
from regrain.store import dual
from regrain.store.packages import FileLevelPackage, is_published

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from regrain.app.remote_care import Checked as Looked
    from regrain.model.events import Event
    from regrain.settings import Settings
    from regrain.store.root import StoreRoot


# create


def foresee(root: StoreRoot, url: str) -> Backup:
    """Say what ``create`` would send; write nothing."""
    found = Backup(url)
    there: set[str] = set()
    objects: set[str] = set()
    try:
        remote = Remote(url)
        there = {str(name) for name in listed(remote)}
        objects = {digest_of(one.key) for one in remote.listing(keys.OBJECTS)}
        if remote.head(keys.BACKUP_KEY) is not None:
            check_of(read_marker(remote).backup_of, root.store_id, remote.url)
    except RemoteError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise  # else a directory that will be made
    for name in dual.package_hashes(root):
        if name in there:
            found.present += 1
            continue
        found.packages += 1
        if not is_published(root.packages, name):
            found.legacy += 1
            continue
        sizes = FileLevelPackage(root.packages, root.objects, name).contents().sizes
        lacking = sizes.keys() - objects
        objects |= lacking
        found.objects += len(lacking)
        found.size += sum(sizes[digest] for digest in lacking)
    return found


def create(
    root: StoreRoot,
    settings: Settings,
    url: str,
    *,
    on_event: Callable[[Event], None] = ignore,
    stopping: Callable[[], bool] = lambda: False,
) -> Backup:
    """Send all that a backup at a URL lacks; where a check found damage, prove what is there.

    Raises:
        RefusedError: It is the backup of another store.
        LockedError: Another run holds the store, or a collection is under way there.
        RemoteError: The service refused, or did not answer.
    """
    remote = Remote(url, makes=True, cold=True)
    journal = Journal(root, limits_of(settings))
    done = Backup(remote.url)

    def fail(name: str, why: str) -> None:
        done.failed[name] = why
        event = PackageFailed(name, "", "", why, None)
        journal(event)
        on_event(event)

    with single_run(root, COMMAND) as ledger:
        write_form(remote)
        check_of(write_marker(remote, root).backup_of, root.store_id, remote.url)
        last = last_backup_at(ledger, remote.url)
        proves = last is not None and last.event == BACKUP_DAMAGED
        with Lease(remote, "push") as lease:
            pusher = Pusher(remote, lease, JOBS, again=False, proves=proves, stopping=stopping)
            for one in each_pushed(pusher, root, dual.package_hashes(root), stopping):
                if isinstance(one, Pushed):
                    _count(root, one, done, on_event)
                elif dual.has_package(root, one.package or ""):  # else it was removed meanwhile
                    fail(one.package or "", str(one))
        done.stopped = stopping()
        if not done.stopped and not done.failed:
            detail = detail_of(remote.url, done.packages + done.present)
            ledger.remember(BACKUP_CREATED, detail=detail)
    return done


def _count(root: StoreRoot, one: Pushed, done: Backup, on_event: Callable[[Event], None]) -> None:
    done.objects += one.objects
    done.size += one.sent_bytes
    if one.already_present:
        done.present += 1
        return
    done.packages += 1
    done.legacy += not is_published(root.packages, one.package_hash)
    on_event(PackageCompleted(one.package_hash, "", "", one.files, one.size, 0, 0))


# check


def check(
    root: StoreRoot | None,
    url: str,
    *,
    on_result: Callable[[Audit], None] = ignore,
    stopping: Callable[[], bool] = lambda: False,
) -> Checked:
    """Fetch and hash every byte of a backup at a URL; say which packages of a store it lacks.

    Raises:
        RefusedError: It is the backup of another store.
        NotAStoreError: No backup is there.
        RemoteError: The service refused, or did not answer.
    """
    remote = Remote(url, cold=True)
    marker = read_marker(remote)
    if root is not None:
        check_of(marker.backup_of, root.store_id, remote.url)
    covered: set[str] = set()

    def compare(name: str, lists: int) -> None:
        if root is not None and covers(root, lists, name):
            covered.add(name)

    def tell(found: Looked) -> None:
        on_result(_audit(found, with_damages=False))

    found = look(remote, listed(remote), stopping=stopping, on_object=tell, on_list=compare)
    verdict = Verdict(_audit(found, with_damages=True), None, "", 0)
    if root is None or found.stopped:
        return Checked(verdict)
    absent = [str(name) for name in dual.package_hashes(root) if name not in covered]
    return Checked(verdict, root.path, absent)


def _audit(found: Looked, *, with_damages: bool) -> Audit:
    """Say in the words of ``verify`` what was found."""
    audit = Audit(
        packages=found.packages,
        carriers=found.objects,
        bytes_hashed=found.size,
        stopped=found.stopped,
    )
    if with_damages:
        audit.damages = [_damage(found, name, flaw) for name, flaw in found.damaged.items()]
    return audit


def _damage(found: Looked, name: str, flaw: CorruptionError) -> Damage:
    reason = flaw.why or flaw.what
    if name in found.needed_by:
        return Damage(name, reason, found.needed_by[name], keys.object_key(name).encode())
    return Damage("", reason, name, layout.FILE_LIST.encode())


# the gate


def why_not_covered(root: StoreRoot, url: str) -> str:
    """Say why a backup at a URL does not stand for all packages of a store; empty where it does.

    Its file lists are compared with the store's, and all objects must be there, by the service's
    word, of a size that can be; their bytes were hashed by the last check.
    """
    try:
        remote = Remote(url)
        if read_marker(remote).backup_of != root.store_id:
            return f"what lies at '{url}' is no backup of this store"
        missing = list(_not_covered(root, remote))
    except RegrainError as error:
        return f"the backup at '{url}' cannot be read: {error.what}"
    return why_missing(url, sorted(missing))


def _not_covered(root: StoreRoot, remote: Remote) -> Iterator[str]:
    there = {digest_of(one.key): one.size for one in remote.listing(keys.OBJECTS)}

    def look_at(name: str) -> str:
        return "" if _is_covered(root, remote, name, there) else name

    names = dual.package_hashes(root)
    for name in side_by_side(look_at, names, JOBS, lambda: False):
        if name and dual.has_package(root, name):  # one that went needs no backup
            yield name


def _is_covered(root: StoreRoot, remote: Remote, name: str, there: dict[str, int]) -> bool:
    with scratch() as lists:
        try:
            if not fetch_list(remote, name, lists) or not covers(root, lists, name):
                return False
            sizes = FileLevelPackage(lists, lists, name).contents().sizes
        except CorruptionError:
            return False
    return all(0 < there.get(one, 0) <= frame_bytes_max(size) for one, size in sizes.items())
