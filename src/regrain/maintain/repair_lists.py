"""Heal what is published of a package: its file list, and the copies for people beside it.

The ledger knows the hash of every file list, all metadata included. A list is good if its
bytes have that hash, wherever they come from: a backup, or the legacy directory, listed and
read anew. So what was healed is what was published, to the byte.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, NamedTuple

from blake3 import blake3

from regrain import disk
from regrain.errors import CorruptionError, PackageError, UnknownFormatError, reason
from regrain.maintain.repaired import Outcome, Repair, Subject
from regrain.model import file_list, layout
from regrain.model.entry import Kind
from regrain.model.layout import FILE_LIST, MANIFEST, carrier_mode
from regrain.store.legacy import LegacyPackage
from regrain.store.locks import publish_lock
from regrain.store.objects import hash_fd
from regrain.store.packages import FileLevelPackage, is_published
from regrain.store.quarantine import quarantine, replace

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from regrain.ledger import Ledger
    from regrain.ledger.repairing import RecordedList
    from regrain.maintain.sources import Backup
    from regrain.model.entry import Entry
    from regrain.store.locks import RunDirectory
    from regrain.store.root import StoreRoot

_COPY_BYTES_MAX = 16 << 20
_LINES_AT_ONCE = 1000
_BILL = b"sbom."
_USUAL = frozenset({MANIFEST.encode(), b"sbom.spdx.json", b"sbom.cdx.json"})
"""What is looked for where it is missing; other bills of materials are looked at where they are."""


class Broken(NamedTuple):
    """A package of which something that is published is not as it was.

    Attributes:
        package_hash: The package.
        why: What is wrong.
        subject: Its file list, or only the copies.
    """

    package_hash: str
    why: str
    subject: Subject


class Candidate(NamedTuple):
    """Where a file list can be had.

    Attributes:
        where: What to call it.
        backup: A backup that has it; None: the legacy directory.
        is_exact: Whether it is the recorded one to the byte; else only the tree is.
    """

    where: str
    backup: Backup | None
    is_exact: bool


def broken(
    root: StoreRoot, recorded: dict[str, RecordedList], names: Iterable[str]
) -> Iterator[Broken]:
    """Yield the packages among these of which something that is published is damaged."""
    for name in names:
        why = _flaw_of_list(root, name, recorded.get(name))
        if why:
            yield Broken(name, why, Subject.FILE_LIST)
        elif is_published(root.packages, name) and (why := _flaw_of_copies(root, name)):
            yield Broken(name, why, Subject.COPIES)


def _flaw_of_list(root: StoreRoot, name: str, recorded: RecordedList | None) -> str:
    """Say what is wrong with a file list; the entries of one of the recorded hash are not read."""
    try:
        package = FileLevelPackage(root.packages, root.objects, name)
        if recorded is not None and package.list_hash() == recorded.list_hash:
            return ""
        for _ in package.entries():
            pass
    except FileNotFoundError:
        return "" if recorded is None else "it is not there"
    except (CorruptionError, UnknownFormatError) as error:
        return error.what
    except OSError as error:
        return reason(error)
    return "" if recorded is None else "it is not the one recorded"


def _flaw_of_copies(root: StoreRoot, name: str) -> str:
    """Say what is wrong with the copies for people; empty if nothing is."""
    try:
        package = FileLevelPackage(root.packages, root.objects, name)
        opened = disk.Closing(disk.open_directory(name, root.packages))
    except FileNotFoundError:
        return ""  # removed meanwhile
    with opened as directory:
        there = {os.fsencode(part) for part in os.listdir(directory)}
        for path in sorted((there | _USUAL) - {FILE_LIST.encode()}):
            entry = package.lookup(path)
            flaw = "" if entry is None else _flaw_of_copy(directory, entry)
            if entry is not None and flaw and _has_bytes(package, entry):
                return f"its copy of {os.fsdecode(path)}: {flaw}"
    return ""


def _flaw_of_copy(directory: int, entry: Entry) -> str:
    if not _is_for_people(entry):
        return ""
    try:
        content = disk.read_all(entry.path, directory, _COPY_BYTES_MAX)
    except OSError as error:
        return reason(error)
    return "" if blake3(content).hexdigest() == entry.digest else "it is another file"


def _has_bytes(package: FileLevelPackage, entry: Entry) -> bool:
    try:
        with disk.Closing(package.open_content(entry)) as fd:
            return not entry.size or hash_fd(fd)[0] == entry.digest
    except (CorruptionError, OSError):
        return False


def _for_people(package: FileLevelPackage) -> Iterator[Entry]:
    """Yield the files at the root of which ``packages/<hash>/`` has copies."""
    return filter(_is_for_people, package.entries())


def _is_for_people(entry: Entry) -> bool:
    return (
        entry.kind is Kind.FILE
        and b"/" not in entry.path
        and (entry.path == MANIFEST.encode() or entry.path.startswith(_BILL))
        and entry.size <= _COPY_BYTES_MAX
    )


# where a list can be had


def candidate(
    root: StoreRoot, recorded: RecordedList | None, name: str, backups: Iterable[Backup]
) -> Candidate | None:
    """Find a file list that is the recorded one, or a legacy directory with its tree."""
    if recorded is None:
        return None
    for backup in backups:
        fd = backup.file_list(name)
        if fd is not None:
            with contextlib.suppress(OSError), disk.Closing(fd):
                if hash_fd(fd)[0] == recorded.list_hash:
                    return Candidate(f"the backup {backup.path}", backup, is_exact=True)
    try:
        lines = _Lines(root, name, recorded.tree_hash)
        hasher = blake3()
        for piece in lines:
            hasher.update(piece)
    except (PackageError, OSError):
        return None
    if lines.tree_hash != recorded.tree_hash:
        return None
    is_exact = hasher.hexdigest() == recorded.list_hash
    return Candidate(f"the legacy directory {name}", None, is_exact)


class _Lines:
    """The file list of a legacy directory, in pieces; every file is read for it.

    Attributes:
        tree_hash: Of what was listed, once all was yielded.
    """

    def __init__(self, root: StoreRoot, name: str, tree_hash: str) -> None:
        self._legacy = LegacyPackage(root.fd, name)
        self._header = file_list.header(name, tree_hash)
        self.tree_hash = ""

    def __iter__(self) -> Iterator[bytes]:
        """Yield the bytes of ``files.json``."""
        hasher = blake3()
        yield self._header
        separator, lines = b"", []
        for entry in self._legacy.entries():
            if entry.path:
                hasher.update(file_list.hashed_form(entry))
            lines.append(file_list.entry_line(entry))
            if len(lines) == _LINES_AT_ONCE:
                yield separator + b",\n".join(lines)
                separator, lines = b",\n", []
        if lines:
            yield separator + b",\n".join(lines)
        yield b"\n" + file_list.FOOTER
        self.tree_hash = hasher.hexdigest()


# healing


def foresee(
    root: StoreRoot,
    recorded: dict[str, RecordedList],
    one: Broken,
    backups: Iterable[Backup],
) -> Repair:
    """Say what healing a package would do; change nothing."""
    if one.subject is Subject.COPIES:
        return _told(one, Outcome.HEALED, "its objects")
    found = candidate(root, recorded.get(one.package_hash), one.package_hash, backups)
    return _told(one, *_expected(found))


def _expected(found: Candidate | None) -> tuple[Outcome, str]:
    if found is None:
        return Outcome.LOST, ""
    return (Outcome.HEALED if found.is_exact else Outcome.PENDING), found.where


class ListHealer:
    """Heals what is published of packages, one after the other.

    Args:
        root: The store, whose lock the caller shares.
        ledger: Its ledger.
        run: Private space.
        backups: Where else file lists may be.
    """

    def __init__(
        self, root: StoreRoot, ledger: Ledger, run: RunDirectory, backups: Iterable[Backup]
    ) -> None:
        self._root = root
        self._ledger = ledger
        self._run = run
        self._backups = list(backups)

    def heal(self, recorded: RecordedList | None, one: Broken) -> Repair | None:
        """Do what can be done about one package; None if it was removed meanwhile."""
        name = one.package_hash
        if one.subject is Subject.COPIES:
            with contextlib.suppress(FileNotFoundError):
                if self._build(name, None):
                    return self._place(recorded, one, "its objects")
            return None
        found = candidate(self._root, recorded, name, self._backups)
        outcome, where = _expected(found)
        if outcome is Outcome.PENDING:
            return self._leave_to_migration(one, where)
        if outcome is Outcome.LOST or not self._build(name, found, recorded):
            return _told(one, Outcome.LOST, "")
        return self._place(recorded, one, where)

    def _place(self, recorded: RecordedList | None, one: Broken, where: str) -> Repair | None:
        """Put a finished directory into ``packages/``, unless the package went meanwhile."""
        name, aside = one.package_hash, ""
        disk.syncfs(self._root.fd)
        with publish_lock(self._root):
            if self._ledger.recorded_lists().get(name) != recorded:
                return None
            staged = f"{self._run.name}/{layout.PACKAGES}/{name}"
            try:
                disk.rename_noreplace(
                    name.encode(), self._run.staging, name.encode(), self._root.packages
                )
            except FileExistsError:
                aside = replace(self._root.fd, name, layout.TEMP, staged, self._root.packages)
            disk.fsync(self._root.packages)
            self._ledger.remember("package_healed", name, f"{one.why}; from {where}")
        return _told(one, Outcome.HEALED, where, aside)

    def _leave_to_migration(self, one: Broken, where: str) -> Repair | None:
        """Serve a package from its legacy directory, whose tree is the recorded one."""
        name, aside = one.package_hash, ""
        with publish_lock(self._root):
            if not is_published(self._root.fd, name):
                return None
            with contextlib.suppress(FileNotFoundError):
                aside = quarantine(self._root.fd, layout.PACKAGES, name)
                disk.fsync(self._root.packages)
            self._ledger.published_copy_lost(name, one.why)
        return _told(one, Outcome.PENDING, where, aside)

    # the directory

    def _build(
        self, name: str, found: Candidate | None, recorded: RecordedList | None = None
    ) -> bool:
        """Make ``packages/<hash>`` in private space; False if its list is not what was looked for.

        It is never more open than the package's own root directory was. Without a candidate
        the package's own list is taken, which is good where only copies are not.
        """
        staging = self._run.staging
        with contextlib.suppress(FileNotFoundError):
            disk.remove_tree(name, staging)
        disk.make_directory(name, staging, 0o700)
        with disk.Closing(disk.open_directory(name, staging)) as directory:
            with disk.Closing(disk.create(FILE_LIST, directory)) as fd:
                if not self._write_list(fd, name, found, recorded):
                    return False
                package = FileLevelPackage(staging, self._root.objects, name)
                root_mode = next(package.entries()).mode
                self._finish(fd, root_mode & 0o444 | 0o600)
            for entry in _for_people(package):
                self._copy(package, entry, directory)
            self._finish(directory, carrier_mode(root_mode) | 0o700)
        return True

    def _write_list(
        self, fd: int, name: str, found: Candidate | None, recorded: RecordedList | None
    ) -> bool:
        """Write a file list, and read it back; tell whether it is the one that is wanted."""
        if found is None:
            with disk.Closing(self._own_list(name)) as own:
                wanted = hash_fd(own)[0]
                disk.copy_bytes(own, fd, os.fstat(own).st_size)
        elif recorded is None:
            return False
        else:
            wanted = recorded.list_hash
            self._fetch(fd, name, found, recorded)
        os.lseek(fd, 0, os.SEEK_SET)
        return hash_fd(fd)[0] == wanted

    def _own_list(self, name: str) -> int:
        with disk.Closing(disk.open_directory(name, self._root.packages)) as directory:
            return disk.open_file(FILE_LIST, directory)

    def _fetch(self, fd: int, name: str, found: Candidate, recorded: RecordedList) -> None:
        if found.backup is None:
            for piece in _Lines(self._root, name, recorded.tree_hash):
                disk.write_all(fd, piece)
            return
        source = found.backup.file_list(name)
        if source is not None:
            with disk.Closing(source):
                disk.copy_bytes(source, fd, os.fstat(source).st_size)

    def _copy(self, package: FileLevelPackage, entry: Entry, directory: int) -> None:
        """Copy a file for people out of its object; one that is lost is told of elsewhere."""
        with contextlib.suppress(CorruptionError):
            with disk.Closing(package.open_content(entry)) as source:
                content = os.read(source, entry.size + 1) if entry.size else b""
            if blake3(content).hexdigest() != entry.digest:
                return
            with disk.Closing(disk.create(entry.path, directory)) as fd:
                disk.write_all(fd, content)
                self._finish(fd, carrier_mode(entry.mode) | 0o400)

    def _finish(self, fd: int, mode: int) -> None:
        if os.geteuid() == 0:
            os.fchown(fd, *self._root.owner)
        os.fchmod(fd, mode)
        disk.fsync(fd)


def _told(one: Broken, outcome: Outcome, source: str, aside: str = "") -> Repair:
    concerns = ((one.package_hash, b""),)
    return Repair(one.subject, one.package_hash, one.why, outcome, source, aside, concerns)
