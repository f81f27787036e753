"""Finding one entry by bisection gives what a search through the whole list gives."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrain.errors import CorruptionError, UnknownFormatError
from regrain.model.entry import Entry, Kind
from regrain.store.packages import FileLevelPackage
from tests.unit.lists import PACKAGE, file_json, opened, render, render_json
from tests.unit.strategies import paths, trees


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One place for all examples."""
    return tmp_path_factory.mktemp("lookup")


@given(tree=trees(entries_max=40), strangers=st.lists(paths, max_size=5))
def test_bisection_finds_what_a_linear_search_finds(
    folder: Path, tree: list[Entry], strangers: list[bytes]
) -> None:
    wanted = [entry.path for entry in tree] + strangers
    wanted += [path + b"\0" for path in strangers] + [path[:-1] for path in strangers]
    with opened(folder, render(tree)) as package:
        for path in wanted:
            linear = next((entry for entry in tree if entry.path == path), None)
            assert package.lookup(path) == linear
        assert list(package.entries()) == tree
        assert list(package.tree()) == tree


@pytest.mark.parametrize("count", [1, 2, 3, 1000])
def test_every_path_of_a_regular_list_is_found(folder: Path, count: int) -> None:
    root = Entry(b"", Kind.DIRECTORY, 0o755, 0, 0, 0)
    tree = [root] + [
        Entry(b"%06d" % n, Kind.FILE, 0o644, 0, 0, n, digest="ab" * 32, size=1)
        for n in range(count)
    ]
    with opened(folder, render(tree)) as package:
        for entry in tree:
            assert package.lookup(entry.path) == entry
            assert package.lookup(entry.path + b"x") is None


def test_lines_longer_than_a_probe(folder: Path) -> None:
    """A line is found from its middle however long it and its neighbours are."""
    lengths = [0, 4095, 4096, 4097, 3, 100_000, 0, 9000]
    root = Entry(b"", Kind.DIRECTORY, 0o755, 0, 0, 0, xattrs={b"user.a": b"x" * 50_000})
    tree = [root] + [
        Entry(b"%d" % n, Kind.SYMLINK, 0o777, 0, 0, 0, target=b"t", xattrs={b"u.a": b"y" * length})
        for n, length in enumerate(lengths)
    ]
    with opened(folder, render(tree)) as package:
        assert [package.lookup(entry.path) for entry in tree] == tree
        assert package.lookup(b"x") is None


def test_the_manifest_is_read_as_the_file_it_is(folder: Path) -> None:
    with opened(folder, render([Entry(b"", Kind.DIRECTORY, 0o755, 0, 0, 0)])) as package:
        assert package.manifest().name == ""
        assert package.hash == PACKAGE


def test_a_package_without_its_list_is_damaged_and_one_that_is_absent_is_absent(
    folder: Path,
) -> None:
    with opened(folder, render_json([file_json("a")])):
        pass
    packages, objects = folder / "packages", folder / "objects"
    (packages / PACKAGE / "files.json").unlink()
    with pytest.raises(CorruptionError) as caught:
        open_package(packages, objects)
    assert caught.value.package == PACKAGE
    (packages / PACKAGE).rmdir()
    with pytest.raises(FileNotFoundError):
        open_package(packages, objects)


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"", CorruptionError),
        (b"\xff\n", CorruptionError),
        (b"{}\n", CorruptionError),
        (render_json([file_json("a")], "f" * 64), CorruptionError),
        (
            render_json([file_json("a")]).replace(b'"format":1', b'"format":9'),
            UnknownFormatError,
        ),
    ],
)
def test_a_list_is_judged_when_it_is_opened(
    folder: Path, raw: bytes, error: type[Exception]
) -> None:
    with pytest.raises(error), opened(folder, raw):
        pytest.fail("it was opened")


def open_package(packages: Path, objects: Path) -> FileLevelPackage:
    first, second = os.open(packages, os.O_RDONLY), os.open(objects, os.O_RDONLY)
    try:
        return FileLevelPackage(first, second, PACKAGE)
    finally:
        os.close(first)
        os.close(second)
