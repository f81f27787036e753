"""What a checkout does when its source, or what it links, changes under its hands."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from regrain import PackageStore, disk
from regrain.app.store import Package
from regrain.errors import CorruptionError, PackageError, RegrainError, UnknownPackageError
from regrain.model.entry import Entry
from regrain.model.manifest import Manifest
from regrain.model.phase import Layout
from regrain.store.checkout import checkout
from regrain.store.legacy import LegacyPackage
from regrain.store.objects import Stored
from tests.checkouts import NAME, TOOL, carrier, linked, make_legacy, make_store, overwrite
from tests.compare import differences, snapshot


class Meddled:
    """A legacy package whose files something happens to between listing and reading."""

    layout = Layout.LEGACY
    hash = NAME

    def __init__(self, store: Path, meddle: Callable[[bytes], object]) -> None:
        self._top = os.open(store, os.O_RDONLY)
        self._package = LegacyPackage(self._top, NAME)
        self._meddle = meddle

    def close(self) -> None:
        os.close(self._top)

    def lookup(self, path: bytes) -> Entry | None:
        return self._package.lookup(path)

    def entries(self) -> Iterator[Entry]:
        return self._package.entries()

    def tree(self) -> Iterator[Entry]:
        return self._package.tree()

    def manifest(self) -> Manifest:
        return self._package.manifest()

    def open_content(self, entry: Entry) -> int:
        self._meddle(entry.path)
        return self._package.open_content(entry)

    def open_stored(self, entry: Entry) -> Stored:
        return Stored(self.open_content(entry))


def raised(tmp_path: Path, meddle: Callable[[Path], object]) -> Exception:
    """What a checkout raises if one file is meddled with; nothing must be left of it."""
    make_legacy(tmp_path / "store")

    def only_tool(path: bytes) -> None:
        if path == TOOL:
            meddle(tmp_path / "store" / NAME / os.fsdecode(path))

    with (
        closing(Meddled(tmp_path / "store", only_tool)) as source,
        pytest.raises((RegrainError, OSError)) as caught,
    ):
        checkout(source, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    return caught.value


def fail(number: int) -> Callable[[Path], None]:
    def meddle(path: Path) -> None:
        raise OSError(number, os.strerror(number), path)

    return meddle


def append(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"more")


@pytest.mark.parametrize("meddle", [append, overwrite, lambda path: os.truncate(path, 10)])
def test_a_legacy_file_that_changes(tmp_path: Path, meddle: Callable[[Path], object]) -> None:
    error = raised(tmp_path, meddle)
    assert isinstance(error, PackageError)
    assert (error.path, error.package) == ("bin/tool", NAME)


def test_a_source_that_moves_away_is_looked_for_again(tmp_path: Path) -> None:
    """The facade takes this error for a package on its way to the other layout."""
    assert isinstance(raised(tmp_path, Path.unlink), FileNotFoundError)


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.EIO, CorruptionError), (errno.EACCES, RegrainError)]
)
def test_a_file_that_cannot_be_read(tmp_path: Path, number: int, kind: type[Exception]) -> None:
    error = raised(tmp_path, fail(number))
    assert type(error) is kind
    assert isinstance(error, RegrainError)
    assert (error.path, error.package, error.why) == ("bin/tool", NAME, os.strerror(number))


def test_a_package_that_is_removed_meanwhile(tmp_path: Path) -> None:
    make_store(tmp_path / "store")
    package = PackageStore.open(tmp_path / "store").get_package(NAME)
    remove_both(tmp_path / "store")
    with pytest.raises(UnknownPackageError):
        package.checkout(tmp_path / "out", mode="shared")
    assert not (tmp_path / "out").exists()


def remove_both(store: Path) -> None:
    (store / "packages" / NAME).rename(store / "trash" / "published")
    (store / NAME).rename(store / "trash" / "legacy")
    for place in (store / "objects").glob("*/*"):
        place.unlink()


def replaced(path: Path) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(b"x" * path.stat().st_size)
    new.chmod(path.stat().st_mode & 0o7777)
    new.rename(path)


@pytest.mark.parametrize("meddle", [overwrite, replaced, Path.unlink])
def test_what_gets_the_name_is_what_was_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meddle: Callable[[Path], object]
) -> None:
    """A carrier that changes after it was looked at is not handed out: the copy is checked."""
    before = make_store(tmp_path / "store")
    tool = carrier(tmp_path / "store", before[TOOL])
    link = disk.link

    def meddle_and_link(source: bytes, source_fd: int, target: bytes, target_fd: int) -> None:
        if source.endswith(os.fsencode(tool.name)) and tool.exists():
            meddle(tool)
        link(source, source_fd, target, target_fd)

    monkeypatch.setattr(disk, "link", meddle_and_link)
    package: Package = PackageStore.open(tmp_path / "store").get_package(NAME)
    package.checkout(tmp_path / "out", mode="shared")
    assert package.layout is Layout.LEGACY  # the copy showed the damage, the other layout served
    assert linked(tmp_path / "out", tmp_path / "store") == set()
    assert differences(before, snapshot(tmp_path / "out")) == []
