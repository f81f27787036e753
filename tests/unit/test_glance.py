"""A look at every inode and at no byte finds what a comparison of all metadata finds."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from regrain import disk
from regrain.store.compare import first_difference
from regrain.store.glance import first_change
from regrain.store.legacy import LegacyPackage, SpecialFileError
from regrain.store.packages import FileLevelPackage
from regrain.store.root import StoreRoot
from tests.conftest import remove
from tests.faults.inline import initialise, migrate
from tests.faults.small import quick_place
from tests.trees import Tree, describe, package_hash

NAME = package_hash(3, "subject")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    with quick_place(tmp_path) as found:
        store = found / "store"
        with Tree(store / NAME, Random(3)) as tree:
            describe(tree, "subject", "1", sbom=())
            tree.file(b"d/linked", b"becomes an object\n")
            tree.file(b"d/copied", b"stays as it is\n", 0o664)
            tree.file(b"d/marked", b"has an attribute\n", xattrs={"user.mark": b"1"})
            tree.file(b"group", b"two names\n")
            os.link(store / NAME / "group", store / NAME / "other")
            os.symlink("d/linked", store / NAME / "way")
        initialise(store)
        migrate(store)
        yield store
        remove(store)


def look(store: Path) -> tuple[bytes, str] | None:
    """What both ways of looking find; they must agree."""
    root = StoreRoot(str(store))
    package = FileLevelPackage(root.packages, root.objects, NAME)
    with disk.Closing(disk.open_directory(NAME, root.fd)) as legacy:
        found = first_change(package.entries(), legacy, package.listed_at_ns)
    tree = LegacyPackage(root.fd, NAME).tree()
    assert found == first_difference(package.entries(), tree, content=False)
    return found


def keeping_times(change: Callable[[Path], object]) -> Callable[[Path], object]:
    """The same, by somebody who sets the modification time back."""

    def changed(path: Path) -> None:
        before = path.lstat()
        change(path)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns), follow_symlinks=False)

    return changed


def point_elsewhere(path: Path) -> None:
    before = path.parent.stat()
    path.unlink()
    path.symlink_to("d/copied")
    os.utime(path.parent, ns=(before.st_atime_ns, before.st_mtime_ns))


def part(path: Path) -> None:
    """Let a name have an inode of its own."""
    before = path.parent.stat()
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    path.chmod(0o644)
    os.utime(path.parent, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_what_was_only_linked_is_equal(place: Path) -> None:
    linked = place / NAME / "d/linked"
    assert linked.stat().st_nlink == 2
    assert look(place) is None
    os.link(linked, place.parent / "outside")
    assert look(place) is None


@pytest.mark.parametrize("name", ["d/linked", "d/copied", "d/marked", "group"])
@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda path: path.chmod(0o600), "mode"),
        (lambda path: os.utime(path, ns=(1, 1)), "modification time"),
        (keeping_times(lambda path: path.write_bytes(b"longer than it was before\n")), "size"),
        (lambda path: os.setxattr(path, "user.new", b"2"), "extended attributes"),
        (keeping_times(lambda path: os.setxattr(path, "user.mark", b"2")), "extended attributes"),
    ],
)
def test_a_change_of_a_file(
    place: Path, name: str, change: Callable[[Path], object], word: str
) -> None:
    change(place / NAME / name)
    assert look(place) == (name.encode(), f"its {word} changed")


@pytest.mark.root
@pytest.mark.parametrize("name", ["d", "d/linked", "way"])
def test_a_change_of_owner(place: Path, name: str) -> None:
    os.chown(place / NAME / name, 12_345, -1, follow_symlinks=False)
    assert look(place) == (name.encode(), "its owner changed")


def test_an_attribute_of_a_directory(place: Path) -> None:
    os.setxattr(place / NAME / "d", "user.new", b"1")
    assert look(place) == (b"d", "its extended attributes changed")
    os.setxattr(place / NAME, "user.new", b"1")
    assert look(place) == (b"", "its extended attributes changed")


def test_another_target(place: Path) -> None:
    keeping_times(point_elsewhere)(place / NAME / "way")
    assert look(place) == (b"way", "its target changed")


def test_a_group_that_is_none_any_more(place: Path) -> None:
    keeping_times(part)(place / NAME / "other")
    assert look(place) == (b"other", "its hard links changed")


def test_what_appears_and_vanishes(place: Path) -> None:
    top = place / NAME
    before = top.stat()
    (top / "e").mkdir()
    os.utime(top, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert look(place) == (b"e", "it appeared")
    (top / "e").rmdir()
    (top / "group").unlink()
    os.utime(top, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert look(place) == (b"group", "it vanished")


def test_a_special_file_in_the_place_of_one(place: Path) -> None:
    path = place / NAME / "d/copied"
    before = path.parent.stat()
    path.unlink()
    os.mkfifo(path)
    os.utime(path.parent, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(SpecialFileError) as told:
        look(place)
    assert told.value.path == "d/copied"
