"""Finish a package: hard-link groups, file list, copies for people, verification.

Everything is written below ``temp/<run>/packages/<hash>/``; publishing is one rename.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from blake3 import blake3
from msgspec.structs import replace

from regrain import disk
from regrain.migrate.disk_errors import staging_error
from regrain.migrate.jobs import Options, PackageResult, Record, pack
from regrain.migrate.verify import verify_unchanged
from regrain.model import file_list
from regrain.model.entry import Entry, Kind
from regrain.model.layout import FILE_LIST, MANIFEST, carrier_mode
from regrain.store.legacy import source_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from regrain.migrate.ingest import Ingester
    from regrain.store.root import Owner

_LINES_AT_ONCE = 1000
_FILE, _DIRECTORY = Kind.FILE, Kind.DIRECTORY
_COPY_BYTES_MAX = 16 << 20


class Sealer:
    """Finishes packages whose files were staged.

    Args:
        staging: The open ``temp/<run>/packages``.
        ingester: What staged the files; hard-link groups are staged here.
        owner: Who new files belong to.
        options: How.
        began_ns: When the run began, by the clock of the store's file system; 0 if its packages
            do not come from there.
    """

    def __init__(
        self,
        staging: int,
        ingester: Ingester,
        owner: Owner,
        options: Options,
        began_ns: int = 0,
    ) -> None:
        self._staging = staging
        self._ingester = ingester
        self._owner = owner
        self._options = options
        self._began_ns = began_ns

    def seal(
        self, package_hash: str | None, source: int, records: Callable[[], Iterator[Record]]
    ) -> PackageResult:
        """Write a package's file list, and verify that its source is still what was read.

        Args:
            package_hash: The package; None names it by its tree hash.
            source: Its open directory.
            records: Gives an iterator over all records, root first, sorted; called
                repeatedly.

        Raises:
            RegrainError: The package failed, or the disk did.
        """
        summary = _Summary()
        for record in records():
            summary.add(record)
        for group in summary.groups.values():
            if group[0].entry.kind is Kind.FILE:
                self._ingester.stage_group(source, group)
        tree_hash = summary.hasher.hexdigest()
        package_hash = package_hash or tree_hash
        content = _content(package_hash, tree_hash, records, summary)
        try:
            root_mode = stat.S_IMODE(os.fstat(source).st_mode)
        except OSError as error:
            raise source_error(error, b"") from error
        try:
            list_hash, allocated = self._write_directory(package_hash, source, root_mode, content)
        except OSError as error:
            raise staging_error(error, package_hash.encode()) from error
        if self._options.verify:
            verify_unchanged(source, records(), self._began_ns)
        stager = self._ingester.stager
        return PackageResult(
            package_hash,
            tree_hash=tree_hash,
            list_hash=list_hash,
            files=summary.files,
            objects_named=summary.objects_named,
            size=summary.size,
            digests=bytes.fromhex("".join(sorted(summary.digests))),
            wanted=[pack(stager.wanted.values())] if stager.wanted else [],
            to_copy=[pack(stager.to_copy.values())] if stager.to_copy else [],
            list_allocated=allocated,
            bytes_read=self._ingester.bytes_read,
        )

    def _write_directory(
        self, package_hash: str, source: int, root_mode: int, content: Iterator[bytes]
    ) -> tuple[str, int]:
        """Write ``packages/<hash>`` into staging; return its list's hash, and its bytes on disk.

        It is never more open than ``root_mode``, that of the package's own root directory.
        """
        with contextlib.suppress(FileNotFoundError):  # a try in this run that did not succeed
            disk.remove_tree(package_hash, self._staging)
        disk.make_directory(package_hash, self._staging, 0o700)
        with disk.Closing(disk.open_directory(package_hash, self._staging)) as directory:
            hasher = blake3()
            with disk.Closing(disk.create(FILE_LIST, directory)) as fd:
                for piece in content:
                    hasher.update(piece)
                    disk.write_all(fd, piece)
                allocated = self._finish(fd, root_mode & 0o444 | 0o600)
            for name, raw, mode in _for_people(source):
                with disk.Closing(disk.create(name, directory)) as fd:
                    disk.write_all(fd, raw)
                    allocated += self._finish(fd, carrier_mode(mode) | 0o400)
            allocated += self._finish(directory, carrier_mode(root_mode) | 0o700)
        return hasher.hexdigest(), allocated

    def _finish(self, fd: int, mode: int) -> int:
        """Give a new file its owner and mode, flush it if asked to; return its bytes on disk."""
        if os.geteuid() == 0:
            os.fchown(fd, *self._owner)
        os.fchmod(fd, mode)
        if self._options.fsync_each:
            disk.fsync(fd)
        return disk.allocated(os.fstat(fd))


class _Summary:
    """What a first pass over the records finds."""

    def __init__(self) -> None:
        self.hasher = blake3()
        self.digests: set[str] = set()
        self.groups: dict[tuple[int, int], list[Record]] = {}
        self.files = self.objects_named = self.size = 0

    def add(self, record: Record) -> None:
        entry, kind = record.entry, record.entry.kind
        if entry.path:
            self.hasher.update(file_list.hashed_form(entry))
        if kind is _DIRECTORY:
            return
        if record.links > 1:
            self.groups.setdefault((record.device, record.inode), []).append(record)
        if kind is _FILE:
            self.files += 1
            self.size += entry.size
            if entry.size:
                self.objects_named += 1
                self.digests.add(entry.digest)

    def with_group(self, record: Record) -> Entry:
        """Return the entry; a later member of a group names the group's first path."""
        if record.links == 1:
            return record.entry
        group = self.groups.get((record.device, record.inode))
        if group is None or group[0] is record or group[0].entry.path == record.entry.path:
            return record.entry
        return replace(record.entry, hardlink=group[0].entry.path)


def _content(
    package_hash: str, tree_hash: str, records: Callable[[], Iterator[Record]], summary: _Summary
) -> Iterator[bytes]:
    """Yield the file list in pieces of some lines."""
    yield file_list.header(package_hash, tree_hash)
    lines: list[bytes] = []
    separator = b""
    for record in records():
        lines.append(file_list.entry_line(summary.with_group(record)))
        if len(lines) == _LINES_AT_ONCE:
            yield separator + b",\n".join(lines)
            separator = b",\n"
            lines.clear()
    if lines:
        yield separator + b",\n".join(lines)
    yield b"\n" + file_list.FOOTER


def _for_people(source: int) -> Iterator[tuple[bytes, bytes, int]]:
    """Yield name, bytes and mode of the manifest and the bills of materials at the root."""
    name = b""
    try:
        for name, kind in disk.list_directory(source):
            if kind is disk.FILE and (name == MANIFEST.encode() or name.startswith(b"sbom.")):
                status = os.stat(name, dir_fd=source, follow_symlinks=False)
                if status.st_size <= _COPY_BYTES_MAX:  # nobody reads a longer one as it is
                    yield name, disk.read_all(name, source, _COPY_BYTES_MAX), status.st_mode
    except OSError as error:
        raise source_error(error, name) from error
