"""What says that a URL is one of ours; the file lists there, which make packages listed."""

from __future__ import annotations

import contextlib
import os
import tempfile
from typing import TYPE_CHECKING

import msgspec

from regrain import disk
from regrain.errors import (
    CorruptionError,
    NotAStoreError,
    UnknownFormatError,
    UnknownPackageError,
    UsageError,
)
from regrain.model.digest import PackageHash, is_package_hash, is_prefix
from regrain.remote import keys
from regrain.remote.place import Remote, damaged
from regrain.store.frames import FrameError, content_size, pour
from regrain.store.packages import FileLevelPackage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FORMAT = 1
LIST_BYTES_MAX = 4 << 30
"""A longer file list is refused: that of a million files has a fifteenth of it."""

_FORMAT_BYTES_MAX = 4096
_PLAIN_BYTES = 64 << 20
_RATIO_MAX = 1000
"""A longer list that was packed tighter than this is a bomb: a list is mostly digests."""

PACKAGES_MAX = 2_000_000
"""Who lists more packages has no end."""


def frame_bytes_max(size: int) -> int:
    """Return what the frame of so many bytes takes at the most, if it is honest."""
    return size + size // 64 + 4096


def check_form(remote: Remote) -> None:
    """Make sure that packages of regrain lie there.

    Raises:
        NotAStoreError: Nothing says so.
        UnknownFormatError: A newer version wrote it.
    """
    if not _has_form(remote):
        raise NotAStoreError(
            "no packages of regrain there",
            path=remote.url,
            why=f"there is no '{keys.FORMAT_KEY}'",
            advice="'regrain push --all URL' brings packages there; or mend the URL.",
        )


def write_form(remote: Remote) -> None:
    """Say that packages of regrain lie there, unless it says so already.

    Raises:
        UnknownFormatError: A newer version wrote what is there.
    """
    if not _has_form(remote):
        form = {"format": FORMAT, "hash": "blake3", "compression": "zstd"}
        remote.put_new(keys.FORMAT_KEY, msgspec.json.encode(form) + b"\n")
        _has_form(remote)


def _has_form(remote: Remote) -> bool:
    return read_form(remote, keys.FORMAT_KEY, "packages of format {!r} lie there") is not None


def read_form(remote: Remote, key: str, another: str) -> dict[str, object] | None:
    """Read a small key that describes the place; None where there is none.

    Args:
        remote: The place.
        key: Its name.
        another: What to say of one that another version wrote, with a gap for its format.

    Raises:
        CorruptionError: It is no JSON object.
        UnknownFormatError: A newer version wrote it.
    """
    with tempfile.TemporaryFile() as target:
        if not remote.fetch(key, target.fileno(), _FORMAT_BYTES_MAX):
            return None
        target.seek(0)
        raw = target.read()
    try:
        form = msgspec.json.decode(raw, type=dict[str, object])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptionError(
            "what lies there is damaged",
            path=f"{remote.url}/{key}",
            why=str(error),
            advice="Delete this key; the next push or backup writes it anew.",
        ) from error
    if form.get("format") != FORMAT:
        raise UnknownFormatError(
            another.format(form.get("format")),
            path=remote.url,
            why=f"this version knows format {FORMAT}",
            advice="Use a newer regrain.",
        )
    return form


def listed(remote: Remote) -> list[PackageHash]:
    """Return the packages that are listed there, sorted."""
    there = remote.listing(keys.PACKAGES, PACKAGES_MAX)
    found = (keys.package_of(one.key) for one in there)
    return [PackageHash(name) for name in sorted(name for name in found if name)]


def chosen(remote: Remote, words: Iterable[str]) -> list[PackageHash]:
    """Return the packages that hashes, or beginnings of which only one has it, mean there.

    Raises:
        UnknownPackageError: None begins so.
        UsageError: Several do.
    """
    there: list[PackageHash] | None = None
    found: dict[PackageHash, None] = {}
    for word in words:
        if is_package_hash(word) and remote.head(keys.list_key(word)):
            found[PackageHash(word)] = None
            continue
        if not is_prefix(word):
            PackageHash(word)
        if there is None:
            there = listed(remote)
        matches = [name for name in there if name.startswith(word)]
        if not matches:
            raise UnknownPackageError(
                "no such package there",
                package=word,
                path=remote.url,
                advice="'regrain remote list URL' shows what there is.",
            )
        if len(matches) > 1:
            raise UsageError(
                f"'{word}' begins the hash of {len(matches)} packages there",
                advice="Give more digits.",
            )
        found[matches[0]] = None
    return list(found)


def fetch_list(remote: Remote, package_hash: str, packages: int) -> bool:
    """Fetch a file list into ``<package-hash>/files.json`` below a directory, and check it.

    Returns:
        Whether the package is listed.

    Raises:
        CorruptionError: It is damaged, of another package, or says what cannot be.
    """
    key = keys.list_key(package_hash)
    disk.make_directory(package_hash, packages, 0o700)
    with (
        disk.Closing(disk.open_directory(package_hash, packages)) as directory,
        tempfile.TemporaryFile(buffering=0) as raw,
    ):
        if not remote.fetch(key, raw.fileno(), LIST_BYTES_MAX):
            return False
        with disk.Closing(disk.create("files.json", directory)) as target:
            try:
                size, packed = content_size(raw.fileno()), os.fstat(raw.fileno()).st_size
                if size > min(LIST_BYTES_MAX, max(_PLAIN_BYTES, _RATIO_MAX * packed)):
                    raise damaged(remote.url, key, "a file list that is too long")
                pour(raw.fileno(), target)
            except (disk.SourceReadError, FrameError) as error:
                raise damaged(remote.url, key, error.strerror or str(error)) from error
    try:
        for _ in FileLevelPackage(packages, packages, package_hash).entries():
            pass  # its end proves the list
    except CorruptionError as error:
        raise damaged(remote.url, key, f"{error.what}: {error.why}".rstrip(": ")) from error
    return True


@contextlib.contextmanager
def scratch() -> Iterator[int]:
    """Make a private directory outside any store, for as long as it is needed; yield it, open."""
    with tempfile.TemporaryDirectory(prefix="regrain-") as path:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with disk.Closing(fd):
            yield fd
